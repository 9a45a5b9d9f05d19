"""The sections of the report, in order, and what their templates read: `SECTIONS`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from bayesfs.diagnostics.predictive_checks import EXTREME
from bayesfs.diagnostics.prior_sensitivity import SENSITIVE
from bayesfs.evaluation.score_sheet import WORDS
from bayesfs.plots.text import fixed, number, share, visible
from bayesfs.protocols import ReportSection
from bayesfs.report.view import ReportView
from bayesfs.uncertainty.by_level import EPISTEMIC

TEMPLATES = Path(__file__).parent / "templates"

SCORE_NAMES = {
    "nll": "NLL",
    "brier": "Brier",
    "ece": "ECE",
    "mce": "MCE",
    "aurc": "AURC",
    "debiased_ece": "debiased ECE",
    "classwise_ece": "classwise ECE",
    "squared_ce": "squared CE",
    "squared_ace": "squared ACE",
    "skce": "kernel CE",
    "e_aurc": "E-AURC",
    "accuracy_at_80": "accuracy at 80\u00a0%",
    "set_coverage_90": "90 % sets hold",
    "set_size_90": "their size",
}


def _run(view: ReportView) -> Mapping[str, Any]:
    return {"glance": _glance(view)}


def _fit(view: ReportView) -> Mapping[str, Any]:
    return {"extreme": EXTREME, "sensitive": SENSITIVE}


def _scores(view: ReportView) -> Mapping[str, Any]:
    return {"score_words": WORDS, "score_shots": sorted(view.data.scores)}


def _why(view: ReportView) -> Mapping[str, Any]:
    return {"mean": _means("all", view.videos), "outcomes": _outcomes(view)}


def _next(view: ReportView) -> Mapping[str, Any]:
    rows = [row for rows in view.objects.values() for row in rows]
    return {"needy": sorted(rows, key=lambda row: -row.epistemic)[:8]}


SECTIONS = (
    ReportSection("run", "What was run", TEMPLATES / "glance", context=_run),
    ReportSection("fit", "Can I trust the fit?", TEMPLATES / "fit", context=_fit),
    ReportSection("scores", "How good, for whom not?", TEMPLATES / "scores", context=_scores),
    ReportSection("why", "Why unsure?", TEMPLATES / "why", context=_why),
    ReportSection("next", "What to record next?", TEMPLATES / "next", context=_next),
    ReportSection("sheet", "Appendix: scores", TEMPLATES / "sheet", context=_scores),
    ReportSection("draws", "Appendix: draws", TEMPLATES / "appendix"),
)


def _glance(view: ReportView) -> list[tuple[str, str, str, str]]:
    """(label, value, note, class) of the numbers to read first."""
    verdicts, words = view.verdicts, view.levels.in_words
    failed = [fit for fit in verdicts if fit.failed]
    verdict = "Usable, but" if failed else "Fit for use"
    if any(fit.is_grave for fit in failed):
        verdict = "Do not use"
    if not failed and not any(fit.verdict.startswith("fit") for fit in view.fits):
        verdict = "Not judged"
    failed = sorted(failed, key=lambda fit: not fit.is_grave)
    note = "; ".join(
        f"{fit.name}: {fit.verdict.split('look at ')[-1].removeprefix('do not use: ')}"
        for fit in failed or verdicts
    )
    note = "all checks that apply pass" if verdict == "Fit for use" else note
    out = [("Posterior and model", verdict, note, "words")]
    for unit, score in (("video", "accuracy"), ("video", "nll"), ("frame", "ece")):
        line = next((s for s in view.score_lines if (s.unit, s.score) == (unit, score)), None)
        if line is not None and view.shots in line.cells:
            value, low, high = line.cells[view.shots]
            label = words(f"{unit.capitalize()} {SCORE_NAMES.get(score, score)}")
            shown = share if score == "accuracy" else fixed
            interval = f"95 %: {shown(low)} to {shown(high)}"
            note = interval if low == low else words("too few people for an interval")
            out.append((label, shown(value), note, ""))
    if view.people:
        worst = view.people[0]
        said = f"{visible(worst.name)}, {worst.videos} {words('videos')}"
        out.append((words("Worst person"), share(worst.accuracy), said, ""))
    mean = _means("all", view.videos)
    epistemic = mean.epistemic / mean.total if mean.total > 0 else math.nan
    rest = "the rest is in the films" if view.levels.recorded else "the rest is in the rows asked"
    note = words(f"of {number(mean.total, 2)} nats per video: {_learning(view)}; {rest}")
    out.append(("Uncertainty that learning could lower", share(epistemic), note, ""))
    return out


def _learning(view: ReportView) -> str:
    """What would lower the epistemic part: more examples, more people, and how much of either."""
    nats = {level: max(mean, 0.0) for level, mean, _ in view.level_means if level in EPISTEMIC}
    if not sum(nats.values()) > 0:
        return "more examples, or more people to learn from"
    people = nats.get("population", 0.0) / sum(nats.values())
    return f"{share(1 - people)} of that by more examples, {share(people)} by more people"


def _means(name: str, videos: Any) -> SimpleNamespace:
    parts = ("total", "aleatoric", "epistemic")
    means = {
        p: float(np.mean([getattr(v, p) for v in videos])) if videos else math.nan for p in parts
    }
    return SimpleNamespace(name=name, count=len(videos), **means)


def _outcomes(view: ReportView) -> list[SimpleNamespace]:
    groups = {
        "named right": [v for v in view.labelled if v.right],
        "named wrong": [v for v in view.labelled if not v.right],
        "unlabelled": [v for v in view.videos if not v.labelled],
        "all": list(view.videos),
    }
    return [_means(name, videos) for name, videos in groups.items() if videos]
