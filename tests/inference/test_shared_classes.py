"""Sites over classes that hold for every task: classes keep their places under every engine."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from bayesfs.inference.laplace.laplace import Laplace
from bayesfs.inference.nuts.nuts import NUTS
from bayesfs.inference.program.simulation import Simulator
from bayesfs.inference.svgd.svgd import SVGD
from bayesfs.inference.svi.autoguides import PyroSVI
from bayesfs.inference.svi.svi import SVI
from bayesfs.prediction import predict
from bayesfs.protocols import Engine, Model
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.types import EpisodeBatch, Posterior

SD = 0.3


@dataclass(frozen=True)
class SharedMeans(Model):
    """x_tkvf ~ N(m_k + c_tk, 1), m_k ~ N(0, 10^2) the same in every task, c_tk ~ N(0, SD^2)."""

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return {"m": ("way", "feature"), "c": ("task", "way", "feature")}

    def __call__(self, episodes: EpisodeBatch) -> None:
        x = episodes.support
        tasks, ways, shots, frames, dim = x.shape
        unit = dist.Normal(x.new_zeros(dim), x.new_ones(dim)).to_event(1)
        way = pyro.plate("way", ways, dim=-3)  # one plate, entered twice
        with way:
            law = dist.Normal(x.new_zeros(dim), 10 * x.new_ones(dim)).to_event(1)
            m = pyro.sample("m", law)
        with pyro.plate("task", tasks, dim=-4), way:
            centre = m + SD * pyro.sample("c", unit)
            with pyro.plate("shot", shots, dim=-2), pyro.plate("frame", frames, dim=-1):
                law = dist.Normal(centre, x.new_ones(dim)).to_event(1)
                pyro.sample("x", law.mask(episodes.support_mask), obs=x)

    def log_joint_frame(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        centre = draws["m"][:, None] + SD * draws["c"]
        gap = episodes.query[:, :, :, None] - centre[:, :, None, None]
        log_p = -0.5 * gap.square().sum(-1)
        return log_p.masked_fill(~episodes.way_mask[:, None, None], -torch.inf)

    def log_joint_video(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        return self.log_joint_frame(draws, episodes)[:, :, :, 0]


@pytest.fixture(scope="module")
def episodes() -> EpisodeBatch:
    sizes = {"way": 3, "shots": 4, "frames": 3, "query_videos": 2, "query_frames": 1, "dim": 2}
    return synthetic_episodes(users=6, ragged=True, seed=2, **sizes)[0].to(torch.float64)


def exact_means(episodes: EpisodeBatch) -> tuple[Tensor, Tensor]:
    """Mean and sd of p(m | support), by precision: a task of n frames says m to 1/n + SD^2."""
    mask = episodes.support_mask.flatten(2).to(episodes.support)
    count = mask.sum(-1)
    mean = (episodes.support.flatten(2, 3) * mask[..., None]).sum(-2) / count.clamp(min=1)[
        ..., None
    ]
    weight = torch.where(count > 0, 1 / (1 / count.clamp(min=1) + SD**2), 0.0)
    precision = weight.sum(0) + 0.01
    return (weight[..., None] * mean).sum(0) / precision[:, None], precision.rsqrt()


@pytest.mark.parametrize(
    "engine",
    [
        SVI(steps=600, draws=400, khat_draws=0),
        Laplace(draws=400),
        NUTS(warmup=200, draws=200, chains=2),
        SVGD(),
        PyroSVI(steps=600, draws=400),
    ],
    ids=lambda e: type(e).__name__,
)
def test_every_class_gets_its_own_mean(engine: Engine, episodes: EpisodeBatch) -> None:
    mean, sd = exact_means(episodes)
    found = engine.infer(SharedMeans(), episodes, seed=0).draws["m"].mean(0)
    assert ((found - mean).abs() < 0.6 * sd[:, None]).all()


def test_a_task_given_the_population_keeps_its_classes(episodes: EpisodeBatch) -> None:
    """Two of three classes in the task: what is asked is answered in their places."""
    mean, _ = exact_means(episodes)
    given = Posterior("exact", {"m": mean[None]}, {"m": ("way", "feature")})
    task = next(t for t in range(6) if episodes.way_mask[t].sum() < 3)
    alone = episodes.select([task])
    posterior = NUTS(warmup=100, draws=100, chains=1).infer(
        SharedMeans(), alone, seed=0, given=given
    )
    mask = alone.support_mask.flatten(2).to(mean)
    count = mask.sum(-1)[..., None]
    own = (alone.support.flatten(2, 3) * mask[..., None]).sum(-2) - count * mean
    expected = SD * own / (1 + SD**2 * count)
    there = alone.way_mask[0]
    gap = posterior.draws["c"].mean(0)[0] - expected[0]
    assert (gap[there].abs() < 0.4).all()
    answer = predict(SharedMeans(), posterior, alone, given=given)
    assert (answer.video.prob[0, :, ~there] == 0).all()


def test_its_densities_are_of_classes_and_of_tasks(episodes: EpisodeBatch) -> None:
    program = Simulator(SharedMeans(), episodes)
    draws = {site: value[None] for site, value in program.draw(seed=0).draws.items()}
    found = program.log_densities(draws)
    wide, unit = torch.distributions.Normal(0.0, 10.0), torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(found["m"], wide.log_prob(draws["m"]).sum((-1, -2)))
    own = unit.log_prob(draws["c"]).sum(-1) * episodes.way_mask
    torch.testing.assert_close(found["c"], own.sum(-1))
