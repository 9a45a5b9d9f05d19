import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy import stats

from bayesfs._distributions.importance import smoothed
from bayesfs.errors import InferenceError
from bayesfs.inference.svi.elbo import Schedule, maximise_elbo
from bayesfs.inference.svi.flow import Flow
from bayesfs.inference.svi.guides import FullRank, LowRank, MeanField
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing import EngineContract, GaussianToy
from bayesfs.types import Posterior


class TestMeanField(EngineContract):
    sd_ratio = (0.7, 1.1)  # class and video latents are correlated: too narrow by construction
    joint_sd_ratio = (0.3, 1.1)  # and every class with the population mean

    def make_engine(self):
        return SVI(draws=2000)


@pytest.mark.slow  # by day `TestCheckedContract` begins with it, and its optimum is known below
class TestFullRank(EngineContract):
    mean_tolerance = 0.1
    sd_ratio = (0.93, 1.07)

    def make_engine(self):
        return SVI(guide=FullRank(), draws=4000)


@pytest.mark.slow
class TestFlow(EngineContract):
    sd_ratio = (0.6, 1.15)
    joint_sd_ratio = (0.3, 1.15)

    def make_engine(self):
        return SVI(guide=Flow(layers=2, hidden=4), steps=300, draws=2000)


@dataclass
class GaussianDensity:
    """Known Gaussians, one per task, with any covariance."""

    mean: torch.Tensor
    precision: torch.Tensor

    @property
    def tasks(self):
        return len(self.mean)

    @property
    def size(self):
        return self.mean.shape[1]

    @property
    def reads(self):
        return self.mean.numel()

    def log_density(self, z):
        error = z - self.mean.unsqueeze(1)
        log_det = torch.logdet(self.precision) - self.size * math.log(2 * math.pi)
        return 0.5 * (log_det.unsqueeze(1) - (error @ self.precision * error).sum(-1))

    def value_and_gradient(self, z):
        return self.log_density(z), -(z - self.mean.unsqueeze(1)) @ self.precision


def gaussians(tasks=3, size=4, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(tasks, size, size)) / math.sqrt(size)
    covariance = 0.3 * np.eye(size) + root @ root.transpose(0, 2, 1)
    mean = torch.as_tensor(rng.normal(size=(tasks, size)))
    return GaussianDensity(mean, torch.as_tensor(np.linalg.inv(covariance))), covariance


def fit(density, guide, steps=2000, particles=4):
    like = torch.zeros(density.tasks, density.size, dtype=torch.float64)
    schedule = Schedule(steps, 0.05, particles, early_stopping=False)
    generator = torch.Generator().manual_seed(0)
    return maximise_elbo(
        density, guide, schedule, start=guide.start(like, 0.4), generator=generator
    )


def moments(guide, parameters, size):
    """Mean and covariance of a Gaussian guide: it is affine in the noise."""
    eye = torch.eye(guide.noise_size(size), dtype=torch.float64)
    basis = torch.cat([0 * eye[:1], eye]).unsqueeze(0)
    z = guide.draw(parameters, basis)
    root = z[:, 1:] - z[:, :1]
    return z[:, 0], root.mT @ root


def test_full_rank_attains_the_optimum_on_gaussians():
    """ELBO = log evidence (0), mean and covariance those of the target."""
    density, covariance = gaussians()
    result = fit(density, FullRank())
    mean, got = moments(FullRank(), result.parameters, density.size)
    torch.testing.assert_close(mean, density.mean, atol=1e-3, rtol=0)
    np.testing.assert_allclose(got.numpy(), covariance, atol=3e-3)
    assert abs(float(result.elbo[-1])) < 1e-3


def test_mean_field_attains_its_optimum_on_gaussians():
    """Its best variances are 1 / diag(precision), below the marginal variances."""
    density, covariance = gaussians()
    result = fit(density, MeanField())
    mean, got = moments(MeanField(), result.parameters, density.size)
    torch.testing.assert_close(mean, density.mean, atol=0.05, rtol=0)
    best = 1 / density.precision.diagonal(0, 1, 2)
    torch.testing.assert_close(got.diagonal(0, 1, 2), best, rtol=0.08, atol=0)
    assert (best.numpy() <= covariance.diagonal(0, 1, 2) + 1e-12).all()


