"""Uncertainty by level of the hierarchy: start with `by_level`.

By the chain rule of mutual information the entropy of a label falls, level by level,

    total = population + task + class  (epistemic: more users, more videos would help)
          + video + frame              (aleatoric: they would not),

where `population` = I(y; phi), `task` = I(y; a | phi), `class` = I(y; mu | phi, a), all given the
query and the support. `video` = I(y; b | phi, a, mu) is what knowing the query recording's own
effect would tell: a second recording of the same thing averages over it. `frame` is what is left.
"Train on more users" answers the first, "record more of your objects" the second, "more videos of
this object" the third, "film it once more" the fourth, and "film it better" the last.

The parts telescope, so they add up to the total exactly; single parts have Monte Carlo error, which
is given. The estimate of epistemic uncertainty by `bayesfs.uncertainty.decompose.decompose` is
another one of the same quantity.
"""

from __future__ import annotations

import math

import torch
import xarray as xr

from bayesfs.errors import InferenceError
from bayesfs.prediction import thinned
from bayesfs.protocols import Hierarchical, Model
from bayesfs.types import EpisodeBatch, Posterior

PARTS = ("population", "task", "class", "video", "frame")
"""Levels from the top; the first three are epistemic."""

EPISTEMIC = PARTS[:3]


def by_level(
    model: Model,
    population: Posterior,
    episodes: EpisodeBatch,
    *,
    draws: int = 16,
    population_draws: int = 8,
    seed: int,
) -> xr.Dataset:
    """Parts of the uncertainty of every query frame and video, by level.

    Args:
        model: such as `bayesfs.models.gaussian.hierarchy.GaussianHierarchy`.
        population: posterior of the population sites.
        episodes: T tasks.
        draws: draws of the latents for each population draw.
        population_draws: draws of the population, evenly spaced over those of `population`.
        seed: of the draws.

    Returns:
        Dataset with `frame_PART` (task, video, frame) and `video_PART` (task, video) for each of
        `PARTS`, in nats, NaN for padding, and their standard errors `frame_PART_se`.
        Single parts may be below zero by their error.

    Raises:
        InferenceError: the model does not know its levels.
    """
    if not isinstance(model, Hierarchical):
        raise InferenceError(
            f"expected a model with level_entropies, got {type(model).__name__}; the hierarchy's "
            "levels are known in closed form for GaussianHierarchy"
        )
    values = thinned(population, population_draws)
    with torch.no_grad():
        found = model.level_entropies(episodes, values, draws=draws, seed=seed)
    data: dict[str, tuple[tuple[str, ...], object]] = {}
    masks = (episodes.query_mask, episodes.video_mask)
    for unit, (entropy, error), mask in zip(("frame", "video"), found, masks, strict=True):
        axes = ("task", "video", "frame")[: mask.ndim]
        last = torch.zeros_like(entropy[:1])
        parts = entropy - torch.cat([entropy[1:], last])
        errors = (error.square() + torch.cat([error[1:], last]).square()).sqrt()
        for name, part, se in zip(PARTS, parts, errors, strict=True):
            data[f"{unit}_{name}"] = (axes, part.masked_fill(~mask, math.nan).cpu().numpy())
            data[f"{unit}_{name}_se"] = (axes, se.masked_fill(~mask, math.nan).cpu().numpy())
    coords = {"task": list(episodes.tasks)} if episodes.tasks else {}
    return xr.Dataset(data, coords=coords, attrs={"units": "nats"})
