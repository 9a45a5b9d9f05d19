"""Families of covariances for the levels of a hierarchy, each with its priors.

Start with `PowerLaw`: two numbers per level, which is what a handful of train users can teach in
hundreds of dimensions. `PerFeature`, `LowRankCovariance` and `Full` are for more users or fewer
dimensions. The levels are `COVARIANCE_LEVELS`; every family gives one operator with the level as
its batch axis.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol, Self, cast

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayesfs._distributions.polar import PairedHalfNormal
from bayesfs._utils.ranges import Count, Positive, check_ranges
from bayesfs.errors import ShapeError
from bayesfs.models.gaussian.covariance import Dense, Diagonal

COVARIANCE_LEVELS = (
    "task",
    "class",
    "video_clean",
    "video_clutter",
    "frame_clean",
    "frame_clutter",
)
"""Levels of the hierarchy that have a covariance of their own, in the order of the site axis."""

VIDEO_AND_FRAME = ((2, 4), (3, 5))
"""Levels of which the data know the sum: a video's effect and its frames' noise, by condition."""

FLOOR = 1e-9
"""Smallest share of the variance that a feature keeps, so that every covariance is invertible."""

SINGLE_DIM = 8
"""Features up to which full covariances are told apart in single precision."""


class CovarianceFamily(Protocol):
    """A parametrisation of the six covariances, with priors."""

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Population site -> axes."""
        ...

    def sample(self, like: Tensor) -> dict[str, Tensor]:
        """Pyro program of the sites; `like` (..., feature) gives size, dtype and device."""
        ...

    def build(self, sites: Mapping[str, Tensor], dim: int) -> Diagonal | Dense:
        """Operator with batch axis (level,)."""
        ...

    @property
    def coords(self) -> Mapping[str, tuple[str, ...]]:
        """Axis -> names of its places."""
        return {"level": COVARIANCE_LEVELS}

    @property
    def spectrum(self) -> tuple[float, ...] | None:
        """Sds of the features that it was fitted to; None where it takes them as equal."""
        return None

    def fit_to(self, spectrum: tuple[float, ...]) -> Self:
        """The same family for features of these sds."""
        return self


@dataclass(frozen=True)
class PowerLaw(CovarianceFamily):
    """Diagonal covariances that follow the spectrum of the features, each level to its own power.

        variance_{l d} = scale_l^2 w_{l d},     w_{l d} = s_d^{2 g_l} / sum_d' s_d'^{2 g_l},

    with s_d the sd of feature d over the train frames (`spectrum`), scale_l ~ HalfNormal(scale) the
    root of the level's total variance, and g_l ~ Normal(exponent, exponent_sd). Power 1 spreads a
    level as the features themselves, 0 spreads it evenly, which weights fine differences up.

    Attributes:
        spectrum: sd of each feature; None for equal sds, where the power has no effect.
        exponent: prior mean of the power.
        exponent_sd: prior sd of the power.
        scale: prior scale of the root of each level's total variance.
    """

    spectrum: tuple[float, ...] | None = None
    exponent: float = 0.6
    exponent_sd: Positive = 0.2
    scale: Positive = 1.0

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Site -> axes."""
        return {"scale": ("level",), "exponent": ("level",)}

    def sample(self, like: Tensor) -> dict[str, Tensor]:
        """Scale and exponent of each level."""
        ones = like.new_ones(len(COVARIANCE_LEVELS))
        return {
            "scale": sample_scales(self.scale * ones),
            "exponent": pyro.sample(
                "exponent",
                dist.Normal(self.exponent * ones, self.exponent_sd * ones).to_event(1),
            ),
        }

    def fit_to(self, spectrum: tuple[float, ...]) -> Self:
        """The same family, whose levels follow this spectrum."""
        return replace(self, spectrum=spectrum)

    def build(self, sites: Mapping[str, Tensor], dim: int) -> Diagonal:
        """(level,) diagonal operators."""
        scale, exponent = sites["scale"], sites["exponent"]
        log_sd = spectrum_log(self.spectrum, dim, scale)
        weight = (2.0 * exponent[..., None] * log_sd).softmax(-1)
        return Diagonal(scale[..., None] ** 2 * (weight + FLOOR))


@dataclass(frozen=True)
class PerFeature(CovarianceFamily):
    """Diagonal covariances with a free sd per level and feature.

        sd_{l d} = scale_l r_{l d} / sqrt(D),  scale_l ~ HalfNormal(scale),  log r ~ N(0, spread^2).

    Attributes:
        spread: prior sd of the log relative sds.
        scale: prior scale of scale_l.
    """

    spread: Positive = 0.5
    scale: Positive = 1.0

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Site -> axes."""
        return {"scale": ("level",), "relative": ("level", "feature")}

    def sample(self, like: Tensor) -> dict[str, Tensor]:
        """Scale of each level, and relative sd of each feature."""
        ones = like.new_ones(len(COVARIANCE_LEVELS))
        wide = like.new_ones(len(COVARIANCE_LEVELS), like.shape[-1])
        return {
            "scale": sample_scales(self.scale * ones),
            "relative": pyro.sample(
                "relative", dist.LogNormal(0.0 * wide, self.spread * wide).to_event(2)
            ),
        }

    def build(self, sites: Mapping[str, Tensor], dim: int) -> Diagonal:
        """(level,) diagonal operators."""
        sd = sites["scale"][..., None] * sites["relative"]
        return Diagonal(sd**2 / dim + FLOOR / dim)


