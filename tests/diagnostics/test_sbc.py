"""SBC passes what is right and catches what is wrong, in every way that it can be wrong."""

from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from bayesfs.diagnostics.sbc import (
    Calibration,
    calibrate,
    chi_square_p,
    envelope,
    gamma,
    null_gamma,
)
from bayesfs.diagnostics.sbc_tasks import simulate_tasks
from bayesfs.errors import DataError
from bayesfs.inference.exact import Exact
from bayesfs.inference.program.simulation import Simulator
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.models.niw.classes import NIWClasses
from bayesfs.plots.sbc import coverage_picture, rank_picture
from bayesfs.protocols import Engine
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.types import EpisodeBatch, Posterior


def tasks(count: int, **sizes: int) -> EpisodeBatch:
    sizes = {"way": 2, "shots": 2, "frames": 2, "dim": 2} | sizes
    episodes, _ = synthetic_episodes(users=count, query_videos=1, ragged="frames" in sizes, **sizes)
    return episodes.to(torch.float64)


def population_draw(model, episodes: EpisodeBatch) -> Posterior:
    draws = Simulator(model, episodes).draw(seed=3).draws
    dims = {s: a for s, a in model.dims.items() if "task" not in a}
    return Posterior("exact", {s: draws[s][None] for s in dims}, dims)


@dataclass(frozen=True)
class Distorted:
    """Exact, then every draw moved away from or towards the posterior mean."""

    stretch: float = 1.0
    shift: float = 0.0

    def infer(self, model, episodes, *, seed, given=None) -> Posterior:
        exact = Exact(draws=200).infer(model, episodes, seed=seed, given=given)
        draws = {
            site: self.stretch * (v - v.mean(0)) + v.mean(0) + self.shift * v.std(0)
            if "task" in model.dims[site]
            else v
            for site, v in exact.draws.items()
        }
        return replace(exact, draws=draws)


class Prior:
    """Ignores the data."""

    def infer(self, model, episodes, *, seed, given=None) -> Posterior:
        held = {s: v[0] for s, v in given.population.items()}
        runs = [Simulator(model, episodes).draw(seed=seed + 1 + s, held=held) for s in range(80)]
        draws = {site: torch.stack([r.draws[site] for r in runs]) for site in model.dims}
        return Posterior("exact", draws, dict(model.dims))


@dataclass(frozen=True)
class PriorImportance:
    """Prior draws, resampled by their likelihood: exact in the limit, for tasks with few data."""

    draws: int = 1200

    def infer(self, model, episodes, *, seed, given=None) -> Posterior:
        held = {s: v[0] for s, v in given.population.items()}
        program = Simulator(model, episodes)
        runs = [program.draw(seed=1000 + s, held=held).draws for s in range(self.draws)]
        prior = {site: torch.stack([r[site] for r in runs]) for site in model.dims}
        weight = program.log_likelihood(prior).softmax(0)
        generator = torch.Generator().manual_seed(seed)
        index = torch.multinomial(weight.T, 63, True, generator=generator).T
        task = torch.arange(len(episodes))
        kept = {s: v[index, task] for s, v in prior.items() if "task" in model.dims[s]}
        shared = {s: v[:63] for s, v in prior.items() if "task" not in model.dims[s]}
        return Posterior("exact", kept | shared, dict(model.dims))


def examine(engine: Engine, count: int = 200) -> Calibration:
    model, template = GaussianHierarchy(), tasks(count)
    given = population_draw(model, template)
    return calibrate(model, engine, template, population=given, seed=1)


def test_the_exact_engine_passes() -> None:
    found = examine(Exact(draws=63))
    assert found.p > 0.01
    assert found.simulations == 200
    assert {"rms of class_raw", "log-likelihood", "TARP"} <= set(found.ranks)


@pytest.mark.parametrize(("stretch", "side"), [(0.75, 1), (1.35, -1)])
def test_a_posterior_too_narrow_or_too_wide_is_caught(stretch: float, side: int) -> None:
    found = examine(Distorted(stretch=stretch))
    assert found.p < 0.01
    spread = found.table["sd"][
        [n for n in found.ranks if n.startswith(("task_raw[", "class_raw["))]
    ]
    assert (np.sign(spread - 12**-0.5) == side).all()


