"""SVGD: exact Gaussians, kernels against their definition, where Pyro's is wrong, its contract."""

import math
from pathlib import Path
from typing import ClassVar

import pyro
import pyro.distributions as dist
import pytest
import torch

from bayesfs.errors import InferenceError
from bayesfs.inference.program.sites import Block
from bayesfs.inference.svgd.flow import Annealing, SteinSchedule, flow
from bayesfs.inference.svgd.kernels import IMQ, LinearStein, Mixture, PerBlock, RBFStein
from bayesfs.inference.svgd.metric import Metric
from bayesfs.inference.svgd.svgd import SVGD
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing import EngineContract, GaussianToy

KERNELS = [
    RBFStein(),
    RBFStein(1.3),
    IMQ(),
    LinearStein("full"),
    LinearStein("diagonal"),
    PerBlock(IMQ(), "row"),
    PerBlock(LinearStein(), "site"),
    Mixture((LinearStein("diagonal"), IMQ()), (1.0, 0.5)),
]
BLOCKS = (Block("a", 0, 1, "task", ()), Block("b", 1, 5, "way", (2, 2)))


class TestContract(EngineContract):
    mean_tolerance = 0.1
    sd_ratio = (0.9, 1.1)

    def make_engine(self):
        return SVGD(particles=150, steps=120)


class Gaussian:
    """N(mean, covariance), repeated over tasks."""

    def __init__(self, mean, covariance, tasks=1):
        self.mean, self.tasks, self.size = mean, tasks, len(mean)
        self.precision = torch.linalg.inv(covariance)

    def log_density(self, z):
        gap = z - self.mean
        return -0.5 * (gap @ self.precision * gap).sum(-1)

    def value_and_gradient(self, z):
        return self.log_density(z), self.gradient(z)

    def gradient(self, z):
        return -(z - self.mean) @ self.precision


def covariances(size):
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(0)))
    scales = torch.logspace(-2, 2, size)
    return {
        "standard": torch.eye(size),
        "correlated": 0.9 * torch.ones(size, size) + 0.1 * torch.eye(size),
        "badly scaled": torch.diag(scales),
        "both": basis @ torch.diag(scales) @ basis.mT,
    }


def moved(density, kernel, particles=100, steps=200, precondition=True, **kw):
    g = torch.Generator().manual_seed(0)
    u = torch.randn(density.tasks, particles, density.size, generator=g)
    metric = Metric.at_mode(density, u) if precondition else None
    return flow(density, u, kernel, SteinSchedule(steps, 0.1, True, **kw), metric=metric)


@pytest.mark.parametrize("name", covariances(2))
@pytest.mark.parametrize(
    "kernel",
    [LinearStein(), Mixture((LinearStein(), IMQ()), (1.0, 0.5))],
    ids=["linear", "linear + IMQ"],
)
def test_100_particles_have_the_moments_of_a_gaussian_in_32_dimensions(name, kernel):
    covariance = covariances(32)[name]
    mean, sd = torch.linspace(-2, 2, 32), covariance.diagonal().sqrt()
    z = moved(Gaussian(mean, covariance), kernel).z[0]
    assert ((z.mean(0) - mean).abs() / sd).max() < 0.02
    ratio = z.std(0) / sd
    assert ratio.min() > 0.9
    assert ratio.max() < 1.1


def test_the_plain_rbf_collapses_there():
    """Why `LinearStein` is the default."""
    z = moved(Gaussian(torch.zeros(32), torch.eye(32)), RBFStein()).z[0]
    assert z.std(0).max() < 0.6


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_direction_and_discrepancy_agree(kernel):
    """KSD^2 is s.phi plus a term linear in s and one without s, and phi says all of s.phi.

    With r = phi at scores 0 (the repulsion), the terms of u give mean of
    s.phi(s) + s.r = KSD^2(s) - KSD^2(0).
    """
    g = torch.Generator().manual_seed(1)
    x, s = (torch.randn(12, 5, generator=g, dtype=torch.float64) for _ in range(2))
    squared, expected = kernel.discrepancy(x, s, BLOCKS)
    constant, _ = kernel.discrepancy(x, 0 * s, BLOCKS)
    both = kernel.direction(x, s, BLOCKS) + kernel.direction(x, 0 * s, BLOCKS)
    torch.testing.assert_close((s * both).sum(-1).mean(), squared - constant)
    assert squared > 0
    assert expected > 0


