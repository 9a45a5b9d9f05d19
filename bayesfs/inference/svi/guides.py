"""Variational families, each a batch of independent guides, one per row (task) of a density.

Use `MeanField` first; `FullRank` and `LowRank` add correlations, `bayesfs.inference.svi.flow.Flow`
non-Gaussian shapes. A guide is a choice, not a state: its parameters are one flat tensor
(task, count), so that one optimiser step serves all tasks at once.

The Gaussian guides have closed-form ascent directions ("sticking the landing"): with
z = m + L e, e ~ N(0, I), and g = grad log p(z) - grad log q(z),

    d ELBO / d m = E g,    d ELBO / d L = E g e^T,

whose variance vanishes where q = p.

Source: Roeder, Wu and Duvenaud (2017), Sticking the landing, eq. 6; refs.bib: roeder2017.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bayesfs._utils.ranges import Count, check_ranges
from bayesfs.errors import InferenceError

LOG_2PI = math.log(2 * math.pi)


class Guide(Protocol):
    """A family of densities q(z), z = draw(parameters, noise), noise ~ N(0, I).

    Noise is (task or 1, particle, noise_size(size)).
    """

    @property
    def whiten(self) -> bool | None:
        """Whether to fit it in coordinates whitened by the mode and its curvature; None decides.

        It is done, then, where `bayesfs.inference.program.whiten.is_worthwhile`.
        """
        ...

    def noise_size(self, size: int) -> int:
        """Length of the noise behind a z of length `size`."""
        ...

    def start(self, like: Tensor, scale: float) -> Tensor:
        """Initial parameters (task, count): mean 0, sd `scale`, for z like `like` (task, size)."""
        ...

    def draw(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Noise -> z (task, particle, size)."""
        ...

    def log_density(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """(task, particle): log q at z = draw(parameters, noise)."""
        ...

    def ascent(self, parameters: Tensor, noise: Tensor, score: Tensor) -> Tensor:
        """Gradient of the ELBO (task, count), from score = grad log p at the draws."""
        ...


@dataclass(frozen=True)
class MeanField:
    """Independent Gaussians: z = m + s * e; 2 parameters per latent.

    Attributes:
        whiten: fit it in coordinates whitened by the mode and its curvature: the correlations
            there are kept, the scale along each of them is learnt. None does so where latents are
            not N(0, I) a priori.
    """

    whiten: bool | None = None

    def noise_size(self, size: int) -> int:
        """One normal per latent."""
        return size

    def start(self, like: Tensor, scale: float) -> Tensor:
        """See `Guide.start`."""
        return torch.cat([torch.zeros_like(like), torch.full_like(like, math.log(scale))], 1)

    def draw(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """See `Guide.draw`."""
        mean, log_scale = parameters.unsqueeze(1).chunk(2, -1)
        return torch.addcmul(mean, log_scale.exp(), noise)

    def log_density(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """See `Guide.log_density`."""
        log_scale = parameters[:, None, parameters.shape[1] // 2 :]
        return _standard_normal(noise) - log_scale.sum(-1)

    def ascent(self, parameters: Tensor, noise: Tensor, score: Tensor) -> Tensor:
        """See `Guide.ascent`; here -grad log q(z) = e / s."""
        scale = parameters[:, None, parameters.shape[1] // 2 :].exp()
        path = torch.addcdiv(score, noise, scale)
        return torch.cat([path.mean(1), (path * noise * scale).mean(1)], 1)


@dataclass(frozen=True)
class FullRank:
    """A Gaussian with any covariance: z = m + L e, L lower triangular.

    It is fitted in whitened coordinates, in which L starts at I. Memory is size^2 per task: keep
    `batch_size` of the engine small for thousands of latents.

    Attributes:
        whiten: see `MeanField`; without it, expect to need many more steps at a smaller rate.
    """

    whiten: bool = True

    def noise_size(self, size: int) -> int:
        """One normal per latent."""
        return size

    def start(self, like: Tensor, scale: float) -> Tensor:
        """See `Guide.start`."""
        task, size = like.shape
        raw = torch.full_like(like, math.log(scale)).diag_embed()
        return torch.cat([torch.zeros_like(like), raw.reshape(task, size * size)], 1)

    def draw(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """See `Guide.draw`."""
        mean, factor = _mean_and_factor(parameters)
        return mean.unsqueeze(1) + noise @ factor.mT

    def log_density(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """See `Guide.log_density`."""
        _, factor = _mean_and_factor(parameters)
        return _standard_normal(noise) - factor.diagonal(0, -2, -1).log().sum(-1, keepdim=True)

    def ascent(self, parameters: Tensor, noise: Tensor, score: Tensor) -> Tensor:
        """See `Guide.ascent`; here -grad log q(z) = L^-T e."""
        _, factor = _mean_and_factor(parameters)
        rows = noise.expand(score.shape)
        path = score + torch.linalg.solve_triangular(factor, rows, upper=False, left=False)
        outer = torch.tril(path.mT @ rows / noise.shape[1])
        diagonal = factor.diagonal(0, -2, -1) * outer.diagonal(0, -2, -1)
        raw = _unit(outer) * torch.tril(outer, -1) + diagonal.diag_embed()
        return torch.cat([path.mean(1), raw.flatten(1)], 1)


@dataclass(frozen=True)
class LowRank:
    """A Gaussian with covariance U U^T + diag(s^2), U of `rank` columns: z = m + U a + s * e.

    Attributes:
        rank: number of directions with correlation; parameters are (rank + 2) per latent.
        whiten: see `MeanField`.
    """

    rank: Count = 8
    whiten: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, InferenceError)

    def noise_size(self, size: int) -> int:
        """One normal per latent, and one per column of U."""
        return size + self.rank

    def start(self, like: Tensor, scale: float) -> Tensor:
        """See `Guide.start`; U is too small to matter, but not 0, a saddle point."""
        generator = torch.Generator().manual_seed(0)
        columns = torch.randn(self.rank * like.shape[1], generator=generator).to(like)
        return torch.cat([MeanField().start(like, scale), columns.expand(len(like), -1)], 1)

    def draw(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """See `Guide.draw`."""
        mean, deviation, _, _ = self._parts(parameters, noise)
        return mean.unsqueeze(1) + deviation

    def log_density(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """See `Guide.log_density`; determinant and quadratic form by Woodbury's identity."""
        _, deviation, scale, columns = self._parts(parameters, noise)
        _, inner = _whitened(columns, scale)
        half_log_det = inner.diagonal(0, -2, -1).log().sum(-1) + scale.log().sum(-1)
        quadratic = (deviation * _solve(deviation, scale, columns)).sum(-1)
        size = deviation.shape[-1]
        return -0.5 * (quadratic + size * LOG_2PI) - half_log_det.unsqueeze(1)

    def ascent(self, parameters: Tensor, noise: Tensor, score: Tensor) -> Tensor:
        """See `Guide.ascent`; here -grad log q(z) = (U U^T + diag(s^2))^-1 (z - m)."""
        _, deviation, scale, columns = self._parts(parameters, noise)
        path = score + _solve(deviation, scale, columns)
        size = scale.shape[1]
        diagonal = (path * noise[..., :size]).mean(1) * scale
        outer = path.mT @ noise[..., size:].expand(*path.shape[:2], -1) / noise.shape[1]
        return torch.cat([path.mean(1), diagonal, self._unit * outer.flatten(1)], 1)

    @property
    def _unit(self) -> float:
        """Scale of U's parameters: Adam's jitter, summed over columns, stays small beside s."""
        return 0.04 / math.sqrt(self.rank)

    def _parts(self, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean, deviation (task, particle, size), scale s and columns U (task, size, rank)."""
        size = parameters.shape[1] // (self.rank + 2)
        mean, log_scale, flat = torch.split(parameters, [size, size, size * self.rank], 1)
        scale, columns = log_scale.exp(), self._unit * flat.reshape(-1, size, self.rank)
        deviation = noise[..., size:] @ columns.mT + scale.unsqueeze(1) * noise[..., :size]
        return mean, deviation, scale, columns


def _solve(deviation: Tensor, scale: Tensor, columns: Tensor) -> Tensor:
    """(task, particle, size): (U U^T + diag(s^2))^-1 deviation."""
    white, inner = _whitened(columns, scale)
    right = deviation / scale.unsqueeze(1)
    shared = torch.cholesky_solve((right @ white).mT, inner)
    return (right - (white @ shared).mT) / scale.unsqueeze(1)


def _whitened(columns: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """A = U / s and the Cholesky factor of I + A^T A."""
    white = columns / scale.unsqueeze(-1)
    eye = torch.eye(white.shape[-1], dtype=white.dtype, device=white.device)
    return white, torch.linalg.cholesky(eye + white.mT @ white)


def _mean_and_factor(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Flat parameters (task, size + size^2) -> mean and lower triangular L with exp(diagonal)."""
    size = (math.isqrt(1 + 4 * parameters.shape[1]) - 1) // 2
    raw = parameters[:, size:].reshape(-1, size, size)
    factor = _unit(raw) * torch.tril(raw, -1) + raw.diagonal(0, -2, -1).exp().diag_embed()
    return parameters[:, :size], factor


def _unit(factor: Tensor) -> float:
    """Scale of off-diagonal parameters: Adam's jitter, summed over a row, stays near its rate."""
    return 1 / factor.shape[-1]


def _standard_normal(noise: Tensor) -> Tensor:
    return -0.5 * (noise.square().sum(-1) + noise.shape[-1] * LOG_2PI)