def test_low_rank_attains_the_optimum_where_the_target_is_low_rank():
    root = torch.as_tensor(np.random.default_rng(1).normal(size=(2, 6, 1)))
    covariance = 0.5 * torch.eye(6, dtype=torch.float64) + root @ root.mT
    density = GaussianDensity(torch.zeros(2, 6).double(), torch.linalg.inv(covariance))
    result = fit(density, LowRank(1), steps=4000)
    _, got = moments(LowRank(1), result.parameters, 6)
    torch.testing.assert_close(got, covariance, atol=0.03, rtol=0)


@pytest.mark.parametrize("guide", [MeanField(), LowRank(2), FullRank()], ids=lambda g: str(g))
def test_guides_know_their_own_density(guide):
    """Against SciPy, from the moments of the affine map."""
    generator = torch.Generator().manual_seed(0)
    like = torch.zeros(2, 3, dtype=torch.float64)
    start = guide.start(like, 0.4)
    parameters = start + 0.3 * torch.randn(start.shape, generator=generator, dtype=start.dtype)
    noise = torch.randn(2, 5, guide.noise_size(3), generator=generator, dtype=torch.float64)
    z, got = guide.draw(parameters, noise), guide.log_density(parameters, noise)
    mean, covariance = moments(guide, parameters, 3)
    for task in range(2):
        truth = stats.multivariate_normal(mean[task].numpy(), covariance[task].numpy())
        np.testing.assert_allclose(got[task].numpy(), truth.logpdf(z[task].numpy()), rtol=1e-9)


@pytest.mark.parametrize("guide", [MeanField(), LowRank(2), FullRank()], ids=lambda g: str(g))
def test_ascent_is_the_path_derivative_of_the_elbo(guide):
    """Against autograd through z, with the guide's density held fixed."""
    density, _ = gaussians(tasks=2, size=3)
    generator = torch.Generator().manual_seed(0)
    like = torch.zeros(2, 3, dtype=torch.float64)
    start = guide.start(like, 0.4)
    frozen = start + 0.3 * torch.randn(start.shape, generator=generator, dtype=start.dtype)
    parameters = frozen.clone().requires_grad_()
    noise = torch.randn(1, 4, guide.noise_size(3), generator=generator, dtype=torch.float64)
    z = guide.draw(parameters, noise)
    mean, covariance = moments(guide, frozen, 3)
    q = torch.distributions.MultivariateNormal(mean.unsqueeze(1), covariance.unsqueeze(1))
    elbo = (density.log_density(z) - q.log_prob(z)).mean(1).sum()
    (expected,) = torch.autograd.grad(elbo, parameters)
    _, score = density.value_and_gradient(z.detach())
    torch.testing.assert_close(guide.ascent(frozen, noise, score), expected)


class Funnel:
    """Neal's funnel in two dimensions: no Gaussian fits it. log p is normalised."""

    tasks, size = 2, 2

    def log_density(self, z):
        width, x = z[..., 0], z[..., 1]
        normal = torch.distributions.Normal
        return normal(0.0, 1.5).log_prob(width) + normal(0.0, (width / 2).exp()).log_prob(x)

    def value_and_gradient(self, z):
        z = z.detach()
        return self.log_density(z), torch.func.grad(lambda x: self.log_density(x).sum())(z)


@pytest.mark.slow
def test_flow_fits_a_funnel_better_than_any_gaussian():
    gaussian, flow = (fit(Funnel(), g, steps=800, particles=8) for g in (FullRank(), Flow()))
    loss = [-float(f.elbo[-100:].mean()) / Funnel.tasks for f in (gaussian, flow)]
    assert 0 <= loss[1] < 0.5 * loss[0]


