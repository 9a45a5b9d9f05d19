"""Exact Gaussian algebra of the hierarchy population -> task -> class -> video -> frame.

Start with `condition_classes`: sufficient statistics of the support in, the joint Gaussian
posterior of all class means out. For a video of condition q with n frames of mean xbar, loading
r_q and offset o_q, integrating the video effect and the frames leaves

    xbar | mu ~ N(o_q + r_q mu, N),     N = V_q + F_q / n,

so that frames enter through n only beside V_q: uncertainty shrinks with videos. Where measured
quality widens the noise of frame f to F_q / w_f (`frame_weights`), xbar is the weighted mean and n
the sum of the weights. With
P = sum_videos r^2 N^-1, h = sum_videos r N^-1 (xbar - o) for each class, mu | a ~ N(a, B) and
a ~ N(0, A),

    mu | a, D ~ N(S (B^-1 a + h), S),                     S   = (B^-1 + P)^-1,
    a  | D    ~ N(S_a sum_k B^-1 S_k h_k, S_a),
    S_a = (A^-1 + sum_k (B^-1 - B^-1 S_k B^-1))^-1,

and Cov(mu_j, mu_k | D) = [j = k] S_k + L_j S_a L_k' with L = S B^-1.

Source: the standard linear Gaussian results, Bishop (2006), section 2.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bayesfs._distributions.noise import Noise
from bayesfs.errors import ShapeError
from bayesfs.models.gaussian.covariance import Index, Operator, Points, joined, stacked
from bayesfs.models.per_batch import once_per_batch
from bayesfs.types import EpisodeBatch

LOG_2PI = math.log(2.0 * math.pi)

WIDEST = 8.0
"""Largest effect of measured quality on the log sd of a frame's noise."""


@dataclass(frozen=True)
class Levels:
    """Values of all population parameters, ready for the algebra.

    Every task has the same, or each has its own (`of_each`): then all have a leading task axis.

    Attributes:
        offset: (condition, feature) population mean in each condition.
        loading: (condition,) how much of a class's mean survives in each condition; 1 for clean.
        task: covariance A of task effects, no batch axes.
        way: covariance B of class effects, no batch axes; or (task, way), one for each class.
        video: (condition,) covariances V of video effects.
        frame: (condition,) covariances F of frames within a video.
        slope: (condition, covariate) effect of measured quality on the log sd of a frame's noise in
            each condition, or None.
        absent: () log prior odds that a query shows none of the taught classes.
        centre: (task, way, feature) mean m of each class effect, or None for zero.
    """

    offset: Tensor
    loading: Tensor
    task: Operator
    way: Operator
    video: Operator
    frame: Operator
    slope: Tensor | None = None
    absent: Tensor | float = -math.inf
    centre: Tensor | None = None

    @classmethod
    def of_each(cls, values: Sequence[Levels]) -> Levels:
        """Values of one task each, such as draws of the population for the same task.

        `condition_classes` takes them at once, with the support of as many tasks or of one.
        """
        slopes = [v.slope for v in values if v.slope is not None]
        centres = [v.centre for v in values if v.centre is not None]
        if centres and [len(centre) for centre in centres] != [1] * len(values):
            raise ShapeError("expected means of one task in every value, or in none")
        ways = [v.way for v in values]
        return cls(
            offset=torch.stack([v.offset for v in values]),
            loading=torch.stack([v.loading for v in values]),
            task=stacked([v.task for v in values]),
            way=joined(ways) if centres else stacked(ways).expand_axis(1),
            video=stacked([v.video for v in values]),
            frame=stacked([v.frame for v in values]),
            slope=torch.stack(slopes) if slopes else None,
            absent=torch.stack([torch.as_tensor(v.absent) for v in values]),
            centre=torch.cat(centres) if centres else None,
        )

    def at(self, condition: Tensor) -> Index:
        """What selects the values of conditions (task, ...) from those of each condition."""
        if self.loading.ndim == 1:
            return condition
        task = torch.arange(len(self.loading), device=condition.device)
        return task.reshape(-1, *[1] * (condition.ndim - 1)), condition

    def of_tasks(self, index: Tensor) -> Levels:
        """The values `of_each` task of an index, in its order."""
        own: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v[index] for k, v in own.items() if v is not None})

    def of_task(self, task: int) -> Levels:
        """The values for one task of the batch."""
        if self.centre is None:
            return self
        one = slice(task, task + 1)
        return replace(self, centre=self.centre[one], way=self.way[one])


