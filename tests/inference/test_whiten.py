"""Whitened coordinates: Gaussians become N(0, I), and where there is no mode nothing is moved."""

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints

import bayesfs as bf
from bayesfs.inference.plain import infer
from bayesfs.inference.program.closeness import closeness
from bayesfs.inference.program.plain import PlainProgram
from bayesfs.inference.program.potential import potential
from bayesfs.inference.program.whiten import Whitened, is_worthwhile
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.synthetic.tasks import synthetic_episodes

YEARS = torch.arange(1952.0, 2014.0, dtype=torch.float64)


def trend(x, y):
    """A regression on years: correlation .9999 of its two coefficients."""
    alpha = pyro.sample("alpha", dist.Normal(0.0, 100.0))
    beta = pyro.sample("beta", dist.Normal(0.0, 1.0))
    with pyro.plate("year", len(x)):
        pyro.sample("y", dist.Normal(alpha + beta * x, 1.0), obs=y)


def data():
    noise = torch.randn(len(YEARS), generator=torch.Generator().manual_seed(0)).double()
    return {"x": YEARS, "y": -30 + 0.02 * YEARS + noise}


def exact():
    """Mean and sd of both coefficients."""
    x = torch.stack([torch.ones_like(YEARS), YEARS], 1)
    precision = x.mT @ x + torch.diag(torch.tensor([1e-4, 1.0], dtype=torch.float64))
    covariance = torch.linalg.inv(precision)
    return covariance @ x.mT @ data()["y"], covariance.diagonal().sqrt()


def density_of(program, values):
    problem = PlainProgram(program, values)
    density = potential(problem, problem.episodes)
    return density, torch.zeros(density.tasks, density.size, dtype=torch.float64)


def test_a_badly_scaled_gaussian_becomes_standard():
    white = Whitened.at_mode(*density_of(trend, data()))
    assert white.has_mode.all()
    u = torch.randn(1, 500, 2, generator=torch.Generator().manual_seed(1)).double()
    value, score = white.value_and_gradient(u)
    assert score.allclose(-u, atol=1e-3)
    z = white.unwhiten(u)
    assert white.whiten(z).allclose(u, atol=1e-4)
    # log p of u is a standard normal's, up to a constant: the evidence
    stats = closeness(white, u, -0.5 * (u.square() + 1.8378770664).sum(-1))
    assert stats["khat"][0] < 0.1
    assert stats["stein_moments"][0] <= 1
    assert (
        value - stats["evidence_bound"] + 0.5 * u.square().sum(-1) + 1.8378770664
    ).abs().max() < 1e-3


def test_nuts_and_svi_are_right_on_it_at_their_defaults():
    mean, sd = exact()
    for engine in (bf.NUTS(warmup=200, draws=250), bf.SVI()):
        draws = infer(trend, engine, data=data()).draws
        for k, site in enumerate(("alpha", "beta")):
            assert abs(float((draws[site].mean() - mean[k]) / sd[k])) < 0.15
            assert abs(float(draws[site].std() / sd[k]) - 1) < 0.1


def without_a_mode(y):
    """The density grows without bound as the scale falls."""
    s = pyro.sample("s", dist.ImproperUniform(constraints.positive, (), ()))
    m = pyro.sample("m", dist.ImproperUniform(constraints.real, (), ()))
    pyro.sample("y", dist.Normal(m, s).expand([1]).to_event(1), obs=y[:1])
    pyro.factor("pull", -m.square() / s)


def test_where_there_is_no_mode_coordinates_stay():
    white = Whitened.at_mode(*density_of(without_a_mode, {"y": torch.zeros(1).double()}))
    assert not white.has_mode.any()
    assert torch.equal(white.axes[0], torch.eye(2, dtype=torch.float64))
    assert not white.log_det.any()


def funnel():
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    pyro.sample("x", dist.Normal(0.0, scale).expand([4]).to_event(1))


def test_normal_sites_that_depend_on_others_are_non_centred():
    density, _ = density_of(funnel, {})
    z = torch.randn(1, 50, density.size, generator=torch.Generator().manual_seed(0))
    _, score = density.value_and_gradient(z)
    block = density.blocks["x"].slice
    assert score[..., block].allclose(-z[..., block], atol=1e-5)
    x = infer(funnel, bf.NUTS(warmup=300, draws=1000)).draws["x"]
    assert abs(float(x.var()) - 1.0) < 0.15  # E scale^2


def test_a_head_is_left_as_it_is():
    episodes, _ = synthetic_episodes(users=2, way=3, shots=2, frames=1, dim=4)
    model = HierarchicalHead()
    assert not is_worthwhile(potential(model, episodes, model.default_population(4)))
