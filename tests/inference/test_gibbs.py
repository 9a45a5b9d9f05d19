"""Gibbs: against long NUTS chains for both links, exact conditionals, padding and relabelling."""

from dataclasses import replace
from typing import ClassVar

import pyro
import pyro.distributions as dist
import pytest
import torch
from arviz_stats.base import array_stats

from bayesfs._distributions.keys import Keys
from bayesfs.errors import InferenceError
from bayesfs.inference.gibbs.gibbs import Gibbs
from bayesfs.inference.gibbs.sweep import elliptical_slice
from bayesfs.inference.nuts.nuts import NUTS
from bayesfs.inference.svgd.svgd import SVGD
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.protocols import LinearHead, LinearLogits, Model
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing import GaussianToy
from bayesfs.testing.engines import pad


class OneVsEachHead(Model):
    """w_k = 2 exp(e / 2) z_k, with the one-vs-each likelihood of every support frame."""

    dims: ClassVar = {"e": ("task",), "z": ("task", "way", "feature")}

    def __call__(self, episodes):
        x = episodes.support
        tasks, ways, *_, dim = x.shape
        one, rows = x.new_ones(()), x.flatten(1, 3)
        with pyro.plate("task", tasks, dim=-4):
            e = pyro.sample("e", dist.Normal(0 * one, one)).reshape(tasks, 1, 1)
            with pyro.plate("way", ways, dim=-3):
                prior = dist.Normal(x.new_zeros(dim), one).to_event(1)
                z = pyro.sample("z", prior).reshape(tasks, ways, dim)
                eta = (2 * (e / 2).exp() * (rows @ z.mT)).reshape(*x.shape[:4], ways)
                own = torch.einsum("twsfw->twsf", eta)[..., None]
                others = 1 - torch.eye(ways)[:, None, None]
                with pyro.plate("shot", x.shape[2], dim=-2), pyro.plate("frame", x.shape[3]):
                    factor = (others * torch.nn.functional.logsigmoid(own - eta)).sum(-1)
                    pyro.factor("label", factor)

    def log_joint_frame(self, draws, episodes):
        raise NotImplementedError

    def log_joint_video(self, draws, episodes):
        raise NotImplementedError

    def linear_logits(self, episodes, population):
        x = episodes.support.flatten(1, 3)
        label = torch.arange(episodes.way)[:, None, None].expand(episodes.support.shape[1:4])
        return LinearLogits(
            scaled=2 * x,
            fixed=x[..., :0],
            spread=0.5,
            label=label.reshape(1, -1).expand(len(x), -1),
            weight=torch.ones(x.shape[:2]),
            exists=episodes.way_mask,
            link="one_vs_each",
        )

    def from_linear(self, e, z, u, episodes, normal):
        return {"e": e, "z": z}


def effective(draws, chains=4):
    split = draws.reshape(chains, -1, *draws.shape[1:]).double().numpy()
    return torch.from_numpy(array_stats.ess(split, chain_axis=0, draw_axis=1)).clamp(max=4000)


def assert_same(first, second, sites):
    """Means and standard deviations agree within 4.5 standard errors."""
    for site in sites:
        a, b = first.draws[site], second.draws[site]
        ess_a, ess_b = effective(a), effective(b)
        error = (a.var(0) / ess_a + b.var(0) / ess_b).sqrt()
        assert ((a.mean(0) - b.mean(0)) / error).abs().max() < 4.5, site
        spread = (a.std(0) / b.std(0)).log().abs()
        assert (spread / (0.5 / ess_a + 0.5 / ess_b).sqrt()).max() < 4.5, site


def tasks_of(frames=1, **kw):
    return synthetic_episodes(users=2, way=3, shots=2, frames=frames, dim=4, seed=1, **kw)[0]


@pytest.mark.parametrize(
    "frames",
    [pytest.param(1, id="one frame", marks=pytest.mark.slow), pytest.param(2, id="exponent 1/2")],
)
def test_softmax_head_agrees_with_nuts(frames):
    episodes = tasks_of(frames)
    model = HierarchicalHead(weight_scale=2.0)
    given = model.default_population(4)
    nuts = NUTS(draws=800).infer(model, episodes, seed=0, given=given)
    gibbs = Gibbs(draws=500, thin=1).infer(model, episodes, seed=0, given=given)
    assert gibbs.dims == nuts.dims
    assert_same(gibbs, nuts, ("task_scale_raw", "weight_raw", "offset_raw", "task_mean_raw"))


