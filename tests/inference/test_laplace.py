import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import optimize, stats

from bayesfs._linalg.jitter import robust_cholesky
from bayesfs.errors import InferenceError, NotPositiveDefiniteError
from bayesfs.inference.laplace.factors import KroneckerPrecision, dense_factor, kronecker_factor
from bayesfs.inference.laplace.laplace import Laplace
from bayesfs.inference.program.curvature import maximise, precision
from bayesfs.inference.program.potential import potential
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing import EngineContract, GaussianToy


class TestLaplace(EngineContract):
    """Exact on a linear Gaussian model."""

    mean_tolerance = 0.08
    sd_ratio = (0.95, 1.05)

    def make_engine(self):
        return Laplace(draws=4000)


class TestDiagonalLaplace(EngineContract):
    sd_ratio = (0.7, 1.1)  # it leaves correlations out
    joint_sd_ratio = (0.3, 1.1)

    def make_engine(self):
        return Laplace(structure="diagonal", draws=2000)


@pytest.mark.slow  # its factor is held against the dense one below, and a grid has it
class TestKroneckerLaplace(EngineContract):
    sd_ratio = (0.7, 1.1)  # sites are independent in it
    joint_sd_ratio = (0.3, 1.1)

    def make_engine(self):
        return Laplace(structure="kronecker", draws=2000)


def head_density(dim=3, **settings):
    model = HierarchicalHead(weight_scale=2.0, **settings)
    episodes, _ = synthetic_episodes(users=3, way=3, shots=2, frames=2, dim=dim, seed=1)
    episodes = episodes.to(torch.float64)
    return potential(model, episodes, model.default_population(dim))


def test_mode_is_scipys():
    density = head_density()
    zero = torch.zeros(density.tasks, density.size, dtype=torch.float64)
    mode, gradient = maximise(density, zero)
    assert gradient.max() < 1e-5
    for task in range(density.tasks):

        def loss(z, task=task):
            point = zero.unsqueeze(1).clone()
            point[task, 0] = torch.as_tensor(z)
            value, slope = density.value_and_gradient(point)
            return -float(value[task, 0]), -slope[task, 0].numpy()

        found = optimize.minimize(loss, np.zeros(density.size), jac=True, method="BFGS")
        np.testing.assert_allclose(mode[task].numpy(), found.x, atol=1e-3)


def test_mode_is_found_from_afar():
    density = head_density()
    zero = torch.zeros(density.tasks, density.size, dtype=torch.float64)
    near, _ = maximise(density, zero)
    far, _ = maximise(density, zero + 3.0)
    torch.testing.assert_close(far, near, atol=1e-4, rtol=0)


def test_precision_is_the_hessian():
    """Against double backward, one task at a time."""
    density = head_density()
    z = 0.3 * density.prior(1, seed=0)[:, 0]
    got = precision(density, z)
    for task in range(density.tasks):

        def one(x, task=task):
            point = torch.cat([z[:task], x[None], z[task + 1 :]])
            return density.log_density(point.unsqueeze(1))[task, 0]

        expected = -torch.autograd.functional.hessian(one, z[task])
        torch.testing.assert_close(got[task], expected)


def test_log_evidence_is_exact_for_a_linear_gaussian_model():
    model = GaussianToy()
    episodes, _ = synthetic_episodes(users=2, way=2, shots=2, frames=2, dim=2, ragged=True, seed=0)
    episodes = episodes.to(torch.float64)
    posterior = Laplace(draws=1).infer(model, episodes, seed=0, given=model.fixed_population(2))
    design = model._design(episodes)[..., 1:]
    for task in range(2):
        seen = episodes.support_mask[task]
        rows, x = design[task][seen].double().numpy(), episodes.support[task][seen].numpy()
        covariance = rows @ rows.T + model.frame_scale**2 * np.eye(len(rows))
        truth = stats.multivariate_normal(np.zeros(len(rows)), covariance).logpdf(x.T).sum()
        got = float(posterior.sample_stats["log_evidence"][task])
        assert got == pytest.approx(truth, abs=1e-5)
    assert (posterior.sample_stats["ridge"] == 0).all()


def test_kronecker_factor_is_exact_where_the_curvature_is_one():
    """At w = 0 with one frame per class, equal for all classes, G = (I - 11^T/K) (x) x x^T."""
    density = head_density(video_scale=0.0, relevance_spread=0.0, task_mean=False)
    block = density.blocks["weight_raw"].slice
    z = torch.zeros(density.tasks, density.size, dtype=torch.float64)
    dense = precision(density, z, block)
    factor = kronecker_factor(density, z, block, 3)
    eye = torch.eye(block.stop - block.start, dtype=torch.float64)
    root = factor.spread(eye.expand(density.tasks, -1, -1))  # rows: H^(-1/2) e_i
    torch.testing.assert_close(torch.linalg.inv(root.mT @ root), dense)
    torch.testing.assert_close(factor.log_det, torch.logdet(dense))
    assert isinstance(factor, KroneckerPrecision)


def test_kronecker_is_close_to_dense_at_the_mode():
    density = head_density(video_scale=0.0, relevance_spread=0.0, task_mean=False)
    zero = torch.zeros(density.tasks, density.size, dtype=torch.float64)
    mode, _ = maximise(density, zero)
    block = density.blocks["weight_raw"].slice
    exact = dense_factor(density, mode, block)
    approximate = kronecker_factor(density, mode, block, 3)
    torch.testing.assert_close(approximate.log_det, exact.log_det, rtol=0.1, atol=0)


