"""Latents that correlate are fitted together, where a mean field of all has them too narrow."""

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import pytest
import torch

from bayesfs.errors import InferenceError
from bayesfs.inference.program.potential import potential
from bayesfs.inference.svi.correlated import uncorrelated
from bayesfs.inference.svi.guides import FullRank, MeanField
from bayesfs.inference.svi.svi import SVI, own_latents
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.objectives import MarginalLikelihood
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing.toy import GaussianToy
from bayesfs.types import EpisodeBatch


@dataclass(frozen=True)
class Gaussian:
    """N(mean, precision^-1), one task."""

    mean: torch.Tensor
    precision: torch.Tensor
    tasks: int = 1

    @property
    def size(self) -> int:
        return len(self.mean)

    def log_density(self, z):
        rest = z - self.mean
        return -0.5 * ((rest @ self.precision) * rest).sum(-1)

    def value_and_gradient(self, z):
        return self.log_density(z), -(z - self.mean) @ self.precision


def test_a_gaussian_becomes_standard_in_the_latents_that_are_taken_together() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    precision = torch.eye(7, dtype=torch.float64)
    precision[2:6, 2:6] = root @ root.mT + torch.eye(4, dtype=torch.float64)
    mean = torch.arange(7, dtype=torch.float64) / 5
    density = Gaussian(mean, precision)
    latents = torch.arange(2, 6)
    sd = precision.diagonal().rsqrt()[None]
    start = mean[None] + 0.3 * sd
    noise = torch.randn(1, 64, 7, generator=generator, dtype=torch.float64)
    white = uncorrelated(density, start[:, None] + sd[:, None] * noise, start, sd, latents)
    assert torch.allclose(white.centre[0, latents], mean[latents])
    assert torch.allclose(white.centre[0, [0, 1, 6]], start[0, [0, 1, 6]])
    u = torch.randn(1, 5, 7, generator=generator, dtype=torch.float64)
    u[..., [0, 1, 6]] = 0.0
    score = white.value_and_gradient(u)[1]
    assert torch.allclose(score[..., latents], -u[..., latents])
    assert torch.allclose(white.log_det, torch.linalg.slogdet(white.axes)[1])


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


@pytest.mark.parametrize("corrected", [False, True])
def test_what_data_know_the_sum_of_is_as_wide_as_it_should_be(corrected: bool) -> None:
    engine = SVI(steps=200, draws=4000, correlated=True, corrected=corrected)
    found = engine.infer(Sum(), episodes(), seed=0)
    draws = found.draws["scales"]
    sd = COVARIANCE.diagonal().sqrt()
    assert ((draws.mean(0) - MEAN).abs() / sd).max() < 0.06
    assert (torch.cov(draws.mT) - COVARIANCE).abs().max() < 0.1 * float(sd[0] ** 2)
    assert (found.draws["offset_raw"].std(0) - 1).abs().max() < 0.06
    assert float(found.sample_stats["khat"]) < 0.5
    plain = SVI(steps=200, draws=1000).infer(Sum(), episodes(), seed=0)
    assert (plain.draws["scales"].std(0) / sd).max() < 0.7, "a mean field is too narrow here"
    gain = float(found.sample_stats["evidence_bound"] - plain.sample_stats["evidence_bound"])
    assert corrected or gain > 0.5


def test_what_is_taken_together_is_all_that_is_not_standard_a_priori() -> None:
    density = potential(Sum(), episodes())
    assert own_latents(density, episodes().support).tolist() == [2, 3, 4]
    program = MarginalLikelihood(GaussianHierarchy())
    density = potential(program, episodes())
    own = own_latents(density, episodes().support)
    standard = [p for b in density.blocks.values() if b.standard for p in range(b.start, b.stop)]
    assert sorted([*own.tolist(), *standard]) == [*range(density.size)]


def test_another_guide_is_refused() -> None:
    with pytest.raises(InferenceError, match="for the guide MeanField"):
        SVI(FullRank(), correlated=True)
    assert SVI(MeanField(), correlated=True).correlated
