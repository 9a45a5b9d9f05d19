"""The sections of the report, in order, and what their templates read: `SECTIONS`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from arviz_base import rcParams

from bayesfs.diagnostics.convergence import Diagnostics
from bayesfs.diagnostics.prior_sensitivity import SENSITIVE
from bayesfs.diagnostics.verdicts import EXTREME, UNLIKE
from bayesfs.evaluation.score_sheet import WORDS
from bayesfs.explanation.advice import ENOUGH
from bayesfs.explanation.record import NextRecording
from bayesfs.protocols import ReportSection
from bayesfs.report.draws import rank_panels, scalars, strongest_pairs
from bayesfs.report.summary import answers_tell, glance, mean_parts, sentences
from bayesfs.report.view import ReportView, ScoreLine

TEMPLATES = Path(__file__).parent / "templates"


def _run(view: ReportView) -> Mapping[str, Any]:
    return {"glance": glance(view), "sentences": sentences(view)}


def _fit(view: ReportView) -> Mapping[str, Any]:
    return {
        "steps_of": steps_of,
        "seen_at": SEEN_AT,
        "extreme": EXTREME,
        "sensitive": SENSITIVE,
        "inapplicable": _inapplicable(view),
        "pooled": dict(list(view.model.pooling.items())[:MOST_POOLED]),
        "most_pooled": MOST_POOLED,
        "unlike": UNLIKE,
        "foreign": [row for row in view.model.borrowed if row.alike < UNLIKE],
    }


def steps_of(fit: Diagnostics) -> dict[str, list[str]]:
    """Next step -> names of the checks that ask for it, those that are grave first."""
    found: dict[str, list[str]] = {}
    for check in sorted(fit.failed, key=lambda check: not check.grave):
        if check.next_step:
            found.setdefault(check.next_step, []).append(check.name)
    return found


def _inapplicable(view: ReportView) -> list[SimpleNamespace]:
    """Checks that do not apply, once for each reason: `fits`, `checks` and `reason`."""
    why: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for fit in view.verdicts:
        by_reason: dict[str, list[str]] = {}
        for check in fit.checks:
            if check.passed is None:
                by_reason.setdefault(check.reason, []).append(check.name)
        for reason, names in by_reason.items():
            why.setdefault((reason, tuple(names)), []).append(fit.name)
    return [
        SimpleNamespace(fits=fits, checks=checks, reason=reason)
        for (reason, checks), fits in why.items()
    ]


def _scores(view: ReportView) -> Mapping[str, Any]:
    return {
        "score_words": WORDS,
        "score_shots": sorted(view.data.scores),
        "by_shots": _by_shots(view),
        "mce_rests_on": _mce_rests_on(view),
        "pav_prob": rcParams["stats.ci_prob"],
    }


def _by_shots(view: ReportView) -> dict[str, ScoreLine]:
    """Scores that are drawn against the number of support videos, where there are several."""
    wanted = {("video", "accuracy"): "share named right", ("video", "nll"): "NLL, nats"}
    found = {wanted.get((line.unit, line.score), ""): line for line in view.score_lines}
    return {name: line for name, line in found.items() if name and len(line.cells) > 1}


def _mce_rests_on(view: ReportView) -> str:
    """How many items are in the bin with the largest gap, such as "1 of 60 videos"."""
    told = []
    for unit, table in view.reliability.items():
        count = table["count"].to_numpy(float)
        gap = (table["accuracy"] - table["confidence"]).abs().to_numpy(float)
        told.append(f"{count[gap.argmax()]:.0f} of {count.sum():.0f} {unit}")
    return view.levels.in_words(" and ".join(told))


def _draws(view: ReportView) -> Mapping[str, Any]:
    found = {}
    if "population" in view.tree.children:
        pairs = strongest_pairs(scalars(view.tree, "population"))
        found["population"] = [pair for pair in pairs if abs(pair[2]) >= MOVING_TOGETHER]
    ranks = {title: rank_panels(traced) for title, _, traced, kind in view.drawn if kind == "mcmc"}
    return {"pairs_of": found, "ranks": ranks, "chain_names": _chain_names}


def _chain_names(chains: int) -> tuple[str, ...]:
    """Columns of the numbers of ranks."""
    return ("rank", *(f"chain {c + 1}" for c in range(chains)))


def _why(view: ReportView) -> Mapping[str, Any]:
    return {"mean": SimpleNamespace(**mean_parts(view.videos)), "outcomes": _outcomes(view)}


def _next(view: ReportView) -> Mapping[str, Any]:
    rows = [row for rows in view.objects.values() for row in rows]
    needy = sorted(rows, key=lambda row: -row.epistemic)[:8]
    advised = said_once(view.data.advice)
    gains = [one.gain for one in advised if not math.isnan(one.gain)]
    little = bool(gains) and max(gains) < ENOUGH
    return {
        "needy": needy,
        "advised": advised,
        "relied_on": answers_tell(view),
        "little": little,
        "enough": ENOUGH,
    }


def said_once(advice: Sequence[NextRecording]) -> list[SimpleNamespace]:
    """The same advice together: `text`, `tasks` that it is for, and the largest `gain` of them."""
    alike: dict[str, list[NextRecording]] = {}
    for one in advice:
        alike.setdefault(one.text, []).append(one)
    return [
        SimpleNamespace(
            text=text,
            tasks=[one.task for one in those],
            gain=float(np.fmax.reduce([one.gain for one in those])),
        )
        for text, those in alike.items()
    ]


SEEN_AT = {
    "better than guessing": "scores",
    "better than the nearest class mean": "scores",
    "class sets (PIT)": "calibration",
    "one against the rest": "calibration",
    "prior predictive check": "replicates",
    "posterior predictive check": "replicates",
    "labels drawn check": "replicates",
    "leave one video out": "left-out",
    "prior sensitivity": "sensitivity",
    "Monte Carlo error of the epistemic share": "why",
    "ELBO trend": "histories",
    "R-hat": "draws",
    "nested R-hat": "draws",
    "bulk ESS": "draws",
    "tail ESS": "draws",
}
"""Check -> where in the page it can be looked into; of another one, its place in the table."""

MOVING_TOGETHER = 0.3
"""Correlation from which two scalars are drawn against each other."""

MOST_POOLED = 12
"""People whose pooling is drawn."""

SECTIONS = (
    ReportSection("run", "What was run", TEMPLATES / "glance", context=_run),
    ReportSection("fit", "Can I trust the fit?", TEMPLATES / "fit", context=_fit),
    ReportSection("scores", "How good, for whom not?", TEMPLATES / "scores", context=_scores),
    ReportSection("why", "Why unsure?", TEMPLATES / "why", context=_why),
    ReportSection("next", "What to record next?", TEMPLATES / "next", context=_next),
    ReportSection("sheet", "Appendix: scores", TEMPLATES / "sheet", context=_scores),
    ReportSection("draws", "Appendix: draws", TEMPLATES / "appendix", context=_draws),
)


def _outcomes(view: ReportView) -> list[SimpleNamespace]:
    groups = {
        "named right": [v for v in view.labelled if v.right],
        "named wrong": [v for v in view.labelled if not v.right],
        "unlabelled": [v for v in view.videos if not v.labelled],
        "all": list(view.videos),
    }
    return [
        SimpleNamespace(name=name, count=len(videos), **mean_parts(videos))
        for name, videos in groups.items()
        if videos
    ]
