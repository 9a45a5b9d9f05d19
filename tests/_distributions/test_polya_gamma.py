"""Pólya-Gamma draws against their closed-form moments and Laplace transform."""

from __future__ import annotations

import math
from math import cosh, sinh, sqrt

import pytest
import torch

from bayesfs._distributions.keys import Keys
from bayesfs._distributions.polya_gamma import (
    log_cosh_half,
    polya_gamma_mean,
    sample_polya_gamma,
    sample_polya_gamma_of,
)


@pytest.mark.parametrize("c", [0.0, 0.3, 1.0, 3.0, 8.0, 30.0])
def test_draws_have_the_law_of_pg_1_c(c: float) -> None:
    n = 100_000
    draws = sample_polya_gamma(torch.full((n,), c, dtype=torch.float64), Keys.of(1).extend(n))
    variance = (sinh(c) - c) / (4 * c**3 * cosh(c / 2) ** 2) if c else 1 / 24
    mean = float(polya_gamma_mean(torch.tensor(c, dtype=torch.float64)))
    assert float(draws.mean()) == pytest.approx(mean, abs=4 * sqrt(variance / n))
    assert float(draws.var()) == pytest.approx(variance, rel=0.05)
    for s in (1.0, 10.0):
        transformed = torch.exp(-s * draws)
        expected = cosh(c / 2) / cosh(sqrt(2 * s + c * c) / 2)
        error = 4 * float(transformed.std()) / sqrt(n)
        assert float(transformed.mean()) == pytest.approx(expected, abs=error + 1e-12)


def test_sign_does_not_matter_and_shape_dtype_are_kept() -> None:
    c = torch.tensor([[2.0, -2.0]])
    draws = sample_polya_gamma(c.expand(50_000, 2), Keys.of(0).extend(50_000, 2))
    assert draws.dtype == torch.float32
    assert draws.shape == (50_000, 2)
    means = draws.mean(0)
    torch.testing.assert_close(means[0], means[1], rtol=0.02, atol=0)
    again = sample_polya_gamma(c.expand(50_000, 2), Keys.of(0).extend(50_000, 2))
    assert torch.equal(draws, again)


def test_mean_and_log_cosh_are_smooth_at_zero_and_do_not_overflow() -> None:
    c = torch.tensor([0.0, 1e-4, 9.99e-4, 1.01e-3, 50.0], dtype=torch.float64, requires_grad=True)
    mean = polya_gamma_mean(c)
    torch.testing.assert_close(
        mean[:4], torch.full((4,), 0.25, dtype=torch.float64), rtol=1e-6, atol=0
    )
    (gradient,) = torch.autograd.grad(mean.sum(), c)
    torch.testing.assert_close(gradient[2], gradient[3], rtol=0.05, atol=0)
    assert float(log_cosh_half(torch.tensor(2.0, dtype=torch.float64))) == pytest.approx(
        torch.cosh(torch.tensor(1.0, dtype=torch.float64)).log().item()
    )
    assert torch.isfinite(log_cosh_half(torch.tensor(1e4)))


def test_draws_with_an_exponent_have_its_mean_variance_and_laplace_transform():
    """E exp(-t w) = (cosh(c / 2) / cosh(sqrt((c^2 / 2 + t) / 2)))^b (Polson et al., section 2)."""
    keys = Keys.of(0).extend(40000)
    for b, c in ((0.5, 0.0), (0.25, 2.0), (2.5, -4.0)):
        w = sample_polya_gamma_of(torch.tensor(b), torch.full((40000,), c).double(), keys)
        mean = b * float(polya_gamma_mean(torch.tensor(c).double()))
        assert abs(w.mean() - mean) < 4 * w.std() / 200
        for t in (1.0, 10.0):
            value = (-t * w).exp()
            exact = (math.cosh(c / 2) / math.cosh(math.sqrt((c**2 / 2 + t) / 2))) ** b
            assert abs(value.mean() - exact) < 4 * value.std() / 200


def test_exponents_of_0_and_1_are_exact():
    keys = Keys.of(0).extend(7)
    c = torch.linspace(-3, 3, 7)
    b = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    assert torch.equal(sample_polya_gamma_of(b, c, keys), sample_polya_gamma(c, keys) * b)
