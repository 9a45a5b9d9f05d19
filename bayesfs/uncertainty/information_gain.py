"""Information gain, what further videos are worth: use `expected_gain`, or `gain_of_round`.

The expected fall of a query's log loss through one more support video v of object k is the mutual
information of its label and that video, given what the query looks like:

    gain(k | x) = I(y; v | x, D) = E_{v ~ p(v | k, x, D)} KL[ p(y | x, D, v) || p(y | x, D) ],

in nats. It counts what can still be learnt and not what no video would tell, and it is about the
videos that this person asks about, not about the objects' parameters. Averaged over queries it is
the expected predictive information gain (EPIG) towards them.

Videos are simulated from p(v | x, D), as the identity asks for: a query of object k says what k
looks like, and a further video of k will look alike. From p(v | D), videos would not resemble the
query more than the support does, and in many dimensions nearly all of the gain would be missed.
Videos differ by population draw, each of which has a gain of its own; the mean is returned.

A round of several videos, such as one of every object, has a gain of its own, I(y; v_1, ..., v_n |
x, D), which is not the sum of single ones; and a spread, by which it may be told that more videos
would hardly help anybody.

Source: Bickford Smith et al. (2023), AISTATS, equation 6, with the query's features known.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from bayesfs.errors import InferenceError
from bayesfs.prediction import thinned_values
from bayesfs.protocols import Simulates
from bayesfs.types import CONDITIONS, EpisodeBatch, Posterior


@dataclass(frozen=True)
class RoundGain:
    """What several further videos together take off the log loss of each query video, in nats.

    The fall log p(y | x, D, v) - log p(y | x, D) is known when y and v are; its mean is the gain.

    Attributes:
        mean: (task, video) its mean, over the whole video and its frames; NaN for padding.
        sd: (task, video) its standard deviation.
        likeliest: (task, video) class that each is likeliest of; -1 for padding.
    """

    mean: Tensor
    sd: Tensor
    likeliest: Tensor

    def at_most(self, level: float = 0.9) -> Tensor:
        """(task,) what the mean over a task's Q queries falls by at most, with that probability.

        What is learnt of an object is learnt for all that ask about it: sds of the queries that are
        likeliest of one class k are added, those of different classes in squares,

            mean + z sqrt(sum_k (sum_{q of k} sd_q)^2) / Q,     z the normal quantile of `level`.
        """
        count = (self.likeliest >= 0).sum(-1).clamp(min=1)
        one_hot = torch.nn.functional.one_hot(self.likeliest + 1)[..., 1:].to(self.sd)
        together = torch.einsum("tv,tvk->tk", self.sd.nan_to_num(), one_hot)
        z = NormalDist().inv_cdf(level)
        return (self.mean.nan_to_num().sum(-1) + z * together.square().sum(-1).sqrt()) / count


SIMULATED = 16
"""Simulated videos of each class for each query and population draw."""

POPULATION_DRAWS = 4


def expected_gain(
    model: Simulates,
    population: Posterior,
    episodes: EpisodeBatch,
    *,
    simulated_videos: int = SIMULATED,
    population_draws: int = POPULATION_DRAWS,
    condition: str = "clean",
    frames: int | None = None,
    seed: int,
) -> Tensor:
    """Expected fall of the queries' log loss through one more support video of each class.

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
    simulated_videos: int = SIMULATED,
    population_draws: int = POPULATION_DRAWS,
    condition: str = "clean",
    frames: int | None = None,
    seed: int,
) -> Tensor:
    """The same for each query video by itself.

    Args:
        model: such as `bayesfs.models.gaussian.hierarchy.GaussianHierarchy`.
        population: posterior of the population sites.
        episodes: T tasks.
        simulated_videos: simulated videos of each class for each query and population draw.
        population_draws: draws of the population, evenly spaced over those of `population`.
        condition: recording condition of the new video.
        frames: its number of frames; that of the support by default.
        seed: of the simulation.

    Returns:
        (task, video, way) gain in nats, averaged over the whole video and its single frames; NaN
        for padding.

    Raises:
        InferenceError: the model cannot simulate videos, the condition is unknown, or there is
            no simulated video.
    """
    _check(model, simulated_videos)
    if condition not in CONDITIONS:
        raise InferenceError(f"expected condition to be one of {CONDITIONS}, got {condition!r}")
    index, length = CONDITIONS.index(condition), frames or episodes.support.shape[3]
    gains = []
    with torch.no_grad():
        for p, value in enumerate(thinned_values(population, population_draws)):
            after = model.labels_after_video(
                episodes,
                value,
                condition=index,
                frames=length,
                draws=simulated_videos,
                seed=seed + p,
            )
            gains.append(_learnt(episodes, after, model.log_labels(episodes, value)))
    exists = episodes.video_mask[..., None] & episodes.way_mask[:, None]
    return torch.stack(gains).mean(0).masked_fill(~exists, torch.nan)


