"""Easy tasks stay with the cheap engine, hard ones are found, escalated and right."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import bayesfs as bf
from bayesfs.diagnostics.convergence import diagnose
from bayesfs.errors import InferenceError
from bayesfs.inference.checked import Checked, escalations
from bayesfs.inference.laplace.laplace import Laplace
from bayesfs.inference.plain import infer
from bayesfs.inference.program.closeness import closeness
from bayesfs.inference.svi.guides import FullRank
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.results.convert import to_datatree
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing import EngineContract

TASKS, HARD = 20, (3, 11)


def bent(y, bend):
    """Gaussian without a bend, a banana with one."""
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(a + bend * b.square(), 0.3).expand([4]).to_event(1), obs=y)


def mix():
    """Tasks of which 10 % are hard."""
    generator = torch.Generator().manual_seed(0)
    bend = torch.zeros(TASKS, dtype=torch.float64)
    bend[list(HARD)] = 3.0
    return {"y": torch.randn(TASKS, 4, generator=generator).double(), "bend": bend}


CHECKED = Checked(
    SVI(FullRank(), corrected=True, draws=4000),
    then=(bf.NUTS(warmup=1000, draws=1000, target_accept=0.95),),
)


def test_hard_tasks_are_escalated_and_all_are_right():
    data = mix()
    found = infer(bent, CHECKED, data=data, batch_axis=0)
    escalated = found.sample_stats["escalated"].nonzero().flatten().tolist()
    assert set(HARD) <= set(escalated)
    assert len(escalated) <= 3
    lines = escalations(found)
    assert len(lines) == len(escalated)
    assert lines[0].startswith(f"task {escalated[0]}: khat")
    long = infer(
        bent, bf.NUTS(warmup=1000, draws=2000, target_accept=0.95), data=data, batch_axis=0, seed=1
    )
    for site in ("a", "b"):
        mean, sd = long.draws[site].mean(0), long.draws[site].std(0)
        assert ((found.draws[site].mean(0) - mean).abs() / sd).max() < 0.15
        assert (found.draws[site].std(0) / sd).log().abs().max() < 0.1
    assert found.kind == "mcmc"
    assert diagnose(to_datatree(found)).sites["rhat"].max() < 1.05


def test_nothing_is_escalated_where_all_pass():
    data = {name: value[:3] for name, value in mix().items()}
    engine = Checked(SVI(steps=200, draws=200), then=(bf.NUTS(),), until={"khat": 10.0})
    found = infer(bent, engine, data=data, batch_axis=0)
    assert found.kind == "variational"
    assert found.num_draws == 200
    assert not found.sample_stats["escalated"].any()
    assert escalations(found, engine.until) == []


def test_the_second_of_three_keeps_what_it_passes():
    data = {name: value[:4] for name, value in mix().items()}
    engine = Checked(
        SVI(steps=5, draws=100), then=(SVI(FullRank(), draws=150), bf.NUTS(warmup=100, draws=50))
    )
    found = infer(bent, engine, data=data, batch_axis=0)
    assert set(found.sample_stats["escalated"].tolist()) <= {0.0, 1.0, 2.0}
    assert found.num_draws in (100, 150, 200)
    assert all(value.isfinite().all() for value in found.draws.values())


def test_an_engine_that_tells_nothing_is_refused():
    one = {name: value[:1] for name, value in mix().items()}
    with pytest.raises(InferenceError, match="reports none of"):
        infer(bent, Checked(bf.NUTS(warmup=2, draws=2)), data=one, batch_axis=0)
    with pytest.raises(InferenceError, match="then"):
        Checked(then=())


def test_resampled_draws_are_those_of_the_density():
    class Shifted:
        """N(.5, 1) in every latent."""

        tasks, size, reads = 1, 3, 3

        def log_density(self, z):
            return -0.5 * (z - 0.5).square().sum(-1)

    z = torch.randn(1, 20000, 3, generator=torch.Generator().manual_seed(0))
    log_q = -0.5 * z.square().sum(-1)
    made = closeness(Shifted(), z, log_q, resampled=2000)
    assert made["z"].shape == (1, 2000, 3)
    assert (made["z"].mean(1) - 0.5).abs().max() < 0.05
    assert (made["z"].std(1) - 1).abs().max() < 0.05
    assert made["stein_moments"] <= 1
    assert closeness(Shifted(), z[:, :500], log_q[:, :500])["stein_moments"] > 1


def test_tasks_of_episodes_with_a_population():
    model = HierarchicalHead(weight_scale=2.0)
    episodes, _ = synthetic_episodes(users=3, way=3, shots=2, frames=1, dim=4, seed=1)
    engine = Checked(Laplace(draws=60), then=(bf.NUTS(warmup=30, draws=20, chains=2),))
    given = model.default_population(4)
    found = engine.infer(model, episodes, seed=0, given=given)
    assert found.sample_stats["escalated"].shape == (3,)
    assert set(found.draws) == set(model.dims)


class TestCheckedContract(EngineContract):
    def make_engine(self):
        return Checked(SVI(FullRank(), draws=2000), then=(bf.NUTS(warmup=200, draws=500),))
