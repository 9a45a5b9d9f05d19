"""One-vs-each likelihood with Pólya-Gamma variables: `OneVsEach`, `OneVsEachGibbs`.

    p(y | u)  >=  prod over c != y of sigma(u_y - u_c)                     (Titsias 2016)

Each factor opens into a Gaussian with a Pólya-Gamma variable w_c for the difference u_y - u_c.

Mean field, q(u) = prod_c q(u_c): with e_c^2 = E (u_y - u_c)^2 and w_c = tanh(e_c / 2) / (2 e_c),

    class c != y    precision w_c,          linear w_c E u_y - 1/2
    class y         precision sum_c w_c,    linear sum_c (w_c E u_c + 1/2)

Gibbs: w | u exactly (`sample_polya_gamma`), then u_c given w and the other classes, class by
class, each an exact Gaussian by Matheron's rule; chains of all tasks run together.

How this departs: Snell and Zemel draw all classes of a task in one (n x way)-dimensional Gaussian
per sweep; here a sweep takes `way` Gaussians of dimension n, batched over tasks and chains. The
query is scored by the normalised one-vs-each weights.

Source: Snell and Zemel 2021, section 4; Titsias 2016, eq. 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from bayesfs._distributions.keys import Keys
from bayesfs._distributions.noise import Noise, normal_like
from bayesfs._distributions.polya_gamma import log_cosh_half, polya_gamma_mean, sample_polya_gamma
from bayesfs._linalg.cholesky import cholesky, solve
from bayesfs._utils.ranges import Count, Positive, check_ranges
from bayesfs.errors import ShapeError
from bayesfs.models.gp.approximations.drawn import FittedDraws
from bayesfs.models.gp.approximations.latent import FittedGaussian, by_rank
from bayesfs.models.gp.approximations.variational import Marginals, Sites, approximate
from bayesfs.models.gp.conditioning import TaskPrior
from bayesfs.models.gp.hyperparameters import Hyperparameter
from bayesfs.models.gp.links import Link, one_vs_each


@dataclass(frozen=True)
class OneVsEach:
    """Mean-field one-vs-each; `log_evidence` is the ELBO of the one-vs-each likelihood.

    Attributes:
        steps: coordinate updates, all classes at once.
        damping: share of the old sites kept in each step.
    """

    steps: Count = 20
    damping: Positive = 0.4

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """None."""
        return {}

    @property
    def link(self) -> Link:
        """One-vs-each."""
        return one_vs_each

    def fit(self, prior: TaskPrior) -> FittedGaussian:
        """Damped coordinate ascent."""
        return approximate(prior, self, steps=self.steps, damping=self.damping)

    def update(self, prior: TaskPrior, q: Marginals) -> Sites:
        """Sites of the augmented likelihood."""
        y = prior.support.one_hot.mT
        other = others(prior)
        weight = other * polya_gamma_mean(_root(q, y))
        own = own_class(q.mean, y)
        right = y * (weight * q.mean + 0.5 * other).sum(1, keepdim=True)
        linear = right + weight * own - 0.5 * other
        return Sites(linear, y * weight.sum(1, keepdim=True) + weight)

    def expected_log_prob(self, prior: TaskPrior, q: Marginals) -> Tensor:
        """(task,): bound on the sum of E log sigma(u_y - u_c) at the optimum of w."""
        y = prior.support.one_hot.mT
        gap = own_class(q.mean, y) - q.mean
        bound = 0.5 * gap - log(2) - log_cosh_half(_root(q, y))
        return (others(prior) * bound).sum((1, 2))


@dataclass(frozen=True)
class OneVsEachGibbs:
    """One-vs-each by Gibbs sampling: exact up to Monte Carlo error and not differentiable.

    Learn hyperparameters with `OneVsEach`, which has the same sites, then replace it by this.

    Attributes:
        chains: independent chains per task.
        burn_in: sweeps before the first draw.
        thin: sweeps between draws of a chain.
    """

    chains: Count = 8
    burn_in: int = 50
    thin: Count = 5

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """None."""
        return {}

    def fit(self, prior: TaskPrior) -> FittedDraws:
        """Chains run when draws are asked for; `log_evidence` is the mean-field ELBO."""

        def sample(draws: int, noise: Noise | None) -> Tensor:
            """Task after task, so that none moves the numbers of another."""
            tasks, way, size = prior.support.one_hot.mT.shape
            out = prior.matrix.new_zeros(draws, tasks, way, size)
            fixed = [torch.Generator().manual_seed(0) for _ in range(tasks)]
            for t, generator in enumerate(noise.generators() if noise else fixed):
                alone, places = prior.alone(t)
                u = gibbs(alone, draws, generator, self.chains, self.burn_in, self.thin)
                out[:, t, places, : u.shape[-1]] = u[:, 0]
            return out

        return FittedDraws(prior, sample, one_vs_each, OneVsEach().fit(prior).log_evidence)


@torch.no_grad()
def gibbs(
    prior: TaskPrior, draws: int, generator: torch.Generator, chains: int, burn_in: int, thin: int
) -> Tensor:
    """Draws of u at the support points from the one-vs-each posterior.

    Args:
        prior: the support under the prior.
        draws: draws per task, shared among the chains.
        generator: source of randomness.
        chains: independent chains per task, at most `draws`.
        burn_in: sweeps before the first draw.
        thin: sweeps between draws.

    Returns:
        (draw, task, way, n), chain-major.
    """
    chains = min(chains, draws)
    rounds = -(-draws // chains)
    y = prior.support.one_hot.mT
    factor = cholesky(prior.matrix, name=prior.covariance.name)
    u = torch.zeros(chains, *y.shape, dtype=y.dtype, device=y.device)
    kept = []
    for sweep in range(burn_in + (rounds - 1) * thin + 1):
        u = _sweep(prior, u, factor, generator)
        if sweep >= burn_in and (sweep - burn_in) % thin == 0:
            kept.append(u)
    return torch.stack(kept, 1).flatten(0, 1)[:draws]


def _sweep(prior: TaskPrior, u: Tensor, factor: Tensor, generator: torch.Generator) -> Tensor:
    """One draw of w given u, then of every u_c given w and the rest."""
    y, other = prior.support.one_hot.mT, others(prior)
    order = prior.support.rank.argsort(1)
    gap = own_class(u, y) - u
    ranked = by_rank(gap, order)
    keys = Keys.of(torch.randint(2**62, (), generator=generator)).extend(*ranked.shape)
    weight = by_rank(sample_polya_gamma(ranked, keys), prior.support.rank) * other
    noise = normal_like((2, *u.shape), generator, u)
    start = by_rank((factor[:, None] @ noise[0][..., None])[..., 0], prior.support.rank)
    error = by_rank(noise[1], prior.support.rank)
    for place in range(y.shape[1]):  # classes in an order that relabelling does not change
        chosen = (prior.support.rank == place)[:, :, None]
        linear, precision = _conditional(u, y, weight, other)
        picked = [torch.where(chosen, a, 0.0).sum(2) for a in (linear, precision, start, error)]
        u = torch.where(chosen, _gaussian(prior.matrix, *picked)[:, :, None], u)
    return u


def _conditional(u: Tensor, y: Tensor, weight: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Linear and precision (chain, task, way, n) of each u_c given w and the other classes."""
    right = y * (weight * u + 0.5 * other).sum(2, keepdim=True)
    wrong = weight * own_class(u, y) - 0.5 * other
    return right + wrong, y * weight.sum(2, keepdim=True) + weight


