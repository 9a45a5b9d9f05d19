"""Densities of a program's sites: each task's own, wherever the plates stand; else refused."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

from bayesfs.diagnostics.densities import with_densities
from bayesfs.errors import InferenceError
from bayesfs.inference.program.potential import potential
from bayesfs.inference.program.simulation import Simulator
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.types import EpisodeBatch, Posterior


@dataclass(frozen=True)
class MeanFrames:
    """Mean frames only: the plates "task", "way" and "shot", and no "frame".

    Attributes:
        dims_of: dim of each plate.
        frames: whether frames are observed instead, beyond the plates.
    """

    dims_of: tuple[int, int, int] = (-3, -2, -1)
    frames: bool = False

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return {"scale": (), "user": ("task",), "centre": ("task", "way", "feature")}

    def __call__(self, episodes: EpisodeBatch) -> None:
        mask, x = episodes.support_mask, episodes.support
        mean = (x * mask[..., None]).sum(-2) / mask.sum(-1).clamp(min=1)[..., None]
        zero, one = mean.new_zeros(()), mean.new_ones(())
        scale = pyro.sample("scale", dist.HalfNormal(one))
        sizes, (task, way, shot) = mean.shape, self.dims_of
        with pyro.plate("task", sizes[0], dim=task):
            sd = (pyro.sample("user", dist.Normal(zero, one)) / 2).exp()
            with pyro.plate("way", sizes[1], dim=way):
                prior = dist.Normal(zero.expand(sizes[-1]), one).to_event(1)
                centre = pyro.sample("centre", prior)
                with pyro.plate("shot", sizes[2], dim=shot):
                    if self.frames:
                        law = dist.Normal(x, one).to_event(1)
                        pyro.sample("frames", law, obs=x)
                        return
                    with poutine.mask(mask=episodes.shot_mask):
                        law = dist.Normal(scale * centre, sd[..., None]).to_event(1)
                        pyro.sample("mean", law, obs=mean)


def tasks(users: int, way: int, shots: int = 2, frames: int = 2, ragged: bool = True):
    sizes = {"way": way, "shots": shots, "frames": frames, "query_videos": 1, "dim": 3}
    episodes, _ = synthetic_episodes(users=users, **sizes, ragged=ragged, seed=0)
    return episodes.to(torch.float64)


def drawn(model: MeanFrames, episodes: EpisodeBatch) -> dict[str, Tensor]:
    joint = potential(model, episodes)
    return joint.constrain(joint.prior(4, seed=0))


@pytest.mark.parametrize(("users", "way"), [(3, 3), (3, 4), (4, 2), (1, 3)])
def test_a_program_without_frames_has_each_task_s_own_density(users: int, way: int) -> None:
    """Against the normal density, also where tasks and classes are equal in number."""
    model, episodes = MeanFrames(), tasks(users, way)
    draws = drawn(model, episodes)
    found = Simulator(model, episodes).log_densities(draws)
    normal = torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(found["user"], normal.log_prob(draws["user"]))
    each = normal.log_prob(draws["centre"]).sum(-1) * episodes.way_mask
    torch.testing.assert_close(found["centre"], each.sum(-1))
    mask = episodes.support_mask
    mean = (episodes.support * mask[..., None]).sum(-2) / mask.sum(-1).clamp(min=1)[..., None]
    centre = draws["scale"][:, None, None, None] * draws["centre"]
    sd = (draws["user"] / 2).exp()[:, :, None, None, None]
    log_p = torch.distributions.Normal(centre[:, :, :, None], sd).log_prob(mean).sum(-1)
    torch.testing.assert_close(found["mean"], (log_p * episodes.shot_mask).sum((-1, -2)))


def test_draws_may_be_scored_in_any_number_of_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, episodes = MeanFrames(), tasks(3, 3)
    draws = drawn(model, episodes)
    whole = Simulator(model, episodes).log_densities(draws)
    for passes in (1, 3):
        at_once = "bayesfs.inference.program.simulation.VALUES_AT_ONCE"
        monkeypatch.setattr(at_once, passes * episodes.support.numel())
        torch.testing.assert_close(Simulator(model, episodes).log_densities(draws), whole)


def test_the_densities_kept_with_a_posterior_are_these() -> None:
    model, episodes = MeanFrames(), tasks(3, 3)
    draws = drawn(model, episodes)
    whole = with_densities(model, Posterior("exact", draws, dict(model.dims)), episodes)
    expected = Simulator(model, episodes).log_densities(draws)["mean"].sum(-1)
    torch.testing.assert_close(whole.sample_stats["log_likelihood"], expected)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            MeanFrames((-1, -2, -3)),
            r"site 'centre'.*from left to right, got 'task' at dim -1, 'way",
        ),
        (MeanFrames(frames=True), "plate 'frame' missing"),
        (MeanFrames((-4, -3, -2)), "site 'mean' has values with axes .* plate 'frame' missing"),
    ],
)
def test_misplaced_plates_are_refused_by_name(model: MeanFrames, message: str) -> None:
    """With sizes that broadcasting would accept, and with others."""
    with pytest.raises(InferenceError, match=message):
        potential(model, tasks(2, 2, 2, 2, ragged=False))
    for read in (potential, Simulator):
        with pytest.raises(InferenceError):
            read(model, tasks(2, 3, 4, 5, ragged=False))


def test_a_plate_left_of_the_tasks_is_refused() -> None:
    @dataclass(frozen=True)
    class Outside(MeanFrames):
        def __call__(self, episodes: EpisodeBatch) -> None:
            with pyro.plate("folds", 2, dim=-5):
                super().__call__(episodes)

    with pytest.raises(InferenceError, match="plate 'folds' stands left of 'task'"):
        Simulator(Outside(), tasks(2, 3))
