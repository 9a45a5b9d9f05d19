"""Gaussian approximations by sites, for likelihoods that are not Gaussian: `approximate`.

The best Gaussian q(u_c) per class, independent over classes, of a factorising likelihood has the
form prior x prod_i exp(linear_i u_i - precision_i u_i^2 / 2) (Opper and Archambeau 2009). A
likelihood says how the sites follow from the current marginals (a coordinate or natural-gradient
step); the rest, prior algebra and evidence bound, is shared:

    ELBO = expected log likelihood - sum_c KL(q(u_c) || p(u_c)).

Steps are damped in the natural parameters and their number is fixed, so that a gradient runs
through them and particles can be vmapped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bayesfs._linalg.cholesky import cholesky, half_solve, log_determinant
from bayesfs.models.gp.approximations.latent import FittedGaussian
from bayesfs.models.gp.conditioning import TaskPrior, condition
from bayesfs.models.gp.links import Link

FLOOR = 1e-6
"""Smallest precision of a site, so that its noise stays finite."""


@dataclass(frozen=True)
class Sites:
    """Natural parameters of Gaussian sites, each (task, way, n); zero where padded."""

    linear: Tensor
    precision: Tensor


@dataclass(frozen=True)
class Marginals:
    """Approximate posterior at the support points.

    Attributes:
        mean: (task, way, n).
        variance: (task, way, n).
        divergence: (task, way) KL(q || prior).
    """

    mean: Tensor
    variance: Tensor
    divergence: Tensor


class SiteRule(Protocol):
    """A likelihood as seen by `approximate`."""

    @property
    def link(self) -> Link:
        """Class probabilities given latent values, for the query."""
        ...

    def update(self, prior: TaskPrior, q: Marginals) -> Sites:
        """The sites that the current marginals ask for."""
        ...

    def expected_log_prob(self, prior: TaskPrior, q: Marginals) -> Tensor:
        """(task,): E_q log p(support labels | u), or a lower bound on it."""
        ...


def approximate(prior: TaskPrior, rule: SiteRule, *, steps: int, damping: float) -> FittedGaussian:
    """Iterate the sites of a likelihood and condition on what they came to.

    Args:
        prior: the support under the prior.
        rule: the likelihood.
        steps: number of updates.
        damping: share of the old natural parameters that is kept in each step.

    Returns:
        FittedGaussian whose `log_evidence` is the ELBO.
    """
    zero = torch.zeros_like(prior.support.one_hot.mT)
    sites = Sites(zero, zero)
    q = marginals(prior, sites)
    for step in range(steps):
        keep = damping if step else 0.0
        new = rule.update(prior, q)
        sites = Sites(
            keep * sites.linear + (1 - keep) * new.linear,
            keep * sites.precision + (1 - keep) * new.precision,
        )
        q = marginals(prior, sites)
    real = prior.support.mask[:, None] & prior.support.way_mask[..., None]
    noise = 1 / sites.precision.clamp_min(FLOOR)
    conditioned = condition(prior, torch.where(real, sites.linear * noise, 0.0), noise)
    divergence = torch.where(prior.support.way_mask, q.divergence, 0.0).sum(-1)
    return FittedGaussian(conditioned, rule.link, rule.expected_log_prob(prior, q) - divergence)


def marginals(prior: TaskPrior, sites: Sites) -> Marginals:
    """Mean, variance and divergence of prior x sites, for precisions that may be zero.

    With R = diag(precision)^1/2 and B = I + R K R (Rasmussen and Williams 2006, section 3.4.3):
    cov = K - K R B^-1 R K,  mean = K (linear - R B^-1 R K linear),
    KL = (log|B| + tr B^-1 - n + mean' K^-1 mean) / 2.
    """
    k = prior.matrix[:, None]
    scale = sites.precision.clamp_min(FLOOR).sqrt() * prior.support.mask[:, None]
    eye = torch.eye(k.shape[-1], dtype=k.dtype, device=k.device)
    b = eye + scale[..., :, None] * k * scale[..., None, :]
    factor = cholesky(b, name=f"{prior.covariance.name}, scaled by the sites")
    inner = scale * (k @ sites.linear[..., None])[..., 0]
    solved = torch.cholesky_solve(inner[..., None], factor)[..., 0]
    weights = sites.linear - scale * solved
    mean = (k @ weights[..., None])[..., 0]
    half = half_solve(factor, scale[..., None] * k)
    variance = k.diagonal(dim1=-2, dim2=-1) - half.square().sum(-2)
    inverse = half_solve(factor, eye.expand_as(factor)).square().sum((-2, -1))
    fit = (mean * weights).sum(-1) - k.shape[-1]
    divergence = 0.5 * (log_determinant(factor) + inverse + fit)
    return Marginals(mean, variance.clamp_min(torch.finfo(k.dtype).eps), divergence)