def test_flow_knows_its_own_density():
    """Its log determinant against autograd's Jacobian."""
    guide = Flow(layers=3, hidden=2)
    start = guide.start(torch.zeros(1, 5, dtype=torch.float64), 0.4)
    generator = torch.Generator().manual_seed(0)
    parameters = start + torch.randn(start.shape, generator=generator, dtype=torch.float64)
    noise = torch.randn(5, generator=generator, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(
        lambda e: guide.draw(parameters, e[None, None])[0, 0], noise
    )
    expected = stats.norm.logpdf(noise.numpy()).sum() - float(torch.linalg.slogdet(jacobian)[1])
    assert float(guide.log_density(parameters, noise[None, None])) == pytest.approx(expected)


def test_khat_is_the_shape_of_a_known_tail():
    """exp(k E), E exponential, is Pareto with shape k."""
    rng = np.random.default_rng(0)
    for k in (0.3, 0.9):
        log_weight = torch.as_tensor(k * rng.exponential(size=(2, 20000)))
        assert [smoothed(one)[1] for one in log_weight.numpy()] == pytest.approx([k, k], abs=0.2)
    assert smoothed(np.zeros(100))[1] == -math.inf
    assert math.isnan(smoothed(np.arange(10.0))[1])


def test_diagnostics_come_per_task_and_step():
    model = GaussianToy()
    episodes, _ = synthetic_episodes(users=5, way=2, shots=2, frames=2, dim=2, seed=0)
    given = model.fixed_population(2)
    posterior = SVI(steps=100, early_stopping=False).infer(model, episodes, seed=0, given=given)
    assert posterior.sample_stats["elbo"].shape == (100,)
    assert posterior.sample_stats["khat"].shape == (5,)
    assert posterior.sample_stats["evidence_bound"].shape == (5,)
    assert posterior.kind == "variational"
    assert posterior.coords["task"] == episodes.tasks


def test_evidence_bound_reaches_the_evidence():
    """Full rank on a linear Gaussian model: ELBO = log p(support), known from the dense solve."""
    model = GaussianToy()
    episodes, _ = synthetic_episodes(users=2, way=2, shots=2, frames=2, dim=2, seed=0)
    episodes = episodes.to(torch.float64)
    design = model._design(episodes)[..., 1:]
    posterior = SVI(guide=FullRank(), steps=1000, draws=100).infer(
        model, episodes, seed=0, given=model.fixed_population(2)
    )
    for task in range(2):
        rows = design[task].reshape(-1, design.shape[-1]).double().numpy()
        x = episodes.support[task].reshape(-1, 2).numpy()
        covariance = rows @ rows.T + model.frame_scale**2 * np.eye(len(rows))
        truth = stats.multivariate_normal(np.zeros(len(rows)), covariance).logpdf(x.T).sum()
        assert float(posterior.sample_stats["evidence_bound"][task]) == pytest.approx(
            truth, abs=0.02
        )


def test_batches_bound_the_memory_and_change_nothing_else():
    model = GaussianToy()
    episodes, _ = synthetic_episodes(users=5, way=2, shots=2, frames=2, dim=2, seed=0)
    given = model.fixed_population(2)
    whole = SVI().infer(model, episodes, seed=0, given=given)
    parts = SVI(batch_size=2).infer(model, episodes, seed=0, given=given)
    assert parts.draws["class_raw"].shape == whole.draws["class_raw"].shape
    assert parts.coords["task"] == episodes.tasks
    gap = parts.draws["class_raw"].mean(0) - whole.draws["class_raw"].mean(0)
    assert gap.abs().max() < 0.2
    torch.testing.assert_close(
        parts.sample_stats["evidence_bound"],
        whole.sample_stats["evidence_bound"],
        atol=0.3,
        rtol=0,
    )


def test_one_step_is_a_step():
    """The average over the last half of the schedule holds at least the last step."""
    model = GaussianToy()
    episodes, _ = synthetic_episodes(users=2, way=2, shots=2, frames=2, dim=2, seed=0)
    given = model.fixed_population(2)
    posterior = SVI(steps=1, early_stopping=False).infer(model, episodes, seed=0, given=given)
    assert all(torch.isfinite(draws).all() for draws in posterior.draws.values())


def test_early_stopping_stops_and_loses_nothing():
    model = GaussianToy()
    episodes, _ = synthetic_episodes(users=3, way=2, shots=2, frames=2, dim=2, seed=0)
    given = model.fixed_population(2)
    full, short = (
        SVI(steps=2000, early_stopping=stop).infer(model, episodes, seed=0, given=given)
        for stop in (False, True)
    )
    assert len(full.sample_stats["elbo"]) == 2000
    assert len(short.sample_stats["elbo"]) < 1500
    torch.testing.assert_close(
        short.sample_stats["evidence_bound"],
        full.sample_stats["evidence_bound"],
        atol=0.4,
        rtol=0,
    )


def test_elbo_rises():
    model = HierarchicalHead(video_scale=0.0)
    episodes, _ = synthetic_episodes(users=2, way=3, shots=2, frames=2, dim=4, seed=0)
    posterior = SVI(steps=200).infer(model, episodes, seed=0, given=model.default_population(4))
    elbo = posterior.sample_stats["elbo"]
    assert elbo[-20:].mean() > elbo[:20].mean()


def test_population_of_a_head_is_learnt():
    """Tasks whose classes are far apart in feature 0 only: its relevance must come out largest."""
    generator = torch.Generator().manual_seed(0)
    episodes, _ = synthetic_episodes(users=12, way=3, shots=3, frames=1, dim=3, seed=0)
    shift = 2.0 * torch.randn(12, 3, 1, 1, generator=generator)
    support = 0.5 * torch.randn(episodes.support.shape, generator=generator)
    support[..., 0] += shift

    model = HierarchicalHead(weight_scale=2.0, video_scale=0.0, relevance_spread=1.0)
    posterior = SVI(steps=800).infer(model, replace(episodes, support=support), seed=0)
    relevance = posterior.draws["relevance"].log().mean(0)
    assert set(posterior.population) >= {"relevance", "population_scale"}
    assert relevance.argmax() == 0
    assert relevance[0] > relevance[1:].max() + 0.1


def test_impossible_data_is_named():
    class Impossible(GaussianToy):
        def __call__(self, episodes):
            import pyro

            super().__call__(episodes)
            with pyro.plate("tasks", len(episodes), dim=-4):
                pyro.factor("never", torch.full((len(episodes), 1, 1, 1), -math.inf))

    episodes, _ = synthetic_episodes(users=2, way=2, shots=2, frames=2, dim=2, seed=0)
    model = GaussianToy(frame_scale=1e-30)
    with pytest.raises(InferenceError, match=r"not finite after .* tasks \[0, 1\]"):
        SVI(steps=50).infer(model, episodes, seed=0, given=model.fixed_population(2))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"learning_rate": 0.0}, {"draws": 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(InferenceError, match="expected"):
        SVI(**wrong)


def test_progress_is_reported():
    seen = []
    model = GaussianToy()
    episodes, _ = synthetic_episodes(users=2, way=2, shots=2, frames=2, dim=2, seed=0)
    engine = SVI(steps=100)
    engine.infer(
        model,
        episodes,
        seed=0,
        given=model.fixed_population(2),
        progress=lambda done, total, text: seen.append((done, total)),
    )
    done, whole = zip(*seen, strict=True)
    assert set(whole) == {100 + 1000 // 2}  # steps, and draws that are held against the density
    assert list(done) == sorted(done)
    assert {100, whole[0]} <= set(done)


def test_uncertainty_of_the_population_can_be_carried_through():
    """Given a spread-out population mean, class latents spread as the mixture over its draws."""
    model = GaussianToy()
    episodes, _ = synthetic_episodes(users=2, way=2, shots=2, frames=2, dim=2, seed=0)
    draws = torch.linspace(-1, 1, 9)[:, None].expand(9, 2)
    given = Posterior("mcmc", {"mean": draws}, {"mean": ("feature",)})
    engine = SVI(guide=FullRank(), steps=50, draws=900, population_draws=9)
    posterior = engine.infer(model, episodes, seed=0, given=given)
    assert posterior.num_draws == 900
    torch.testing.assert_close(posterior.draws["mean"][::100], draws)
    assert posterior.sample_stats["khat"].shape == (2,)
    fixed = model.exact(episodes)["class_raw"]
    slope = model.exact(replace(episodes, support=episodes.support - 1))["class_raw"][0] - fixed[0]
    expected = (fixed[1] ** 2 + draws[:, 0].double().var(unbiased=False) * slope**2).sqrt()
    torch.testing.assert_close(
        posterior.draws["class_raw"].double().std(0), expected, rtol=0.12, atol=0
    )
    one = SVI(steps=20, draws=50).infer(model, episodes, seed=0, given=given)
    assert (one.draws["mean"] == 0).all()
