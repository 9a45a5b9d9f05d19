"""Latents that correlate are fitted together, where a mean field of all has them too narrow."""

from dataclasses import dataclass

import pytest
import torch

from bayesfs.errors import InferenceError
from bayesfs.inference.program.potential import potential
from bayesfs.inference.svi.correlated import uncorrelated
from bayesfs.inference.svi.guides import FullRank, MeanField
from bayesfs.inference.svi.svi import SVI, own_latents
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.objectives import PredictiveScore
from bayesfs.synthetic.tasks import synthetic_episodes


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


def population():
    episodes, _ = synthetic_episodes(
        users=8, way=3, shots=2, frames=2, query_videos=3, dim=4, seed=4
    )
    return PredictiveScore(GaussianHierarchy()), episodes.to(torch.float64)


def test_a_populations_fit_is_closer_and_its_draws_are_those_of_a_full_rank_one() -> None:
    program, episodes = population()
    plain = SVI(steps=300).infer(program, episodes, seed=0)
    found = SVI(steps=300, correlated=True).infer(program, episodes, seed=0)
    drawn = SVI(steps=300, correlated=True, corrected=True).infer(program, episodes, seed=0)
    full = SVI(FullRank(), steps=1000, corrected=True).infer(program, episodes, seed=0)
    assert float(found.sample_stats["evidence_bound"]) > (
        float(plain.sample_stats["evidence_bound"]) + 0.2
    )
    assert float(drawn.sample_stats["khat"]) <= 0.7
    assert float(drawn.sample_stats["stein_moments"]) <= 1
    for site in program.dims:
        mean, sd = full.draws[site].mean(0), full.draws[site].std(0)
        assert ((drawn.draws[site].mean(0) - mean).abs() / sd).max() < 0.25, site
        assert (drawn.draws[site].std(0) / sd).log().abs().max() < 0.25, site


def test_what_is_taken_together_is_all_that_is_not_standard_a_priori() -> None:
    program, episodes = population()
    density = potential(program, episodes)
    own = own_latents(density, episodes.support)
    standard = [p for b in density.blocks.values() if b.standard for p in range(b.start, b.stop)]
    assert sorted([*own.tolist(), *standard]) == [*range(density.size)]
    assert len(own) > 3


def test_another_guide_is_refused() -> None:
    with pytest.raises(InferenceError, match="for the guide MeanField"):
        SVI(FullRank(), correlated=True)
    assert SVI(MeanField(), correlated=True).correlated
