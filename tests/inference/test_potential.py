import inspect
import math
from dataclasses import dataclass, replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.mcmc.util import initialize_model
from scipy import stats
from torch.func import vmap

from bayesfs.errors import InferenceError, ShapeError
from bayesfs.inference.program.capture import capture, record
from bayesfs.inference.program.potential import potential
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing import GaussianToy
from bayesfs.types import Posterior


@dataclass(frozen=True)
class Curved:
    """Positive, simplex and correlation sites, so that every kind of transform is used."""

    @property
    def dims(self):
        return {
            "spread": (),
            "share": ("part",),
            "corr": ("feature", "feature_"),
            "scale": ("task",),
            "center": ("task", "way", "feature"),
        }

    def __call__(self, episodes):
        x = episodes.support
        tasks, ways, shots, frames, dim = x.shape
        one = x.new_ones(())
        spread = pyro.sample("spread", dist.HalfNormal(one))
        share = pyro.sample("share", dist.Dirichlet(2 * x.new_ones(3)))
        corr = pyro.sample("corr", dist.LKJCholesky(dim, 2 * one))
        with pyro.plate("task", tasks, dim=-4):
            scale = pyro.sample("scale", dist.Gamma(2 * one, 1 / spread))
            with pyro.plate("way", ways, dim=-3):
                center = pyro.sample("center", dist.Normal(x.new_zeros(dim), one).to_event(1))
                center = center * scale.unsqueeze(-1)
                with pyro.plate("shot", shots, dim=-2), pyro.plate("frame", frames, dim=-1):
                    factor = (0.1 + share[0]) * corr
                    fn = dist.MultivariateNormal(center, scale_tril=factor)
                    with poutine.mask(mask=episodes.support_mask):
                        pyro.sample("x", fn, obs=x)


def make_episodes(tasks=2, ragged=False):
    settings = {"way": 2, "shots": 2, "frames": 2, "query_videos": 1, "dim": 2}
    episodes, _ = synthetic_episodes(users=tasks, **settings, ragged=ragged, seed=0)
    return episodes.to(torch.float64)


def population_of(model, episodes, draws=4):
    joint = potential(model, episodes)
    values = joint.constrain(joint.prior(draws, seed=0))
    names = [n for n, axes in model.dims.items() if "task" not in axes]
    return Posterior("mcmc", {n: values[n] for n in names}, {n: model.dims[n] for n in names})


def test_joint_density_is_pyros_own():
    """Against the potential that Pyro builds for its NUTS, with its own transforms."""
    model, episodes = Curved(), make_episodes()
    with pyro.validation_enabled(False):
        _, energy, transforms, trace = initialize_model(model, (episodes,))
    joint = potential(model, episodes)
    z = joint.prior(3, seed=1)
    for particle in range(3):
        values = joint.constrain(z[:, [particle]])
        u = {
            name: transforms[name](values[name][0].reshape(trace.nodes[name]["value"].shape))
            for name in model.dims
        }
        assert float(joint.log_density(z)[0, particle]) == pytest.approx(-float(energy(u)))


def test_conditional_density_is_the_rest_of_the_joint():
    """Given one draw of the population, task densities sum to the joint minus the prior's part."""
    model, episodes = GaussianToy(), make_episodes(ragged=True)
    given = Posterior("exact", {"mean": torch.tensor([[0.3, -0.7]])}, {"mean": ("feature",)})
    conditional, joint = potential(model, episodes, given), potential(model, episodes)
    z = conditional.prior(3, seed=0)
    draws = conditional.constrain(z)
    everything = {**draws, "mean": given.draws["mean"].double().expand(3, 2)}
    prior = stats.norm.logpdf([0.3, -0.7]).sum()
    expected = joint.log_density(joint.unconstrain(everything))[0] - prior
    torch.testing.assert_close(conditional.log_density(z).sum(0), expected, rtol=1e-6, atol=1e-6)


