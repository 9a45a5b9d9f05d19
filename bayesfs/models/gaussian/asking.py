"""How a person asks, where that is not how they teach: a latent condition, `conditioned_asking`.

A person teaches objects well in view and asks in passing. Recordings that were asked about and then
named (corrected, or found right) tell how they ask. Those of told condition q have

    x = o_q + s + r_w mu + b + e,     b ~ N(0, V_w),     e ~ N(0, F_w),     s ~ N(0, w^2 Delta),

with one latent position w between q and clutter, r_w = (1 - w) r_q + w r_clutter and so on, and one
offset s; Delta is the square of what clutter shifts each feature by. So w = 0 is asking just as
told, and w = 1 asking in clutter, whose shift may here be to another side. All that the recordings
have in common is then no longer taken for a change of the objects that happened to be among them.

Given w and s the hierarchy is what it was, and its class means move linearly in s: with the
posterior at s = 0 (`condition_classes`) and C_k = sum_asked r N^-1 the information that ties mu_k
and s,

    mu_k = mu_k^0 - D_k s,     D_k = S_k C_k + L_k S_a J,     J = sum_k B^-1 S_k C_k,

with mu^0 and s independent given the support, and

    s | D ~ N(Sigma j, Sigma),   j = g - sum_k C_k S_k h_k - J' E[a | D, s = 0],
    Sigma = (Delta_w^-1 + Q - sum_k C_k S_k C_k - J' S_a J)^-1,

Q = sum_asked N^-1 and g = sum_asked N^-1 (xbar - o). What is asked shows a class at r mu_k + s,
that is at r (mu_k^0 + G_k s) with G_k = I / r - D_k. The evidence is that at s = 0 times
sqrt(|Sigma| / |Delta_w|) exp(j' Sigma j / 2), by which w, on a grid, is weighed.

Source: the standard linear Gaussian results, Bishop (2006), section 2.3; one more shared effect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayesfs.models.gaussian.conjugate import (
    ClassPosterior,
    Levels,
    condition_on_videos,
    evidence_in,
    kinds_of,
    support_means,
    video_noise,
)
from bayesfs.models.gaussian.covariance import AnOperator, Operator, joined
from bayesfs.types import CONDITIONS, EpisodeBatch

POSITIONS = (0.0, 0.1, 0.3, 0.6, 1.0)
"""Values of w, equally likely beforehand."""

LEAST = 1e-6
"""Added to w^2, so that the offset has a variance where w is 0: next to none."""


@dataclass(frozen=True)
class AskedClasses(ClassPosterior):
    """Joint posterior of mu_k^0 + G_k s: where what is asked shows each class, over the loading.

    Attributes:
        lean: (task, way) G.
        offset: (task, feature) posterior mean of s.
        offset_cov: (task,) its posterior covariance.
    """

    lean: Operator
    offset: Tensor
    offset_cov: Operator

    @property
    def mean(self) -> Tensor:
        """(task, way, feature) posterior mean."""
        return super().mean + self.lean.apply(self.offset[..., None, :])

    def cov(self) -> Operator:
        """(task, way) marginal posterior covariances."""
        return super().cov() + self._through_offset(self.lean)

    def cross(self, way: int) -> Operator:
        """(task, way) covariance of every class with one."""
        return super().cross(way) + self._through_offset(self.lean[:, way].expand_axis(1))

    def _through_offset(self, other: Operator) -> Operator:
        return self.lean @ self.offset_cov.expand_axis(1) @ other.transposed()


@dataclass(frozen=True)
class Asking:
    """Posterior of the class means and of how a person asks, for each of some population values.

    Attributes:
        levels: population parameters with two conditions more: each as it is asked in.
        classes: posterior of the class means at s = 0.
        moved: (task, way) D: what s takes off a class mean.
        offset: (task, feature) posterior mean of s.
        offset_cov: (task,) its posterior covariance.
        log_evidence: (task,) log p(support | population, w), in nats; of `weighed_asking` with w
            integrated out.
    """

    levels: Levels
    classes: ClassPosterior
    moved: Operator
    offset: Tensor
    offset_cov: Operator
    log_evidence: Tensor

    def of(self, condition: int) -> AskedClasses:
        """Where what is asked, in a condition of `levels`, shows the classes."""
        r = self.levels.loading[:, condition, None, None]
        one = self.moved.of_diagonal(torch.ones_like(self.classes.pull) / r)
        own = vars(self.classes)
        return AskedClasses(
            **own, lean=one - self.moved, offset=self.offset, offset_cov=self.offset_cov
        )


def weighed_asking(
    episodes: EpisodeBatch, asked: Tensor, levels: Levels, scatter: Tensor
) -> Asking:
    """The posterior with w drawn for each value of the population.

    The n-th of N values takes the (n - 1/2) / N quantile of its own posterior of w.

    Args:
        episodes: one task.
        asked: (1, way, shot) support videos that were asked about.
        levels: N values of the population, as tasks (`Levels.of_each`).
        scatter: (feature,) Delta, the prior variance of the offset at w = 1.
    """
    count, grid = len(levels.loading), levels.loading.new_tensor(POSITIONS)
    every = levels.of_tasks(torch.arange(count, device=grid.device).repeat_interleave(len(grid)))
    each = conditioned_asking(episodes, asked, every, scatter, grid.repeat(count)).log_evidence
    each = each.reshape(count, -1)
    reached = each.softmax(-1).cumsum(-1)
    place = (torch.arange(count).to(grid) + 0.5) / count
    chosen = grid[(place[:, None] > reached[:, :-1]).sum(-1)]
    found = conditioned_asking(episodes, asked, levels, scatter, chosen)
    return replace(found, log_evidence=each.logsumexp(-1) - math.log(len(grid)))


def conditioned_asking(
    episodes: EpisodeBatch, asked: Tensor, levels: Levels, scatter: Tensor, position: Tensor
) -> Asking:
    """The posterior given w, exactly; see the module for the equations.

    Args:
        episodes: one task.
        asked: (1, way, shot) support videos that were asked about.
        levels: T values of the population, as tasks.
        scatter: (feature,) Delta.
        position: (T,) w.
    """
    wide = _with_asking(levels, position)
    each = episodes.support_condition + len(CONDITIONS) * asked
    mean, frames, condition, videos = kinds_of(*support_means(episodes, levels), each)
    post = condition_on_videos(mean, frames, condition, wide, videos)
    at = wide.at(condition)
    told = videos * (condition >= len(CONDITIONS))
    precision = video_noise(wide, condition, frames).inverse().scaled(told)  # N^-1
    tied = precision.scaled(wide.loading[at]).sum(2)  # C
    moved = post.given_task @ tied
    through = (post.gain.transposed() @ tied).sum(1)  # J
    variance = (position[:, None] ** 2 + LEAST) * scatter
    prior = levels.task.of_diagonal(1.0 / variance)
    informed = precision.sum(2).sum(1) - (tied @ moved).sum(1)
    informed = informed - through.transposed() @ post.task_cov @ through
    cov = (prior + informed).inverse()
    pulled = precision.apply(mean - wide.offset[at]).sum((1, 2)) - tied.apply(post.pull).sum(1)
    pulled = pulled - through.transposed().apply(post.task_mean)
    offset = cov.apply(pulled)
    gained = (pulled * offset).sum(-1) + cov.logdet() - variance.log().sum(-1)
    moved = moved + post.gain @ (post.task_cov @ through).expand_axis(1)
    evidence = evidence_in(episodes, each, wide, post) + 0.5 * gained
    return Asking(wide, post, moved, offset, cov, evidence)


def _with_asking(levels: Levels, position: Tensor) -> Levels:
    """The values with each condition once more, as it is asked in: w of the way to clutter."""
    w = position[:, None]

    def both(value: AnOperator) -> AnOperator:
        return joined([value, value.scaled(1.0 - w) + value[:, 1:].scaled(w)], 1)

    r = levels.loading
    return replace(
        levels,
        offset=torch.cat([levels.offset, levels.offset], 1),
        loading=torch.cat([r, (1.0 - w) * r + w * r[:, 1:]], 1),
        video=both(levels.video),
        frame=both(levels.frame),
    )