@dataclass(frozen=True)
class ClassPosterior:
    """Joint Gaussian posterior of the class means mu of each task.

    Attributes:
        task_mean: (task, feature) posterior mean of the task effect.
        task_cov: (task,) posterior covariance S_a of the task effect.
        given_task: (task, way) covariance S of mu given the task effect.
        gain: (task, way) L = S B^-1.
        informed: (task, way, feature) h, the data's information about mu.
        pull: (task, way, feature) S h: what the data add to L a, and the class's own mean m.
    """

    task_mean: Tensor
    task_cov: Operator
    given_task: Operator
    gain: Operator
    informed: Tensor
    pull: Tensor

    @property
    def mean(self) -> Tensor:
        """(task, way, feature) posterior mean of mu."""
        return self.gain.apply(self.task_mean[..., None, :]) + self.pull

    def cov(self) -> Operator:
        """(task, way) marginal posterior covariance of each mu."""
        return self.given_task + self.shared()

    def shared(self) -> Operator:
        """(task, way) L S_a L', the part of the covariance that comes through the task effect."""
        return self.gain @ self.task_cov.expand_axis(1) @ self.gain.transposed()

    def cross(self, way: int) -> Operator:
        """(task, way) Cov(mu_j, mu_way | D) for every class j."""
        one = self.gain[:, way].expand_axis(1)
        cov = self.gain @ self.task_cov.expand_axis(1) @ one.transposed()
        indicator = self.pull.new_zeros(self.pull.shape[:2])
        indicator[:, way] = 1.0
        return cov + self.given_task.scaled(indicator)

    def sample(self, draws: int, noise: Noise) -> tuple[Tensor, Tensor]:
        """Draws of the task effects (draw, task, feature) and means (draw, task, way, feature)."""
        tail = (self.pull.shape[-1],)
        return self.coloured(*noise.normals(draws, ("task", "way"), tail, self.pull))

    def coloured(self, task: Tensor, way: Tensor) -> tuple[Tensor, Tensor]:
        """The draws of standard normal numbers (..., task, feature) and (..., task, way, feature).

        As `sample`: the same axes, of the task effects and the class means.
        """
        effect = self.task_mean + self.task_cov.colour(task)
        mean = self.gain.apply(effect[..., None, :]) + self.pull + self.given_task.colour(way)
        return effect, mean


def frame_weights(
    mask: Tensor, quality: Tensor | None, condition: Tensor, levels: Levels
) -> Tensor:
    """(..., frame) precision of each frame relative to the level's, exp(-2 slope . quality).

    slope . quality is cut at `WIDEST`: a frame whose measurement is absurd has noise that is some
    thousand times wider or narrower, in single precision too, and not none or infinitely much.

    Args:
        mask: (..., frame) frames that exist; others get 0.
        quality: (..., frame, covariate) standardised quality, or None.
        condition: (...) recording condition of the frames' video.
        levels: population parameters.

    Raises:
        ShapeError: the model has slopes for covariates that the episodes do not have.
    """
    dtype = levels.offset.dtype
    if levels.slope is None:
        return mask.to(dtype)
    wanted, found = levels.slope.shape[-1], 0 if quality is None else quality.shape[-1]
    if quality is None or found != wanted:
        raise ShapeError(
            f"expected {wanted} covariates of quality per frame, as the model has "
            f"slopes, got {found}; was the feature store made without quality?"
        )
    widening = (quality.to(dtype) * levels.slope[levels.at(condition)][..., None, :]).sum(-1)
    return mask * torch.exp(-2.0 * widening.clamp(-WIDEST, WIDEST))