def test_a_shifted_posterior_is_caught() -> None:
    found = examine(Distorted(shift=0.4))
    assert found.p < 0.01
    assert found.table["mean"]["class_raw[0, 0]"] < 0.45


def test_an_engine_that_returns_the_prior_is_caught_by_the_likelihood_alone() -> None:
    """As in Modrák et al. 2023: ranks of every function of theta alone stay uniform."""
    found = examine(Prior())
    of_theta = found.table.drop(index="log-likelihood")
    assert of_theta["p"].min() > 0.01 / len(of_theta)
    assert found.table["p"]["log-likelihood"] < 1e-3


def test_a_head_labels_its_videos_and_importance_sampling_inverts_it() -> None:
    model = HierarchicalHead(weight_scale=2.0, task_mean=False)
    template = tasks(220, shots=2, dim=1).select(range(220))
    keep = {"support": template.support[..., :1, :], "support_mask": template.support_mask[..., :1]}
    template = replace(
        template,
        **{k: torch.ones_like(v) if k.endswith("mask") else v for k, v in keep.items()},
        support_frame=None,
    )
    given = population_draw(model, template)
    found = calibrate(model, PriorImportance(), template, population=given, seed=2)
    assert 100 < found.simulations < 220, "tasks without one of the classes fall out"
    assert found.p > 0.01


def test_videos_move_to_the_class_of_their_label_with_their_latents() -> None:
    model = HierarchicalHead(weight_scale=2.0)
    template, _ = synthetic_episodes(users=40, way=3, shots=3, frames=1, query_videos=1, dim=2)
    given = population_draw(model, template)
    simulated = simulate_tasks(model, template, population=given, seed=4)
    held = {s: v[0] for s, v in given.population.items()}
    run = Simulator(model, template).draw(seed=4, held=held)
    labels, features = run.observed["label"][..., 0], template.support[..., 0, :]
    offsets = run.draws["offset_raw"]
    names = {template.tasks[t]: t for t in range(40)}
    for new, name in enumerate(simulated.episodes.tasks):
        t = names[name]
        for k in range(3):
            there = simulated.episodes.shot_mask[new, k]
            assert torch.equal(
                simulated.episodes.support[new, k, there, 0], features[t][labels[t] == k]
            )
            moved = simulated.truth["offset_raw"][0, new, k, there]
            assert torch.equal(moved, offsets[t][labels[t] == k])
    missing = [t for t in range(40) if len(labels[t].unique()) < 3]
    assert len(simulated.episodes) == 40 - len(missing)


def test_gamma_is_the_definition_and_its_p_is_uniform() -> None:
    rng = np.random.default_rng(0)
    null = np.sort(null_gamma(100, 31, draws=4000))
    p = [
        (np.searchsorted(null, gamma(r, 31) * (1 + 1e-9), side="right") + 1) / 4001
        for r in rng.integers(0, 32, (300, 100))
    ]
    assert kstest(p, "uniform").pvalue > 0.01
    from scipy.stats import binomtest

    ranks = rng.integers(0, 32, 40)
    tails = []
    for i in range(31):
        count = int((ranks <= i).sum())
        one_sided = [
            binomtest(count, 40, (i + 1) / 32, alternative=a).pvalue for a in ("less", "greater")
        ]
        tails.append(min(1.0, 2 * min(one_sided)))
    assert gamma(ranks, 31) == pytest.approx(min(tails))


def test_the_envelope_holds_whole_curves() -> None:
    rng = np.random.default_rng(1)
    low, high = envelope(80, 31, 0.9)
    place = (np.arange(31) + 1) / 32
    ranks = rng.integers(0, 32, (1000, 80))
    share = (ranks[..., None] <= np.arange(31)).mean(1) - place
    inside = ((share >= low - 1e-9) & (share <= high + 1e-9)).all(-1).mean()
    assert 0.88 < inside < 0.94