@pytest.mark.parametrize("kernel", [RBFStein(1.3), IMQ(0.8)], ids=repr)
def test_stein_kernel_by_automatic_differentiation(kernel):
    g = torch.Generator().manual_seed(2)
    x, s = (torch.randn(6, 3, generator=g, dtype=torch.float64) for _ in range(2))

    def k(a, b):
        return kernel.profile((a - b).square().sum() / kernel.scale**2)[0]

    total, own = 0.0, 0.0
    for i in range(6):
        for j in range(6):
            first = torch.func.grad(k, 0)(x[i], x[j])
            second = torch.func.grad(k, 1)(x[i], x[j])
            trace = torch.func.jacfwd(torch.func.grad(k, 0), 1)(x[i], x[j]).trace()
            u = s[i] @ s[j] * k(x[i], x[j]) + s[i] @ second + s[j] @ first + trace
            total += u
            own += u if i == j else 0.0
    squared, expected = kernel.discrepancy(x, s, ())
    torch.testing.assert_close(squared, total / 36)
    torch.testing.assert_close(expected, own / 36)


def test_independent_draws_have_the_expected_discrepancy_and_narrow_ones_more():
    density = Gaussian(torch.zeros(4), torch.eye(4), tasks=200)
    z = torch.randn(200, 50, 4, generator=torch.Generator().manual_seed(3))
    for kernel in (IMQ(), RBFStein(), LinearStein("diagonal")):
        ratios = []
        for scale in (1.0, 0.6):
            x = scale * z
            squared, expected = kernel.discrepancy(x, density.value_and_gradient(x)[1], ())
            ratios.append(float((squared / expected).mean()))
        assert abs(ratios[0] - 1) < 0.25, (kernel, ratios)
        assert ratios[1] > 1.3, (kernel, ratios)


class TwoSites:
    """x ~ N(0, 1), y ~ N(1, .1), and no data: what Pyro's SVGD gets wrong."""

    dims: ClassVar = {"x": ("task",), "y": ("task",)}

    def __call__(self, episodes):
        one = episodes.support.new_ones(())
        with pyro.plate("task", len(episodes), dim=-4):
            pyro.sample("x", dist.Normal(0 * one, one))
            pyro.sample("y", dist.Normal(one, 0.1 * one))


class Hierarchy:
    """mu ~ N(0, 1), theta_k ~ N(mu, .3), x_k ~ N(theta_k, .5), for five k, centred."""

    dims: ClassVar = {"mu": ("task",), "theta": ("task", "group")}
    data = torch.tensor([0.3, 0.8, -0.1, 1.2, 0.5])

    def __call__(self, episodes):
        one = episodes.support.new_ones(())
        with pyro.plate("task", len(episodes), dim=-4):
            mu = pyro.sample("mu", dist.Normal(0 * one, one))
            center = mu[..., None].expand(*mu.shape, 5)
            theta = pyro.sample("theta", dist.Normal(center, 0.3 * one).to_event(1))
            noise = dist.Normal(theta, 0.5 * one).to_event(1)
            pyro.sample("x", noise, obs=self.data.expand(theta.shape))

    def exact(self):
        """Mean and sd of mu, by marginalising theta."""
        noise = 0.3**2 + 0.5**2
        precision = 1 + 5 / noise
        return float(self.data.sum() / noise / precision), precision**-0.5


@pytest.fixture
def one_task():
    return synthetic_episodes(users=1, way=2, shots=1, frames=1, dim=2, seed=0)[0]


def test_sites_do_not_mix(one_task):
    posterior = SVGD(particles=20, steps=300).infer(TwoSites(), one_task, seed=0)
    x, y = posterior.draws["x"], posterior.draws["y"]
    assert abs(x.mean()) < 0.02
    assert abs(x.std() - 1) < 0.1
    assert abs(y.mean() - 1) < 0.002
    assert abs(y.std() - 0.1) < 0.01


def pyro_particles(program, steps, guide=None):
    """20 particles of Pyro's SVGD, with its own guide or another."""
    with torch.random.fork_rng():
        pyro.set_rng_seed(0)
        pyro.clear_param_store()
        adam = pyro.optim.Adam({"lr": 0.05})
        svgd = pyro.infer.SVGD(program, pyro.infer.RBFSteinKernel(), adam, 20, 0)
        if guide is not None:
            svgd.guide = guide(svgd.model)
        for _ in range(steps):
            svgd.step()
        particles = svgd.get_named_particles()
        pyro.clear_param_store()
    return particles