def _gaussian(k: Tensor, linear: Tensor, precision: Tensor, start: Tensor, error: Tensor) -> Tensor:
    """Draw of N(0, K) times exp(linear u - precision u^2 / 2), by Matheron's rule.

    With R = precision^1/2 and B = I + R K R: u = start + K (linear - R B^-1 (R K linear + R start
    + error)), where start ~ N(0, K) and error ~ N(0, I).
    """
    r = precision.sqrt()
    eye = torch.eye(k.shape[-1], dtype=k.dtype, device=k.device)
    factor = cholesky(eye + r[..., :, None] * k * r[..., None, :], name="of a Gibbs step")
    inner = r * ((k @ linear[..., None])[..., 0] + start) + error
    weights = linear - r * solve(factor, inner[..., None])[..., 0]
    return start + (k @ weights[..., None])[..., 0]


def others(prior: TaskPrior) -> Tensor:
    """(task, way, n): 1 where a class exists and is not the point's own."""
    real = prior.support.mask[:, None] & prior.support.way_mask[..., None]
    return real.to(prior.support.x) - prior.support.one_hot.mT


def own_class(value: Tensor, y: Tensor) -> Tensor:
    """(..., task, 1, n): value (..., task, way, n) at each point's own class."""
    return (value * y).sum(-2, keepdim=True)


def _root(q: Marginals, y: Tensor) -> Tensor:
    """(task, way, n): root of E (u_y - u_c)^2."""
    gap = own_class(q.mean, y) - q.mean
    return (gap.square() + own_class(q.variance, y) + q.variance).sqrt()
