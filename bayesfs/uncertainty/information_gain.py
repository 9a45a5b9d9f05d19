"""Information gain (EPIG), what one more video of an object is worth: use `expected_gain`.

The expected predictive information gain towards the user's own queries x*,

    EPIG(k) = E_{x*} E_{v ~ p(v | k, D)} KL[ p(y* | x*, D, v) || E_{v'} p(y* | x*, D, v') ],

in nats per query: how much what one more support video v of object k may look like would move the
labels of the queries x*, which is how far their entropy falls on average. It is the mutual
information of the query's label and the new video, so it counts what can still be learnt and not
what no video would tell; and it is about the videos that this person asks about, not about the
objects' parameters.

Videos v are simulated from the posterior predictive: draw the class's mean from its posterior,
then the video's mean frame. The queries' features are used without their labels; they do not
weight the simulated videos. The average over S of them stands for E_{v'}, which makes the estimate
too small by a factor 1 - 1 / S, by which it is divided.

Source: Bickford Smith et al. (2023), AISTATS, equation 6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bayesfs.errors import InferenceError
from bayesfs.prediction import thinned_values
from bayesfs.protocols import Simulates
from bayesfs.types import CONDITIONS, EpisodeBatch, Posterior


def expected_gain(
    model: Simulates,
    population: Posterior,
    episodes: EpisodeBatch,
    *,
    simulated_videos: int = 8,
    population_draws: int = 2,
    condition: str = "clean",
    frames: int | None = None,
    seed: int,
) -> Tensor:
    """Expected fall of the queries' label entropy through one more support video of each class.

    Arguments and errors are those of `gain_by_video`, of which this is the mean over query videos:
    they stand for what the person will ask.

    Returns:
        (task, way) gain in nats per query, averaged over whole videos and single frames; NaN for
        padded classes.
    """
    each = gain_by_video(
        model,
        population,
        episodes,
        simulated_videos=simulated_videos,
        population_draws=population_draws,
        condition=condition,
        frames=frames,
        seed=seed,
    )
    mask = episodes.video_mask
    mean = each.masked_fill(~mask[..., None], 0.0).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
    return mean.masked_fill(~episodes.way_mask, torch.nan)


def gain_by_video(
    model: Simulates,
    population: Posterior,
    episodes: EpisodeBatch,
    *,
    simulated_videos: int = 8,
    population_draws: int = 2,
    condition: str = "clean",
    frames: int | None = None,
    seed: int,
) -> Tensor:
    """The same for each query video by itself.

    Args:
        model: such as `bayesfs.models.gaussian.hierarchy.GaussianHierarchy`.
        population: posterior of the population sites.
        episodes: T tasks.
        simulated_videos: simulated videos of each class for each population draw.
        population_draws: draws of the population, evenly spaced over those of `population`.
        condition: recording condition of the new video.
        frames: its number of frames; that of the support by default.
        seed: of the simulation.

    Returns:
        (task, video, way) gain in nats, averaged over the whole video and its single frames; NaN
        for padding.

    Raises:
        InferenceError: the model cannot simulate videos, the condition is unknown, or there are
            fewer than two simulated_videos.
    """
    if not isinstance(model, Simulates):
        raise InferenceError(
            f"expected a model with log_labels and simulate_videos, got {type(model).__name__}"
        )
    if condition not in CONDITIONS:
        raise InferenceError(f"expected condition to be one of {CONDITIONS}, got {condition!r}")
    if simulated_videos < 2:
        raise InferenceError(
            f"expected at least 2 simulated_videos to compare, got {simulated_videos}"
        )
    index, length = CONDITIONS.index(condition), frames or episodes.support.shape[3]
    falls = []
    with torch.no_grad():
        for p, value in enumerate(thinned_values(population, population_draws)):
            videos = model.simulate_videos(
                episodes,
                value,
                condition=index,
                frames=length,
                draws=simulated_videos,
                seed=seed + p,
            )
            by_way = []
            for way in range(episodes.way):
                grown = [with_video(episodes, way, video[:, way], condition) for video in videos]
                by_way.append(_moved(episodes, [model.log_labels(g, value) for g in grown]))
            falls.append(torch.stack(by_way, -1))
    exists = episodes.video_mask[..., None] & episodes.way_mask[:, None]
    return torch.stack(falls).mean(0).masked_fill(~exists, torch.nan)


def _moved(episodes: EpisodeBatch, labels: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """(task, video) information of the simulated videos about the query's label."""
    frame, video = (information(torch.stack(part)) for part in zip(*labels, strict=True))
    mask = episodes.query_mask
    by_frame = frame.masked_fill(~mask, 0.0).sum(-1) / mask.sum(-1).clamp(min=1)
    return 0.5 * (by_frame + video)


def information(log_prob: Tensor) -> Tensor:
    """(sample, ..., way) label laws -> (...) mutual information of sample and label, in nats."""
    size = len(log_prob)
    average = log_prob.logsumexp(0) - math.log(size)
    gap = log_prob.clamp(min=-1e4) - average.clamp(min=-1e4)
    return (log_prob.exp() * gap).sum(-1).mean(0) * size / (size - 1)


def with_video(episodes: EpisodeBatch, way: int, video: Tensor, condition: str) -> EpisodeBatch:
    """The same tasks with one more support video of one class, of typical quality.

    Args:
        episodes: T tasks.
        way: class that the video shows, in every task that has it.
        video: (task, frame, feature), with at most as many frames as the support has.
        condition: its recording condition.
    """
    support = episodes.support
    tasks, ways, _, frames, _ = support.shape
    length = video.shape[1]
    new = support.new_zeros(tasks, ways, 1, max(frames, length), support.shape[-1])
    new[:, way, 0, :length] = video
    mask = torch.zeros(new.shape[:-1], dtype=torch.bool, device=support.device)
    mask[:, way, 0, :length] = episodes.way_mask[:, way, None]
    grown = max(frames, length) - frames
    condition_of = torch.full((tasks, ways, 1), CONDITIONS.index(condition), device=support.device)
    quality = episodes.support_quality
    if quality is not None:
        wide = torch.nn.functional.pad(quality, (0, 0, 0, grown))
        typical = quality.new_zeros(*new.shape[:-1], quality.shape[-1])
        quality = torch.cat([wide, typical], 2)
    pad = torch.nn.functional.pad
    return episodes.changed(
        support=torch.cat([pad(support, (0, 0, 0, grown)), new * mask[..., None]], 2),
        support_mask=torch.cat([pad(episodes.support_mask, (0, grown)), mask], 2),
        support_condition=torch.cat([episodes.support_condition, condition_of], 2),
        support_quality=quality,
        support_frame=None,
    )
