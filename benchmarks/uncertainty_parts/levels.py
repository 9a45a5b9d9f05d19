"""Row 11: do the parts by level add up, and are a hundred draws enough?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bayesfs.models.gaussian.families import PerFeature
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.prediction import thinned
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.uncertainty.by_level import by_level
from bayesfs.uncertainty.decompose import decompose
from bayesfs.uncertainty.parts import is_epistemic, told_apart
from uncertainty_parts.bench import Found
from uncertainty_parts.causes import simulated_population


def row_11(users: int, repeats: int) -> Found:
    """Level parts add up to the whole, and 100 draws say what 1000 say."""
    world, population = simulated_population(16, ())
    model = GaussianHierarchy(PerFeature())
    episodes, _ = synthetic_episodes(world, users=users, way=5, shots=2, seed=0)

    def whole(draws: int, seed: int) -> float:
        values = thinned(population, 1)
        predictive = model.predictive(episodes, values, draws=draws, seed=seed)
        return float(np.nanmean(decompose(predictive, episodes)["frame_epistemic"]))

    def parts(draws: int, seed: int) -> float:
        levels = by_level(model, population, episodes, draws=draws, population_draws=8, seed=seed)
        return float(
            np.nanmean(
                sum(levels[f"frame_{p}"].values for p in told_apart(levels) if is_epistemic(p))
            )
        )

    few = [whole(100, seed) for seed in range(repeats)]
    many = [whole(1000, seed + 100) for seed in range(repeats)]
    nested = [parts(100, seed + 200) for seed in range(repeats)]
    levels = by_level(model, population, episodes, draws=100, population_draws=8, seed=0)
    total = sum(levels[f"frame_{p}"].values for p in told_apart(levels))
    values = thinned(population, 1)
    exact = decompose(model.predictive(episodes, values, draws=2, seed=0), episodes)
    gap = float(np.nanmax(np.abs(total - exact["frame_total"].values)))
    z = {"100 vs 1000 draws": z_of(few, many), "levels vs whole": z_of(nested, many)}
    print(f"all parts against the total entropy: largest gap {gap:.1e} nats")
    for name, value in z.items():
        print(f"  {name:26}{value:6.2f} standard errors")
    return {"t11_z_max": max(z.values()) if gap < 1e-6 else float("inf")}


def z_of(a: Sequence[float], b: Sequence[float]) -> float:
    """Distance of two means over seeds in standard errors."""
    error = np.sqrt(np.var(a, ddof=1) / len(a) + np.var(b, ddof=1) / len(b))
    return float(abs(np.mean(a) - np.mean(b)) / error)