@dataclass(frozen=True)
class LowRankCovariance(CovarianceFamily):
    """Low rank plus diagonal: W W' / (D rank) scaled, plus free sds.

        S_l = diag(sd_l^2) + W_l W_l' / rank,    W_{l d r} ~ N(0, (factor scale)^2 / D),

    with sd as in `PerFeature`.

    Attributes:
        rank: number of factors per level.
        factor_scale: prior scale of the factors.
        spread: prior sd of the log relative sds.
        scale: prior scale of scale_l.
    """

    rank: Count = 4
    factor_scale: Positive = 1.0
    spread: Positive = 0.5
    scale: Positive = 1.0

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Site -> axes."""
        return {**PerFeature(self.spread, self.scale).dims, "factor": ("level", "feature", "rank")}

    def sample(self, like: Tensor) -> dict[str, Tensor]:
        """Sites of `PerFeature`, and the factors."""
        sites = PerFeature(self.spread, self.scale).sample(like)
        wide = like.new_ones(len(COVARIANCE_LEVELS), like.shape[-1], self.rank)
        prior = dist.Normal(0.0 * wide, self.factor_scale / math.sqrt(like.shape[-1]) * wide)
        sites["factor"] = pyro.sample("factor", prior.to_event(3))
        return sites

    def build(self, sites: Mapping[str, Tensor], dim: int) -> Dense:
        """(level,) dense operators."""
        diagonal = PerFeature(self.spread, self.scale).build(sites, dim).d
        factor = sites["factor"] / math.sqrt(self.rank)
        return Dense(torch.diag_embed(diagonal) + factor @ factor.mT)


@dataclass(frozen=True)
class Full(CovarianceFamily):
    """Full covariances: free sds and an LKJ prior on the correlations of each level.

        S_l = diag(sd_l) R_l diag(sd_l),    R_l ~ LKJ(concentration).

    Beyond a few features it needs double precision, and warns: at 32 features the LKJ prior has
    covariances of condition number 10^4 to 10^6. In single precision their smallest eigenvalues
    are off by 6e-8 times that, and log densities by so much of a query's misfit: probabilities by
    .03 for data of the model itself, by up to 1 for data that it thinks impossible.

    Attributes:
        concentration: of the LKJ prior; 1 is uniform over correlation matrices, larger is
            closer to independence.
        spread: prior sd of the log relative sds.
        scale: prior scale of scale_l.

    Source: Lewandowski, Kurowicka and Joe (2009), Journal of Multivariate Analysis 100.
    """

    concentration: Positive = 2.0
    spread: Positive = 0.5
    scale: Positive = 1.0

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Site -> axes; `correlation` holds Cholesky factors, and is no site of one feature."""
        return {
            **PerFeature(self.spread, self.scale).dims,
            "correlation": ("level", "feature", "column"),
        }

    def sample(self, like: Tensor) -> dict[str, Tensor]:
        """Sites of `PerFeature`, and the Cholesky factor of the correlations, if there are any."""
        sites = PerFeature(self.spread, self.scale).sample(like)
        if like.shape[-1] == 1:
            return sites
        concentration = like.new_full((len(COVARIANCE_LEVELS),), self.concentration)
        prior = dist.LKJCholesky(like.shape[-1], concentration).to_event(1)
        sites["correlation"] = pyro.sample("correlation", prior)
        return sites

    def build(self, sites: Mapping[str, Tensor], dim: int) -> Dense:
        """(level,) dense operators."""
        sd = PerFeature(self.spread, self.scale).build(sites, dim).d.sqrt()
        if sd.dtype != torch.float64 and dim > SINGLE_DIM:
            warnings.warn(
                f"full covariances of {dim} features in {sd.dtype}: probabilities can be off by "
                "more than .01; use double precision, or a diagonal or low-rank family",
                stacklevel=2,
            )
        if dim == 1:
            return Dense(sd[..., None].square())
        factor = sd[..., None] * sites["correlation"]
        return Dense(factor @ factor.mT)


def sample_scales(scale: Tensor) -> Tensor:
    """Pyro program of the levels' scales; half-normal, each of its own prior scale (level,)."""
    return cast(Tensor, pyro.sample("scale", PairedHalfNormal(scale, VIDEO_AND_FRAME)))


def spectrum_log(spectrum: tuple[float, ...] | None, dim: int, like: Tensor) -> Tensor:
    """(feature,) log sd of the features; zeros without a spectrum.

    Raises:
        ShapeError: the spectrum is of another number of features.
    """
    if spectrum is None:
        return like.new_zeros(dim)
    if len(spectrum) != dim:
        raise ShapeError(
            f"expected a spectrum of {dim} features, got {len(spectrum)}; was the model made for "
            "another projection?"
        )
    return torch.tensor(_as_array(spectrum), dtype=like.dtype, device=like.device).log()


@lru_cache(maxsize=8)
def _as_array(spectrum: tuple[float, ...]) -> NDArray[np.float64]:
    """The same numbers, converted once: a model asks for them at every step of an engine."""
    return np.array(spectrum)
