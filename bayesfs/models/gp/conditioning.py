"""Gaussian process regression on (pseudo-)targets, batched over tasks and classes: `condition`.

Every likelihood of this library whose classes are independent given the targets comes down to

    target_c(i) = u_c(i) + N(0, noise_c(i)),     u as in `bayesfs.models.gp.covariance`,

so conditioning is one Cholesky factor per task where classes share the noise, and one per task
and class where they do not. Padded points have unit variance and no covariance with the rest,
which equals leaving them out exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import log, pi
from typing import cast

import torch
from torch import Tensor

from bayesfs._distributions.noise import Noise
from bayesfs._linalg.cholesky import (
    cholesky,
    half_solve,
    jitters,
    log_determinant,
    readable,
    require_finite,
    solve,
)
from bayesfs.models.gp.covariance import VideoCovariance
from bayesfs.models.gp.hyperparameters import Values
from bayesfs.models.gp.points import Query, Support, support_points
from bayesfs.types import EpisodeBatch


@dataclass(frozen=True)
class TaskPrior:
    """The support of each task under the prior, at fixed hyperparameters.

    Attributes:
        covariance: kernel with its deviations.
        values: hyperparameters.
        support: support points with mapped features.
    """

    covariance: VideoCovariance
    values: Values
    support: Support

    @classmethod
    def of(cls, covariance: VideoCovariance, values: Values, episodes: EpisodeBatch) -> TaskPrior:
        """Map the support frames of a batch of tasks."""
        points = support_points(episodes)
        return cls(covariance, values, covariance.map_support(values, points))

    def alone(self, task: int) -> tuple[TaskPrior, Tensor]:
        """One task without padding, its classes in the order of `rank`; and which they are."""
        points, known = self.support, int(self.support.way_mask[task].sum())
        size = int(points.mask[task].sum())
        rank = points.rank[task]
        one = replace(
            points,
            x=points.x[task : task + 1, :size],
            video=points.video[task : task + 1, :size],
            condition=points.condition[task : task + 1, :size],
            label=rank[points.label[task : task + 1, :size]],
            mask=points.mask[task : task + 1, :size],
            way_mask=points.way_mask.new_ones(1, known),
            rank=torch.arange(known, device=rank.device)[None],
        )
        return TaskPrior(self.covariance, self.values, one), rank.argsort()[:known]

    @cached_property
    def matrix(self) -> Tensor:
        """(task, n, n): prior covariance of u at the support points."""
        return self.covariance.support(self.values, self.support)

    def norm(self, weights: Tensor) -> Tensor:
        """(task, way): |sum_i weights_i k(x_i, .)|_H^2 for weights (task, way, n)."""
        base = self.covariance.base(self.values, self.support.x, self.support.x)
        return ((weights @ base) * weights).sum(-1).clamp_min(0)


@dataclass(frozen=True)
class Latent:
    """Gaussian predictive of every query frame's latent values, jointly over a video's frames.

    Attributes:
        mean: (task, way, video, frame) mean of f + b.
        signal: (task, way or 1, video, frame, frame) covariance of f + b: epistemic.
        deviation: (task, way or 1, video, frame, frame) covariance of the query's own deviations.
        mask: (task, video, frame) bool.
        way_mask: (task, way) bool.
    """

    mean: Tensor
    signal: Tensor
    deviation: Tensor
    mask: Tensor
    way_mask: Tensor

    @property
    def total(self) -> Tensor:
        """(task, way or 1, video, frame, frame): covariance of u."""
        return self.signal + self.deviation

    def by_frame(self) -> Latent:
        """Each frame as a video of its own: (task, way, video x frame, 1)."""
        return Latent(
            self.mean.flatten(2)[..., None],
            _diagonal_blocks(self.signal),
            _diagonal_blocks(self.deviation),
            self.mask.flatten(1)[..., None],
            self.way_mask,
        )


@dataclass(frozen=True)
class Conditioned:
    """Class functions given Gaussian targets at the support.

    Attributes:
        prior: the support under the prior.
        factor: (task, way or 1, n, n) Cholesky factor of K + noise.
        targets: (task, way, n).
        weights: (task, way, n): (K + noise)^-1 targets.
    """

    prior: TaskPrior
    factor: Tensor
    targets: Tensor
    weights: Tensor

    @cached_property
    def norm(self) -> Tensor:
        """(task, way): |mean f_c|_H^2."""
        return self.prior.norm(self.weights)

    @property
    def log_evidence(self) -> Tensor:
        """(task,): sum over classes of log N(targets; 0, K + noise)."""
        support = self.prior.support
        return log_gaussian(self.targets, self.weights, self.factor, support.mask, support.way_mask)

    def latent(self, query: Query) -> Latent:
        """Predictive of the latent values at query frames (with plain features)."""
        covariance, values = self.prior.covariance, self.prior.values
        mapped = covariance.map_query(values, query)
        cross = covariance.cross(values, self.prior.support, mapped)
        t, n, v, f = *cross.shape[:2], *query.mask.shape[1:]
        mean = (self.weights @ cross).reshape(t, -1, v, f)
        half = half_solve(self.factor, cross[:, None].expand(-1, self.factor.shape[1], -1, -1))
        known = _blocks(half.reshape(t, -1, n, v, f))
        signal = covariance.query_signal(values, mapped)[:, None] - known
        norm = self.norm if covariance.shift is not None else None
        deviation = covariance.query_deviation(values, mapped, norm)
        return Latent(mean, signal, deviation, query.mask, self.prior.support.way_mask)

    def function(self, noise: Tensor, other: Tensor) -> Tensor:
        """Draws of f + b at the support points, by Matheron's rule.

        f = f0 + K_f (K + noise)^-1 (target - f0 - e), with f0, e drawn from the prior.

        Args:
            noise: (draw, task, way, n) standard normal, for f0.
            other: the same, for the deviations and the targets' noise.

        Returns:
            (draw, task, way, n).
        """
        covariance, values, support = self.prior.covariance, self.prior.values, self.prior.support
        signal = covariance.signal(values, support.x, support.x) * support.pairs
        start = (root(signal)[:, None] @ noise[..., None])[..., 0]
        rest = self.factor @ self.factor.mT - signal[:, None]
        error = (root(rest) @ other[..., None])[..., 0]
        gap = (self.targets - start - error)[..., None]
        return start + (signal[:, None] @ solve(self._factor_like(gap), gap))[..., 0]

    def drawn(self, draws: int, noise: Noise) -> Tensor:
        """(draw, task, way, n): `function` of as many draws."""
        size, like = (self.targets.shape[-1],), self.targets
        return self.function(*(noise.normal(draws, "way", size, like) for _ in range(2)))

    def _factor_like(self, right: Tensor) -> Tensor:
        return self.factor.expand(*right.shape[:-2], *self.factor.shape[-2:])


def condition(
    prior: TaskPrior,
    targets: Tensor,  # (task, way, n), zero where padded
    noise: Tensor | None = None,  # (task, way, n) variance beyond the frame deviation
) -> Conditioned:
    """Condition the class functions on targets.

    Raises:
        NotPositiveDefiniteError: K + noise has no Cholesky factor.
    """
    matrix = prior.matrix[:, None]
    if noise is not None:
        matrix = matrix + torch.diag_embed(noise * prior.support.mask[:, None])
    factor = cholesky(matrix, name=prior.covariance.name)
    if noise is None:
        weights = solve(factor[:, 0], targets.mT).mT
    else:
        weights = solve(factor, targets[..., None])[..., 0]
    return Conditioned(prior, factor, targets, weights)


def log_gaussian(
    targets: Tensor,  # (task, way, n)
    weights: Tensor,  # (task, way, n)
    factor: Tensor,  # (task, way or 1, n, n)
    mask: Tensor,  # (task, n)
    way_mask: Tensor,  # (task, way)
) -> Tensor:
    """(task,): sum over classes of log N(targets; 0, L L'), with weights = (L L')^-1 targets."""
    points = mask.sum(1)[:, None].to(targets)
    fit = (targets * weights).sum(-1)
    terms = -0.5 * (fit + log_determinant(factor) + points * log(2 * pi))
    return torch.where(way_mask, terms, 0.0).sum(-1)


def root(matrix: Tensor) -> Tensor:
    """R with R R' = matrix, for drawing: a covariance that may be singular up to rounding.

    The Cholesky factor with the last jitter but one on the diagonal, always, so that R moves little
    where rounding moves the matrix, and depends on no other matrix of the batch. Rows that are
    empty (padding) stay so. Where the factor fails, the symmetric root of the positive part.
    """
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    empty = diagonal == 0
    jitter = jitters(matrix.dtype)[-2] * diagonal.amax(-1, keepdim=True)
    added = torch.diag_embed(torch.where(empty, 1.0, jitter))
    factor, info = torch.linalg.cholesky_ex(matrix + added)
    factor = factor.masked_fill(empty[..., None], 0.0)
    failed = info > 0
    if readable(failed.any()) is False:
        return cast(Tensor, factor)
    require_finite(matrix, "of the draws")
    value, vector = torch.linalg.eigh(matrix)
    other = (vector * value.clamp_min(0).sqrt()[..., None, :]) @ vector.mT
    return torch.where(failed[..., None, None], other, factor)


def _blocks(half: Tensor) -> Tensor:
    """H_v' H_v of every video, (..., n, video, frame) -> (..., video, frame, frame)."""
    if half.shape[-1] == 1:
        norm: Tensor = torch.linalg.vector_norm(half, dim=-3)
        return norm[..., None] ** 2
    moved = half.movedim(-3, -1)
    return moved @ moved.mT


def _diagonal_blocks(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).flatten(2)[..., None, None]
