"""What the labels of support videos would be without them: `left_out_log_prob`, `support_log_prob`.

`bayesfs.diagnostics.loo.support_elpd` makes a score of either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bayesfs.data.leave_one_out import removable, without_videos
from bayesfs.protocols import Collapsible, Model
from bayesfs.types import UNLABELLED, EpisodeBatch, Posterior
from bayesfs.uncertainty.influence import video_labels

MOST_VALUES = 2**22
"""Features of the copies of support sets that are held at a time when videos are left out."""


def support_log_prob(model: Model, posterior: Posterior, episodes: EpisodeBatch) -> Tensor:
    """Log p(y | x, theta_s) of every support video, as if it were a query.

    Args:
        model: the model of the posterior.
        posterior: its draws, population sites included.
        episodes: the tasks that it was inferred from.

    Returns:
        (draw, task, way, shot); padding holds numbers without meaning.
    """
    t, w, s, f, d = episodes.support.shape
    labels = torch.arange(w, device=episodes.support.device).repeat_interleave(s).expand(t, -1)
    mask = episodes.support_mask.reshape(t, w * s, f)
    quality = episodes.support_quality
    as_query = episodes.changed(
        query=episodes.support.reshape(t, w * s, f, d),
        query_mask=mask,
        query_condition=episodes.support_condition.reshape(t, w * s),
        query_labels=torch.where(mask.any(-1), labels, UNLABELLED),
        query_quality=None if quality is None else quality.reshape(t, w * s, f, -1),
        query_frame=None,
        videos=(),
    )
    joint = model.log_joint_video(posterior.draws, as_query)
    given = torch.log_softmax(joint, -1).reshape(*joint.shape[:2], w, s, w)
    return torch.diagonal(given, dim1=2, dim2=4).movedim(-1, 2)


def left_out_log_prob(
    model: Collapsible, population: Sequence[Mapping[str, Tensor]], episodes: EpisodeBatch
) -> Tensor:
    """Log p(y_i | x_i, D without i) of every support video i, by leaving it out of the support.

    Args:
        model: one that knows its labels in closed form.
        population: values of the population's sites, averaged over.
        episodes: T tasks.

    Returns:
        (task, way, shot), in nats; NaN for padding and for the only video of an object.
    """
    found = episodes.support.new_full(episodes.shot_mask.shape, math.nan)
    places, labels = left_out_labels(model, population, episodes)
    found[tuple(places.T)] = labels.gather(1, places[:, 1:2])[:, 0]
    return found


def left_out_labels(
    model: Collapsible, population: Sequence[Mapping[str, Tensor]], episodes: EpisodeBatch
) -> tuple[Tensor, Tensor]:
    """Log p(y | x_i, D without i) over all labels, of every support video i that may be left out.

    Arguments are those of `left_out_log_prob`.

    Returns:
        (video, 3) task, class and shot of each video, and (video, way) log probabilities.
    """
    places = removable(episodes)
    per = max(1, MOST_VALUES // max(episodes.support[0].numel(), 1))  # each needs its own support
    parts = [
        video_labels(model, _asked(episodes, places[i : i + per]), population)[:, 0]
        for i in range(0, len(places), per)
    ]
    return places, torch.cat(parts) if parts else episodes.support.new_zeros(0, episodes.way)


def _asked(episodes: EpisodeBatch, places: Tensor) -> EpisodeBatch:
    """For each place (task, way, shot) its task without that video, which is asked about."""
    at = tuple(places.T)
    quality = episodes.support_quality
    return without_videos(episodes, places).changed(
        query=episodes.support[at][:, None],
        query_mask=episodes.support_mask[at][:, None],
        query_condition=episodes.support_condition[at][:, None],
        query_labels=places[:, 1:2],
        query_quality=None if quality is None else quality[at][:, None],
        query_frame=None,
        videos=(),
    )
