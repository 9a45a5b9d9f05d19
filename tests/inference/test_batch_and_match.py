"""A Gaussian from scores: a Gaussian density exactly, a skewed one as near as one can be."""

from dataclasses import dataclass, replace

import pytest
import torch

from bayesfs.errors import InferenceError
from bayesfs.inference.batch_and_match import LEAST_AT_ONCE, MOST_AT_ONCE, matched
from bayesfs.inference.program.density import READS
from bayesfs.inference.program.streams import Streams

BLOCK = torch.arange(2, 7)


@dataclass(frozen=True)
class Gaussian:
    """N(mean, precision^-1), one task."""

    mean: torch.Tensor
    precision: torch.Tensor
    tasks: int = 1
    reads: int = 1

    @property
    def size(self) -> int:
        return len(self.mean)

    def log_density(self, z: torch.Tensor) -> torch.Tensor:
        rest = z - self.mean
        return -0.5 * ((rest @ self.precision) * rest).sum(-1)

    def value_and_gradient(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.log_density(z), -(z - self.mean) @ self.precision


class Broken(Gaussian):
    """Impossible two sds beyond its mean in one latent, if `always` anywhere."""

    always: bool = False

    def value_and_gradient(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, score = super().value_and_gradient(z)
        bad = (z[..., 2] > 2.5) | self.always
        return torch.where(bad, -torch.inf, value), torch.where(bad[..., None], torch.nan, score)


def target(kind: type[Gaussian] = Gaussian, condition: float = 1e4) -> Gaussian:
    """Badly conditioned in the block, of means 1 to 3 there; informed a little beside it."""
    generator = torch.Generator().manual_seed(3)
    axes = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))[0]
    values = torch.logspace(0, float(torch.tensor(condition).log10()), 5, dtype=torch.float64)
    precision = torch.eye(9, dtype=torch.float64)
    precision[2:7, 2:7] = axes @ torch.diag(values) @ axes.T
    precision[0, 0], precision[8, 8] = 4.0, 1.2
    mean = torch.tensor([0.5, 0.0, 1.0, 2.0, 3.0, -1.0, -2.0, 0.0, -0.3], dtype=torch.float64)
    return kind(mean, precision)


def fit(density: Gaussian, steps: int = 60, batch: int = 32, seed: int = 0):
    streams = Streams([torch.Generator().manual_seed(seed)])
    like = torch.zeros(density.size, dtype=torch.float64)
    return matched(density, BLOCK, like, steps=steps, batch=batch, streams=streams)


@pytest.mark.parametrize("condition", [1.0, 1e4])
def test_a_gaussian_is_found_whatever_its_condition(condition: float) -> None:
    density = target(condition=condition)
    found = fit(density)
    covariance = torch.linalg.inv(density.precision)
    sd = covariance.diagonal().sqrt()
    assert ((found.mean - density.mean).abs() / sd).max() < 0.1
    block = covariance[2:7, 2:7]
    assert torch.allclose(found.root @ found.root.mT, block, rtol=0.05, atol=0.05 * float(sd.min()))
    rest = torch.tensor([0, 1, 7, 8])
    assert torch.allclose(found.sd[rest], sd[rest], rtol=0.1)
    assert bool((found.sd[BLOCK] == 1).all())


def test_it_ends_where_nothing_is_won_any_more() -> None:
    found = fit(target())
    assert 10 <= len(found.elbo) < 60
    size, half = 9, torch.linalg.slogdet(target().precision)[1]
    evidence = 0.5 * (size * torch.log(2 * torch.tensor(torch.pi)) - half)
    assert float(found.elbo[-1]) == pytest.approx(float(evidence), abs=0.1)
    assert float(found.elbo[0]) < float(found.elbo[-1]) - 1


def test_impossible_draws_are_left_out_and_told_where_there_are_no_others() -> None:
    found, whole = fit(target(Broken, 10.0)), fit(target(condition=10.0))
    assert (found.mean - whole.mean).abs().max() < 0.1
    density = target(Broken)
    object.__setattr__(density, "always", True)
    with pytest.raises(InferenceError, match="finite at 0 of 32 draws about the start"):
        fit(density)


@dataclass(frozen=True)
class Steep(Gaussian):
    """Scales by their logarithms: exp(2 z) is a precision that a step too far makes huge."""

    def log_density(self, z: torch.Tensor) -> torch.Tensor:
        log = z[..., 2:7]
        data = torch.tensor([0.01, 300.0, 1.0, 30.0, 1e-3], dtype=torch.float64)
        prior = -0.5 * z.square().sum(-1)
        return prior + (20 * log - 10 * (2 * log).exp() * data).sum(-1)

    def value_and_gradient(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.enable_grad():
            point = z.detach().requires_grad_()
            value = self.log_density(point)
            (score,) = torch.autograd.grad(value.sum(), point)
        return value.detach(), score


@pytest.mark.parametrize("seed", range(8))
def test_steps_too_far_are_taken_again(seed: int) -> None:
    found = fit(target(Steep), seed=seed)
    # gamma: 20 log - 10 exp(2 log) d is greatest at exp(-2 log) = d, where the curvature is 40
    data = torch.tensor([0.01, 300.0, 1.0, 30.0, 1e-3], dtype=torch.float64)
    mode, sd = -0.5 * data.log() * 40 / 41, 41**-0.5
    assert (found.mean[BLOCK] - mode).abs().max() < 0.6 * sd
    assert (found.root.diagonal() / sd).log().abs().max() < 0.25


@pytest.mark.parametrize(
    ("reads", "at_once"), [(1, MOST_AT_ONCE), (READS // 5, 5), (10 * READS, LEAST_AT_ONCE)]
)
def test_the_more_data_the_fewer_draws_in_a_call(reads: int, at_once: int) -> None:
    """And the same Gaussian."""
    asked = []

    class Counted(Gaussian):
        def value_and_gradient(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            asked.append(z.shape[1])
            return super().value_and_gradient(z)

    found = fit(replace(target(Counted), reads=reads), steps=10)
    assert max(asked) == at_once
    torch.testing.assert_close(found.mean, fit(target(), steps=10).mean)


def test_the_same_seed_gives_the_same_gaussian() -> None:
    one, again, other = fit(target()), fit(target()), fit(target(), seed=1)
    assert torch.equal(one.mean, again.mean)
    assert not torch.equal(one.mean, other.mean)
