"""Scales that correlate, or trade with each other, where a mean field has them too narrow."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.func import jacrev

from bayesfs._distributions.polar import PairedHalfNormal
from bayesfs.diagnostics.sbc_tasks import simulate_tasks
from bayesfs.errors import InferenceError
from bayesfs.inference.adaptive_importance import OTHERWISE, AdaptiveImportance, tempered
from bayesfs.inference.program.polar import Polar
from bayesfs.inference.program.potential import potential
from bayesfs.inference.svi.guides import MeanField
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.objectives import MarginalLikelihood
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing.toy import GaussianToy
from bayesfs.types import EpisodeBatch


class Sum(GaussianToy):
    """Three scales of which the data know the sum, beside two offsets: exactly Gaussian."""

    @property
    def dims(self):
        return {"offset_raw": ("offset",), "scales": ("scale",)}

    def __call__(self, episodes: EpisodeBatch) -> None:
        x = episodes.support
        pyro.sample("offset_raw", dist.Normal(x.new_zeros(2), x.new_ones(2)).to_event(1))
        scales = pyro.sample("scales", dist.Normal(x.new_zeros(3), 2 * x.new_ones(3)).to_event(1))
        pyro.sample("seen", dist.Normal(scales.sum(-1), 0.5), obs=x.new_tensor(1.0))


COVARIANCE = torch.linalg.inv(
    torch.eye(3, dtype=torch.float64) / 4 + torch.ones(3, 3, dtype=torch.float64) / 0.25
)
MEAN = COVARIANCE @ torch.full((3,), 1 / 0.25, dtype=torch.float64)


def episodes() -> EpisodeBatch:
    made, _ = synthetic_episodes(users=2, way=2, shots=1, frames=1, query_videos=1, dim=2)
    return made.to(torch.float64)


def small(**fields: int) -> AdaptiveImportance:
    return AdaptiveImportance(
        **{"steps": 60, "rounds": 4, "proposals": 1000, "worth": 10**6, **fields}
    )


def test_what_data_know_the_sum_of_is_as_wide_as_it_should_be() -> None:
    found = small(draws=4000).infer(Sum(), episodes(), seed=0)
    draws, stats = found.draws["scales"], found.sample_stats
    sd = COVARIANCE.diagonal().sqrt()
    assert ((draws.mean(0) - MEAN).abs() / sd).max() < 0.06
    assert (torch.cov(draws.mT) - COVARIANCE).abs().max() < 0.1 * float(sd[0] ** 2)
    assert (found.draws["offset_raw"].std(0) - 1).abs().max() < 0.06
    assert float(stats["khat"]) < 0.5
    assert float(stats["stein_moments"]) <= 1
    seen = dist.Normal(0.0, (0.25 + 3 * 4.0) ** 0.5).log_prob(torch.tensor(1.0))
    assert float(stats["evidence_bound"]) == pytest.approx(float(seen), abs=0.05)
    plain = SVI(MeanField(whiten=False), steps=200, draws=1000).infer(Sum(), episodes(), seed=0)
    assert (plain.draws["scales"].std(0) / sd).max() < 0.7, "a mean field is too narrow here"
    assert float(plain.sample_stats["stein_moments"]) > 1, "and is told to be"


class Trade(GaussianToy):
    """Two scales of which the data know the sum of the squares: a bent ridge in their logs."""

    def law(self, scale: torch.Tensor) -> dist.Distribution:
        return dist.HalfNormal(scale).to_event(1)

    @property
    def dims(self):
        return {"offset_raw": ("offset",), "scale": ("level",)}

    def __call__(self, episodes: EpisodeBatch) -> None:
        x = episodes.support
        pyro.sample("offset_raw", dist.Normal(x.new_zeros(2), x.new_ones(2)).to_event(1))
        scale = pyro.sample("scale", self.law(x.new_ones(2)))
        seen = scale.square().sum(-1).log()
        pyro.sample("seen", dist.Normal(seen, 0.3), obs=x.new_tensor(0.25).log())


class Paired(Trade):
    """The same in polar coordinates, where the ridge is straight."""

    def law(self, scale: torch.Tensor) -> dist.Distribution:
        return PairedHalfNormal(scale, ((0, 1),))


def quadrature() -> tuple[float, float]:
    """Mean and sd of a log scale of `Trade`, by a sum over a fine grid."""
    log = torch.linspace(-12, 1.5, 1351, dtype=torch.float64)
    prior = log - (2 * log).exp() / 2
    seen = torch.logaddexp(2 * log[:, None], 2 * log)
    density = prior[:, None] + prior + dist.Normal(seen, 0.3).log_prob(torch.tensor(0.25).log())
    weight = density.flatten().softmax(0).reshape(density.shape).sum(1)
    mean = float((weight * log).sum())
    return mean, float((weight * (log - mean).square()).sum().sqrt())


def test_in_polar_coordinates_one_t_follows_the_ridge() -> None:
    mean, sd = quadrature()
    found = small(draws=4000).infer(Paired(), episodes(), seed=0)
    log = found.draws["scale"].log()
    assert ((log.mean(0) - mean).abs() / sd).max() < 0.06
    assert (log.std(0) / sd - 1).abs().max() < 0.06
    assert float(found.sample_stats["khat"]) < 0.5
    bent = small(draws=4000).infer(Trade(), episodes(), seed=0)
    worth, other = (float(made.sample_stats["weight_ess"]) for made in (found, bent))
    assert worth > 1.5 * other


def test_more_rounds_make_weights_more_even() -> None:
    once, often = (small(rounds=n) for n in (1, 5))
    first, later = (
        float(engine.infer(Trade(), episodes(), seed=1).sample_stats["weight_ess"])
        for engine in (once, often)
    )
    assert later / 5 > 1.5 * first


def test_tempered_weights_are_worth_what_was_asked() -> None:
    log_weight = 6 * torch.randn(500, generator=torch.Generator().manual_seed(0)).double()
    log_weight[:3] = -torch.inf
    weight = tempered(log_weight, 100)
    assert float(1 / weight.square().sum()) == pytest.approx(100, rel=0.01)
    assert float(weight.sum()) == pytest.approx(1)
    assert not weight[:3].any()
    even = tempered(0.01 * log_weight, 100)
    assert torch.allclose(even, (0.01 * log_weight).softmax(0)), "weights that suffice stay"


def test_rounds_end_where_the_weights_are_worth_enough() -> None:
    for worth, rounds in ((200, 1), (10**6, 4)):
        told: list[tuple[int, int, str]] = []

        def tell(*seen: object, told: list[object] = told) -> None:
            told.append(seen)

        small(worth=worth).infer(Sum(), episodes(), seed=0, progress=tell)
        assert told[-1][2] == f"round {rounds}"


def test_with_no_scales_to_learn_it_is_svi() -> None:
    model, tasks = GaussianHierarchy(), episodes()
    given = SVI(steps=5, draws=3).infer(MarginalLikelihood(model), tasks, seed=0)
    one = AdaptiveImportance(draws=9).infer(model, tasks, seed=0, given=given)
    other = SVI(steps=OTHERWISE, draws=9, khat_draws=9).infer(model, tasks, seed=0, given=given)
    assert all(torch.allclose(one.draws[site], v) for site, v in other.draws.items())


def test_what_is_taken_together_is_all_that_is_not_standard_a_priori() -> None:
    density = potential(Sum(), episodes())
    assert density.own.tolist() == [2, 3, 4]
    program = MarginalLikelihood(GaussianHierarchy())
    density = potential(program, episodes())
    own = density.own
    standard = [p for b in density.blocks.values() if b.standard for p in range(b.start, b.stop)]
    assert sorted([*own.tolist(), *standard]) == [*range(density.size)]


def test_numbers_below_one_are_refused() -> None:
    with pytest.raises(InferenceError, match="rounds"):
        AdaptiveImportance(rounds=0)


def test_a_density_in_polar_coordinates_is_the_same_measure() -> None:
    density = potential(Paired(), episodes())
    polar = Polar(density)
    assert density.pairs == ((2, 3),)
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(1, 6, 4, generator=generator, dtype=torch.float64)
    value, gradient = polar.value_and_gradient(u)
    assert torch.allclose(value, polar.value(u))
    assert torch.allclose(value, polar.log_density(u))
    step = 1e-6 * torch.eye(4, dtype=torch.float64)
    for k in range(4):
        slope = (polar.value(u + step[k]) - polar.value(u - step[k])) / 2e-6
        assert torch.allclose(slope, gradient[..., k], atol=1e-5)
    for point in u[0]:
        by_hand = torch.linalg.slogdet(jacrev(lambda x: polar.latents(x[None, None])[0, 0])(point))
        whole = density.value(polar.latents(point[None, None])) + by_hand[1]
        assert torch.allclose(whole, polar.value(point[None, None]))
    plain = potential(Sum(), episodes())
    z = torch.randn(1, 3, plain.size, generator=generator, dtype=torch.float64)
    assert torch.equal(Polar(plain).latents(z), z)
    assert torch.allclose(Polar(plain).value_and_gradient(z)[1], plain.value_and_gradient(z)[1])


@pytest.mark.slow
def test_populations_drawn_from_the_prior_have_uniform_ranks() -> None:
    """Simulation-based calibration of the loading, the scales and the exponents."""
    template, _ = synthetic_episodes(users=6, way=3, shots=3, frames=3, query_videos=1, dim=4)
    template, model, draws, count = template.to(torch.float64), GaussianHierarchy(), 99, 64
    sites, scores, unfit = ("loading", "scale", "exponent"), [], 0
    for seed in range(count):
        made = simulate_tasks(model, template, seed=seed)
        objective = MarginalLikelihood(model)
        found = AdaptiveImportance(draws=draws).infer(objective, made.episodes, seed=seed)
        below = [(found.draws[s] < made.truth[s]).reshape(draws, -1).sum(0) for s in sites]
        scores.append(torch.special.ndtri((torch.cat(below) + 0.5) / (draws + 1)))
        unfit += float(found.sample_stats["khat"]) > 0.7
    z = torch.stack(scores)  # (simulation, scalar), standard normal
    assert unfit <= 0.05 * count
    assert z.mean(0).abs().max() < 3.5 / count**0.5
    assert (z.std(0) - 1).abs().max() < 3.5 / (2 * count) ** 0.5
