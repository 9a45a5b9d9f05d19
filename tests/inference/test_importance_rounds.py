"""Adaptive importance sampling of many tasks: exact moments of bent posteriors, and of whom."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from bayesfs.errors import InferenceError
from bayesfs.inference.checked import Checked
from bayesfs.inference.importance_rounds import ImportanceRounds
from bayesfs.inference.plain import infer
from bayesfs.inference.svi.guides import FullRank
from bayesfs.inference.svi.svi import SVI

NOISE = 0.3


def bent(y, bend):
    """Gaussian without a bend, a banana with one."""
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(a + bend * b.square(), NOISE).expand([4]).to_event(1), obs=y)


def exact(y, bend):
    """Mean and sd of a and b on a grid of both."""
    a = torch.linspace(-6, 4, 2001, dtype=torch.float64)[:, None]
    b = torch.linspace(-4, 4, 1601, dtype=torch.float64)
    log_p = -0.5 * (a.square() + b.square())
    for one in y:
        log_p = log_p - 0.5 * ((one - a - bend * b.square()) / NOISE).square()
    weight = log_p.flatten().softmax(0).reshape(log_p.shape)
    found = {}
    for site, value in (("a", a), ("b", b)):
        mean = (weight * value).sum()
        found[site] = float(mean), float((weight * (value - mean).square()).sum().sqrt())
    return found


def mix():
    """Every third of the tasks is bent."""
    y = torch.randn(6, 4, generator=torch.Generator().manual_seed(3)).double()
    return {"y": y, "bend": torch.where(torch.arange(6) % 3 == 0, 3.0, 0.0).double()}


def assert_exact(posterior, data):
    for task in range(len(data["y"])):
        for site, (mean, sd) in exact(data["y"][task], data["bend"][task]).items():
            draws = posterior.draws[site][:, task]
            assert abs(float(draws.mean()) - mean) < 0.08 * sd
            assert abs(float(draws.std()) / sd - 1) < 0.05


def test_bananas_have_their_moments_and_say_so():
    data = mix()
    found = infer(bent, ImportanceRounds(draws=4000), data=data, batch_axis=0)
    assert_exact(found, data)
    assert (found.sample_stats["khat"] <= 0.7).all()
    assert (found.sample_stats["repeats"] <= 1).all()
    assert (found.sample_stats["stein_moments"] <= 1).all()


def test_a_task_has_the_same_draws_in_any_company():
    data, engine = mix(), ImportanceRounds(rounds=3, proposals=2000, draws=500)
    every = infer(bent, engine, data=data, batch_axis=0, seed=3)
    again = infer(bent, engine, data=data, batch_axis=0, seed=3)
    alone = infer(bent, engine, data={n: v[:1] for n, v in data.items()}, batch_axis=0, seed=3)
    assert torch.equal(every.draws["a"], again.draws["a"])
    same = torch.isclose(every.draws["a"][:, 0], alone.draws["a"][:, 0])
    assert same.float().mean() > 0.95, "rounding may move a resampled draw"


def test_too_few_proposals_are_told():
    engine = ImportanceRounds(rounds=2, proposals=50, draws=400)
    found = infer(bent, engine, data=mix(), batch_axis=0)
    assert (found.sample_stats["repeats"] > 1).all()


def test_a_middle_rung_leaves_nothing_for_the_last():
    data = mix()
    cheap = SVI(FullRank(), steps=200, corrected=True, draws=4000)

    class Never(ImportanceRounds):
        def infer(self, *args, **kwargs):
            raise AssertionError

    found = infer(
        bent, Checked(cheap, then=(ImportanceRounds(draws=4000), Never())), data=data, batch_axis=0
    )
    assert found.sample_stats["escalated"].tolist() == [1, 0, 0, 1, 0, 0]
    assert_exact(found, data)


def test_many_latents_are_refused():
    def many(y):
        x = pyro.sample("x", dist.Normal(0.0, 1.0).expand([9]).to_event(1))
        pyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)

    with pytest.raises(InferenceError, match="at most 8 latents"):
        infer(many, ImportanceRounds(), data={"y": torch.zeros(9)})
