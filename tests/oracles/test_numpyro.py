"""NumPyro's cases for MCMC, through our NUTS.

Source: pyro-ppl/numpyro (Apache-2.0), test/infer/test_mcmc.py: truths, sizes of data and tolerances
are as there; data are drawn here, and where a posterior is conjugate it is compared with that
instead of with the truth behind the data.
"""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesfs as bf

CHANGES = [
    13, 24, 8, 24, 7, 35, 14, 11, 15, 11, 22, 22, 11, 57, 11, 19, 29, 6, 19, 12, 22, 12, 18, 72,
    32, 9, 7, 13, 19, 23, 27, 20, 6, 17, 13, 10, 14, 6, 16, 15, 7, 2, 15, 15, 19, 70, 49, 7, 53, 22,
    21, 31, 19, 11, 1, 20, 12, 35, 17, 23, 17, 4, 2, 31, 30, 13, 27, 0, 39, 37, 5, 14, 13, 22,
]  # fmt: skip
"""Messages a day, from their test of a change point."""


def drawn(program: Callable[..., None], **data: Any) -> dict[str, torch.Tensor]:
    engine = bf.NUTS(warmup=500, draws=1000)
    return bf.infer(program, engine, data=data).draws


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_normal_density() -> None:
    def program() -> None:
        z = pyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))
        pyro.factor("density", -0.5 * ((z - 1.0) / 0.5) ** 2)

    z = drawn(program)["z"]
    assert float(z.mean()) == pytest.approx(1.0, rel=0.07)
    assert float(z.std()) == pytest.approx(0.5, rel=0.07)


@pytest.mark.parametrize("rho", [-0.7, 0.8])
def test_badly_scaled_and_correlated_normal(rho: float) -> None:
    covariance = torch.tensor([[10.0, rho], [rho, 0.1]])

    def program() -> None:
        pyro.sample("x", dist.MultivariateNormal(torch.zeros(2), covariance))

    x = drawn(program)["x"]
    assert float(x[:, 0].mean()) == pytest.approx(0.0, abs=0.5)
    assert float(x[:, 1].mean()) == pytest.approx(0.0, abs=0.05)
    assert float((x[:, 0] * x[:, 1]).mean()) == pytest.approx(rho, abs=0.2)
    assert x.var(0).tolist() == pytest.approx([10.0, 0.1], rel=0.2)


def test_beta_bernoulli() -> None:
    heads = (torch.rand(1000, 2, generator=seeded(1)) < torch.tensor([0.9, 0.1])).float()

    def program(heads: torch.Tensor) -> None:
        p = pyro.sample("p", dist.Beta(torch.full((2,), 1.1), 1.1).to_event(1))
        with pyro.plate("toss", len(heads)):
            pyro.sample("y", dist.Bernoulli(p).to_event(1), obs=heads)

    p = drawn(program, heads=heads)["p"]
    exact = dist.Beta(1.1 + heads.sum(0), 1.1 + (1 - heads).sum(0))
    assert ((p.mean(0) - exact.mean).abs() < 0.1 * exact.stddev).all()
    assert (p.std(0) / exact.stddev).tolist() == pytest.approx([1.0, 1.0], abs=0.07)


def test_dirichlet_categorical() -> None:
    share = torch.tensor([0.1, 0.6, 0.3])
    y = torch.multinomial(share, 2000, replacement=True, generator=seeded(1))

    def program(y: torch.Tensor) -> None:
        p = pyro.sample("p", dist.Dirichlet(torch.ones(3)))
        with pyro.plate("row", len(y)):
            pyro.sample("y", dist.Categorical(p), obs=y)

    p = drawn(program, y=y)["p"]
    exact = dist.Dirichlet(1.0 + torch.bincount(y, minlength=3))
    assert ((p.mean(0) - exact.mean).abs() < 0.1 * exact.variance.sqrt()).all()
    assert p.mean(0).tolist() == pytest.approx(share.tolist(), abs=0.03)


def test_rare_successes_of_five_million() -> None:
    def program() -> None:
        p = pyro.sample("p", dist.Beta(1.0, 1.0))
        pyro.sample("y", dist.Binomial(5_000_000, p), obs=torch.tensor(3849.0))

    p = drawn(program)["p"]
    assert float(p.mean()) == pytest.approx(3849 / 5e6, rel=0.05)
    assert float(p.std()) == pytest.approx(float(dist.Beta(3850.0, 4996152.0).stddev), rel=0.1)


def test_improper_priors_of_mean_and_scale() -> None:
    y = 1.0 + 2.0 * torch.randn(2000, generator=seeded(1))

    def program(y: torch.Tensor) -> None:
        mean = pyro.sample("mean", dist.ImproperUniform(dist.constraints.real, (), ()))
        sd = pyro.sample("sd", dist.ImproperUniform(dist.constraints.positive, (), ()))
        with pyro.plate("row", len(y)):
            pyro.sample("y", dist.Normal(mean, sd), obs=y)

    found = drawn(program, y=y)
    assert float(found["mean"].mean()) == pytest.approx(float(y.mean()), abs=0.01)
    assert float(found["mean"].std()) == pytest.approx(float(y.std()) / 2000**0.5, rel=0.07)
    assert float(found["sd"].mean()) == pytest.approx(float(y.std()), rel=0.01)


def test_logistic_regression_of_3000_rows() -> None:
    """Coefficients are those of the posterior's mode, by Newton's method."""
    x = torch.randn(3000, 3, generator=seeded(0), dtype=torch.float64)
    logits = x @ torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    y = (torch.rand(3000, generator=seeded(1), dtype=torch.float64) < logits.sigmoid()).double()

    def program(x: torch.Tensor, y: torch.Tensor) -> None:
        b = pyro.sample("b", dist.Normal(torch.zeros(3, dtype=x.dtype), 1.0).to_event(1))
        with pyro.plate("row", len(y)):
            pyro.sample("y", dist.Bernoulli(logits=x @ b), obs=y)

    mode = torch.zeros(3, dtype=torch.float64)
    for _ in range(20):
        p = (x @ mode).sigmoid()
        hessian = x.T @ ((p * (1 - p))[:, None] * x) + torch.eye(3, dtype=torch.float64)
        mode = mode + torch.linalg.solve(hessian, x.T @ (y - p) - mode)
    found = drawn(program, x=x, y=y)["b"]
    assert found.mean(0).tolist() == pytest.approx(mode.tolist(), abs=0.1)
    sd = torch.linalg.inv(hessian).diagonal().sqrt()
    assert (found.std(0) / sd).tolist() == pytest.approx([1.0] * 3, abs=0.1)


@pytest.mark.slow
def test_change_point() -> None:
    """The day of the change, where the density jumps: their mode is 44."""
    counts = torch.tensor(CHANGES, dtype=torch.float64)

    def program(counts: torch.Tensor) -> None:
        rate = 1 / counts.mean()
        first = pyro.sample("first", dist.Exponential(rate))
        second = pyro.sample("second", dist.Exponential(rate))
        tau = pyro.sample("tau", dist.Uniform(0.0, 1.0))
        day = torch.arange(74.0, dtype=torch.float64)
        mean = torch.where(day < tau * 74, first, second)
        with pyro.plate("day", 74):
            pyro.sample("y", dist.Poisson(mean), obs=counts)

    day = (drawn(program, counts=counts)["tau"] * 74).long()
    assert int(torch.mode(day).values) == 44
