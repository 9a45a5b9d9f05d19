"""Class functions known through draws at the support points: `FittedDraws`.

Serves likelihoods whose posterior couples the classes (Laplace, Gibbs). Given latent values u at
the support, the class functions are Gaussian again,

    f(x*) | u ~ N(k* K^-1 u, k** - k* K^-1 k*'),

with one factor of K for all classes and draws; K holds the frame deviation, so that it is well
conditioned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from bayesfs._distributions.noise import Noise
from bayesfs._linalg.cholesky import cholesky, solve
from bayesfs.models.gp.approximations.latent import (
    latent_draw_scores,
    predictive_of_draws,
    query_noise,
)
from bayesfs.models.gp.conditioning import Conditioned, Latent, TaskPrior, root
from bayesfs.models.gp.likelihood import Scores
from bayesfs.models.gp.links import Link
from bayesfs.models.gp.points import Query
from bayesfs.types import Predictive

Sampler = Callable[[int, Noise | None], Tensor]
"""(number of draws, noise) -> (draw, task, way, n) latent values at the support.

Without noise, a fixed set of draws.
"""

SCORE_DRAWS = 64
"""Draws behind `scores`."""


@dataclass(frozen=True)
class FittedDraws:
    """Class functions given draws of the latent values at the support.

    Attributes:
        prior: the support under the prior.
        sample: draws of u at the support.
        link: class probabilities given latent values.
        log_evidence: (task,) of the likelihood, or its stated approximation.
    """

    prior: TaskPrior
    sample: Sampler
    link: Link
    log_evidence: Tensor

    def scores(self, query: Query, nodes: int = SCORE_DRAWS) -> Scores:
        """Class probabilities over a fixed set of draws."""
        u = self.sample(SCORE_DRAWS, None)
        latent, mean = self._latent(query, u)
        return latent_draw_scores(mean, latent, self.link, self.prior.support.rank)

    def predictive(self, query: Query, draws: int, noise: Noise) -> Predictive:
        """Class probabilities as the mean over draws of f."""
        latent, mean = self._latent(query, self.sample(draws, noise))
        f = mean + query_noise(latent, draws, noise)
        return predictive_of_draws(f, latent, self.link, self.prior.support.rank)

    def function(self, draws: int, noise: Noise) -> Tensor:
        """(draw, task, way, n): draws of f + b at the support points."""
        covariance, values, support = self.prior.covariance, self.prior.values, self.prior.support
        signal = covariance.signal(values, support.x, support.x) * support.pairs
        gain = signal @ torch.cholesky_inverse(self._factor)
        spread = root(signal - gain @ signal)
        u = self.sample(draws, noise)
        z = noise.normal(draws, "way", (u.shape[-1],), u)
        return (gain[:, None] @ u[..., None] + spread[:, None] @ z[..., None])[..., 0]

    @cached_property
    def _factor(self) -> Tensor:
        """(task, n, n) Cholesky factor of K."""
        return cholesky(self.prior.matrix, name=self.prior.covariance.name)

    def _latent(self, query: Query, u: Tensor) -> tuple[Latent, Tensor]:
        """Predictive around each draw: shared covariances, and (draw, task, way, video, frame)."""
        s, t, way, n = u.shape
        stacked = u.permute(1, 3, 0, 2).reshape(t, n, s * way)
        weights = solve(self._factor, stacked).reshape(t, n, s, way).permute(2, 0, 3, 1)
        average = weights.mean(0)
        given = Conditioned(self.prior, self._factor[:, None], u.mean(0), average)
        latent = given.latent(query)
        covariance, values = self.prior.covariance, self.prior.values
        cross = covariance.cross(values, self.prior.support, covariance.map_query(values, query))
        mean = (weights @ cross).reshape(s, t, way, *query.mask.shape[1:])
        return replace(latent, mean=mean.mean(0)), mean
