"""Uncertainty by level of the hierarchy: start with `by_level`.

By the chain rule of mutual information the entropy of a label falls, level by level,

    total = population + task + class  (epistemic: more users, more videos would help)
          + video + frame              (aleatoric: they would not),

where `population` = I(y; phi), `task` = I(y; a | phi), `class` = I(y; mu | phi, a), all given the
query and the support. Where classes of a name are shared by all users, phi = (theta, s), and
I(y; s | theta) is a level of its own, `shared`: what is not known of a class in general, and not
of this user's. `video` = I(y; b | phi, a, mu) is what knowing the query recording's own
effect would tell: a second recording of the same thing averages over it. `frame` is what is left.
"Train on more users" answers the first, "record more of your objects" the second, "more videos of
this object" the third, "film it once more" the fourth, and "film it better" the last.

The parts telescope, so they add up to the total exactly; single parts have Monte Carlo error, which
is given. The estimate of epistemic uncertainty by `bayesfs.uncertainty.decompose.decompose` is
another one of the same quantity; `agreeing` gives parts that sum to it.
"""

from __future__ import annotations

import math

import torch
import xarray as xr
from torch import Tensor

from bayesfs.errors import InferenceError
from bayesfs.models.population_draws import with_again
from bayesfs.prediction import thinned
from bayesfs.protocols import Hierarchical, Model
from bayesfs.types import EpisodeBatch, Posterior
from bayesfs.uncertainty.parts import ALL_PARTS, LEVEL_PARTS

POPULATION_DRAWS = 128


def by_level(
    model: Model,
    population: Posterior,
    episodes: EpisodeBatch,
    *,
    draws: int = 1,
    population_draws: int = POPULATION_DRAWS,
    seed: int,
) -> xr.Dataset:
    """Parts of the uncertainty of every query frame and video, by level.

    Args:
        model: such as `bayesfs.models.gaussian.hierarchy.GaussianHierarchy`.
        population: posterior of the population sites.
        episodes: T tasks.
        draws: draws of the latents for each population draw.
        population_draws: draws of the population, evenly spaced over those of `population`; where
            that has fewer, there are more of the latents.
        seed: of the draws.

    Returns:
        Dataset with `frame_PART` (task, video, frame) and `video_PART` (task, video) for each of
        `LEVEL_PARTS`, and of `SHARED` where the model tells it apart, in nats, NaN for padding,
        their standard errors `frame_PART_se`, and the standard errors `frame_PART_mean_se` of the
        mean over all of them and `frame_PART_share_se` of this mean's share of the total. Single
        parts may be below zero by their error. Errors are from the spread over population draws, or
        over draws of the latents if there is one population draw; nan where there is one draw.

    Raises:
        InferenceError: the model does not know its levels.
    """
    if not isinstance(model, Hierarchical):
        raise InferenceError(
            f"expected a model with level_entropies, got {type(model).__name__}; the hierarchy's "
            "levels are known in closed form for GaussianHierarchy"
        )
    values = with_again(population, population_draws) or thinned(population, population_draws)
    draws = max(draws, -(-population_draws // len(next(iter(values.values())))))
    with torch.no_grad():
        found = model.level_entropies(episodes, values, draws=draws, seed=seed)
    data: dict[str, tuple[tuple[str, ...], object]] = {}
    masks = (episodes.query_mask, episodes.video_mask)
    for unit, entropy, mask in zip(("frame", "video"), found, masks, strict=True):
        axes = ("task", "video", "frame")[: mask.ndim]
        each = entropy.mean(2) if entropy.shape[1] > 1 else entropy[:, 0]  # (stage, draw, ...)
        each = each - torch.cat([each[1:], torch.zeros_like(each[:1])])
        means = each[:, :, mask].mean(-1)  # (part, draw)
        errors = _error(each), _error(means), _share_error(means)
        parts = ALL_PARTS if len(each) == len(ALL_PARTS) else LEVEL_PARTS
        for name, part, se, mean_se, share_se in zip(parts, each.mean(1), *errors, strict=True):
            data[f"{unit}_{name}"] = (axes, part.masked_fill(~mask, math.nan).cpu().numpy())
            data[f"{unit}_{name}_se"] = (axes, se.masked_fill(~mask, math.nan).cpu().numpy())
            data[f"{unit}_{name}_mean_se"] = ((), float(mean_se))
            data[f"{unit}_{name}_share_se"] = ((), float(share_se))
    coords = {"task": list(episodes.tasks)} if episodes.tasks else {}
    return xr.Dataset(data, coords=coords, attrs={"units": "nats"})


def _error(each: Tensor) -> Tensor:
    """(part, draw, ...) -> (part, ...) standard error of the mean over draws."""
    if each.shape[1] < 2:
        return torch.full_like(each[:, 0], math.nan)
    return each.std(1) / math.sqrt(each.shape[1])


def _share_error(means: Tensor) -> Tensor:
    """(part, draw) -> (part,) standard error of a part's share r of the total, sd(m - r t) / t."""
    total = means.sum(0)
    share = means.mean(1) / total.mean()
    return _error((means - share[:, None] * total) / total.mean())
