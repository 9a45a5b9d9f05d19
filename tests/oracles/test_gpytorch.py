"""GPyTorch's batch problems: a GP in a batch is the GP alone.

Source: cornellius-gp/gpytorch (MIT), test/examples on batches: a sine and a cosine at 11 points of
[0, 2] learnt at once and asked at 51, each as if alone. Here the wave's sign is the class, the line
is wound on a circle (features have unit norm), tasks differ in size, and the reference is
GPyTorch's own unbatched ExactGP.
"""

import math

import gpytorch
import pytest
import torch

from bayesfs.data.from_arrays import make_episode, stack
from bayesfs.models.gp.covariance import VideoCovariance
from bayesfs.models.gp.deep_kernel_gp import DeepKernelGP
from bayesfs.models.gp.feature_maps import Identity
from bayesfs.models.gp.kernels import RBF
from bayesfs.models.gp.points import query_points
from bayesfs.types import EpisodeBatch

MODEL = DeepKernelGP(VideoCovariance(Identity(), RBF(), video=None, shift=None))
SIGNAL, LENGTHSCALE, NOISE = 0.7, 0.4, 0.05
TASKS = ((11, 0.0), (11, math.pi / 2), (23, 0.0))
"""Points of each task, and the phase of its wave."""


def circle(points: int) -> torch.Tensor:
    angle = math.pi / 2 * torch.linspace(0, 2, points, dtype=torch.float64)
    return torch.stack([angle.cos(), angle.sin()], 1)


def wave(points: int, phase: float) -> torch.Tensor:
    x = torch.linspace(0, 2, points, dtype=torch.float64)
    return (torch.sin(2 * math.pi * x + phase + 0.1) > 0).long()


def task(points: int, phase: float) -> EpisodeBatch:
    label = wave(points, phase).tolist()
    return make_episode(circle(points), label, None, circle(51), query_condition="clean")


def values(episodes: EpisodeBatch) -> dict[str, torch.Tensor]:
    one = episodes.support.new_tensor
    return {
        "signal": one(SIGNAL),
        "lengthscale": one(LENGTHSCALE),
        "frame_scale": one([NOISE, NOISE]),
    }


def latent(episodes: EpisodeBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """(task, class, query) mean and (task, query) variance of the class functions."""
    fit = MODEL.fit(episodes, values(episodes))
    found = fit.conditioned.latent(query_points(episodes))
    return found.mean[..., 0], found.signal[:, 0, :, 0, 0]


class Alone(gpytorch.models.ExactGP):
    """GPyTorch's GP of one class of one task."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
        super().__init__(x, y, likelihood)
        self.mean_module = gpytorch.means.ZeroMean()
        self.covar_module = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())
        self.double()
        likelihood.noise = NOISE**2
        self.covar_module.outputscale = SIGNAL**2
        self.covar_module.base_kernel.lengthscale = LENGTHSCALE
        self.eval()

    def forward(self, x: torch.Tensor) -> gpytorch.distributions.MultivariateNormal:
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


@pytest.fixture(scope="module")
def together() -> tuple[torch.Tensor, torch.Tensor]:
    return latent(stack([task(*each) for each in TASKS]))


@pytest.mark.parametrize("number", range(len(TASKS)))
def test_a_task_in_a_batch_is_the_task_alone(
    together: tuple[torch.Tensor, torch.Tensor], number: int
) -> None:
    mean, variance = latent(task(*TASKS[number]))
    torch.testing.assert_close(together[0][number], mean[0], rtol=0.0, atol=1e-9)
    torch.testing.assert_close(together[1][number], variance[0], rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("number", range(len(TASKS)))
def test_a_task_in_a_batch_is_gpytorchs_alone(
    together: tuple[torch.Tensor, torch.Tensor], number: int
) -> None:
    points, phase = TASKS[number]
    x = circle(points)
    for label in (0, 1):
        code = (wave(points, phase) == label).double() - 0.5
        with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
            expected = Alone(x, code)(circle(51))
        torch.testing.assert_close(together[0][number, label], expected.mean, rtol=0.0, atol=1e-6)
        torch.testing.assert_close(
            together[1][number], expected.variance, rtol=0.0, atol=1e-6, check_dtype=False
        )
