"""Posteriors draw by draw of the population: `drawn_posterior`, `each_value`, `distinct_rows`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from bayesfs._distributions.noise import Noise
from bayesfs.types import EpisodeBatch, Posterior, PosteriorKind


def each_value(population: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Population sites without their draw axis, one draw after the other."""
    for p in range(len(next(iter(population.values())))):
        yield {site: v[p] for site, v in population.items()}


def distinct_rows(population: Mapping[str, Tensor]) -> list[int]:
    """First index of each run of equal population draws."""
    count = len(next(iter(population.values())))
    keep = [0]
    for s in range(1, count):
        if any(not torch.equal(v[s], v[s - 1]) for v in population.values()):
            keep.append(s)
    return keep


def drawn_posterior(
    kind: PosteriorKind,
    dims: Mapping[str, tuple[str, ...]],
    episodes: EpisodeBatch,
    population: Mapping[str, Tensor],
    sample: Callable[[dict[str, Tensor], Noise], Mapping[str, Tensor]],
    *,
    draws: int,
    seed: int,
    even: bool = False,
) -> Posterior:
    """Posterior of independent draws for each population draw in turn.

    Args:
        kind: of the posterior.
        dims: site -> axes.
        episodes: T tasks.
        population: site -> (population draw, ...).
        sample: (population value, noise) -> task-level sites (draw, ...).
        draws: number of draws that `sample` makes.
        seed: of the draws.
        even: whether the noise of each population draw is evenly spread, for smaller errors.
    """
    noise = Noise.of(episodes, seed, even=even)
    parts = [
        {**{s: v.expand(draws, *v.shape) for s, v in value.items()}, **sample(value, noise)}
        for value in each_value(population)
    ]
    joined = {site: torch.cat([part[site] for part in parts]) for site in dims}
    coords = {"task": episodes.tasks} if episodes.tasks else {}
    return Posterior.of_own(kind, joined, dict(dims), coords=coords, seed=seed)
