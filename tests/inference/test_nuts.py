"""NUTS: against exact Gaussians, against itself in fewer latents, and its contract."""

import math
from dataclasses import replace
from typing import ClassVar

import pyro
import pyro.distributions as dist
import pytest
import torch

from bayesfs.diagnostics.convergence import diagnose
from bayesfs.errors import InferenceError
from bayesfs.inference.nuts.nuts import NUTS
from bayesfs.inference.nuts.pyro_nuts import PyroNUTS
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.results.convert import to_datatree
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing import EngineContract, GaussianToy


@pytest.mark.slow
class TestContract(EngineContract):
    mean_tolerance = 0.15
    sd_ratio = (0.85, 1.15)

    def make_engine(self):
        return NUTS(warmup=300, draws=400, chains=4)


@pytest.fixture(scope="module")
def toy():
    model = GaussianToy()
    episodes, _ = synthetic_episodes(users=3, way=3, shots=2, frames=2, dim=2, ragged=True, seed=3)
    given = model.fixed_population(2)
    posterior = NUTS().infer(model, episodes, seed=0, given=given)
    return model, episodes, posterior


def effective(draws):
    """Effective sample sizes, by arviz_stats, of (draw, ...) chain-major draws of 4 chains."""
    from arviz_stats.base import array_stats

    chains = draws.reshape(4, -1, *draws.shape[1:]).double().numpy()
    return torch.from_numpy(array_stats.ess(chains, chain_axis=0, draw_axis=1))


def test_means_are_within_four_standard_errors(toy):
    model, episodes, posterior = toy
    for site, (mean, sd) in model.exact(episodes).items():
        draws = posterior.draws[site]
        error = (draws.mean(0) - mean).abs() / (draws.std(0) / effective(draws).sqrt())
        assert error.max() < 4, f"{site}: {error.max():.1f} standard errors"
        error = (draws.var(0) / sd**2 - 1).abs() * (effective((draws - mean) ** 2) / 2).sqrt()
        assert error.max() < 4, f"variance of {site}: {error.max():.1f} standard errors"


def test_statistics_have_one_entry_per_draw_and_task(toy):
    _, _, posterior = toy
    stats = posterior.sample_stats
    names = {"diverging", "energy", "acceptance_rate", "n_steps", "step_size"}
    assert set(stats) == names
    assert all(value.shape == (2000, 3) for value in stats.values())
    assert posterior.chains == 4
    assert not stats["diverging"].any()
    assert 0.7 < stats["acceptance_rate"].mean() < 0.95
    assert stats["n_steps"].max() <= 2**10 - 1
    energy = stats["energy"].reshape(4, 500, 3).double()
    bfmi = energy.diff(dim=1).square().mean(1) / energy.var(1)
    assert bfmi.min() > 0.5


def test_energy_is_that_of_the_model():
    """Mean potential energy: size / 2 nats above its minimum, and as much kinetic energy."""
    from bayesfs.inference.program.potential import potential

    model = GaussianToy()  # tasks of one shape: padding is not sampled and has no energy
    episodes, _ = synthetic_episodes(users=3, way=3, shots=2, frames=2, dim=2, seed=3)
    posterior = NUTS().infer(model, episodes, seed=0, given=model.fixed_population(2))
    density = potential(model, episodes, model.fixed_population(2))
    z = density.unconstrain({s: posterior.draws[s] for s in density.blocks})
    value = density.log_density(z)
    kinetic = posterior.sample_stats["energy"].T[:, 1:] + value[:, :-1]
    assert kinetic.mean(1).sub(density.size / 2).abs().max() < 0.05 * density.size


@pytest.mark.slow
def test_only_informed_latents_are_sampled_and_the_posterior_is_the_same():
    episodes, _ = synthetic_episodes(users=2, way=3, shots=2, frames=1, dim=12, seed=1)
    model = HierarchicalHead(weight_scale=2.0)
    given = model.default_population(12)
    population = dict(given.draws)
    population["relevance"] = torch.linspace(0.5, 2.0, 12)[None]
    given = replace(given, draws=population)
    full, part = (
        NUTS(draws=1500, informed=i).infer(model, episodes, seed=i, given=given) for i in (0, 1)
    )
    assert part.dims == full.dims
    for site in ("weight_raw", "task_scale_raw", "task_mean_raw", "offset_raw"):
        a, b = full.draws[site], part.draws[site]
        error = (a.var(0) / effective(a) + b.var(0) / effective(b)).sqrt()
        assert ((a.mean(0) - b.mean(0)) / error).abs().max() < 4.5, site
        spread = (a.std(0) / b.std(0)).log().abs() * effective(a).clamp(max=3000).sqrt()
        assert spread.max() < 4.5, site
    p, q = (model.log_joint_frame(x.draws, episodes).exp().mean(0) for x in (full, part))
    assert (p * (p / q).log()).sum(-1).max() < 2e-3


