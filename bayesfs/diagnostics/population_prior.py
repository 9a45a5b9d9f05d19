"""Draws of a population's prior, to be shown beside its posterior: `population_prior`."""

from __future__ import annotations

import torch

from bayesfs.inference.program.sites import seeded
from bayesfs.protocols import Collapsible, Model
from bayesfs.types import EpisodeBatch, Posterior


def population_prior(
    model: Model, episodes: EpisodeBatch, *, draws: int = 400, seed: int = 0
) -> Posterior | None:
    """Independent draws of the population sites whose places all have names, from their prior.

    One number of a feature each says nothing by itself, and is left out.

    Args:
        model: as it is for tasks.
        episodes: tasks, whose support gives the number of features and the type.
        draws: number of draws.
        seed: of them.

    Returns:
        The draws, of kind "exact"; None for a model whose population is not a program by itself,
        or has no such site.
    """
    if not isinstance(model, Collapsible):
        return None
    with torch.no_grad(), seeded(seed):
        found = [model.sample_population(episodes.support) for _ in range(draws)]
    dims = {s: axes for s, axes in model.population_dims.items() if {*axes} <= {*model.coords}}
    if not dims:
        return None
    values = {site: torch.stack([one[site] for one in found]) for site in dims}
    axes = {axis for places in dims.values() for axis in places}
    coords = {axis: names for axis, names in model.coords.items() if axis in axes}
    return Posterior.of_own("exact", values, dims, coords=coords, seed=seed)
