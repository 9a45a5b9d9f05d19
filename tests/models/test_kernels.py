"""Base kernels against GPyTorch's, and against their defining integrals."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import gpytorch
import pytest
import torch

from bayesfs._linalg.directions import unit
from bayesfs.models.gp.gpytorch import GPyTorchKernel
from bayesfs.models.gp.hyperparameters import sample_hyperparameters
from bayesfs.models.gp.kernels import (
    RBF,
    BaseKernel,
    Cosine,
    Linear,
    Matern,
    Spectral,
    square_distance,
)

KERNELS = [Linear(), Cosine(), RBF(), Matern(0.5), Matern(1.5), Matern(2.5), Spectral()]


def values_of(kernel: BaseKernel, x: torch.Tensor) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return sample_hyperparameters(kernel.sites, x)


def points(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_symmetric_positive_semi_definite_and_diagonal_agrees(kernel: BaseKernel) -> None:
    x = points(12, 5)
    values = values_of(kernel, x)
    k = kernel(values, x, x)
    torch.testing.assert_close(k, k.mT)
    assert torch.linalg.eigvalsh(k).min() > -1e-9
    torch.testing.assert_close(k.diagonal(dim1=1, dim2=2), kernel.diagonal(values, x))


@pytest.mark.parametrize("kernel", KERNELS[:-1], ids=repr)
def test_equals_gpytorch(kernel: BaseKernel) -> None:
    x1, x2 = points(7, 4), points(5, 4, seed=1)
    values = values_of(kernel, x1)
    with torch.no_grad():
        theirs = kernel.gpytorch(values)(x1, x2).to_dense()
    torch.testing.assert_close(kernel(values, x1, x2), theirs, rtol=1e-7, atol=1e-9)


def test_spectral_equals_gpytorch_in_one_dimension_and_says_so_beyond() -> None:
    x1, x2 = points(7, 1), points(5, 1, seed=1)
    kernel = Spectral(3)
    values = values_of(kernel, x1)
    with torch.no_grad():
        theirs = kernel.gpytorch(values)(x1, x2).to_dense()
    torch.testing.assert_close(kernel(values, x1, x2), theirs, rtol=1e-6, atol=1e-8)
    with pytest.raises(NotImplementedError):
        kernel.gpytorch(values_of(kernel, points(3, 2)))


def test_spectral_is_the_fourier_transform_of_its_mixture() -> None:
    x = points(4, 3)[0]
    kernel = Spectral(2, frequency=0.5)
    values = values_of(kernel, x)
    weight = values["spectral_weight"] / values["spectral_weight"].sum()
    g = torch.Generator().manual_seed(5)
    total = torch.zeros(4, 4, dtype=x.dtype)
    for q in range(2):
        noise = torch.randn(200_000, 3, generator=g, dtype=x.dtype)
        frequency = values["spectral_frequency"][q] + values["spectral_bandwidth"][q] * noise
        phase = 2 * torch.pi * (frequency @ x.T)
        cosine = phase.cos().T @ phase.cos() + phase.sin().T @ phase.sin()
        total += weight[q] * cosine / len(noise)
    ours = kernel(values, x, x) / values["signal"] ** 2
    torch.testing.assert_close(ours, total, atol=0.01, rtol=0)


def test_distances_survive_float32_far_from_the_origin() -> None:
    x = points(6, 8)[0].float() + 100
    exact = torch.cdist(x.double(), x.double()) ** 2
    torch.testing.assert_close(square_distance(x, x).double(), exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_gradients_are_finite_where_points_coincide(kernel: BaseKernel) -> None:
    x = points(3, 4).repeat_interleave(2, 1).requires_grad_()
    values = {n: v.requires_grad_() for n, v in values_of(kernel, x.detach()).items()}
    kernel(values, x, x).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(v.grad).all() for v in values.values())


def test_unit_vectors_and_zero() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    torch.testing.assert_close(unit(x), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_any_gpytorch_kernel_becomes_a_base_kernel() -> None:
    prior = gpytorch.priors.GammaPrior(3.0, 6.0)
    inner = gpytorch.kernels.RQKernel(lengthscale_prior=prior)
    theirs = gpytorch.kernels.ScaleKernel(inner, outputscale_prior=prior).double()
    kernel = GPyTorchKernel(theirs)
    assert set(kernel.sites) == {"outputscale_prior", "base_kernel.lengthscale_prior"}
    x = points(5, 3)
    values = values_of(kernel, x)
    ours = kernel(values, x, x)
    with torch.no_grad():
        expected = kernel.gpytorch(values)(x, x).to_dense()
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(kernel.diagonal(values, x), ours.diagonal(dim1=1, dim2=2))
    values["outputscale_prior"].requires_grad_()
    ours_again = kernel(values, x, x).sum()
    (gradient,) = torch.autograd.grad(ours_again, values["outputscale_prior"])
    torch.testing.assert_close(gradient * values["outputscale_prior"], ours_again)


class Slow(gpytorch.kernels.RBFKernel):  # type: ignore[misc]
    """A kernel that lets other threads in while it is evaluated."""

    def forward(self, *args: Any, **settings: Any) -> torch.Tensor:
        time.sleep(0.002)
        return cast(torch.Tensor, super().forward(*args, **settings))


def test_threads_that_share_a_gpytorch_kernel_keep_their_values_apart() -> None:
    prior = gpytorch.priors.GammaPrior(3.0, 6.0)
    kernel, x = GPyTorchKernel(Slow(lengthscale_prior=prior).double()), points(4, 3)
    (name,) = kernel.sites
    each = [{name: torch.full((1, 1), 0.1 + number).double()} for number in range(12)]
    expected = [kernel(values, x, x) for values in each]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda values: kernel(values, x, x), each))
    for ours, alone in zip(found, expected, strict=True):
        assert torch.equal(ours, alone)


def test_matern_refuses_an_unknown_smoothness() -> None:
    with pytest.raises(ValueError, match=r"nu: expected one of 0\.5, 1\.5, 2\.5, got 3"):
        Matern(3.0)