def video_means(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean (..., feature) over frames, and the sum of their weights (...).

    Args:
        x: (..., frame, feature).
        weight: (..., frame) weights or a mask; 0 for padding.
    """
    w = weight.to(x)
    count = w.sum(-1)
    total = (x * w[..., None]).sum(-2)
    return total / torch.where(count > 0, count, 1.0)[..., None], count


def support_weights(episodes: EpisodeBatch, levels: Levels) -> Tensor:
    """(task, way, shot, frame) weights of the support frames."""
    quality, condition = episodes.support_quality, episodes.support_condition
    return frame_weights(episodes.support_mask, quality, condition, levels)


def support_means(episodes: EpisodeBatch, levels: Levels) -> tuple[Tensor, Tensor]:
    """Mean frame (task, way, shot, feature) and effective number of frames of support videos."""
    if levels.slope is None:
        return _plain_support_means(episodes)
    return video_means(episodes.support, support_weights(episodes, levels))


@once_per_batch
def _plain_support_means(episodes: EpisodeBatch) -> tuple[Tensor, Tensor]:
    """The same where every frame counts alike, whatever the population's values."""
    return video_means(episodes.support, episodes.support_mask)


class VideoKinds(NamedTuple):
    """Support videos of a class that have the same noise N: their means add up.

    Attributes:
        mean: (task, way, kind, feature) mean of their mean frames.
        frames: (task, way, kind) effective number of frames of each; 0 for padding.
        condition: (task, way, kind) condition of all of them.
        videos: (task, way, kind) how many they are.
    """

    mean: Tensor
    frames: Tensor
    condition: Tensor
    videos: Tensor


def support_kinds(episodes: EpisodeBatch, levels: Levels) -> VideoKinds:
    """The support's videos by condition and number of frames; each alone where frames differ."""
    if levels.slope is None:
        return _plain_support_kinds(episodes)
    mean, count = support_means(episodes, levels)
    return VideoKinds(mean, count, episodes.support_condition, (count > 0).to(mean))


@once_per_batch
def _plain_support_kinds(episodes: EpisodeBatch) -> VideoKinds:
    return kinds_of(*_plain_support_means(episodes), episodes.support_condition)


def kinds_of(mean: Tensor, count: Tensor, condition: Tensor) -> VideoKinds:
    """Videos by condition and number of frames, from mean frames as of `condition_on_videos`."""
    alike = (count[..., None] == count[..., None, :]) & (
        condition[..., None] == condition[..., None, :]
    )
    leader = alike.to(torch.uint8).argmax(-1)  # (task, way, shot) first video of its kind
    own = torch.arange(count.shape[-1], device=count.device)
    leads = (leader == own) & (count > 0)
    kind = (leads.cumsum(-1) - 1).gather(-1, leader).clamp(min=0)
    member = (kind[..., None, :] == own[: max(1, int(leads.sum(-1).max())), None]) & (
        count[..., None, :] > 0
    )  # (task, way, kind, shot)
    videos = member.sum(-1).to(mean)
    first = member.to(torch.uint8).argmax(-1)
    return VideoKinds(
        (member.to(mean) @ mean) / videos.clamp(min=1.0)[..., None],
        torch.where(videos > 0, count.gather(-1, first), 0.0),
        condition.gather(-1, first),
        videos,
    )


def video_noise(levels: Levels, condition: Tensor, count: Tensor) -> Operator:
    """N = V_condition + F_condition / count, with the axes of both; padding has count 1."""
    at = levels.at(condition)
    frames = torch.where(count > 0, count, 1.0)
    return levels.video[at] + levels.frame[at].scaled(frames.reciprocal())


def condition_classes(episodes: EpisodeBatch, levels: Levels) -> ClassPosterior:
    """Exact posterior of the class means given the support; see the module for the equations."""
    mean, count, condition, videos = support_kinds(episodes, levels)
    return condition_on_videos(mean, count, condition, levels, videos)


def condition_on_videos(
    mean: Tensor, count: Tensor, condition: Tensor, levels: Levels, videos: Tensor | None = None
) -> ClassPosterior:
    """The same for mean frames that are given, with effective numbers of frames.

    Args:
        mean: (task, way, shot, feature) mean frame of each support video.
        count: (task, way, shot) number of frames, not necessarily whole; 0 for padding.
        condition: (task, way, shot) condition.
        levels: population parameters.
        videos: (task, way, shot) how many videos each is the mean of; one by default.
    """
    post = _about_centre(_centred(mean, condition, levels), count, condition, levels, videos)
    return post if levels.centre is None else replace(post, pull=post.pull + levels.centre)


def _centred(mean: Tensor, condition: Tensor, levels: Levels) -> Tensor:
    """(task, way, shot, feature) mean frames less what a class of effect m has: o + r m."""
    rest = mean - levels.offset[levels.at(condition)]
    if levels.centre is None:
        return rest
    return rest - levels.loading[levels.at(condition)][..., None] * levels.centre[:, :, None]


def _about_centre(
    centred: Tensor,
    count: Tensor,
    condition: Tensor,
    levels: Levels,
    videos: Tensor | None = None,
) -> ClassPosterior:
    """Posterior of mu - m from `_centred` mean frames."""
    loading = levels.loading[levels.at(condition)]
    weight = (count > 0).to(centred) if videos is None else videos
    precision = video_noise(levels, condition, count).inverse().scaled(weight)
    known = precision.scaled(loading**2).sum(2)
    h = (loading[..., None] * precision.apply(centred)).sum(2)
    return _informed((levels.way.inverse() + known).inverse(), h, levels)


def _informed(given_task: Operator, h: Tensor, levels: Levels) -> ClassPosterior:
    """Posterior of mu - m from S (task, way) and h (..., task, way, feature)."""
    prior = levels.way.inverse()
    gain = given_task @ prior
    pull = given_task.apply(h)
    learnt = (prior - prior @ gain).sum(1)
    task_cov = (levels.task.inverse() + learnt).inverse()
    task_mean = task_cov.apply(prior.apply(pull).sum(-2))
    return ClassPosterior(task_mean, task_cov, given_task, gain, h, pull)


def told_more(
    post: ClassPosterior, precision: Operator, h: Tensor, levels: Levels
) -> ClassPosterior:
    """The posterior after more videos of precision P' = sum r^2 N^-1 and information h'.

    Args:
        post: given the support.
        precision: (task, way) P', zero for a class without a further video.
        h: (..., task, way, feature) h' = sum r N^-1 (xbar - o - r m) about mu - m; the means of
            the result have its leading axes, its covariances none of them.
        levels: that `post` was made with.
    """
    given_task = (post.given_task.inverse() + precision).inverse()
    found = _informed(given_task, post.informed + h, levels)
    return found if levels.centre is None else replace(found, pull=found.pull + levels.centre)


def log_evidence(episodes: EpisodeBatch, levels: Levels) -> Tensor:
    """(task,) log p(support | population), task, class, video effects integrated out, in nats."""
    mean, count = video_means(episodes.support, support_weights(episodes, levels))
    condition = episodes.support_condition
    post = _about_centre(_centred(mean, condition, levels), count, condition, levels)
    return evidence_in(episodes, condition, levels, post)


def evidence_in(
    episodes: EpisodeBatch, condition: Tensor, levels: Levels, post: ClassPosterior
) -> Tensor:
    """(task,) log p(support | population) where the posterior of mu - m is there already, in nats.

    Args:
        episodes: T tasks, or one whose support all values of `levels` have.
        condition: (task, way, shot) of the support videos, an index into those of `levels`.
        levels: population parameters.
        post: given the support.
    """
    weight = support_weights(episodes, levels)
    mean, count = video_means(episodes.support, weight)
    exists = (count > 0).to(mean)
    centred = _centred(mean, condition, levels)
    noise = video_noise(levels, condition, count)
    quad = (centred * noise.inverse().apply(centred)).sum(-1)
    between = -0.5 * (quad + noise.logdet() + mean.shape[-1] * LOG_2PI)
    within = _within_video(episodes, mean, weight, condition, levels)
    total = (exists * (between + within)).sum((1, 2))
    # completing the square in mu given a, then in a
    pulled = (post.pull * post.informed).sum((-1, -2))
    logdets = (post.given_task.logdet() - levels.way.logdet()).sum(-1)
    g = levels.way.inverse().apply(post.pull).sum(1)
    total = total + 0.5 * (pulled + logdets)
    logdet_task = post.task_cov.logdet() - levels.task.logdet()
    return total + 0.5 * (logdet_task + (g * post.task_cov.apply(g)).sum(-1))


def _within_video(
    episodes: EpisodeBatch, mean: Tensor, weight: Tensor, condition: Tensor, levels: Levels
) -> Tensor:
    """(task, way, shot) log density of the frames about their video's mean, given that mean.

    With n frames of weights w_f and their sum W, D features,

        [D (sum_f log w_f - log W) - (n - 1) (D log 2 pi + log|F|)
         - sum_f w_f (x_f - xbar)' F^-1 (x_f - xbar)] / 2.
    """
    deviation = episodes.support - mean[..., None, :]
    mask, dim = weight > 0, mean.shape[-1]
    log_weight = torch.where(mask, weight, 1.0).log().sum(-1)
    total = weight.sum(-1)
    log_total = torch.where(total > 0, total, 1.0).log()
    each = levels.frame.inverse().squares(Points(deviation.flatten(1, 3)))  # by condition
    each = each.reshape(len(each), *weight.shape[1:], -1)
    place = condition[..., None, None].expand(len(each), *weight.shape[1:], 1)
    quad = (weight * each.gather(-1, place)[..., 0]).sum(-1)
    free = (mask.to(weight).sum(-1) - 1.0) * (
        dim * LOG_2PI + levels.frame.logdet()[levels.at(condition)]
    )
    return 0.5 * (dim * (log_weight - log_total) - free - quad)


def groups(condition: Tensor, count: Tensor) -> Iterator[tuple[int, float, Tensor, Tensor]]:
    """Queries that share condition and number of frames, hence one noise covariance.

    Args:
        condition: (task, query) condition.
        count: (task, query) number of frames; 0 for padding.

    Yields:
        (condition, count, columns, mask): `columns` indexes the queries where the group occurs in
        some task, `mask` (task, column) tells where it does.
    """
    pairs = torch.stack([condition.to(count.dtype), count], -1)
    for q, n in pairs.flatten(0, 1).unique(dim=0).tolist():  # type: ignore[no-untyped-call]
        if n <= 0:
            continue
        member = (condition == int(q)) & (count == n)
        columns = member.any(0).nonzero()[:, 0]
        yield int(q), n, columns, member[:, columns]


def log_normal(
    points: Points,  # (task, query, feature)
    mean: Tensor,  # (task, way, feature)
    cov: Operator,  # (task, way) or broadcastable to it; further axes in front are kept
) -> Tensor:
    """(..., task, query, way) log density of every query under every class, in nats.

    Evaluated through the expanded square, two matrix products for all queries of a task; points and
    means are measured from an origin near the data, which limits cancellation.
    """
    precision = cov.inverse()
    pm = precision.apply(mean)
    const = (mean * pm).sum(-1) + cov.logdet() + mean.shape[-1] * LOG_2PI
    return points.x @ pm.mT - 0.5 * (precision.squares(points) + const[..., None, :])


def log_normal_each(
    x: Tensor,  # (task, query, feature)
    mean: Tensor,  # (task, query, way, feature)
    cov: Operator,  # (task, query, way)
) -> Tensor:
    """(task, query, way) log density where every query has covariances of its own, in nats."""
    return log_normal_by_precision(x, mean, cov.inverse(), cov.logdet())


def log_normal_by_precision(x: Tensor, mean: Tensor, precision: Operator, logdet: Tensor) -> Tensor:
    """`log_normal_each` where inverse and log determinant of the covariances are at hand."""
    rest = x[:, :, None] - mean
    quad = (rest * precision.apply(rest)).sum(-1)
    return -0.5 * (quad + logdet + mean.shape[-1] * LOG_2PI)
