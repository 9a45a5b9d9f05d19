"""What a report says first: six numbers, and three sentences each for two readers.

`glance` and `sentences`; a number has its error, and what chance and the simplest classifier have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

from bayesfs.diagnostics.convergence import Diagnostics
from bayesfs.diagnostics.verdicts import Check
from bayesfs.explanation.advice import ENOUGH
from bayesfs.plots.text import fixed, margin, share, visible
from bayesfs.report.names import SCORE_NAMES
from bayesfs.report.tables import VideoRow
from bayesfs.report.view import ReportView, ScoreLine
from bayesfs.uncertainty.parts import EPISTEMIC, SHARED

FIT, USABLE, UNFIT, UNKNOWN = "Fit for use", "Usable, but", "Do not use", "Not judged"
"""The grades of a run."""

WORTH_MORE = 0.1
"""Epistemic share from which more teaching is worth it, though no single video may be."""


MANY_MORE = 0.25
"""Share of the uncertainty that more examples could lower from which every object needs some."""


class Headline(NamedTuple):
    """A number to read first.

    Attributes:
        label: what it is.
        value: the number, or a word.
        note: what it is to be read against.
        css: class of the value.
    """

    label: str
    value: str
    note: str
    css: str = ""


def grade_of(view: ReportView) -> str:
    """The worst grade of the posteriors and the model."""
    failed = failing(view)
    if any(fit.is_grave for fit in failed):
        return UNFIT
    if failed:
        return USABLE
    return FIT if any(fit.verdict.startswith("fit") for fit in view.fits) else UNKNOWN


def answers_tell(view: ReportView) -> bool:
    """Whether the answers are worth going by: better than guessing and the simplest classifier.

    A fit that fails may still answer well; advice is then as good as the answers are.
    """
    return not view.model.verdict.is_grave


def failing(view: ReportView) -> list[Diagnostics]:
    """Posteriors and model with a check that is not passed, the grave ones first."""
    failed = [fit for fit in view.verdicts if fit.failed]
    return sorted(failed, key=lambda fit: not fit.is_grave)


def glance(view: ReportView) -> list[Headline]:
    """The numbers to read first."""
    words = view.levels.in_words
    cards = [Headline("Posterior and model", grade_of(view), _reasons(view), "words")]
    for unit, score in (("video", "accuracy"), ("video", "nll"), ("frame", "ece")):
        if (line := _line(view, unit, score)) is not None:
            label = words(f"{unit.capitalize()} {SCORE_NAMES.get(score, score)}")
            shown: Callable[[float], str] = share if score == "accuracy" else fixed
            note = words(f"{_interval(line, view.shots, shown)}{_against(line, shown)}")
            cards.append(Headline(label, shown(line.cells[view.shots][0]), note))
    if view.people:
        worst = view.people[0]
        said = f"{visible(worst.name)}, {worst.videos} {words('videos')}"
        cards.append(Headline(words("Worst person"), share(worst.accuracy), said))
    epistemic = _epistemic(view)
    rest = "the rest is in the films" if view.levels.recorded else "the rest is in the rows asked"
    note = words(f"{_points(view)}of {_nats(view)} per video{_learning(view)}; {rest}")
    return [*cards, Headline("Uncertainty that learning could lower", share(epistemic), note)]


def _epistemic(view: ReportView) -> float:
    """Share of the uncertainty that learning could lower; nan where there is none."""
    mean = mean_parts(view.videos)
    return mean["epistemic"] / mean["total"] if mean["total"] > 0 else math.nan


def mean_parts(videos: Sequence[VideoRow]) -> dict[str, float]:
    """Mean total, aleatoric and epistemic uncertainty of videos, nats."""
    return {
        part: float(np.mean([getattr(v, part) for v in videos])) if videos else math.nan
        for part in ("total", "aleatoric", "epistemic")
    }


def _reasons(view: ReportView) -> str:
    verdict = grade_of(view)
    if verdict == FIT:
        return "all checks that apply pass"
    return "; ".join(
        f"{fit.name}: {fit.verdict.split('look at ')[-1].removeprefix('do not use: ')}"
        for fit in failing(view) or view.verdicts
    )


def _line(view: ReportView, unit: str, score: str) -> ScoreLine | None:
    """A line of the score table, if it has the largest number of support videos."""
    return next(
        (
            line
            for line in view.score_lines
            if (line.unit, line.score) == (unit, score) and view.shots in line.cells
        ),
        None,
    )


def _interval(line: ScoreLine, shots: int, shown: Callable[[float], str]) -> str:
    _, low, high = line.cells[shots]
    if low != low:
        return "too few people for an interval"
    return f"95 %: {shown(low)} to {shown(high)}"


def _against(line: ScoreLine, shown: Callable[[float], str]) -> str:
    """What the simplest classifier and chance have, where that is known."""
    pairs = (("nearest class mean", line.baseline), ("chance", line.chance))
    return "".join(f"; {name} {shown(value)}" for name, value in pairs if value == value)


def _nats(view: ReportView) -> str:
    error = view.monte_carlo.get("total_error", math.nan)
    shown = f"{fixed(mean_parts(view.videos)['total'])} nats"
    return f"{shown} ({margin(error)})" if error == error else shown


def _points(view: ReportView) -> str:
    """Monte Carlo error of the share, in percentage points."""
    error = view.monte_carlo.get("share_error", math.nan)
    return f"{margin(100 * error, 1)} points, " if error == error else ""


def _learning(view: ReportView) -> str:
    """What would lower the epistemic part, each as a share of the total with its error."""
    told = []
    for what, levels in (
        ("more examples", EPISTEMIC[1:]),
        ("more people to learn from", (EPISTEMIC[0], SHARED)),
    ):
        rows = [row for row in view.level_means if row.level in levels]
        if rows and (part := _levels_share(view, levels)) == part:
            error = 100 * math.hypot(*(row.share_error for row in rows))
            points = f" ({margin(error, 1)})" if error == error else ""
            told.append(f"{100 * part:.1f} %{points} by {what}")
    if not told:
        return ": more examples, or more people to learn from"
    return f": {', '.join(told)}"


def sentences(view: ReportView) -> dict[str, list[str]]:
    """Reader -> three sentences at most."""
    found = {
        "For the person": (_named_right(view), _use(view), _most_helpful(view)),
        "For the statistician": (_scored(view), _parts(view), _checked(view)),
    }
    return {reader: [text for text in texts if text] for reader, texts in found.items()}


def _named_right(view: ReportView) -> str:
    """How many answers are right, beside simpler ways, and for whom the fewest."""
    if (whole := view.overall) is None:
        return ""
    line = _line(view, "video", "accuracy")
    text = f"{round(whole.accuracy * whole.videos)} of {whole.videos} videos were named right"
    if line is not None and line.chance == line.chance:
        text += f"; guessing would name {line.chance * whole.videos:.0f}"
    if line is not None and line.baseline == line.baseline:
        text += f", the nearest class mean {line.baseline * whole.videos:.0f}"
    text = view.levels.in_words(f"{text}.")
    if len(view.people) > 1:
        worst = view.people[0]
        text += f" For {visible(worst.name)} it is least often right, {share(worst.accuracy)}."
    return text


def _use(view: ReportView) -> str:
    """What may be done with the answers, and the next step where nothing may."""
    given = grade_of(view)
    if given == UNFIT:
        fits = [fit for fit in view.fits if fit.is_grave]
        steps = [check.next_step for fit in fits for check in fit.failed if check.next_step]
        if steps:  # a model is not judged by a posterior that is none
            return f"Do not rely on the answers. Next, since the fit itself fails: {steps[0]}."
        return f"Do not rely on the answers. Next: {_failed_checks(view)[0].next_step}."
    return {
        FIT: "The answers can be used as they are.",
        USABLE: "The answers can be used, but not all that was checked is as it should be: "
        "“Can I trust the fit?” says what, and what to do.",
        UNKNOWN: "Whether the answers can be relied on is not known.",
    }[given]


def _failed_checks(view: ReportView) -> list[Check]:
    """Every check that is not passed, the grave ones first."""
    checks = [check for fit in failing(view) for check in fit.failed]
    return sorted(checks, key=lambda check: not check.grave)


def _most_helpful(view: ReportView) -> str:
    """The one recording that is worth most, or that none is worth much, if answers tell."""
    known = [a for a in view.data.advice if a.gain == a.gain]
    if not known or not answers_tell(view):
        return ""
    best = max(known, key=lambda a: a.gain)
    if best.gain < ENOUGH and _epistemic(view) >= WORTH_MORE:
        return view.levels.in_words(
            "No single further video would help much; what learning could lower takes more of "
            "every object, or of other people."
        )
    if len(known) > 1 and len({a.text for a in known}) == 1:
        return f"For everybody, on average: {visible(best.text, 400)}"
    said = f"or {visible(best.task)}: {visible(best.text, 400)}"
    if (part := _levels_share(view, EPISTEMIC[1:])) >= MANY_MORE:
        more = f"More videos of every object would help: {share(part)} of the uncertainty"
        return view.levels.in_words(f"{more} is for want of examples. ") + f"Most of all f{said}"
    return f"What would help most, f{said}"


def _levels_share(view: ReportView, levels: Collection[str]) -> float:
    """Share of the uncertainty that some levels have; nan where levels are not known."""
    total = sum(row.nats for row in view.level_means)
    own = sum(row.nats for row in view.level_means if row.level in levels)
    return own / total if total > 0 else math.nan


def _scored(view: ReportView) -> str:
    """The log score, beside the simplest classifier and chance."""
    if (line := _line(view, "video", "nll")) is None:
        return ""
    value, low, high = line.cells[view.shots]
    text = f"NLL {fixed(value)} nats a video"
    text += f" (95 % interval {fixed(low)} to {fixed(high)})" if low == low else ""
    text += _against(line, fixed)
    if view.model.gain is not None:
        gain, error = view.model.gain
        text += (
            f"; {fixed(abs(gain))} {'less' if gain >= 0 else 'more'} than the nearest class mean"
        )
        text += f" (standard error over people {fixed(error)})" if error == error else ""
    return view.levels.in_words(f"{text}.")


def _parts(view: ReportView) -> str:
    """The epistemic share with its Monte Carlo error, and what would lower it."""
    mean = mean_parts(view.videos)
    if not mean["total"] > 0:
        return ""
    error = view.monte_carlo.get("share_error", math.nan)
    points = f" (Monte Carlo standard error {100 * error:.1f} points)" if error == error else ""
    text = f"Of {_nats(view)} per video, {100 * mean['epistemic'] / mean['total']:.1f} % are "
    return view.levels.in_words(f"{text}epistemic{points}{_learning(view)}.")


def _checked(view: ReportView) -> str:
    names = dict.fromkeys(check.name for check in _failed_checks(view))
    if names:
        return view.levels.in_words(f"Not passed: {', '.join(names)}.")
    return "Every check that applies passes."
