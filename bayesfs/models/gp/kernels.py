"""Base kernels k(x, x') on mapped features: start with `Linear`; `RBF` and `Matern` are local.

Each class is one equation, amplitude `signal` included, as a pure function of its hyperparameters
(so that particles can be vmapped), and `gpytorch(values)` gives the same kernel as GPyTorch's own
module (`bayesfs.models.gp.gpytorch.GPyTorchKernel` goes the other way).

    Linear    s^2 x.x'
    Cosine    s^2 x.x' / (|x| |x'|)
    RBF       s^2 exp(-d^2 / (2 l^2)),  d = |x - x'|
    Matern    s^2 times Matern 1/2, 3/2 or 5/2 of d / l
    Spectral  s^2 sum_q w_q exp(-2 pi^2 v_q d^2) cos(2 pi mu_q.(x - x'))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import pi, sqrt
from typing import Annotated, Protocol, cast

import gpytorch
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesfs._linalg.directions import unit
from bayesfs._utils.ranges import Count, Positive, check_ranges, one_of
from bayesfs.errors import ShapeError
from bayesfs.models.gp.hyperparameters import Hyperparameter, Values, positive, positive_vector


class BaseKernel(Protocol):
    """A positive semi-definite function of two sets of features."""

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """Its hyperparameters."""
        ...

    def __call__(self, values: Values, x1: Tensor, x2: Tensor) -> Tensor:
        """(..., n, feature), (..., m, feature) -> (..., n, m) covariance."""
        ...

    def diagonal(self, values: Values, x: Tensor) -> Tensor:
        """(..., n, feature) -> (..., n): k(x, x)."""
        ...

    def gpytorch(self, values: Values) -> gpytorch.kernels.Kernel:
        """The same kernel, at these values, as a GPyTorch module."""
        ...


@dataclass(frozen=True)
class Linear:
    """k(x, x') = s^2 x.x': Bayesian linear regression on the features.

    Attributes:
        signal: prior median of s.
        spread: prior sd of log s.
    """

    signal: Positive = 0.15
    spread: Positive = 1.0

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """The amplitude s."""
        return {"signal": positive(self.signal, self.spread)}

    def __call__(self, values: Values, x1: Tensor, x2: Tensor) -> Tensor:
        """(..., n, m) covariance."""
        return values["signal"] ** 2 * (x1 @ x2.mT)

    def diagonal(self, values: Values, x: Tensor) -> Tensor:
        """(..., n) variance."""
        return values["signal"] ** 2 * x.square().sum(-1)

    def gpytorch(self, values: Values) -> gpytorch.kernels.Kernel:
        """GPyTorch's LinearKernel."""
        kernel = gpytorch.kernels.LinearKernel().to(values["signal"])
        kernel.variance = values["signal"] ** 2
        return kernel


@dataclass(frozen=True)
class Cosine:
    """k(x, x') = s^2 x.x' / (|x| |x'|).

    Attributes:
        signal: prior median of s.
        spread: prior sd of log s.
    """

    signal: Positive = 0.15
    spread: Positive = 1.0

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """The amplitude s."""
        return {"signal": positive(self.signal, self.spread)}

    def __call__(self, values: Values, x1: Tensor, x2: Tensor) -> Tensor:
        """(..., n, m) covariance."""
        return values["signal"] ** 2 * (unit(x1) @ unit(x2).mT)

    def diagonal(self, values: Values, x: Tensor) -> Tensor:
        """(..., n) variance; 0 where x = 0."""
        return values["signal"] ** 2 * unit(x).square().sum(-1)

    def gpytorch(self, values: Values) -> gpytorch.kernels.Kernel:
        """A LinearKernel of normalised inputs."""
        return _UnitLinear(values["signal"])


@dataclass(frozen=True)
class RBF:
    """k(x, x') = s^2 exp(-d^2 / (2 l^2)).

    Attributes:
        signal: prior median of s.
        lengthscale: prior median of l; unit vectors lie within d <= 2.
        spread: prior sd of log s and of log l.
    """

    signal: Positive = 0.3
    lengthscale: Positive = 1.5
    spread: Positive = 1.0

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """Amplitude s and lengthscale l."""
        return {
            "signal": positive(self.signal, self.spread),
            "lengthscale": positive(self.lengthscale, self.spread),
        }

    def __call__(self, values: Values, x1: Tensor, x2: Tensor) -> Tensor:
        """(..., n, m) covariance."""
        scaled = square_distance(x1, x2) / values["lengthscale"] ** 2
        return values["signal"] ** 2 * torch.exp(-0.5 * scaled)

    def diagonal(self, values: Values, x: Tensor) -> Tensor:
        """(..., n) variance, s^2."""
        return values["signal"] ** 2 * torch.ones_like(x[..., 0])

    def gpytorch(self, values: Values) -> gpytorch.kernels.Kernel:
        """GPyTorch's ScaleKernel(RBFKernel)."""
        return _scaled(gpytorch.kernels.RBFKernel(), values)


@dataclass(frozen=True)
class Matern:
    """k = s^2 m_nu(r), r = sqrt(2 nu) d / l, with m_1/2 = e^-r, m_3/2 = (1 + r) e^-r, ...

    Attributes:
        nu: 0.5, 1.5 or 2.5: f is nu - 1/2 times differentiable.
        signal: prior median of s.
        lengthscale: prior median of l.
        spread: prior sd of log s and of log l.

    Source: Rasmussen and Williams 2006, eq. 4.17.
    """

    nu: Annotated[float, one_of(0.5, 1.5, 2.5)] = 2.5
    signal: Positive = 0.3
    lengthscale: Positive = 1.5
    spread: Positive = 1.0

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """Amplitude s and lengthscale l."""
        return {
            "signal": positive(self.signal, self.spread),
            "lengthscale": positive(self.lengthscale, self.spread),
        }

    def __call__(self, values: Values, x1: Tensor, x2: Tensor) -> Tensor:
        """(..., n, m) covariance."""
        square = square_distance(x1, x2)
        tiny = torch.finfo(square.dtype).tiny
        r = sqrt(2 * self.nu) / values["lengthscale"] * square.clamp_min(tiny).sqrt()
        one = torch.ones_like(r)
        terms = {0.5: one, 1.5: 1 + r, 2.5: 1 + r + r.square() / 3}
        return values["signal"] ** 2 * terms[self.nu] * torch.exp(-r)

    def diagonal(self, values: Values, x: Tensor) -> Tensor:
        """(..., n) variance, s^2."""
        return values["signal"] ** 2 * torch.ones_like(x[..., 0])

    def gpytorch(self, values: Values) -> gpytorch.kernels.Kernel:
        """GPyTorch's ScaleKernel(MaternKernel)."""
        return _scaled(gpytorch.kernels.MaternKernel(nu=self.nu), values)


@dataclass(frozen=True)
class Spectral:
    """k(t) = s^2 sum_q w_q exp(-2 pi^2 v_q |t|^2) cos(2 pi mu_q.t), t = x - x', sum_q w_q = 1.

    The spectral density is a mixture of Gaussians N(mu_q, v_q I) in all feature dimensions.
    GPyTorch multiplies one-dimensional kernels instead; in 1000 dimensions its product of cosines
    is 0 almost everywhere and its tensor (n, m, feature, mixture) does not fit in memory.

    Attributes:
        mixtures: number of components.
        signal: prior median of s.
        bandwidth: prior median of sqrt(v_q).
        frequency: prior standard deviation of each entry of mu_q, times sqrt(feature).
        spread: prior sd of log s and of each log sqrt(v_q).
        weight_spread: prior sd of the log of each w_q, before they are brought to a sum of 1.

    Source: Wilson and Adams 2013, eq. 12, with a full frequency vector.
    """

    mixtures: Count = 4
    signal: Positive = 0.3
    bandwidth: Positive = 0.2
    frequency: Positive = 0.2
    spread: Positive = 1.0
    weight_spread: Positive = 0.5

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """s, w (unnormalised), sqrt(v) and mu."""
        return {
            "signal": positive(self.signal, self.spread),
            "spectral_weight": positive_vector(self.mixtures, "mixture", 1.0, self.weight_spread),
            "spectral_bandwidth": positive_vector(
                self.mixtures, "mixture", self.bandwidth, self.spread
            ),
            "spectral_frequency": Hyperparameter(("mixture", "latent"), self._frequency_prior),
        }

    def _frequency_prior(self, x: Tensor) -> dist.Distribution:
        zeros = x.new_zeros(self.mixtures, x.shape[-1])
        return dist.Normal(zeros, self.frequency / sqrt(x.shape[-1])).to_event(2)

    def __call__(self, values: Values, x1: Tensor, x2: Tensor) -> Tensor:
        """(..., n, m) covariance."""
        square = square_distance(x1, x2)
        mu = values["spectral_frequency"]
        weight = values["spectral_weight"] / values["spectral_weight"].sum()
        total = torch.zeros_like(square)
        for q in range(self.mixtures):
            phase = 2 * pi * ((x1 @ mu[q])[..., :, None] - (x2 @ mu[q])[..., None, :])
            decay = torch.exp(-2 * (pi * values["spectral_bandwidth"][q]) ** 2 * square)
            total = total + weight[q] * decay * torch.cos(phase)
        return values["signal"] ** 2 * total

    def diagonal(self, values: Values, x: Tensor) -> Tensor:
        """(..., n) variance, s^2."""
        return values["signal"] ** 2 * torch.ones_like(x[..., 0])

    def gpytorch(self, values: Values) -> gpytorch.kernels.Kernel:
        """GPyTorch's SpectralMixtureKernel; the same function in one dimension only."""
        frequency = values["spectral_frequency"]
        if frequency.shape[-1] != 1:
            raise NotImplementedError("GPyTorch's spectral kernel is another one beyond 1-D")
        kernel = gpytorch.kernels.SpectralMixtureKernel(num_mixtures=self.mixtures)
        kernel = kernel.to(frequency)
        weight = values["spectral_weight"] / values["spectral_weight"].sum()
        kernel.mixture_weights = values["signal"] ** 2 * weight
        kernel.mixture_means = frequency.abs()[:, None]
        kernel.mixture_scales = values["spectral_bandwidth"][:, None, None]
        return kernel


def square_distance(x1: Tensor, x2: Tensor) -> Tensor:
    """(..., n, m): |x1 - x2|^2, never negative; differentiable also where points coincide."""
    centre = x1.mean(-2, keepdim=True).detach()
    x1, x2 = x1 - centre, x2 - centre
    square = x1.square().sum(-1)[..., :, None] + x2.square().sum(-1)[..., None, :]
    return (square - 2 * x1 @ x2.mT).clamp_min(0)


class _UnitLinear(gpytorch.kernels.Kernel):  # type: ignore[misc]
    """s^2 times the cosine of two inputs."""

    def __init__(self, signal: Tensor) -> None:
        super().__init__()
        self.register_buffer("signal", signal)

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **params: object) -> Tensor:
        u1, u2 = unit(x1), unit(x2)
        return cast(Tensor, self.signal) ** 2 * ((u1 * u2).sum(-1) if diag else u1 @ u2.mT)


def _scaled(kernel: gpytorch.kernels.Kernel, values: Values) -> gpytorch.kernels.Kernel:
    scaled = gpytorch.kernels.ScaleKernel(kernel).to(values["signal"])
    scaled.outputscale = values["signal"] ** 2
    scaled.base_kernel.lengthscale = values["lengthscale"]
    return scaled
