"""Pólya-Gamma variables: mean, exact draws of PG(1, c), and draws of PG(b, c) for any b > 0.

PG(1, c) is the law under which a logistic factor becomes Gaussian (Polson, Scott and Windle
2013): sigma(x) = exp(x / 2) / 2 E exp(-w x^2 / 2), w ~ PG(1, 0), and w | x ~ PG(1, x).
"""

from __future__ import annotations

from math import log, pi

import torch
from torch import Tensor
from torch.nn.functional import softplus

CUT = 0.64
"""Where the two series of the density are exchanged (Devroye 2009)."""

TERMS = 24
"""Terms of the series of PG(b, c) that are drawn where b is not whole."""


def polya_gamma_mean(c: Tensor) -> Tensor:
    """E of PG(1, c): tanh(c / 2) / (2 c), 1/4 at c = 0."""
    small = c.abs() < 1e-3
    safe = torch.where(small, torch.ones_like(c), c)
    return torch.where(small, 0.25 - c.square() / 48, torch.tanh(safe / 2) / (2 * safe))


def log_cosh_half(x: Tensor) -> Tensor:
    """Log cosh(x / 2), without overflow."""
    return x.abs() / 2 + softplus(-x.abs()) - log(2)


def sample_polya_gamma(c: Tensor, generator: torch.Generator) -> Tensor:
    """Exact draws of PG(1, c), one for each entry of c.

    Rejection sampling of Devroye 2009 as given by Polson, Scott and Windle 2013, appendix, on all
    entries at once; those not yet accepted are tried again (fewer than 1 in 1000 at each round).

    Args:
        c: any shape, real.
        generator: CPU generator.
    """
    z = (c.detach().abs() / 2).double().cpu().flatten()
    result = torch.empty_like(z)
    todo = torch.arange(len(z))
    while len(todo):
        x, accepted = _propose(z[todo], generator)
        result[todo[accepted]] = x[accepted]
        todo = todo[~accepted]
    return (result / 4).reshape(c.shape).to(c)


def sample_polya_gamma_of(b: Tensor, c: Tensor, generator: torch.Generator) -> Tensor:
    """Draws of PG(b, c), for likelihoods that enter with an exponent b; 0 where b is 0.

    PG(b, c) = 1 / (2 pi^2) sum_k G_k / ((k - 1/2)^2 + c^2 / (4 pi^2)),  G_k ~ Gamma(b, 1).

    Exact where b is 0 or 1. Else the first `TERMS` terms are drawn, and the others replaced by
    their mean, so that the mean is exact and less than 1e-5 of the variance is missing.

    Args:
        b: broadcast to c.
        c: any shape, real.
        generator: on the CPU.

    Source: Polson, Scott and Windle (2013), eq. 2; refs.bib: polson2013.
    """
    b = b.expand(c.shape)
    whole = (b == 0) | (b == 1)
    if whole.all():
        return sample_polya_gamma(c, generator) * b
    shape, square = b.double().cpu(), (c.double().cpu() / (2 * pi)).square()
    total = torch.zeros_like(square)
    mean = torch.zeros_like(square)
    for k in range(TERMS):
        rate = (k + 0.5) ** 2 + square
        total += torch._standard_gamma(shape, generator=generator) / rate
        mean += shape / rate
    rest = 2 * pi**2 * shape * polya_gamma_mean(c.double().cpu()) - mean
    return ((total + rest.clamp_min(0)) / (2 * pi**2)).to(c)


def _propose(z: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A proposal from the envelope for each z, and whether it is accepted."""
    rate = pi**2 / 8 + z.square() / 2
    right = (pi / (2 * rate)).log() - rate * CUT
    left = log(2) - z + _inverse_gaussian_log_cdf(z)
    tail = torch.sigmoid(right - left) > _uniform(z, generator)
    x = CUT - _uniform(z, generator).log() / rate
    if (~tail).any():
        x[~tail] = _truncated_inverse_gaussian(z[~tail], generator)
    return x, _series_accepts(x, _uniform(z, generator))


def _series_accepts(x: Tensor, u: Tensor) -> Tensor:
    """Squeeze u a_0 between the partial sums of the alternating series of the density."""
    total = _coefficient(0, x)
    level = u * total
    accepted = torch.zeros_like(x, dtype=torch.bool)
    open_ = torch.ones_like(accepted)
    n = 0
    while open_.any():
        n += 1
        total = total + (-1) ** n * _coefficient(n, x)
        decided = open_ & ((level <= total) if n % 2 else (level > total))
        if n % 2:
            accepted |= decided
        open_ &= ~decided
        open_ &= _coefficient(n, x) > 0
    return accepted


def _coefficient(n: int, x: Tensor) -> Tensor:
    """a_n(x) of the density's alternating series, the left or the right one."""
    k = n + 0.5
    left = pi * k * (2 / (pi * x)) ** 1.5 * torch.exp(-2 * k**2 / x)
    right = pi * k * torch.exp(-0.5 * (k * pi) ** 2 * x)
    return torch.where(x > CUT, right, left)


def _inverse_gaussian_log_cdf(z: Tensor) -> Tensor:
    """Log P(X < CUT) for an inverse Gaussian with mean 1 / z and shape 1."""
    root = CUT**-0.5
    first = torch.special.log_ndtr(root * (z * CUT - 1))
    second = 2 * z + torch.special.log_ndtr(-root * (z * CUT + 1))
    return torch.logaddexp(first, second)


def _truncated_inverse_gaussian(z: Tensor, generator: torch.Generator) -> Tensor:
    """Inverse Gaussian with mean 1 / z and shape 1, below CUT."""
    x = torch.empty_like(z)
    todo = torch.arange(len(z))
    while len(todo):
        mu = 1 / z[todo].clamp_min(1e-12)
        draw, accepted = _below_mean(z[todo], generator)
        other = _michael(mu, generator)
        wide = mu > CUT
        draw = torch.where(wide, draw, other)
        accepted = torch.where(wide, accepted, other < CUT)
        x[todo[accepted]] = draw[accepted]
        todo = todo[~accepted]
    return x


def _below_mean(z: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Proposal for a mean beyond CUT: a scaled inverse chi-square below CUT, tilted."""
    first, second = -_uniform(z, generator).log(), -_uniform(z, generator).log()
    x = CUT / (1 + CUT * first).square()
    tilted = _uniform(z, generator) <= torch.exp(-0.5 * z.square() * x)
    return x, (first.square() <= 2 * second / CUT) & tilted


def _michael(mu: Tensor, generator: torch.Generator) -> Tensor:
    """Inverse Gaussian of mean mu and shape 1 (Michael, Schucany and Haas 1976)."""
    y = torch.randn(mu.shape, generator=generator, dtype=mu.dtype).square()
    x = mu + 0.5 * mu.square() * y - 0.5 * mu * (4 * mu * y + (mu * y).square()).sqrt()
    return torch.where(_uniform(mu, generator) > mu / (mu + x), mu.square() / x, x)


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    u = torch.rand(like.shape, generator=generator, dtype=like.dtype)
    return u.clamp_min(torch.finfo(like.dtype).tiny)
