"""How far a hierarchy pulls the objects of a person together: `shrinkage`.

With m_k the mean of the videos of class k (no pooling), m their mean over the person's classes
(complete pooling), mu_k the posterior mean of the class (partial pooling) and mu the mean of these,

    weight_k = (mu_k - mu) . (m_k - m) / |m_k - m|^2

is the share of the way from complete to no pooling: 0 where all objects are taken for one, 1 where
each is taken as its own videos show it. It grows with the number of videos, and faster where videos
of an object differ less than objects do.

Source: Gelman and Pardoe (2006), Technometrics 48, on pooling factors, of which this is the
complement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import xarray as xr
from torch import Tensor

from bayesfs.models.gaussian.conjugate import video_means
from bayesfs.protocols import HasClassMeans, Model
from bayesfs.types import EpisodeBatch


def shrinkage(
    model: Model, draws: Mapping[str, Tensor], episodes: EpisodeBatch
) -> xr.Dataset | None:
    """`weight` (task, way) of each class's own videos; NaN for padding and tasks of one class.

    Args:
        model: what the draws are of.
        draws: of every site of the model.
        episodes: the tasks.

    Returns:
        The dataset; None where the model has no class means, or the support is recorded in
        several conditions, whose means are not alike.
    """
    shots = episodes.shot_mask
    conditions = episodes.support_condition[shots].unique()  # type: ignore[no-untyped-call]
    if not isinstance(model, HasClassMeans) or len(conditions) != 1:
        return None
    with torch.no_grad():
        partial = model.class_means(draws, episodes).mean(0)
    videos, _ = video_means(episodes.support, episodes.support_mask)
    own, _ = video_means(videos, shots)
    taught = episodes.way_mask & shots.any(-1)
    gap, moved = _about(own, taught), _about(partial, taught)
    weight = (gap * moved).sum(-1) / gap.square().sum(-1)
    known = taught & (taught.sum(-1, keepdim=True) > 1)
    values = weight.masked_fill(~known, math.nan).double().cpu().numpy()
    coords = {"task": list(episodes.tasks)} if episodes.tasks else {}
    return xr.Dataset({"weight": (("task", "way"), values)}, coords=coords)


def _about(means: Tensor, taught: Tensor) -> Tensor:
    """(task, way, feature) means less their own mean over the taught classes."""
    return means - video_means(means, taught)[0][:, None]
