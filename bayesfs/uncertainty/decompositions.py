"""The ways to divide predictive uncertainty that explanations use: `DECOMPOSITIONS`.

Each is a `bayesfs.protocols.Decomposition`; `decompose_by` computes those that a model allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
import xarray as xr
from torch import Tensor

from bayesfs.prediction import thinned
from bayesfs.protocols import (
    Conjugate,
    Decomposition,
    Foresees,
    Hierarchical,
    Model,
    OpenSet,
    Simulates,
)
from bayesfs.types import CONDITIONS, EpisodeBatch, Posterior, Predictive
from bayesfs.uncertainty.by_level import POPULATION_DRAWS, by_level
from bayesfs.uncertainty.by_quality import by_cause
from bayesfs.uncertainty.decompose import decompose
from bayesfs.uncertainty.information_gain import gain_by_video
from bayesfs.uncertainty.parts import agreeing


def _kinds(
    model: Model, population: Posterior, episodes: EpisodeBatch, answer: Predictive, *, seed: int
) -> xr.Dataset:
    return decompose(answer, episodes)


def _levels(
    model: Model,
    population: Posterior,
    episodes: EpisodeBatch,
    answer: Predictive,
    *,
    seed: int,
    draws: int = POPULATION_DRAWS,
) -> xr.Dataset:
    levels = by_level(model, population, episodes, population_draws=draws, seed=seed)
    return agreeing(levels, decompose(answer, episodes))


def _quality(
    model: Model, population: Posterior, episodes: EpisodeBatch, answer: Predictive, *, seed: int
) -> xr.Dataset:
    return by_cause(model, population, episodes, seed=seed)


def _gain(
    model: Simulates,
    population: Posterior,
    episodes: EpisodeBatch,
    answer: Predictive,
    *,
    seed: int,
) -> xr.Dataset:
    """`video_gain` (task, video, way, condition): what one more support video would tell."""
    each = [
        gain_by_video(model, population, episodes, condition=condition, seed=seed)
        for condition in CONDITIONS
    ]
    return _by_condition(torch.stack(each, -1))


def _foreseen(
    model: Foresees,
    population: Posterior,
    episodes: EpisodeBatch,
    answer: Predictive,
    *,
    seed: int,
) -> xr.Dataset:
    """The same from a model that knows it without simulation; alike in every condition."""
    gain = foreseen_by_video(model, population, episodes, seed=seed)
    exists = episodes.video_mask[..., None] & episodes.way_mask[:, None]
    gain = gain.masked_fill(~exists, torch.nan)
    return _by_condition(gain[..., None].expand(*gain.shape, len(CONDITIONS)))


def foreseen_by_video(
    model: Foresees, population: Posterior, episodes: EpisodeBatch, *, seed: int
) -> Tensor:
    """(task, video, way) what one more support video of each class would tell of a query."""
    with torch.no_grad():
        return model.video_gain(episodes, thinned(population, 4), draws=16, seed=seed)


def _by_condition(gain: Tensor) -> xr.Dataset:
    """`video_gain` (task, video, way, condition), from a tensor of these axes."""
    axes = ("task", "video", "way", "condition")
    coords = {"condition": list(CONDITIONS)}
    return xr.Dataset({"video_gain": (axes, gain.cpu().numpy())}, coords=coords)


KIND = Decomposition("kind", (), _kinds)
"""Total = aleatoric + epistemic."""

LEVEL = Decomposition("level", (Hierarchical,), _levels)
"""Population, task, class, video and frame."""


def level_of(draws: int) -> Decomposition:
    """`LEVEL` from another number of draws of the population."""
    return replace(LEVEL, compute=partial(_levels, draws=draws))


QUALITY = Decomposition("quality", (Conjugate, OpenSet), _quality)
"""What each measured defect of a frame costs."""

GAIN = Decomposition("gain", (Simulates,), _gain)
"""What one more support video of each class would tell of the query."""

FORESEEN = Decomposition("gain", (Foresees,), _foreseen)
"""The same where it needs no simulation."""

DECOMPOSITIONS = (KIND, LEVEL, QUALITY, GAIN, FORESEEN)


def decompose_by(
    model: Model,
    population: Posterior,
    episodes: EpisodeBatch,
    predictive: Predictive,
    *,
    decompositions: Sequence[Decomposition] = DECOMPOSITIONS,
    seed: int,
) -> dict[str, xr.Dataset]:
    """Name -> parts, for every decomposition that the model has the abilities for.

    Args:
        model: what the tasks were inferred with.
        population: posterior of the population sites.
        episodes: T tasks.
        predictive: of their queries.
        decompositions: which to compute.
        seed: of the draws.
    """
    each = ((d.name, d(model, population, episodes, predictive, seed=seed)) for d in decompositions)
    return {name: parts for name, parts in each if parts is not None}
