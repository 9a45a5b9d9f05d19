"""Influence of each support video on an answer: `leave_one_out_influence`.

For query video x, support D and D_v the support without video v,

    influence(v) = KL[ p(y | x, D) || p(y | x, D_v) ]      in nats,

how far v moved the answer, in closed form and averaged over the population's draws before the
divergence is taken. `toward` says where to: log p(y* | x, D) - log p(y* | x, D_v) with y* the
likeliest class given all of D, above zero where v speaks for the answer.

Source: Cook (1977) for deletion of one observation, here the video, since frames of a video tell
each other's features; Kullback-Leibler as in McCulloch (1989), JASA.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import xarray as xr
from torch import Tensor

from bayesfs.data.leave_one_out import removable, without_videos
from bayesfs.errors import InferenceError
from bayesfs.prediction import thinned_values
from bayesfs.protocols import Collapsible
from bayesfs.types import EpisodeBatch, Posterior


def leave_one_out_influence(
    model: Collapsible,
    population: Posterior,
    episodes: EpisodeBatch,
    *,
    population_draws: int = 4,
) -> xr.Dataset:
    """How far each support video moved the answer about each query video.

    Args:
        model: one with `log_labels`, such as `bayesfs.models.gaussian.hierarchy.GaussianHierarchy`.
        population: posterior of the population sites.
        episodes: T tasks.
        population_draws: draws of the population, evenly spaced over those of `population`.

    Returns:
        Dataset with `influence` and `toward` (task, way, shot, video), in nats; NaN for padding
        and for the only video of an object, without which the object would not be taught.

    Raises:
        InferenceError: the model has no label predictives in closed form.

    Example:
        >>> moved = leave_one_out_influence(model, population, episodes)  # doctest: +SKIP
        >>> moved.influence.isel(task=0, video=0)  # doctest: +SKIP
    """
    if not isinstance(model, Collapsible):
        raise InferenceError(
            f"expected a model with log_labels, got {type(model).__name__}; influence is in "
            "closed form, for GaussianHierarchy"
        )
    values = thinned_values(population, population_draws)
    shape = (*episodes.shot_mask.shape, episodes.query.shape[1])
    influence = episodes.query.new_full(shape, math.nan)
    toward = influence.clone()
    places = removable(episodes)
    if len(places):
        asked = video_labels(model, episodes, values)[places[:, 0]]
        without = video_labels(model, without_videos(episodes, places), values)
        here = tuple(places.T)
        exists = episodes.video_mask[places[:, 0]]
        gap = torch.where(asked > -torch.inf, asked - without, 0.0)
        best = asked.argmax(-1, keepdim=True)
        divergence = (asked.exp() * gap).sum(-1).clamp(min=0.0)
        influence[here] = divergence.masked_fill(~exists, math.nan)
        toward[here] = gap.gather(-1, best)[..., 0].masked_fill(~exists, math.nan)
    axes = ("task", "way", "shot", "video")
    data = {"influence": (axes, influence.cpu().numpy()), "toward": (axes, toward.cpu().numpy())}
    coords = {"task": list(episodes.tasks)} if episodes.tasks else {}
    return xr.Dataset(data, coords=coords, attrs={"units": "nats"})


def video_labels(
    model: Collapsible, episodes: EpisodeBatch, values: Sequence[Mapping[str, Tensor]]
) -> Tensor:
    """(task, video, way) log p(y | x, support), averaged over population draws."""
    with torch.no_grad():
        each = [model.log_labels(episodes, value)[1] for value in values]
    return torch.stack(each).logsumexp(0) - math.log(len(values))
