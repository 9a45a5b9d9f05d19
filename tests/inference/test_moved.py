"""Draws that a quick engine got wrong are moved to the posterior; right ones stay right."""

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesfs as bf
from bayesfs.errors import InferenceError
from bayesfs.inference.exact import Exact
from bayesfs.inference.gibbs.gibbs import Gibbs
from bayesfs.inference.moved import Moved
from bayesfs.inference.program.moves import moved
from bayesfs.inference.program.potential import potential
from bayesfs.inference.program.simulation import Simulator
from bayesfs.inference.program.streams import Streams
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.protocols import Engine
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing import EngineContract
from bayesfs.types import Posterior


class TestMoved(EngineContract):
    def make_engine(self):
        return Moved(SVI(steps=200, draws=300), draws=300)


def skewed(heads, tosses):
    """A scale that few data hold up, and what it scales: skewed, and of no Gaussian's shape."""
    scale = pyro.sample("scale", dist.Normal(0.0, 1.0))
    with pyro.plate("coin", 3):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        logits = 2.0 * scale.exp() * z
        pyro.sample("heads", dist.Binomial(tosses, logits=logits), obs=heads)


def test_skewed_latents_are_as_nuts_has_them_where_svi_is_not() -> None:
    data = {"heads": torch.tensor([6.0, 1.0, 5.0], dtype=torch.float64), "tosses": 6}
    long = bf.infer(skewed, bf.NUTS(warmup=1000, draws=4000, whiten=False), data=data)
    plain = bf.infer(skewed, SVI(draws=2000), data=data)
    found = bf.infer(skewed, Moved(SVI(draws=2000), draws=2000, transitions=40), data=data)

    def errors(posterior: Posterior) -> tuple[float, float]:
        worst, widths = 0.0, 0.0
        for site in ("scale", "z"):
            mean, sd = long.draws[site].mean(0), long.draws[site].std(0)
            worst = max(worst, float(((posterior.draws[site].mean(0) - mean) / sd).abs().max()))
            widths = max(widths, float((posterior.draws[site].std(0) / sd - 1).abs().max()))
        return worst, widths

    assert max(errors(found)) < 0.1
    assert max(errors(plain)) > 0.15
    assert 0.6 < float(found.sample_stats["acceptance_rate"]) < 0.95
    assert float(found.sample_stats["stein_moments"]) <= 1


@dataclass(frozen=True)
class Shrunk(Engine):
    """Exact, half as wide."""

    def infer(self, model, episodes, *, seed, given=None, progress=None) -> Posterior:
        exact = Exact(draws=200, population_draws=1).infer(model, episodes, seed=seed, given=given)
        draws = {
            site: v.mean(0) + 0.5 * (v - v.mean(0)) if "task" in model.dims[site] else v
            for site, v in exact.draws.items()
        }
        return exact.changed(draws=draws)


@pytest.fixture(scope="module")
def learnt():
    episodes, _ = synthetic_episodes(
        users=6, way=3, shots=2, frames=2, query_videos=1, dim=3, seed=2
    )
    return GaussianHierarchy(), episodes.to(torch.float64)


def test_too_narrow_draws_become_as_wide_as_the_exact_ones(learnt) -> None:
    model, episodes = learnt
    given = population_of(model, episodes)
    exact = Exact(draws=4000, population_draws=1).infer(model, episodes, seed=5, given=given)
    found = Moved(Shrunk(), draws=200, transitions=30).infer(model, episodes, seed=0, given=given)
    for site in ("task_raw", "class_raw", "video_raw"):
        ratio = found.draws[site].std(0) / exact.draws[site].std(0)
        shift = (found.draws[site].mean(0) - exact.draws[site].mean(0)) / exact.draws[site].std(0)
        assert 0.97 < float(ratio.square().mean().sqrt()) < 1.03
        assert float(shift.square().mean().sqrt()) < 1.3 / 200**0.5


def population_of(model, episodes) -> Posterior:
    draws = Simulator(model, episodes).draw(seed=3).draws
    dims = {s: a for s, a in model.dims.items() if "task" not in a}
    return Posterior("exact", {s: draws[s][None] for s in dims}, dims)


def test_exact_draws_stay_exact_whatever_the_number_of_transitions(learnt) -> None:
    """Each transition leaves the density as it is: means of energies do not drift."""
    model, episodes = learnt
    given = population_of(model, episodes)
    density = potential(model, episodes, given)
    exact = Exact(draws=2000, population_draws=1).infer(model, episodes, seed=0, given=given)
    z = density.unconstrain({s: exact.draws[s] for s in density.blocks})
    state, rate = moved(density, z, 3, Streams.of(density, 0, 1))
    start = density.value_and_gradient(z)[0]
    error = start.std(1) * (2 / 2000) ** 0.5
    assert ((state.value.mean(1) - start.mean(1)).abs() < 4 * error).all()
    assert not torch.equal(state.z, z)
    assert ((rate > 0.5) & (rate < 1.0)).all()


def test_a_wrong_number_is_refused() -> None:
    with pytest.raises(InferenceError, match="transitions: expected 2 or more, got 1"):
        Moved(SVI(), transitions=1)
    with pytest.raises(InferenceError, match="LinearHead"):
        Moved(Gibbs()).check_model(GaussianHierarchy())
    Moved(SVI()).check_model(HierarchicalHead())