def test_many_short_chains_start_together_in_superchains():
    """Nested R-hat passes those that have forgotten where they started, and tells of the others."""
    model = GaussianToy()
    episodes, _ = synthetic_episodes(users=2, way=2, shots=1, frames=2, dim=2, seed=0)
    given = model.fixed_population(2)
    many = NUTS(warmup=150, draws=20, chains=64, superchains=4)
    posterior = many.infer(model, episodes, seed=0, given=given)
    assert posterior.sample_stats["superchain"].reshape(64, 20)[:, 0].tolist() == sorted(
        16 * [*range(4)]
    )
    found = diagnose(to_datatree(posterior))
    assert found.verdict == "fit for use"
    assert "nested R-hat" in {check.name for check in found.checks}
    rushed = NUTS(warmup=1, draws=4, chains=64, superchains=4, max_depth=1)
    posterior = rushed.infer(model, episodes, seed=0, given=given)
    assert "nested R-hat" in {c.name for c in diagnose(to_datatree(posterior)).failed}


def test_a_batch_that_is_not_full_and_a_double_precision_one():
    model = GaussianToy()
    episodes, _ = synthetic_episodes(users=3, way=2, shots=1, frames=2, dim=2, seed=0)
    given = model.fixed_population(2)
    engine = NUTS(warmup=20, draws=10, chains=1, batch_size=2)
    posterior = engine.infer(model, episodes.to(torch.float64), seed=0, given=given)
    assert posterior.draws["class_raw"].shape == (10, 3, 2, 2)
    assert posterior.draws["class_raw"].dtype == torch.float64
    assert posterior.sample_stats["energy"].shape == (10, 3)
    assert posterior.sample_stats["energy"].dtype == torch.float64
    assert posterior.coords["task"] == episodes.tasks


def test_batches_of_one_shape_share_one_compiled_sampler():
    from bayesfs.inference.nuts import chains

    model = GaussianToy()
    given = model.fixed_population(2)
    engine = NUTS(warmup=20, draws=5, chains=2, batch_size=2)
    episodes, _ = synthetic_episodes(users=5, way=2, shots=1, frames=2, dim=2, seed=0)
    engine.infer(model, episodes, seed=0, given=given)
    compiled = chains._compiled()._cache_size()
    other, _ = synthetic_episodes(users=4, way=2, shots=1, frames=2, dim=2, seed=9)
    engine.infer(model, other, seed=1, given=given)
    assert chains._compiled()._cache_size() == compiled


def test_progress_counts_all_batches():
    seen = []
    model = GaussianToy()
    episodes, _ = synthetic_episodes(users=4, way=2, shots=1, frames=2, dim=2, seed=0)
    engine = NUTS(warmup=20, draws=5, chains=2, batch_size=2)
    engine.infer(
        model,
        episodes,
        seed=0,
        given=model.fixed_population(2),
        progress=lambda *args: seen.append(args),
    )
    assert seen[-1][:2] == (50, 50)
    assert all(done <= total for done, total, _ in seen)


class Exotic:
    """Uses an operation that has no translation."""

    dims: ClassVar = {"a": ("task",)}

    def __call__(self, episodes):
        with pyro.plate("task", len(episodes), dim=-4):
            a = pyro.sample("a", dist.Normal(torch.zeros(()), 1.0))
            loc = torch.special.bessel_j0(a)
            pyro.sample("x", dist.Normal(loc, 1.0), obs=episodes.support[:, :1, :1, :1, 0])


def test_a_model_that_cannot_be_translated_is_told_apart():
    episodes, _ = synthetic_episodes(users=2, way=2, shots=1, frames=2, dim=2, seed=0)
    with pytest.raises(InferenceError, match=r"special_bessel_j0.*PyroNUTS"):
        NUTS(warmup=10, draws=5).infer(Exotic(), episodes, seed=0)


def test_pyro_agrees():
    model = GaussianToy()
    episodes, _ = synthetic_episodes(users=1, way=2, shots=1, frames=1, dim=1, seed=0)
    given = model.fixed_population(1)
    engine = PyroNUTS(warmup=50, draws=60)
    posterior = engine.infer(model, episodes, seed=0, given=given)
    assert posterior.chains == 2
    assert posterior.sample_stats["diverging"].shape == (120, 1)
    assert torch.equal(
        posterior.draws["class_raw"],
        engine.infer(model, episodes, seed=0, given=given).draws["class_raw"],
    )
    for site, (mean, sd) in model.exact(episodes).items():
        assert ((posterior.draws[site].mean(0) - mean).abs() / sd).max() < 0.5
        assert (posterior.draws[site].std(0) / sd).log().abs().max() < 0.4


@pytest.mark.parametrize(
    "wrong",
    [
        {"draws": 0},
        {"warmup": 0},
        {"target_accept": 1.0},
        {"max_depth": 11},
        {"warmup_depth": 0},
        {"superchains": 1},
        {"chains": 6, "superchains": 4},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(InferenceError):
        NUTS(**wrong)


def test_no_global_setting_is_changed():
    import jax

    assert not jax.config.jax_enable_x64
    assert math.isclose(float(jax.numpy.ones(()).dtype.itemsize), 4)
