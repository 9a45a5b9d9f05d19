import pyro
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal

from bayesfs.errors import InferenceError
from bayesfs.inference.svi.autoguides import PyroSVI
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing import EngineContract, GaussianToy


@pytest.mark.slow
class TestPyroSVI(EngineContract):
    sd_ratio = (0.6, 1.2)
    joint_sd_ratio = (0.3, 1.2)

    def make_engine(self):
        return PyroSVI(steps=600, draws=500)


def test_pyros_full_rank_guide_finds_the_posterior():
    model = GaussianToy()
    episodes, _ = synthetic_episodes(users=1, way=2, shots=1, frames=2, dim=1, seed=0)
    posterior = PyroSVI(guide=AutoMultivariateNormal, steps=600, draws=400).infer(
        model, episodes, seed=0, given=model.fixed_population(1)
    )
    for site, (mean, sd) in model.exact(episodes).items():
        assert ((posterior.draws[site].mean(0) - mean).abs() / sd).max() < 0.25
        assert (posterior.draws[site].std(0) / sd).min() > 0.75
    assert len(pyro.get_param_store()) == 0


@pytest.mark.slow
def test_both_mean_fields_agree_on_a_head():
    """The same family on the same density, by two implementations."""
    model = HierarchicalHead(weight_scale=2.0)
    episodes, _ = synthetic_episodes(users=2, way=3, shots=2, frames=2, dim=3, seed=0)
    given = model.default_population(3)
    engine = PyroSVI(steps=600, learning_rate=0.06, draws=300)
    ours = SVI(steps=2000).infer(model, episodes, seed=0, given=given)
    pyros = engine.infer(model, episodes, seed=0, given=given)
    for site in ("weight_raw", "task_scale_raw"):
        a, b = ours.draws[site], pyros.draws[site]
        assert ((a.mean(0) - b.mean(0)).abs() / a.std(0)).max() < 0.35, site
        assert (b.std(0) / a.std(0) - 1).abs().max() < 0.3, site
    bound = float(ours.sample_stats["evidence_bound"].sum())
    assert bound == pytest.approx(float(pyros.sample_stats["elbo"][-200:].mean()), abs=1.0)


def test_impossible_settings_are_refused():
    with pytest.raises(InferenceError, match="steps: expected 1 or more, got 0"):
        PyroSVI(steps=0)


def test_population_is_inferred_without_given():
    model = GaussianToy()
    episodes, _ = synthetic_episodes(users=1, way=1, shots=1, frames=1, dim=1, seed=0)
    posterior = PyroSVI(steps=20, draws=5).infer(model, episodes, seed=0)
    assert posterior.draws["mean"].shape == (5, 1)
    assert torch.isfinite(posterior.sample_stats["elbo"]).all()
