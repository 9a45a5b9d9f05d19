"""Scores of everybody on the tasks of photographs: `figures_of`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transfer_parts.methods import Pool, SupportOnly

from bayesfs.metrics.calibration import ece
from bayesfs.metrics.scores import accuracy, brier, nll
from peer_parts.photo_methods import (
    FITS,
    Answered,
    by_adaptshot,
    by_bayesfs,
    by_features,
    is_there,
)
from peer_parts.pictures import CONDITIONS, Pictures, Task, draw_tasks

WAY, SHOTS = 8, 3
OURS = "bayesfs"
"""How names of our rows begin."""

Figures = dict[str, float | None]


def figures_of(trees: Sequence[Path], adaptshot: Path | None, tasks: int, scratch: Path) -> Figures:
    """Figures by name, and the bars of FIGURES: worst column of ours against the best peer."""
    found: Figures = {}
    for tree in trees:
        pictures = Pictures.of(tree, scratch)
        drawn = list(draw_tasks(pictures, tasks=tasks, way=WAY, shots=SHOTS, seed=0))
        answers = {
            "bayesfs": by_bayesfs(Pool.of(()), pictures, drawn),
            "bayesfs_open_set": by_bayesfs(Pool.of(()), pictures, drawn, open_set=True),
            "bayesfs_support_only": by_bayesfs(SupportOnly(), pictures, drawn),
        }
        for name, (module, fit) in FITS.items():
            if is_there(module):
                answers[name] = by_features(fit, pictures, drawn)
            else:
                print(f"{name}: skipped, {module} is not installed")
        if adaptshot is not None:
            answers["adaptshot"], cold, memory = by_adaptshot(adaptshot, pictures, drawn)
            found |= {"adaptshot.cold_start_s": round(cold, 3)}
            found |= {"adaptshot.memory_mb": round(memory, 1)}
        for name, by_condition in answers.items():
            for condition, each in by_condition.items():
                column = f"{tree.name}-{condition}"
                row = scores(each, drawn)
                print(f"{column:20} {name:26} " + " ".join(_cell(k, v) for k, v in row.items()))
                found |= {f"{name}.{column}.{k}": v for k, v in row.items()}
    return found | bars(found, [tree.name for tree in trees])


def scores(answers: Sequence[Answered], tasks: Sequence[Task]) -> Figures:
    """Over the pictures of all tasks, each task alike in weight where sizes are."""
    prob = np.concatenate([a.prob for a in answers])
    logp = np.log(np.clip(prob, 1e-12, None))
    logp -= np.logaddexp.reduce(logp, axis=1, keepdims=True)
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


def bars(found: Figures, trees: Sequence[str]) -> Figures:
    """Worst over the columns, of `bayesfs`."""
    columns = {c: [f"{t}-{c}" for t in trees] for c in CONDITIONS}
    every = [c for group in columns.values() for c in group]
    gaps = []
    for column in every:
        peers = [
            float(v)
            for k, v in found.items()
            if k.endswith(f".{column}.nll") and not k.startswith(OURS) and v is not None
        ]
        gaps.append(float(found[f"bayesfs.{column}.nll"] or 0.0) - min(peers))
    shifted = [c for name, group in columns.items() if name != "in" for c in group]

    def ours(which: Sequence[str], figure: str) -> list[float]:
        return [float(found[f"bayesfs.{c}.{figure}"] or 0.0) for c in which]

    return {
        "best_minus_peer.nll": round(max(gaps), 4),
        "coverage_shift": min(ours(shifted, "coverage")),
        "set_size_shift": max(ours(shifted, "set_size")),
        "coverage_in": min(ours(columns["in"], "coverage")),
        "set_size_in": max(ours(columns["in"], "set_size")),
    }


def _cell(name: str, value: float | None) -> str:
    return f"{name} -" if value is None else f"{name} {value:.3f}"
