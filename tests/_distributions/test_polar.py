"""Scales whose squares add up: the same law in other coordinates, in which an arc is straight."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch.func import jacrev

from bayesfs._distributions.polar import PairedHalfNormal, PolarPairs

PAIRS = ((1, 3), (4, 2))


def law(*batch: int) -> PairedHalfNormal:
    return PairedHalfNormal(torch.full((*batch, 5), 0.7, dtype=torch.float64), PAIRS)


def unconstrained(count: int, spread: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return spread * torch.randn(count, 5, generator=generator, dtype=torch.float64)


def test_its_density_is_that_of_half_normal_numbers() -> None:
    x = law().sample((7,))
    plain = dist.HalfNormal(torch.tensor(0.7).double()).log_prob(x).sum(-1)
    assert torch.allclose(law().log_prob(x), plain)
    assert law(3).expand((2, 3)).sample().shape == (2, 3, 5)
    assert isinstance(law().expand((2,)), PairedHalfNormal)


@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0])
def test_there_and_back_again_is_where_one_was(spread: float) -> None:
    transform = PolarPairs(PAIRS)
    z = unconstrained(200, spread)
    value = transform(z)
    assert bool((value > 0).all())
    assert torch.allclose(transform.inv(value), z, rtol=1e-9, atol=1e-9)


def test_its_jacobian_is_that_of_automatic_differentiation() -> None:
    transform = PolarPairs(PAIRS)
    for z in unconstrained(20, 1.5):
        direct = torch.linalg.slogdet(jacrev(transform)(z))[1]
        told = transform.log_abs_det_jacobian(z, transform(z))
        assert float(told) == pytest.approx(float(direct), abs=1e-9)


def test_the_angle_of_a_pair_is_standard_normal_and_tells_nothing_of_its_length() -> None:
    torch.manual_seed(0)
    z = PolarPairs(PAIRS).inv(law().sample((20_000,)))
    length, angle = z[:, 1], z[:, 3]
    assert float(angle.mean()) == pytest.approx(0, abs=4 / math.sqrt(20_000))
    assert float(angle.std()) == pytest.approx(1, abs=0.03)
    assert abs(float(torch.corrcoef(torch.stack([length, angle]))[0, 1])) < 0.03


def test_what_data_know_the_sum_of_lies_along_an_axis() -> None:
    arc = torch.linspace(0.05, 1.5, 50, dtype=torch.float64)
    value = torch.ones(50, 5, dtype=torch.float64)
    value[:, 1], value[:, 3] = 0.4 * arc.sin(), 0.4 * arc.cos()
    z = PolarPairs(PAIRS).inv(value)
    assert torch.allclose(z[:, 1], torch.tensor(0.4).double().log())
    assert float(z[:, 3].std()) > 0.5