def test_recorded_gradient_is_autograds():
    model, episodes = Curved(), make_episodes()
    density = potential(model, episodes, population_of(model, episodes))
    for seed in (1, 2):  # the second call replays
        z = density.prior(4, seed=seed).requires_grad_()
        value, gradient = density.value_and_gradient(z)
        eager = density.log_density(z)
        (expected,) = torch.autograd.grad(eager.sum(), z)
        torch.testing.assert_close(value, eager.detach())
        torch.testing.assert_close(gradient, expected)
        torch.testing.assert_close(density.gradient(z), expected)
        assert not gradient.requires_grad


def test_recording_drops_what_constants_leave_idle_whatever_its_strides():
    keep = torch.zeros(4, 3, dtype=torch.bool)

    def function(x):  # x.mT has other strides than the contiguous result of masked_fill
        return (x.mT.masked_fill(keep, -1.0) + 0.0).reshape(-1) * 2

    x = torch.arange(12.0).reshape(3, 4)
    recording = record(function, x)
    names = [str(call.operation) for call in recording.calls]
    assert not any("masked_fill" in name or "add" in name for name in names)
    torch.testing.assert_close(capture(function, x)(x + 1), function(x + 1))


def test_constrain_and_unconstrain_are_inverse():
    model, episodes = Curved(), make_episodes()
    joint = potential(model, episodes)
    z = joint.prior(5, seed=3)
    draws = joint.constrain(z)
    torch.testing.assert_close(joint.unconstrain(draws), z)
    assert (draws["scale"] > 0).all()
    torch.testing.assert_close(draws["share"].sum(-1), torch.ones(5, dtype=torch.float64))
    assert draws["center"].shape == (5, 2, 2, 2)
    assert draws["corr"].shape == (5, 2, 2)


def test_blocks_tile_the_vector_and_know_their_level():
    model, episodes = GaussianToy(), make_episodes()
    joint = potential(model, episodes)
    blocks = list(joint.blocks.values())
    assert [b.level for b in blocks] == ["population", "way", "shot"]
    assert [b.start for b in blocks] == [0, *(b.stop for b in blocks[:-1])]
    assert blocks[-1].stop == joint.size
    assert all(math.prod(b.shape) == b.stop - b.start for b in blocks)
    assert all(b.standard for b in blocks)
    assert joint.blocks["class_raw"].shape == (2, 2, 2)
    alone = potential(model, episodes, model.fixed_population(2))
    assert alone.blocks["class_raw"].shape == (2, 2)
    curved = potential(Curved(), episodes).blocks
    assert curved["center"].standard
    assert not curved["scale"].standard


def test_population_is_averaged_in_the_unconstrained_space():
    """So that a positive scale's centre is its geometric mean."""
    model, episodes = Curved(), make_episodes()
    given = population_of(model, episodes)
    values = potential(model, episodes, given).population
    geometric = stats.gmean(given.draws["spread"].numpy())
    assert float(values["spread"]) == pytest.approx(geometric)
    assert float(values["share"].sum()) == pytest.approx(1.0)
    one = potential(model, episodes, given, draw=2).population
    torch.testing.assert_close(one["spread"], given.draws["spread"][2])


def test_prior_draws_follow_the_prior():
    density = potential(GaussianToy(), make_episodes(), GaussianToy().fixed_population(2))
    z = density.prior(200, seed=0)
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 0.01
    torch.testing.assert_close(z, density.prior(200, seed=0))


def test_padded_latents_follow_their_prior():
    """A masked site would give them a flat density, and engines would drift away in it."""

    class MaskedLatents(GaussianToy):
        def __call__(self, episodes):
            with poutine.mask(mask=episodes.support_mask.any(-1, keepdim=True)):
                super().__call__(episodes)

    episodes = make_episodes()
    mask = episodes.support_mask.clone()
    mask[0, 1, 1] = False
    episodes = replace(episodes, support_mask=mask)
    density = potential(MaskedLatents(), episodes, GaussianToy().fixed_population(2))
    z = density.prior(1, seed=0)
    index = density.blocks["video_raw"].start + 6  # task 0, way 1, shot 1, feature 0
    _, gradient = density.value_and_gradient(z)
    torch.testing.assert_close(gradient[0, 0, index], -z[0, 0, index])