def gain_of_round(
    model: Simulates,
    population: Posterior,
    episodes: EpisodeBatch,
    count: Tensor,
    *,
    simulated_videos: int = SIMULATED,
    population_draws: int = POPULATION_DRAWS,
    frames: int | None = None,
    seed: int,
) -> RoundGain:
    """Fall of each query's log loss through several further videos together.

    Args:
        model: see `gain_by_video`; other arguments are also as there.
        population: posterior of the population sites.
        episodes: T tasks.
        count: (task, way, condition) further videos of each class, recorded in each condition.
        simulated_videos: simulated rounds for each query and population draw.
        population_draws: draws of the population.
        frames: number of frames of each video; that of the support by default.
        seed: of the simulation.

    Raises:
        InferenceError: the model cannot simulate videos, there is no simulated round, or `count`
            has another shape.
    """
    _check(model, simulated_videos)
    shape = (len(episodes), episodes.way, len(CONDITIONS))
    if tuple(count.shape) != shape:
        raise InferenceError(
            f"expected count (task, way, condition) = {shape}, got {tuple(count.shape)}"
        )
    length, moments, laws = frames or episodes.support.shape[3], [], []
    with torch.no_grad():
        for p, value in enumerate(thinned_values(population, population_draws)):
            after = model.labels_after_round(
                episodes, value, count=count, frames=length, draws=simulated_videos, seed=seed + p
            )
            before = model.log_labels(episodes, value)
            both = [_moments(a, b) for a, b in zip(after, before, strict=True)]
            moments.append(_over_video(episodes, both[0], both[1]))
            laws.append(before[1].exp())
    first, second = torch.stack(moments).mean(0)
    sd = (second - first**2).clamp(min=0.0).sqrt()
    none = ~episodes.video_mask
    likeliest = torch.stack(laws).mean(0).argmax(-1).masked_fill(none, -1)
    return RoundGain(first.masked_fill(none, torch.nan), sd.masked_fill(none, torch.nan), likeliest)


def _moments(after: Tensor, before: Tensor) -> Tensor:
    """(2, ...) first and second moment of the fall, of laws (draw, ..., way) from (..., way)."""
    gap = after.clamp(min=-1e4) - before.clamp(min=-1e4)
    law = after.exp()
    return torch.stack([(law * gap).sum(-1).mean(0), (law * gap**2).sum(-1).mean(0)])


def _over_video(episodes: EpisodeBatch, frame: Tensor, video: Tensor) -> Tensor:
    """(2, task, video) moments of the mean of a video and its frames, which fall as one."""
    mask = episodes.query_mask
    by_frame = frame.masked_fill(~mask, 0.0).sum(-1) / mask.sum(-1).clamp(min=1)
    return 0.5 * (by_frame + video)


def _check(model: Simulates, simulated: int) -> None:
    if not isinstance(model, Simulates):
        raise InferenceError(
            f"expected a model with labels_after_video, got {type(model).__name__}"
        )
    if simulated < 1:
        raise InferenceError(f"expected at least 1 of simulated_videos, got {simulated}")


def _learnt(
    episodes: EpisodeBatch, after: tuple[Tensor, Tensor], before: tuple[Tensor, Tensor]
) -> Tensor:
    """(task, video, new) mean divergence of the label laws, over the video and its frames."""
    frame, video = (divergence(a, b) for a, b in zip(after, before, strict=True))
    mask = episodes.query_mask[..., None]
    by_frame = frame.masked_fill(~mask, 0.0).sum(2) / mask.sum(2).clamp(min=1)
    return 0.5 * (by_frame + video)


def divergence(after: Tensor, before: Tensor) -> Tensor:
    """KL in nats of laws (draw, ..., new, way) from (..., way), meaned over draws: (..., new)."""
    gap = after.clamp(min=-1e4) - before[..., None, :].clamp(min=-1e4)
    return (after.exp() * gap).sum(-1).mean(0)
