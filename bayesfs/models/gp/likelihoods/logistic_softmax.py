"""Logistic-softmax likelihood, conditionally conjugate: `LogisticSoftmax`.

    p(y = c | u) = sigma(u_c) / sum_k sigma(u_k)

The denominator is opened by an exponential variable lambda (1 / s = int exp(-lambda s) d lambda),
exp(-lambda sigma(u)) by Poisson counts n of failures sigma(-u), and each sigma by a Polya-Gamma
variable, after which u is Gaussian. The mean-field posterior over (u, lambda, n) with the
Polya-Gamma variables given n has closed updates, with g = E n_c, e^2 = E u_c^2:

    g_c    = exp(E log lambda) exp(-E u_c / 2) / (2 cosh(e_c / 2))
    lambda ~ Gamma(1 + sum_c g_c, way)
    site   linear (y_c - g_c) / 2,  precision (y_c + g_c) tanh(e_c / 2) / (2 e_c)

How this departs: the temperature of the revisited version (Ke et al. 2023) multiplies u, as the
kernel's amplitude does, which is learnt here with everything else; no temperature is searched on
validation classes.

Source: Galy-Fajou et al. 2020, section 3; Ke et al. 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from bayesfs._distributions.polya_gamma import log_cosh_half, polya_gamma_mean
from bayesfs._utils.ranges import Count, check_ranges
from bayesfs.errors import ShapeError
from bayesfs.models.gp.approximations.latent import FittedGaussian
from bayesfs.models.gp.approximations.variational import Marginals, Sites, approximate
from bayesfs.models.gp.conditioning import TaskPrior
from bayesfs.models.gp.hyperparameters import Hyperparameter
from bayesfs.models.gp.links import Link, logistic_softmax


@dataclass(frozen=True)
class LogisticSoftmax:
    """Mean-field Gaussian process classification with logistic-softmax.

    Attributes:
        steps: coordinate updates of u.
        inner: updates of lambda and n within each.
    """

    steps: Count = 20
    inner: Count = 3

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """None."""
        return {}

    @property
    def link(self) -> Link:
        """Logistic-softmax."""
        return logistic_softmax

    def fit(self, prior: TaskPrior) -> FittedGaussian:
        """Coordinate ascent; `log_evidence` is the ELBO."""
        return approximate(prior, self, steps=self.steps, damping=0.0)

    def update(self, prior: TaskPrior, q: Marginals) -> Sites:
        """Sites of the augmented likelihood."""
        y, real = prior.support.one_hot.mT, _real(prior)
        root = _root(q)
        count = self._augmented(prior, q)[0]
        linear = 0.5 * (y - count)
        precision = (y + count) * polya_gamma_mean(root)
        return Sites(torch.where(real, linear, 0.0), torch.where(real, precision, 0.0))

    def expected_log_prob(self, prior: TaskPrior, q: Marginals) -> Tensor:
        """(task,): bound on E log p(y | u) with the augmentation at its optimum given q."""
        y, real, root = prior.support.one_hot.mT, _real(prior), _root(q)
        count, shape, rate = self._augmented(prior, q)
        log_rate = torch.digamma(shape) - rate.log()
        per_class = 0.5 * (y - count) * q.mean - (y + count) * (log(2) + log_cosh_half(root))
        tiny = torch.finfo(count.dtype).tiny
        per_class = per_class + count * (log_rate - count.clamp_min(tiny).log() + 1)
        per_point = torch.where(real, per_class, 0.0).sum(1, keepdim=True) - shape
        entropy = shape - rate.log() + torch.lgamma(shape) + (1 - shape) * torch.digamma(shape)
        total = torch.where(prior.support.mask[:, None], per_point + entropy, 0.0)
        return total.sum((1, 2))

    def _augmented(self, prior: TaskPrior, q: Marginals) -> tuple[Tensor, Tensor, Tensor]:
        """E n (task, way, n), and shape and rate of lambda's Gamma (task, 1, n)."""
        real, way = _real(prior), prior.support.way_mask.sum(1)[:, None, None].to(q.mean)
        tilt = -0.5 * q.mean - log(2) - log_cosh_half(_root(q))
        shape = torch.ones_like(q.mean[:, :1]) * (1 + way / 2)
        for _ in range(self.inner):
            log_rate = torch.digamma(shape) - way.log()
            count = torch.where(real, torch.exp(log_rate + tilt), 0.0)
            shape = 1 + count.sum(1, keepdim=True)
        log_rate = torch.digamma(shape) - way.log()
        return torch.where(real, torch.exp(log_rate + tilt), 0.0), shape, way.expand_as(shape)


def _root(q: Marginals) -> Tensor:
    return (q.mean.square() + q.variance).sqrt()


def _real(prior: TaskPrior) -> Tensor:
    return prior.support.mask[:, None] & prior.support.way_mask[..., None]