def test_nothing_global_changes():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    density = potential(GaussianToy(), make_episodes())
    density.value_and_gradient(density.prior(2, seed=0))
    assert torch.equal(before, torch.get_rng_state())
    assert len(pyro.get_param_store()) == 0
    assert torch.distributions.Normal(0.0, 1.0)._validate_args


class Wrong(GaussianToy):
    """The toy with one thing changed."""


def test_site_without_dims_is_named():
    class Model(Wrong):
        @property
        def dims(self):
            return {"mean": ("feature",), "class_raw": ("task", "way", "feature")}

    with pytest.raises(InferenceError, match="video_raw"):
        potential(Model(), make_episodes())


def test_wrong_axes_are_named():
    class Model(Wrong):
        @property
        def dims(self):
            return {**super().dims, "class_raw": ("task", "feature")}

    with pytest.raises(InferenceError, match=r"class_raw.*plates \('task', 'way'\)"):
        potential(Model(), make_episodes())


def test_discrete_latents_are_refused():
    class Model(Wrong):
        @property
        def dims(self):
            return {**super().dims, "flag": ()}

        def __call__(self, episodes):
            super().__call__(episodes)
            pyro.sample("flag", dist.Bernoulli(0.5))

    with pytest.raises(InferenceError, match=r"flag.*discrete"):
        potential(Model(), make_episodes())


def test_observation_outside_the_task_plate_is_refused():
    class Model(Wrong):
        def __call__(self, episodes):
            super().__call__(episodes)
            pyro.sample("total", dist.Normal(0.0, 1.0), obs=episodes.support.sum())

    model, episodes = Model(), make_episodes()
    density = potential(model, episodes, model.fixed_population(2))
    with pytest.raises(InferenceError, match=r"total.*outside the 'task' plate"):
        density.log_density(density.prior(1, seed=0))


def test_population_of_another_model_is_refused():
    model, episodes = Curved(), make_episodes()
    with pytest.raises(InferenceError, match=r"missing.*spread"):
        potential(model, episodes, GaussianToy().fixed_population(2))
    other = GaussianToy().fixed_population(5)
    with pytest.raises(ShapeError, match=r"mean.*'draw', 2"):
        potential(GaussianToy(), episodes, other)
    with pytest.raises(InferenceError, match=r"draw in 0\.\.3"):
        potential(model, episodes, population_of(model, episodes), draw=4)


def test_wrong_shape_of_z_is_refused():
    density = potential(GaussianToy(), make_episodes())
    with pytest.raises(ShapeError, match="expected z of shape"):
        density.log_density(torch.zeros(2, 3, density.size))


def test_capture_replays_and_drops_what_it_can():
    weight = torch.randn(3, 3)

    def function(x):
        unused = (x @ weight).exp()
        del unused
        constant = (weight.exp() + 1).sum(0)
        return (x * constant).view(2, 3) + (x * constant), x.split(1)[1]

    x = torch.randn(2, 3)
    replay = capture(function, x)
    other = torch.randn(2, 3)
    for got, expected in zip(replay(other), function(other), strict=True):
        torch.testing.assert_close(got, expected)


def test_capture_multiplies_by_a_constant_that_particles_share_only_once():
    weight = torch.randn(4, 3, 2)

    def function(x):  # (task, particle, row, 3)
        return vmap(lambda rows: rows @ weight, in_dims=1, out_dims=1)(x)

    replay = capture(function, torch.randn(4, 6, 5, 3))
    other = torch.randn(4, 6, 5, 3)
    torch.testing.assert_close(replay(other), function(other))
    sizes = {len(v) for v in _constants(replay) if v.ndim == 3}
    assert sizes == {4}, "the constant is repeated for every particle"


def _constants(replay):
    """Tensors that a replay holds, those of its closures included."""
    held = inspect.unwrap(replay).__globals__.values()
    inner = [c.cell_contents for f in held for c in getattr(f, "__closure__", None) or ()]
    return [v for v in [*held, *inner] if isinstance(v, torch.Tensor)]


