"""Posterior SBC: further videos of each task, simulated from its posterior and inferred with it."""

from dataclasses import dataclass

import pytest
import torch

from bayesfs.diagnostics.posterior_sbc import calibrate_near, one_draw, with_replicates
from bayesfs.errors import DataError
from bayesfs.inference.exact import Exact
from bayesfs.inference.program.simulation import Simulator
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.protocols import Engine
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.types import EpisodeBatch, Posterior


def tasks(count: int, *, frames: int = 2) -> EpisodeBatch:
    episodes, _ = synthetic_episodes(
        users=count, way=2, shots=2, frames=frames, query_videos=1, dim=2, ragged=True
    )
    return episodes.to(torch.float64)


def population(model, episodes: EpisodeBatch, draws: int = 3) -> Posterior:
    runs = [Simulator(model, episodes).draw(seed=10 + s).draws for s in range(draws)]
    dims = {s: a for s, a in model.dims.items() if "task" not in a}
    return Posterior("exact", {s: torch.stack([r[s] for r in runs]) for s in dims}, dims)


@dataclass(frozen=True)
class Narrowed(Engine):
    """Exact, every draw brought nearer to the posterior mean."""

    factor: float

    def infer(self, model, episodes, *, seed, given=None, progress=None) -> Posterior:
        exact = Exact(draws=100).infer(model, episodes, seed=seed, given=given)
        draws = {
            site: v.mean(0) + self.factor * (v - v.mean(0)) if "task" in model.dims[site] else v
            for site, v in exact.draws.items()
        }
        return exact.changed(draws=draws)


@pytest.mark.parametrize(("factor", "right"), [(1.0, True), (0.8, False), (1.3, False)])
def test_the_exact_engine_passes_and_a_wrong_width_is_found(factor: float, right: bool) -> None:
    model, episodes = GaussianHierarchy(), tasks(6)
    given = population(model, episodes)
    found = calibrate_near(
        model, Narrowed(factor), episodes, given, simulations=96, values=3, seed=1
    )
    assert found.simulations == 108
    assert (found.p > 0.01) == right
    if not right:
        spread = found.table["sd"]["width of class_raw"]
        assert (spread > 12**-0.5) == (factor < 1)


def test_a_mean_field_that_leaves_out_correlations_is_found() -> None:
    model, episodes = GaussianHierarchy(), tasks(6)
    engine = SVI(steps=300, draws=200, khat_draws=0)
    found = calibrate_near(model, engine, episodes, population(model, episodes), values=2)
    assert found.p < 0.01


def test_replicates_are_of_the_posterior_draw_and_what_was_there_stays() -> None:
    """Many frames of tiny noise: the mean of a new video is its centre, of the draw it is from."""
    model, episodes = GaussianHierarchy(), tasks(4)
    given = one_draw(population(model, episodes), 1)
    posterior = Exact(draws=20).infer(model, episodes, seed=0, given=given)
    truth = {s: v[7:8] for s, v in posterior.draws.items() if "task" in posterior.dims[s]}
    told = with_replicates(model, episodes, truth, given, seed=3)
    again = with_replicates(model, episodes, truth, given, seed=3)
    other = with_replicates(model, episodes, truth, given, seed=4)
    shots = episodes.support.shape[2]
    assert torch.equal(told.episodes.support[:, :, :shots], episodes.support)
    assert torch.equal(told.episodes.support_mask[:, :, shots:], episodes.support_mask)
    assert torch.equal(told.episodes.support, again.episodes.support)
    assert not torch.equal(told.episodes.support, other.episodes.support)
    assert torch.equal(told.truth["class_raw"], truth["class_raw"])
    assert torch.equal(told.truth["video_raw"][:, :, :, :shots], truth["video_raw"])
    assert not torch.equal(told.truth["video_raw"][:, :, :, shots:], truth["video_raw"])
    likely = Simulator(model, told.episodes).log_likelihood(told.truth)
    elsewhere = {s: v.flip(1) if s == "class_raw" else v for s, v in told.truth.items()}
    assert (likely > Simulator(model, told.episodes).log_likelihood(elsewhere)).float().mean() > 0.7


def test_what_cannot_be_tested_is_refused() -> None:
    head, episodes = HierarchicalHead(video_scale=0.0), tasks(3, frames=1)
    given = head.default_population(2)
    engine = SVI(steps=20, draws=100)
    with pytest.raises(DataError, match=r"draws the features of the support.*draws label"):
        calibrate_near(head, engine, episodes, given)
    model = GaussianHierarchy()
    with pytest.raises(DataError, match="at least 63 posterior draws, got 10"):
        calibrate_near(model, Exact(draws=10), episodes, population(model, episodes))