def test_chi_square_sees_ranks_at_the_ends() -> None:
    rng = np.random.default_rng(2)
    assert chi_square_p(rng.integers(0, 64, 400), 63) > 0.01
    assert chi_square_p(rng.choice([0, 1, 62, 63], 400), 63) < 1e-6


def test_pictures_have_a_panel_for_every_quantity(tmp_path) -> None:
    found = examine(Exact(draws=63), count=40)
    both = found.joined(found)
    assert both.simulations == 80
    figure = rank_picture(both, "Gaussian, exact")
    assert sum(bool(axes.get_title()) for axes in figure.axes) == len(found.ranks)
    figure.savefig(tmp_path / "ranks.png")
    coverage_picture(both, "Gaussian, exact").savefig(tmp_path / "tarp.png")


def test_what_cannot_be_simulated_is_refused() -> None:
    head, template = HierarchicalHead(), tasks(4)
    with pytest.raises(DataError, match="exponent"):
        simulate_tasks(head, template, population=head.default_population(2))
    model = GaussianHierarchy()
    given = population_draw(model, template)
    twice = replace(given, draws={s: v.expand(2, *v.shape[1:]) for s, v in given.draws.items()})
    with pytest.raises(DataError, match="one draw of the population"):
        simulate_tasks(model, template, population=twice)
    with pytest.raises(DataError, match="at least 63"):
        calibrate(model, Exact(draws=10), template, population=given)


@pytest.mark.slow
def test_a_short_run_finds_sds_that_are_a_tenth_too_small() -> None:
    """The test of continuous integration has power: 96 tasks of one population."""
    model, template = GaussianHierarchy(), tasks(96, way=3, shots=3, frames=3, dim=3)
    found = {1.0: 0, 0.9: 0}
    for seed in range(20):
        draws = Simulator(model, template).draw(seed=seed).draws
        dims = {s: a for s, a in model.dims.items() if "task" not in a}
        given = Posterior("exact", {s: draws[s][None] for s in dims}, dims)
        for stretch in found:
            engine = Distorted(stretch=stretch)
            p = calibrate(model, engine, template, population=given, seed=seed).p
            found[stretch] += p < 0.01
    assert found[0.9] >= 16
    assert found[1.0] <= 2


def test_the_width_of_a_site_is_of_all_its_scalars_and_leaves_padding_out() -> None:
    model, template = GaussianHierarchy(), tasks(60)
    given = population_draw(model, template)
    found = calibrate(model, Exact(draws=63), template, population=given, seed=1)
    assert set(found.widths) == {"class_raw", "video_raw"}, "task_raw has two scalars only"
    simulated = simulate_tasks(model, template, population=given, seed=1)
    posterior = Exact(draws=63).infer(model, simulated.episodes, seed=1, given=given)
    u = ((posterior.draws["class_raw"] < simulated.truth["class_raw"]).sum(0) + 0.5) / 64
    even = NormalDist()
    score = np.vectorize(lambda p: even.inv_cdf(p) ** 2)
    mean = np.mean([even.inv_cdf((r + 0.5) / 64) ** 2 for r in range(64)])
    exists = template.way_mask.numpy()
    for t in (0, 7, 31):
        expected = score(u[t].numpy()[exists[t]]).mean() / mean
        assert found.widths["class_raw"][t] == pytest.approx(expected)
    assert found.joined(found).table["p"]["width of class_raw"] < 1


def test_a_video_whose_mean_was_drawn_keeps_its_frames_and_has_that_mean() -> None:
    """Equal frames would be taken for copies, and a posterior given them be too wide."""
    model, template = NIWClasses(), tasks(20, frames=3, dim=3)
    given = population_draw(model, template)
    told = simulate_tasks(model, template, population=given, seed=2)
    assert torch.equal(told.episodes.support_mask, template.support_mask)
    held = {s: v[0] for s, v in given.population.items()}
    run = Simulator(model, template).draw(seed=2, held=held)
    mask = template.support_mask[..., None]
    mean = (told.episodes.support * mask).sum(-2) / mask.sum(-2).clamp(min=1)
    drawn = run.observed["videos"].reshape(mean.shape)
    assert torch.allclose(mean[template.shot_mask], drawn[template.shot_mask])
