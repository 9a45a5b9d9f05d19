"""A network of one's own as a feature map, against the network itself and against GPyTorch."""

from __future__ import annotations

import gpytorch
import pytest
import torch
from torch import nn

import bayesfs as bf
from bayesfs.errors import ShapeError
from bayesfs.inference.program.potential import potential
from bayesfs.models.gp.covariance import VideoCovariance
from bayesfs.models.gp.gpytorch import GPyTorchKernel
from bayesfs.models.gp.likelihoods.regression import LabelRegression
from bayesfs.models.gp.module_map import PREFIX, ModuleMap
from bayesfs.models.objectives import MarginalLikelihood, PredictiveScore
from bayesfs.synthetic.tasks import synthetic_episodes


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))
        return made.double()


def own(module: nn.Module) -> dict[str, torch.Tensor]:
    return {PREFIX + name: value.detach() for name, value in module.named_parameters()}


class ByFrame(nn.Module):
    """Layers over flattened frames, as those that know two axes only need."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = self.inner(x.flatten(0, -2))
        return z.reshape(*x.shape[:-1], -1)


def test_it_is_the_network_with_its_parameters() -> None:
    plain = ByFrame(network()).eval()
    features = ModuleMap(plain)
    x = torch.randn(3, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = features(own(plain), x, torch.zeros(3, 7, dtype=torch.long))
    torch.testing.assert_close(found, plain(x))
    assert features.width(5) == 2
    before = {k: v.clone() for k, v in plain.state_dict().items()}
    features({k: v + 1 for k, v in own(plain).items()}, x, torch.zeros(3, 7, dtype=torch.long))
    assert all(torch.equal(v, before[k]) for k, v in plain.state_dict().items())


def test_its_prior_is_about_where_it_began() -> None:
    features = ModuleMap(nn.Linear(5, 2), spread=0.3)
    x = torch.zeros(1, 5, dtype=torch.float64)
    law = features.sites["module.weight"].prior(x)
    weight = dict(features.module.named_parameters())["weight"].detach().double()
    torch.testing.assert_close(law.mean, weight)
    torch.testing.assert_close(law.stddev, torch.full_like(weight, 0.3))
    assert features.sites["module.weight"].dims == ("weight_0", "weight_1")


def test_a_deep_kernel_is_gpytorch_s() -> None:
    """The evidence of one task against an ExactGP with the same network in front of the kernel."""
    plain = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    kernel = gpytorch.kernels.RBFKernel().double()
    covariance = VideoCovariance(ModuleMap(plain), GPyTorchKernel(kernel), video=None, shift=None)
    x = torch.randn(1, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    z = covariance.features(own(plain), x, torch.zeros(1, 6, dtype=torch.long))
    with torch.no_grad():
        torch.testing.assert_close(
            covariance.base({}, z, z), kernel(plain(x), plain(x)).to_dense(), rtol=1e-8, atol=1e-10
        )


def test_it_is_learnt_by_gradient_of_either_objective() -> None:
    plain = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    model = bf.DeepKernelGP(VideoCovariance(ModuleMap(plain)), LabelRegression())
    tasks, _ = synthetic_episodes(users=3, way=2, shots=2, frames=2, dim=5, seed=0)
    tasks = tasks.to(torch.float64)
    for objective in (MarginalLikelihood, PredictiveScore):
        density = potential(objective(model), tasks)
        z = density.prior(2, seed=0)
        value, gradient = density.value_and_gradient(z)
        assert torch.isfinite(value).all()
        step = 1e-5 * torch.sign(gradient)
        ahead, _ = density.value_and_gradient(z + step)
        wanted = (gradient * step).sum(-1)
        torch.testing.assert_close(
            (ahead - value).reshape(-1), wanted.reshape(-1), rtol=0.02, atol=1e-6
        )


def test_a_module_that_does_not_fit_is_told() -> None:
    with pytest.raises(ShapeError, match="parameters to learn"):
        ModuleMap(nn.Tanh())
    with pytest.raises(ShapeError, match="spread"):
        ModuleMap(nn.Linear(2, 2), spread=0.0)

    class Pooled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).mean(1)

    pooled = Pooled(5, 2).double()
    with pytest.raises(ShapeError, match="each frame by itself"):
        ModuleMap(pooled)(own(pooled), torch.zeros(1, 3, 5).double(), torch.zeros(1, 3).long())