def two_sites():
    pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(1.0, 0.1))


def test_pyro_mixes_sites():
    """If this fails, Pyro is repaired: drop the note in docs/inference/svgd.md."""
    assert pyro_particles(two_sites, 300)["x"].mean() > 0.2


def test_the_repair_in_the_note_works():
    text = (Path(__file__).parents[2] / "docs" / "inference" / "svgd.md").read_text("utf-8")
    names = {}
    exec(text.split("```python\n")[1].split("```")[0], names)
    particles = pyro_particles(two_sites, 300, names["_SVGDGuide"])
    assert abs(particles["x"].mean()) < 0.05
    assert abs(particles["y"].mean() - 1) < 0.02
    assert abs(particles["x"].std() - 1) < 0.15


def test_a_hierarchy_has_its_closed_form(one_task):
    mean, sd = Hierarchy().exact()
    posterior = SVGD(particles=40, steps=300).infer(Hierarchy(), one_task, seed=0)
    mu = posterior.draws["mu"]
    assert abs(mu.mean() - mean) < 0.02 * sd
    assert abs(mu.std() / sd - 1) < 0.05


class TwoModes:
    """An equal mixture of N(-4, 1) and N(4, 1)."""

    tasks, size = 1, 1

    def log_density(self, z):
        return torch.logaddexp(-0.5 * (z[..., 0] + 4) ** 2, -0.5 * (z[..., 0] - 4) ** 2)

    def gradient(self, z):
        return -z + 4 * torch.tanh(4 * z)


def test_annealing_finds_both_modes():
    z = torch.randn(1, 50, 1, generator=torch.Generator().manual_seed(0)) - 6
    shares = []
    for annealing in (None, Annealing(share=0.7, power=4.0)):
        schedule = SteinSchedule(600, 0.1, False, annealing)
        shares.append(float((flow(TwoModes(), z, RBFStein(), schedule).z > 0).float().mean()))
    assert shares[0] < 0.1
    assert 0.3 < shares[1] < 0.7


def test_it_stops_when_the_discrepancy_has_stalled():
    result = moved(Gaussian(torch.zeros(4), torch.eye(4)), LinearStein(), steps=1000)
    assert len(result.ksd) < 75
    assert result.ksd[-1] < 1e-2 * result.ksd[0]
    assert result.ksd_ratio < 1.5


def test_a_collapsed_set_of_particles_is_told():
    """RBF in 32 dimensions: far more discrepancy than independent draws have."""
    assert moved(Gaussian(torch.zeros(32), torch.eye(32)), RBFStein()).ksd_ratio > 2


def test_only_informed_latents_move_and_completions_fill_the_rest():
    episodes, _ = synthetic_episodes(users=3, way=3, shots=2, frames=1, dim=12, seed=1)
    model = HierarchicalHead(weight_scale=2.0)
    given = model.default_population(12)
    engine = SVGD(particles=30, steps=60, precondition=False, completions=5, batch_size=2)
    posterior = engine.infer(model, episodes, seed=0, given=given)
    assert posterior.kind == "particles"
    assert posterior.draws["weight_raw"].shape == (150, 3, 3, 12)
    scale = posterior.draws["task_scale_raw"].reshape(5, 30, 3)
    assert torch.equal(scale[0], scale[4])
    assert posterior.sample_stats["ksd"].shape[1:] == (3,)
    assert posterior.sample_stats["ksd_ratio"].shape == (3,)


def test_mistakes_are_told(one_task):
    with pytest.raises(InferenceError, match="more particles than latents"):
        SVGD(particles=5, kernel=LinearStein("full"), steps=5).infer(
            GaussianToy(), one_task, seed=0, given=GaussianToy().fixed_population(2)
        )
    with pytest.raises(InferenceError, match="particles: expected 2 or more, got 1"):
        SVGD(particles=1)
    with pytest.raises(InferenceError, match="weights above 0"):
        Mixture((RBFStein(), IMQ()), (1.0, -1.0))
    with pytest.raises(InferenceError, match="share: expected between 0 and 1, got 1"):
        Annealing(share=1.0)
    broken = Gaussian(torch.zeros(2), torch.eye(2))
    broken.gradient = lambda z: z * math.nan
    with pytest.raises(InferenceError, match="not finite at step 0"):
        moved(broken, RBFStein(), precondition=False)
