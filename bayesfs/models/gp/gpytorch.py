"""The way to and from GPyTorch: `exact_gp` hands a task over, `GPyTorchKernel` takes a kernel in.

`exact_gp(model, episodes, population)` is a GPyTorch ExactGP with the model's kernel and the
task's data, for users who want GPyTorch's own tools (and for the tests, which hold our batched
arithmetic against it).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import gpytorch
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.func import functional_call

from bayesfs.errors import ShapeError
from bayesfs.models.gp.conditioning import Conditioned
from bayesfs.models.gp.covariance import VideoCovariance
from bayesfs.models.gp.hyperparameters import Hyperparameter, Prior, Values
from bayesfs.models.gp.points import Query, Support


@dataclass(frozen=True)
class GPyTorchKernel:
    """Any GPyTorch kernel as a base kernel; hyperparameters with a registered prior become sites.

    The prior's own name becomes the site's name, such as "lengthscale_prior"; a hyperparameter
    without a prior keeps its value.

    Attributes:
        kernel: a GPyTorch kernel without batch shape; it is copied, never changed.

    Example:
        >>> prior = gpytorch.priors.GammaPrior(3.0, 6.0)
        >>> base = GPyTorchKernel(gpytorch.kernels.RQKernel(lengthscale_prior=prior))
        >>> sorted(base.sites)
        ['lengthscale_prior']
    """

    kernel: gpytorch.kernels.Kernel

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """The registered priors."""
        found = {}
        for name, module, prior, closure, _ in self.kernel.named_priors():
            shape = closure(module).shape
            found[name] = Hyperparameter(
                tuple(f"{name}_{i}" for i in range(len(shape))), _prior(prior, shape)
            )
        return found

    def __call__(self, values: Values, x1: Tensor, x2: Tensor) -> Tensor:
        """(..., n, m) covariance."""
        return self._evaluate(values, x1, x2, diag=False)

    def diagonal(self, values: Values, x: Tensor) -> Tensor:
        """(..., n) variance."""
        return self._evaluate(values, x, x, diag=True)

    def gpytorch(self, values: Values) -> gpytorch.kernels.Kernel:
        """A copy of the kernel with these values set."""
        kernel = deepcopy(self.kernel)
        for name, module, _, _, setter in kernel.named_priors():
            setter(module, values[name])
        return kernel

    def _evaluate(self, values: Values, x1: Tensor, x2: Tensor, diag: bool) -> Tensor:
        wrapped = _Dense(self.kernel)
        raw = {}
        for name, module, _, _, _ in self.kernel.named_priors():
            short = name.rsplit(".", 1)[-1].removesuffix("_prior")
            constraint = module.constraint_for_parameter_name(f"raw_{short}")
            value = values[name]
            path = f"kernel.{name.rpartition('.')[0]}.raw_{short}".replace("..", ".")
            raw[path] = value if constraint is None else constraint.inverse_transform(value)
        return cast(Tensor, functional_call(wrapped, raw, (x1, x2, diag)))


class _Dense(torch.nn.Module):
    """Evaluates a kernel to a plain tensor, inside a functional call."""

    def __init__(self, kernel: gpytorch.kernels.Kernel) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, x1: Tensor, x2: Tensor, diag: bool) -> Tensor:
        value = self.kernel.forward(x1, x2, diag=diag)
        return cast(Tensor, value if isinstance(value, Tensor) else value.to_dense())


class BlockKernel(gpytorch.kernels.Kernel):  # type: ignore[misc]
    """Whole covariance of u over points (features, video, condition), as one GPyTorch kernel."""

    has_lengthscale = False

    def __init__(self, covariance: VideoCovariance, values: Values) -> None:
        super().__init__()
        self.base = covariance.base.gpytorch(values)
        self.covariance, self.values = covariance, values

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **params: object) -> Tensor:
        """(n, m) covariance without the frame deviations, which are the likelihood's noise."""
        signal = self.base(x1[..., :-2], x2[..., :-2]).to_dense()
        if self.covariance.constant is not None:
            level = self.values["constant_scale"] ** 2
        else:
            level = torch.zeros_like(signal[..., :1, :1])
        total = signal + level
        if self.covariance.video is not None:
            same = x1[..., :, None, -2] == x2[..., None, :, -2]
            scale = self.values["video_scale"][x1[..., -1].long()] ** 2
            video = same * scale[..., None]
            total = total + (video * signal if self.covariance.scaled_video else video)
        return cast(Tensor, total.diagonal(dim1=-2, dim2=-1) if diag else total)


