"""Softmax likelihood by Laplace's method: `LaplaceSoftmax`.

The mode of p(u | y) and the curvature W = diag(p) - p p' at each point, which couples the
classes; Newton's method needs one n x n Cholesky factor per class and one for the coupling
(Rasmussen and Williams 2006, algorithm 3.3), never an (n x way)^2 matrix. Draws of u from
N(mode, (K^-1 + W)^-1) by Matheron's rule: with u0 ~ N(0, K) and eta ~ N(0, W),

    u = mode + u0 - K (I + W K)^-1 (W u0 - eta).

log_evidence is the Laplace approximation of log p(y).

How this departs: all tasks at once, with masks; a fixed number of damped steps instead of a
convergence test, so that hyperparameters are learnt through them; the query is scored with draws.

Source: Williams and Barber 1998; Kim and Hospedales 2021 (LDLA) use a plug-in mode for few-shot
tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesfs._distributions.noise import Noise
from bayesfs._linalg.cholesky import cholesky, half_solve, log_determinant, solve
from bayesfs._utils.ranges import Count, check_ranges
from bayesfs.errors import ShapeError
from bayesfs.models.gp.approximations.drawn import FittedDraws
from bayesfs.models.gp.approximations.latent import by_rank, sobol_normal_nodes
from bayesfs.models.gp.conditioning import TaskPrior
from bayesfs.models.gp.hyperparameters import Hyperparameter
from bayesfs.models.gp.links import softmax


@dataclass(frozen=True)
class LaplaceSoftmax:
    """Gaussian process classification with softmax at the mode.

    Attributes:
        steps: Newton steps.
    """

    steps: Count = 15

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """None."""
        return {}

    def fit(self, prior: TaskPrior) -> FittedDraws:
        """Newton's method from u = 0, for all tasks at once."""
        y = prior.support.one_hot.mT
        u, weights = torch.zeros_like(y), torch.zeros_like(y)
        for _ in range(self.steps):
            u, weights = _newton(prior, u, weights)
        curvature = Curvature.at(prior, u)
        factor = cholesky(prior.matrix, name=prior.covariance.name)
        fit = _log_likelihood(prior, u) - 0.5 * (u * weights).sum((1, 2))
        evidence = fit - 0.5 * curvature.log_determinant

        def sample(draws: int, noise: Noise | None) -> Tensor:
            first, second = (_noise(draws, prior, u, noise, stream) for stream in (1, 2))
            start: Tensor = (factor[:, None] @ first[..., None])[..., 0]
            return u + start - curvature.correction(start, second)

        return FittedDraws(prior, sample, softmax, evidence)


@dataclass(frozen=True)
class Curvature:
    """W = diag(p) - p p' of every point, and what is needed to solve with I + W K.

    Attributes:
        k: (task, 1, n, n) prior covariance.
        p: (task, way, n) class probabilities, 0 where padded.
        inner: (task, way, n, n) E_c = R_c (I + R_c K R_c)^-1 R_c, R_c = diag(p_c)^1/2.
        coupling: (task, n, n) Cholesky factor of sum_c E_c.
        log_determinant: (task,) log |I + W K| over all classes.
    """

    k: Tensor
    p: Tensor
    inner: Tensor
    coupling: Tensor
    log_determinant: Tensor

    @classmethod
    def at(cls, prior: TaskPrior, u: Tensor) -> Curvature:
        """Curvature at latent values u (task, way, n)."""
        k, p = prior.matrix[:, None], _probability(prior, u)
        r = _root(p)
        eye = torch.eye(k.shape[-1], dtype=k.dtype, device=k.device)
        scaled = eye + r[..., :, None] * k * r[..., None, :]
        factor = cholesky(scaled, name=f"{prior.covariance.name}, scaled by the curvature")
        half = half_solve(factor, torch.diag_embed(r))
        inner = half.mT @ half
        apart = torch.diag_embed((~prior.support.mask).to(p))
        coupling = cholesky(inner.sum(1) + apart, name="of the classes' coupling")
        per_class = torch.where(prior.support.way_mask, log_determinant(factor), 0.0).sum(1)
        return cls(k, p, inner, coupling, per_class + log_determinant(coupling))

    def product(self, v: Tensor) -> Tensor:
        """W v, for v (..., task, way, n)."""
        return self.p * v - self.p * (self.p * v).sum(-2, keepdim=True)

    def solve(self, v: Tensor) -> Tensor:
        """(I + W K)^-1 v = v - (E - E S (S' E S)^-1 S' E) K v, S summing classes; (..., way, n)."""
        c = (self.inner @ (self.k @ v[..., None]))[..., 0]
        together = c.sum(-2)[..., None]
        shared = solve(self.coupling, together)[..., 0]
        return v - c + (self.inner @ shared[..., None, :, None])[..., 0]

    def correction(self, start: Tensor, noise: Tensor) -> Tensor:
        """K (I + W K)^-1 (W start - eta), eta ~ N(0, W) from standard normal noise."""
        root = _root(self.p)
        eta = root * noise - self.p * (root * noise).sum(-2, keepdim=True)
        return (self.k @ self.solve(self.product(start) - eta)[..., None])[..., 0]


def _newton(prior: TaskPrior, u: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """One step: u and K^-1 u, halved towards the old where the objective would fall.

    By more than rounding: at the mode, where it is flat, the whole step is the better one.
    """
    curvature = Curvature.at(prior, u)
    p = curvature.p
    right = curvature.product(u) + prior.support.one_hot.mT - p
    new = curvature.solve(right)
    k, rounding = prior.matrix[:, None], 8 * torch.finfo(u.dtype).eps
    best_u, best_w, best = u, weights, _objective(prior, u, weights)
    for scale in (0.25, 0.5, 1.0):
        w = weights + scale * (new - weights)
        moved = (k @ w[..., None])[..., 0]
        value = _objective(prior, moved, w)
        better = (value >= best - rounding * best.detach().abs())[:, None, None]
        best_u, best_w = torch.where(better, moved, best_u), torch.where(better, w, best_w)
        best = torch.where(better[:, 0, 0], value, best)
    return best_u, best_w


def _objective(prior: TaskPrior, u: Tensor, weights: Tensor) -> Tensor:
    """(task,): log p(y | u) + log p(u), without constants."""
    return _log_likelihood(prior, u) - 0.5 * (u * weights).sum((1, 2))


def _log_likelihood(prior: TaskPrior, u: Tensor) -> Tensor:
    low = torch.finfo(u.dtype).min / 4
    log_prob = torch.log_softmax(u.masked_fill(~prior.support.way_mask[..., None], low), 1)
    return torch.where(prior.support.one_hot.mT > 0, log_prob, 0.0).sum((1, 2))


def _noise(draws: int, prior: TaskPrior, u: Tensor, noise: Noise | None, stream: int) -> Tensor:
    """(draw, task, way, n): standard normal numbers, or fixed points without noise."""
    if noise is not None:
        return noise.normal(draws, "way", (u.shape[2],), u)
    nodes = sobol_normal_nodes(draws, u.shape[1], u.shape[2], u, stream)
    return by_rank(nodes.expand(-1, *u.shape), prior.support.rank)


def _root(p: Tensor) -> Tensor:
    """Square root with a finite slope at 0."""
    return torch.where(p > 0, p.clamp_min(1e-12).sqrt(), 0.0)


def _probability(prior: TaskPrior, u: Tensor) -> Tensor:
    low = torch.finfo(u.dtype).min / 4
    p = torch.softmax(u.masked_fill(~prior.support.way_mask[..., None], low), 1)
    return p * prior.support.mask[:, None]
