"""The way to and from GPyTorch: `exact_gp` hands a task over, `GPyTorchKernel` takes a kernel in.

`exact_gp(model, episodes, population)` is a GPyTorch ExactGP with the model's kernel and the
task's data, for users who want GPyTorch's own tools (and for the tests, which hold our batched
arithmetic against it).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from threading import RLock
from typing import Any, cast

import gpytorch
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from bayesfs.errors import InferenceError, ShapeError
from bayesfs.models.gp.conditioning import Conditioned
from bayesfs.models.gp.covariance import VideoCovariance
from bayesfs.models.gp.hyperparameters import Hyperparameter, Prior, Values
from bayesfs.models.gp.kernels import square_distance
from bayesfs.models.gp.points import Query, Support

REFUSED = (
    gpytorch.kernels.DistributionalInputKernel,
    gpytorch.kernels.GaussianSymmetrizedKLKernel,
    gpytorch.kernels.GridInterpolationKernel,
    gpytorch.kernels.GridKernel,
    gpytorch.kernels.HammingIMQKernel,
    gpytorch.kernels.IndexKernel,
    gpytorch.kernels.InducingPointKernel,
    gpytorch.kernels.LCMKernel,
    gpytorch.kernels.Matern52KernelGrad,
    gpytorch.kernels.MultiDeviceKernel,
    gpytorch.kernels.MultitaskKernel,
    gpytorch.kernels.NewtonGirardAdditiveKernel,
    gpytorch.kernels.PolynomialKernelGrad,
    gpytorch.kernels.RBFKernelGrad,
    gpytorch.kernels.RBFKernelGradGrad,
)
"""GPyTorch's kernels that are approximations, of other inputs, of several outputs, or that write
in place, which cannot be done for several draws at a time."""

MOST_DIFFERENCES = 2**22
"""Differences of points that are held at a time."""

_FILLED = RLock()
"""Held while a kernel has the values of a call put into it: it is one object for all threads."""


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

    def __post_init__(self) -> None:
        strange = [m for m in self.kernel.modules() if isinstance(m, REFUSED)]
        if strange:
            raise InferenceError(
                f"{type(strange[0]).__name__} is not for a task's class functions: it approximates "
                "another kernel, needs other inputs than features, or has several outputs; "
                "docs/kernels.md lists those that are"
            )

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """The registered priors."""
        found = {}
        for name, module, prior, closure, _ in self.kernel.named_priors():
            with _FILLED:
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
        with _FILLED:
            kernel = deepcopy(self.kernel)
        with torch.no_grad():
            for path, raw in self._raw(values).items():
                kernel.get_parameter(path).copy_(raw)
        return kernel

    def _evaluate(self, values: Values, x1: Tensor, x2: Tensor, diag: bool) -> Tensor:
        raw = {f"kernel.{path}": value for path, value in self._raw(values).items()}
        with _FILLED:
            return cast(Tensor, functional_call(_Dense(self.kernel), raw, (x1, x2, diag)))

    def _raw(self, values: Values) -> dict[str, Tensor]:
        """Path of each unconstrained parameter that has a prior -> its value."""
        raw = {}
        for name, module, _, _, _ in self.kernel.named_priors():
            place, _, own = name.rpartition(".")
            parameter = f"raw_{own.removesuffix('_prior')}"
            constraint = module.constraint_for_parameter_name(parameter)
            value = values[name]
            path = f"{place}.{parameter}" if place else parameter
            raw[path] = value if constraint is None else constraint.inverse_transform(value)
        return raw


class _Dense(torch.nn.Module):
    """Evaluates a kernel to a plain tensor, inside a functional call and any transform."""

    def __init__(self, kernel: gpytorch.kernels.Kernel) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, x1: Tensor, x2: Tensor, diag: bool) -> Tensor:
        """(..., n, m) covariance, or (..., n) variance."""
        plain, lazy = gpytorch.settings.trace_mode, gpytorch.settings.lazily_evaluate_kernels
        with plain(True), lazy(False), _Recordable():
            return _dense(self.kernel, x1, x2, diag)


def _dense(kernel: gpytorch.kernels.Kernel, x1: Tensor, x2: Tensor, diag: bool) -> Tensor:
    """Sums, products and scales are taken of plain tensors: linear operators would factorise."""
    if kernel.active_dims is not None:
        x1, x2 = (x.index_select(-1, kernel.active_dims) for x in (x1, x2))
    if isinstance(kernel, gpytorch.kernels.AdditiveKernel):
        return reduce(torch.add, [_dense(part, x1, x2, diag) for part in kernel.kernels])
    if isinstance(kernel, gpytorch.kernels.ProductKernel):
        return reduce(torch.mul, [_dense(part, x1, x2, diag) for part in kernel.kernels])
    if isinstance(kernel, gpytorch.kernels.ScaleKernel):
        return cast(Tensor, kernel.outputscale * _dense(kernel.base_kernel, x1, x2, diag))
    value = kernel.forward(x1, x2, diag=diag)
    return cast(Tensor, value if isinstance(value, Tensor) else value.to_dense())


class _Recordable(TorchFunctionMode):
    """What GPyTorch's kernels do that no transform can follow, done otherwise.

    Whether two sets of points are equal cannot be asked of values that are not known yet: they are
    taken for different ones, which costs some work only. Distances have derivatives of every kind,
    also where points coincide, and results are new tensors.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.equal:
            return args[0] is args[1]
        if func is torch.cdist:
            return _distance(args[0], args[1])
        return _FRESH.get(func, func)(*args, **(kwargs or {}))


_FRESH: Mapping[Any, Any] = {
    torch.Tensor.clamp_min_: torch.clamp_min,
    torch.Tensor.clamp_: torch.clamp,
    torch.Tensor.sqrt_: torch.sqrt,
    torch.Tensor.div_: torch.div,
    torch.Tensor.exp_: torch.exp,
}
"""Operations in place whose result is used -> the same as new tensors."""


def _distance(x1: Tensor, x2: Tensor) -> Tensor:
    """(..., n, m): |x1 - x2|; from differences where they fit in memory, which is exact."""
    if x1.shape[-2] * x2.shape[-2] * x1.shape[-1] <= MOST_DIFFERENCES:
        square = (x1[..., :, None, :] - x2[..., None, :, :]).square().sum(-1)
    else:
        square = square_distance(x1, x2)
    return square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()


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