def test_capture_folds_what_depends_on_shapes_only():
    def function(x):
        return x * (torch.zeros_like(x) + 2).exp() + x.new_ones(3)

    replay = capture(function, torch.randn(3))
    other = torch.randn(3)
    torch.testing.assert_close(replay(other), function(other))
    assert sum(name.startswith("f") for name in inspect.unwrap(replay).__globals__) == 2


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x[x > 0],
        lambda x: x.clone().add_(1),
        lambda x: x + torch.zeros(3).copy_(x),
    ],
    ids=["branch", "selection", "in place", "in place on a constant"],
)
def test_capture_falls_back_where_values_matter(function):
    replay = capture(function, torch.tensor([1.0, 2.0, -1.0]))
    other = torch.tensor([-1.0, -2.0, 2.0])
    for _ in range(2):
        torch.testing.assert_close(replay(other), function(other))


def test_capture_sees_what_scales_an_addition():
    """x + 2 * 0 leaves x as it is; alpha * x is not x, though a zero stands beside it."""

    def function(x):
        return torch.add(torch.zeros(3), x, alpha=2.0) + torch.sub(x, torch.zeros(3), alpha=3.0)

    replay = capture(function, torch.ones(3))
    other = torch.tensor([1.0, -2.0, 5.0])
    torch.testing.assert_close(replay(other), function(other))


def test_capture_refuses_to_freeze_randomness():
    replay = capture(lambda x: x + torch.rand(3), torch.zeros(3))
    assert not torch.equal(replay(torch.zeros(3)), replay(torch.zeros(3)))


def test_capture_handles_operations_with_several_or_missing_outputs():
    def function(x):
        factor, info = torch.linalg.cholesky_ex(x @ x.mT + torch.eye(3))
        values, index = (x + 0.0).sort(-1)
        return factor, torch.where(torch.tensor(True), x, x * 2), values, index + info

    generator = torch.Generator().manual_seed(0)
    first, other = torch.randn(2, 3, 3, generator=generator)
    replay = capture(function, first)
    for got, expected in zip(replay(other), function(other), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("shape", [(2, 3), (1, 3)])
def test_capture_keeps_broadcasting(shape):
    """Adding zeros is idle only where it does not change the shape."""

    def function(x):
        rows = x[torch.tensor([0, 0])] + x[torch.tensor([True] + [False] * (len(x) - 1))]
        return (x + torch.zeros(2, 3)) * torch.ones(2, 3) - torch.zeros(1), x * 1.0, rows

    x = torch.arange(3.0 * shape[0]).reshape(shape)
    for got, expected in zip(capture(function, x)(x + 1), function(x + 1), strict=True):
        torch.testing.assert_close(got, expected)


def test_only_true_standard_normals_count_as_standard():
    """A transformed normal has a standard normal inside, but is none itself."""

    fn = dist.TransformedDistribution(
        dist.Normal(torch.zeros(()), torch.ones(())), [dist.transforms.AffineTransform(3.0, 2.0)]
    )

    @dataclass(frozen=True)
    class Shifted:
        @property
        def dims(self):
            return {"level": ("task",), "width": ("task",)}

        def __call__(self, episodes):
            one = episodes.support.new_ones(())
            with pyro.plate("task", len(episodes), dim=-4):
                pyro.sample("level", fn)
                pyro.sample("width", dist.HalfNormal(one))

    density = potential(Shifted(), make_episodes())
    assert not any(b.standard for b in density.blocks.values())
    z = torch.tensor([[[1.0, -0.4]], [[4.0, 0.3]]], dtype=torch.float64)
    level, width = z[:, 0, 0].numpy(), z[:, 0, 1].exp().numpy()
    expected = stats.norm.logpdf(level, 3, 2) + stats.halfnorm.logpdf(width) + np.log(width)
    np.testing.assert_allclose(density.log_density(z)[:, 0].numpy(), expected, rtol=1e-6)
