"""Pólya-Gamma variables: mean, exact draws of PG(1, c), and draws of PG(b, c) for any b > 0.

PG(1, c) is the law under which a logistic factor becomes Gaussian (Polson, Scott and Windle
2013): sigma(x) = exp(x / 2) / 2 E exp(-w x^2 / 2), w ~ PG(1, 0), and w | x ~ PG(1, x).
"""

from __future__ import annotations

from math import log, pi

import torch
from torch import Tensor
from torch.nn.functional import softplus

from bayesfs._distributions.keys import Keys

CUT = 0.64
"""Where the two series of the density are exchanged (Devroye 2009)."""

TERMS = 6
"""Terms of the series of PG(b, c) that are drawn one by one where b is neither 0 nor 1."""


def polya_gamma_mean(c: Tensor) -> Tensor:
    """E of PG(1, c): tanh(c / 2) / (2 c), 1/4 at c = 0."""
    small = c.abs() < 1e-3
    safe = torch.where(small, torch.ones_like(c), c)
    return torch.where(small, 0.25 - c.square() / 48, torch.tanh(safe / 2) / (2 * safe))


def log_cosh_half(x: Tensor) -> Tensor:
    """Log cosh(x / 2), without overflow."""
    return x.abs() / 2 + softplus(-x.abs()) - log(2)


def sample_polya_gamma(c: Tensor, keys: Keys) -> Tensor:
    """Exact draws of PG(1, c), one for each entry of c.

    Rejection sampling of Devroye 2009 as given by Polson, Scott and Windle 2013, appendix, on all
    entries at once; those not yet accepted are tried again (fewer than 1 in 1000 at each round).

    Args:
        c: any shape, real.
        keys: one for each entry.
    """
    z = (c.detach().abs() / 2).double().cpu().flatten()
    flat = Keys(keys.value.flatten())
    result = flat.accepted(lambda todo, now: _propose(z[todo], now))
    return (result / 4).reshape(c.shape).to(c)


def sample_polya_gamma_of(b: Tensor, c: Tensor, keys: Keys) -> Tensor:
    """Draws of PG(b, c), for likelihoods that enter with an exponent b; 0 where b is 0.

    PG(b, c) = 1 / (2 pi^2) sum_k G_k / ((k - 1/2)^2 + c^2 / (4 pi^2)),  G_k ~ Gamma(b, 1).

    Exact where b is 0 or 1. Elsewhere the first `TERMS` terms are drawn, and the sum of the others
    as one gamma variable of its mean and variance: both moments are exact, and less than 1e-6 of
    the third cumulant is missing.

    Args:
        b: broadcast to c.
        c: any shape, real.
        keys: one for each entry of c.

    Source: Polson, Scott and Windle (2013), eq. 2; refs.bib: polson2013.
    """
    b = b.expand(c.shape)
    result = torch.zeros_like(c)
    whole, part = b == 1, (b != 0) & (b != 1)
    if whole.any():
        result[whole] = sample_polya_gamma(c[whole], keys[whole.cpu()])
    if part.any():
        result[part] = _series(b[part], c[part], keys[part.cpu()])
    return result


def _series(b: Tensor, c: Tensor, keys: Keys) -> Tensor:
    """PG(b, c) by the first terms of its series, and one gamma variable for the rest: (entry,)."""
    shape, tilt = b.double().cpu()[:, None], c.double().cpu()[:, None]
    place = torch.arange(TERMS, dtype=torch.float64) + 0.5
    scale = 0.5 / (pi**2 * place.square() + tilt.square() / 4)
    mean = polya_gamma_mean(tilt) - scale.sum(-1, keepdim=True)
    variance = _variance(tilt) - scale.square().sum(-1, keepdim=True)
    shapes = torch.cat([shape.expand(scale.shape), shape * mean.square() / variance], -1)
    drawn = keys.extend(TERMS + 1).gamma(shapes)
    return (drawn * torch.cat([scale, variance / mean], -1)).sum(-1).to(c)


def _variance(c: Tensor) -> Tensor:
    """Variance of PG(1, c): (2 tanh(c / 2) - c / cosh(c / 2)^2) / (4 c^3), 1/24 at c = 0."""
    small = c.abs() < 0.05
    safe = torch.where(small, torch.ones_like(c), c)
    half = torch.tanh(safe / 2)
    value = (2 * half - safe * (1 - half.square())) / (4 * safe**3)
    return torch.where(small, 1 / 24 - c**2 / 120 + 17 * c**4 / 13440, value)


def _propose(z: Tensor, keys: Keys) -> tuple[Tensor, Tensor]:
    """A proposal from the envelope for each z, and whether it is accepted."""
    rate = pi**2 / 8 + z.square() / 2
    right = (pi / (2 * rate)).log() - rate * CUT
    left = log(2) - z + _inverse_gaussian_log_cdf(z)
    below = torch.sigmoid(right - left) <= keys.fold_in(0).uniform()
    x = CUT - keys.fold_in(1).uniform().log() / rate
    if below.any():
        x[below] = _truncated_inverse_gaussian(z[below], keys[below].fold_in(2))
    return x, _series_accepts(x, keys.fold_in(3).uniform())


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


def _truncated_inverse_gaussian(z: Tensor, keys: Keys) -> Tensor:
    """Inverse Gaussian with mean 1 / z and shape 1, below CUT."""

    def propose(todo: Tensor, now: Keys) -> tuple[Tensor, Tensor]:
        mu = 1 / z[todo].clamp_min(1e-12)
        draw, accepted = _below_mean(z[todo], now)
        other = _michael(mu, now)
        wide = mu > CUT
        return torch.where(wide, draw, other), torch.where(wide, accepted, other < CUT)

    return keys.accepted(propose)


def _below_mean(z: Tensor, keys: Keys) -> tuple[Tensor, Tensor]:
    """Proposal for a mean beyond CUT: a scaled inverse chi-square below CUT, tilted."""
    first, second = (-keys.fold_in(k).uniform().log() for k in (0, 1))
    x = CUT / (1 + CUT * first).square()
    tilted = keys.fold_in(2).uniform() <= torch.exp(-0.5 * z.square() * x)
    return x, (first.square() <= 2 * second / CUT) & tilted


def _michael(mu: Tensor, keys: Keys) -> Tensor:
    """Inverse Gaussian of mean mu and shape 1 (Michael, Schucany and Haas 1976)."""
    y = keys.fold_in(0).normal().square()
    x = mu + 0.5 * mu.square() * y - 0.5 * mu * (4 * mu * y + (mu * y).square()).sqrt()
    return torch.where(keys.fold_in(1).uniform() > mu / (mu + x), mu.square() / x, x)