def test_ridge_is_added_only_where_it_must():
    good, flat = torch.eye(2), torch.diag(torch.tensor([1.0, -1e-5]))
    factor, ridge = robust_cholesky(torch.stack([good, flat]))
    assert ridge[0] == 0
    assert ridge[1] > 0
    torch.testing.assert_close(factor[0], good)
    with pytest.raises(NotPositiveDefiniteError, match=r"tasks \[1\]"):
        robust_cholesky(torch.stack([good, torch.diag(torch.tensor([1.0, -9.0]))]))


def test_the_largest_ridge_is_tried():
    """diag(1, -.4) needs more than .4, which is over half of its mean absolute diagonal .7."""
    factor, ridge = robust_cholesky(torch.diag(torch.tensor([1.0, -0.4]))[None])
    torch.testing.assert_close(ridge, torch.tensor([0.7]))
    torch.testing.assert_close(factor[0] @ factor[0].mT, torch.diag(torch.tensor([1.7, 0.3])))


def test_too_many_latents_are_refused():
    model = GaussianToy()
    episodes, _ = synthetic_episodes(users=2, way=2, shots=2, frames=1, dim=5000, seed=0)
    with pytest.raises(InferenceError, match="at most 8192 latents"):
        Laplace().infer(model, episodes, seed=0, given=model.fixed_population(5000))


def test_batches_join():
    model = GaussianToy()
    episodes, _ = synthetic_episodes(users=5, way=2, shots=2, frames=2, dim=2, seed=0)
    given = model.fixed_population(2)
    seen = []
    engine = Laplace(batch_size=2)
    parts = engine.infer(
        model,
        episodes,
        seed=0,
        given=given,
        progress=lambda done, total, _: seen.append((done, total)),
    )
    whole = Laplace().infer(model, episodes, seed=0, given=given)
    assert seen == [(2, 5), (4, 5), (5, 5)]
    torch.testing.assert_close(
        parts.sample_stats["log_evidence"],
        whole.sample_stats["log_evidence"],
        atol=1e-3,
        rtol=0,
    )
    assert parts.draws["video_raw"].shape == whole.draws["video_raw"].shape


def test_grid_integrates_a_scale_that_the_joint_mode_misjudges():
    """Evidence and scale against quadrature over the scale of a linear Gaussian model."""

    class Scaled(GaussianToy):
        """The toy with one unknown log scale per task for all its classes."""

        @property
        def dims(self):
            rest = {k: v for k, v in super().dims.items() if k != "mean"}
            return {"log_scale": ("task",), **rest}

        def __call__(self, episodes):
            x = episodes.support
            tasks, ways, shots, frames, dim = x.shape
            unit = dist.Normal(x.new_zeros(dim), x.new_ones(dim)).to_event(1)
            with pyro.plate("task", tasks, dim=-4):
                scale = pyro.sample("log_scale", dist.Normal(x.new_zeros(()), x.new_ones(())))
                with pyro.plate("way", ways, dim=-3):
                    center = scale.exp().unsqueeze(-1) * pyro.sample("class_raw", unit)
                    with pyro.plate("shot", shots, dim=-2):
                        center = center + self.video_scale * pyro.sample("video_raw", unit)
                        with pyro.plate("frame", frames, dim=-1):
                            law = dist.Normal(center, self.frame_scale).to_event(1)
                            pyro.sample("x", law, obs=x)

    episodes, _ = synthetic_episodes(users=2, way=4, shots=1, frames=1, dim=4, seed=0)
    episodes = episodes.to(torch.float64)
    posterior = Laplace(grid="log_scale", nodes=29, draws=4000).infer(Scaled(), episodes, seed=0)
    plain = Laplace(draws=10).infer(Scaled(), episodes, seed=0)
    grid = np.linspace(-5, 5, 2001)
    for task in range(2):
        x = episodes.support[task].flatten().numpy()
        sd = np.sqrt(np.exp(2 * grid) + 0.5**2 + 0.7**2)
        log_joint = stats.norm.logpdf(x[:, None], scale=sd).sum(0) + stats.norm.logpdf(grid)
        weight = np.exp(log_joint - log_joint.max())
        truth = log_joint.max() + np.log(weight.sum() * (grid[1] - grid[0]))
        mean = (weight * grid).sum() / weight.sum()
        sd = np.sqrt((weight * (grid - mean) ** 2).sum() / weight.sum())
        got = posterior.draws["log_scale"][:, task]
        assert float(posterior.sample_stats["log_evidence"][task]) == pytest.approx(truth, abs=1e-3)
        assert float(got.mean()) == pytest.approx(mean, abs=0.05)
        assert float(got.std()) == pytest.approx(sd, rel=0.06)
        assert abs(float(plain.sample_stats["log_evidence"][task]) - truth) > 0.1


def test_grid_needs_a_scalar_standard_site():
    model = GaussianToy()
    episodes, _ = synthetic_episodes(users=2, way=2, shots=2, frames=2, dim=2, seed=0)
    with pytest.raises(InferenceError, match=r"one N\(0, 1\) latent per task"):
        Laplace(grid="class_raw").infer(model, episodes, seed=0, given=model.fixed_population(2))


def test_grid_works_with_every_structure():
    model = HierarchicalHead(weight_scale=2.0)
    episodes, _ = synthetic_episodes(users=2, way=3, shots=2, frames=2, dim=3, seed=0)
    bounds = {}
    for structure in ("full", "kronecker", "diagonal"):
        engine = Laplace(structure=structure, grid="task_scale_raw", nodes=7, draws=50)
        posterior = engine.infer(model, episodes, seed=0, given=model.default_population(3))
        assert torch.isfinite(posterior.draws["weight_raw"]).all()
        bounds[structure] = posterior.sample_stats["log_evidence"]
    torch.testing.assert_close(bounds["kronecker"], bounds["full"], atol=1.5, rtol=0)