@pytest.mark.slow
def test_one_vs_each_head_agrees_with_nuts():
    episodes, model = tasks_of(), OneVsEachHead()
    assert isinstance(model, LinearHead)
    nuts = NUTS(draws=800).infer(model, episodes, seed=0)
    assert_same(Gibbs(draws=500, thin=1).infer(model, episodes, seed=0), nuts, ("e", "z"))


def test_padding_changes_nothing():
    """The draws of what exists are the same; those of padding come from the prior."""
    episodes = tasks_of(ragged=True)
    model = HierarchicalHead(weight_scale=2.0)
    given = model.default_population(4)
    plain, wide = (
        Gibbs(draws=100, burn_in=10, thin=1).infer(model, e, seed=0, given=given)
        for e in (episodes, pad(episodes))
    )
    ways = episodes.way
    cut = wide.draws["weight_raw"][:, :, :ways]
    exists = episodes.way_mask
    torch.testing.assert_close(
        cut[:, exists], plain.draws["weight_raw"][:, exists], rtol=0.0, atol=1e-8
    )
    padded = wide.draws["weight_raw"][:, :, ways:]
    assert abs(padded.mean()) < 0.05
    assert abs(padded.std() - 1) < 0.05


def test_the_same_seed_gives_the_same_draws_and_the_global_generator_stays():
    episodes, model = tasks_of(), HierarchicalHead()
    given = model.default_population(4)
    engine = Gibbs(draws=5, burn_in=2, chains=2, batch_size=1)
    before = torch.get_rng_state()
    a, b, c = (engine.infer(model, episodes, seed=s, given=given) for s in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(a.draws["weight_raw"], b.draws["weight_raw"])
    assert not torch.equal(a.draws["weight_raw"], c.draws["weight_raw"])
    assert a.kind == "mcmc"
    assert a.chains == 2
    assert a.draws["weight_raw"].shape == (10, 2, 3, 4)


def test_elliptical_slices_keep_their_target():
    """N(0, 1) times the likelihood of N(x; 1, 0.5) is N(0.8, 0.2)."""
    keys = Keys.of(0).extend(4000)
    x = torch.zeros(4000)
    for i in range(20):
        x = elliptical_slice(x, lambda x: -0.5 * (x - 1) ** 2 / 0.25, keys.fold_in(i))
    assert abs(x.mean() - 0.8) < 4 * 0.2**0.5 / 4000**0.5
    assert abs(x.std() - 0.2**0.5) < 0.02


def test_models_that_are_no_linear_head_are_refused():
    model, episodes = GaussianToy(), tasks_of()
    with pytest.raises(InferenceError, match="needs a model with the ability LinearHead"):
        Gibbs().infer(model, episodes, seed=0, given=model.fixed_population(4))
    with pytest.raises(InferenceError, match="needs given="):
        Gibbs().infer(HierarchicalHead(), episodes, seed=0)
    with pytest.raises(InferenceError, match="draws: expected 1 or more, got 0"):
        Gibbs(draws=0)


@pytest.mark.parametrize(
    "engine", [Gibbs(draws=6, burn_in=2, chains=1), SVGD(particles=6, steps=2)]
)
def test_directions_without_information_are_drawn_anew_for_each_draw_of_the_population(engine):
    """Two equal draws of the population and one support frame: most of 4 directions are prior."""
    episodes, model = tasks_of().limit_shots(1), HierarchicalHead(weight_scale=2.0)
    one = model.default_population(4)
    twice = {
        site: value[:1].repeat(2, *[1] * (value.ndim - 1)) for site, value in one.draws.items()
    }
    given = replace(one, draws=twice)
    found = replace(engine, population_draws=2).infer(model, episodes, seed=0, given=given)
    weight = found.draws["weight_raw"]
    first, second = weight[: len(weight) // 2], weight[len(weight) // 2 :]
    x = episodes.support[0, :, 0, 0].double()
    free = torch.linalg.svd(x)[2][len(x) :]
    assert len(free) == 1
    drawn = [(part[:, 0].double() @ free.mT).flatten() for part in (first, second)]
    assert not torch.allclose(*drawn)
    assert torch.corrcoef(torch.stack(drawn))[0, 1].abs() < 0.9
