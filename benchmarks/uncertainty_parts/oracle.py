"""What a calibrated oracle gets: the bounds of rows 2, 5 and 6, on people whose truth is known."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import spearmanr

from bayesfs.data.sampling import population_episodes
from bayesfs.diagnostics.sbc_tasks import simulate_tasks
from bayesfs.features.projection import Projection
from bayesfs.models.gaussian.families import PerFeature
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.prediction import thinned
from bayesfs.study import Learnt
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.synthetic.truth import Population
from bayesfs.types import CONDITIONS, Embeddings, Posterior
from bayesfs.uncertainty.decompose import decompose
from uncertainty_parts.bench import SHOTS, Bench, Found
from uncertainty_parts.kinds import row_6, rows_1_2_5

SCALES = (0.5, 0.5, 0.35, 0.45, 0.4, 0.6)
"""Task, class, video (clean, clutter), frame (clean, clutter), as of the simulated people."""


def known(dim: int) -> tuple[Population, GaussianHierarchy, Posterior]:
    """A world, the model that it is of, and the posterior of one who knows it."""
    world = Population.isotropic(
        dim,
        offset=0.0,
        task_scale=SCALES[0],
        class_scale=SCALES[1],
        video_scale=SCALES[2:4],
        frame_scale=SCALES[4:],
        dtype=torch.float64,
    )
    model = GaussianHierarchy(PerFeature())
    draws = {
        "offset_raw": torch.zeros(1, len(CONDITIONS), dim, dtype=torch.float64),
        "loading": torch.ones(1, dtype=torch.float64),
        "absent_odds": torch.full((1,), -30.0, dtype=torch.float64),
        "scale": torch.tensor([SCALES], dtype=torch.float64) * dim**0.5,
        "relative": torch.ones(1, len(SCALES), dim, dtype=torch.float64),
    }
    return world, model, Posterior("exact", draws, dict(model.population_dims))


def row_15(users: int, draws: int, dim: int = 32) -> Found:
    """Rows 2 and 5 of one who knows the truth, whose predictions are calibrated by construction."""
    world, model, population = known(dim)
    tasks, _ = synthetic_episodes(world, users=users, way=6, shots=max(SHOTS), seed=0)
    values, mask = thinned(population, 1), tasks.query_mask.numpy()
    kinds = [
        decompose(model.predictive(tasks.limit_shots(s), values, draws=draws, seed=0), tasks)
        for s in SHOTS
    ]
    aleatoric = [float(k["frame_aleatoric"].values[mask].mean()) for k in kinds]
    at2 = aleatoric[SHOTS.index(2)]
    last = [kinds[-1][f"frame_{kind}"].values[mask] for kind in ("aleatoric", "epistemic")]
    found = {
        "oracle_drift": abs(aleatoric[-1] - at2) / at2,
        "oracle_kinds_spearman": float(spearmanr(*last).statistic),
    }
    print("one who knows the truth, on simulated people: aleatoric at 1 to 5 videos")
    print("  " + " ".join(f"{a:.3f}" for a in np.array(aleatoric)))
    return found


@dataclass(frozen=True)
class AsDrawn(Projection):
    """Features that are those of the model already."""

    def __call__(self, embeddings: Embeddings) -> Embeddings:
        """The same."""
        return embeddings


def row_18(bench: Bench, learnt: Learnt, repeats: int) -> Found:
    """Rows 2, 5 and 6 of one who knows the truth about people like the test users.

    For each of some draws of the population that was learnt, the test users' videos are drawn
    again from the model, as many frames of as many videos of as many objects; who answers knows
    the draw. Whatever a row misses here is no fault of the model.
    """
    model = bench.hierarchy(learnt)
    if model is None:
        return {}
    shown = learnt.projection(bench.data.where(split="test"))
    whole = population_episodes(shown)
    study = bench.study(bench.held_out())
    assert whole.support_frame is not None
    values, there = thinned(learnt.population, repeats), whole.support_mask
    parts = vars(learnt.projection)
    found = []
    for number in range(repeats):
        one = Posterior(
            "exact", {s: v[[number]] for s, v in values.items()}, dict(model.population_dims)
        )
        drawn = simulate_tasks(model, whole, population=one, seed=number).episodes
        features = np.array(shown.features)
        features[whole.support_frame[there].numpy()] = drawn.support[there].numpy()
        people = replace(bench, data=shown.with_features(features))
        knowing = Learnt(AsDrawn(**parts), one)
        with contextlib.redirect_stdout(io.StringIO()):
            rows = rows_1_2_5(people, study, knowing)[0] | row_6(people, study, knowing)
        found.append(rows)
        print(f"  {number}: " + "  ".join(f"{name} {value:.3f}" for name, value in rows.items()))
    names = {
        "oracle_here_drift": "t2_drift",
        "oracle_here_kinds_spearman": "t5_spearman",
        "oracle_here_ahead": "t6_epistemic_minus_best_other_auroc",
    }
    return {name: float(np.mean([rows[of] for rows in found])) for name, of in names.items()}