class TaskGP(gpytorch.models.ExactGP):  # type: ignore[misc]
    """One class function of one task in GPyTorch: zero mean and the model's kernel."""

    def __init__(
        self,
        points: Tensor,
        targets: Tensor,
        likelihood: gpytorch.likelihoods.Likelihood,
        kernel: gpytorch.kernels.Kernel,
    ) -> None:
        super().__init__(points, targets, likelihood)
        self.kernel = kernel

    def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
        """Prior at the points."""
        return gpytorch.distributions.MultivariateNormal(x.new_zeros(x.shape[:-1]), self.kernel(x))


def exact_gp(conditioned: Conditioned, task: int, label: int) -> TaskGP:
    """GPyTorch's ExactGP of one task and class, with fixed noise at the support.

    Args:
        conditioned: what `DeepKernelGP.fit(...)` holds for regression and Dirichlet targets.
        task: which task of the batch.
        label: which class.

    Returns:
        Model in evaluation mode; `model(gp_inputs(query, task))` is its predictive of u without
        the frame deviation.

    Raises:
        ShapeError: there is no such task or class.
    """
    prior = conditioned.prior
    mask = prior.support.way_mask
    if not (0 <= task < len(mask) and 0 <= label < mask.shape[1] and mask[task, label]):
        raise ShapeError(f"expected a task < {len(mask)} and a class it has, got {task}, {label}")
    real = prior.support.mask[task]
    points = _inputs(prior.support, task)[real]
    targets = conditioned.targets[task, label, real]
    noise = _fixed_noise(conditioned, task, label)[real]
    likelihood = gpytorch.likelihoods.FixedNoiseGaussianLikelihood(noise=noise)
    kernel = BlockKernel(prior.covariance, prior.values)
    model = TaskGP(points, targets, likelihood, kernel)
    model.eval()
    return model


def gp_inputs(query: Query, task: int) -> Tensor:
    """(video x frame, latent + 2): mapped query frames with their video (below 0) and condition."""
    v, f, d = query.x.shape[1:]
    video = -1 - torch.arange(v, device=query.x.device).to(query.x)
    labels = torch.stack([video, query.condition[task].to(query.x)], -1)[:, None].expand(v, f, 2)
    return torch.cat([query.x[task], labels], -1).reshape(v * f, d + 2)


def _fixed_noise(conditioned: Conditioned, task: int, label: int) -> Tensor:
    """(n,): variance on the diagonal beyond signal and video deviation."""
    prior = conditioned.prior
    group = min(label, conditioned.factor.shape[1] - 1)
    factor = conditioned.factor[task, group]
    own = (factor @ factor.mT).diagonal() - prior.matrix[task].diagonal()
    frame = prior.values["frame_scale"][prior.support.condition[task]] ** 2
    return frame + own.clamp_min(0)


def _inputs(support: Support, task: int) -> Tensor:
    labels = torch.stack([support.video[task], support.condition[task]], -1).to(support.x)
    return torch.cat([support.x[task], labels], -1)


def _prior(prior: gpytorch.priors.Prior, shape: torch.Size) -> Prior:
    def of(x: Tensor) -> dist.Distribution:
        moved = cast(Any, deepcopy(prior))
        return moved.to(x).expand(shape).to_event(len(shape))

    return of
