"""Learnt feature maps in front of a kernel: `OrderedAxes` in a study, else `PrincipalAxesMap`.

    Identity       x, or x / |x|
    OrderedAxes    principal coordinates, as a study's projection gives them, rescaled
    PrincipalAxes  centred per recording condition, then rescaled along the principal axes
    LinearMap      x P, with a prior on P that shrinks it to the principal axes
    MLP            z + W2 tanh(W1 z + b1): a linear map plus a small network

A map has Pyro sites (what is learnt with a posterior) and constants (what is read off the train
users' frames once, by `prepare`). An unprepared map has no centre and uses the plain features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import pyro.distributions as dist
import torch
from torch import Tensor

from bayesfs._linalg.directions import unit
from bayesfs._utils.ranges import Count, Positive, check_ranges
from bayesfs.errors import ShapeError
from bayesfs.models.gp.hyperparameters import Hyperparameter, Values, by_condition, merge, real
from bayesfs.types import CONDITIONS


class FeatureMap(Protocol):
    """Embedding of a frame -> input of the base kernel."""

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """What is learnt."""
        ...

    def __call__(self, values: Values, x: Tensor, condition: Tensor) -> Tensor:
        """(task, n, feature), (task, n) -> (task, n, latent)."""
        ...

    def width(self, feature: int) -> int:
        """Number of outputs for `feature` inputs."""
        ...

    def prepare(self, x: Tensor, condition: Tensor) -> FeatureMap:
        """The map with its constants taken from frames (n, feature) of conditions (n,)."""
        ...

    def fit_to(self, spectrum: tuple[float, ...]) -> Self:
        """The map for features whose sds over the train frames are `spectrum`; itself, mostly."""
        return self


@dataclass(frozen=True)
class Identity(FeatureMap):
    """x as it comes, or x / |x|.

    Attributes:
        normalise: divide by the norm.
    """

    normalise: bool = True

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """None."""
        return {}

    def __call__(self, values: Values, x: Tensor, condition: Tensor) -> Tensor:
        """(task, n, feature)."""
        return unit(x) if self.normalise else x

    def width(self, feature: int) -> int:
        """The same."""
        return feature

    def prepare(self, x: Tensor, condition: Tensor) -> Identity:
        """Itself: it has no constants."""
        return self


def power_sites(power: float, spread: float) -> dict[str, Hyperparameter]:
    """Site "whitening", or none where the spread is 0."""
    return {"whitening": real(power, spread)} if spread else {}


@dataclass(frozen=True)
class OrderedAxes(FeatureMap):
    """phi(x)_j = x_j spread_j^-power, then unit norm: for features that are principal coordinates.

    This is `PrincipalAxesMap` for features that a study has centred and projected already; the
    study tells the spread of each (`fit_to`). Before it is told, spread_j = j^-0.6, about
    what spectra of deep features do.

    Attributes:
        power: the power, or its prior mean; 0 keeps the features, 1 whitens them.
        power_spread: prior standard deviation of the power; 0 fixes it, which makes learning the
            rest several times faster, since inner products then stay the same.
        latent: number of leading features kept; None keeps all. Likelihoods with a link need few:
            what lies in directions that the support has not shown is unknown to them, and with a
            thousand of those they are never sure.
        spectrum: spread of the train frames along each feature.
    """

    power: float = 0.3
    power_spread: float = 0.0
    latent: Count | None = None
    spectrum: tuple[float, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """The power, if it is learnt."""
        return power_sites(self.power, self.power_spread)

    def __call__(self, values: Values, x: Tensor, condition: Tensor) -> Tensor:
        """(task, n, feature)."""
        scale = torch.exp(-values.get("whitening", self.power) * self._log_spread(x))
        return unit((x * scale)[..., : self.latent])

    def width(self, feature: int) -> int:
        """Number of features kept."""
        return min(feature, self.latent or feature)

    def prepare(self, x: Tensor, condition: Tensor) -> OrderedAxes:
        """Itself: its constants come from the study's projection."""
        return self

    def fit_to(self, spectrum: tuple[float, ...]) -> OrderedAxes:
        """The map told the spread of the train frames along each feature."""
        return replace(self, spectrum=spectrum)

    def _log_spread(self, x: Tensor) -> Tensor:
        if self.spectrum is None:
            rank = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)
            return -0.6 * rank.log()
        if len(self.spectrum) != x.shape[-1]:
            raise ShapeError(
                f"expected {len(self.spectrum)} features, as many as the spectrum that this map "
                f"was told, got {x.shape[-1]}; do the episodes come from another projection?"
            )
        spread = torch.tensor(self.spectrum, dtype=x.dtype, device=x.device)
        return (spread / spread[0]).clamp_min(1e-6).log()


@dataclass(frozen=True)
class Axes:
    """Constants of train frames: centres, principal axes and the spread along them.

    Attributes:
        centre: (condition, feature) mean frame of each recording condition.
        basis: (feature, latent) orthonormal principal axes of the centred frames.
        spread: (latent,) standard deviations along them, divided by the largest.
    """

    centre: Tensor
    basis: Tensor
    spread: Tensor

    @classmethod
    def of(cls, x: Tensor, condition: Tensor, latent: int | None) -> Axes:
        """Axes of frames x (n, feature) of conditions (n,); one without frames has the mean.

        Raises:
            ShapeError: fewer than two frames.
        """
        if len(x) < 2:
            raise ShapeError(f"expected at least 2 frames to find principal axes, got {len(x)}")
        rows = [x[condition == k] for k in range(len(CONDITIONS))]
        centre = torch.stack([(r if len(r) else x).mean(0) for r in rows])
        _, s, vt = torch.linalg.svd(x - centre[condition], full_matrices=False)
        keep = int((s > s[0] * 1e-4).sum())
        keep = min(keep, latent or keep)
        return cls(centre, vt[:keep].mT.contiguous(), s[:keep] / s[0])

    def to(self, like: Tensor) -> Axes:
        """The same constants in the dtype and on the device of `like`."""
        return Axes(self.centre.to(like), self.basis.to(like), self.spread.to(like))


@dataclass(frozen=True)
class PrincipalAxesMap(FeatureMap):
    """phi(x) = unit((unit(x) - centre_condition) V diag(spread^-power)), power learnt.

    Subtracting the mean frame of each recording condition takes out what clean and cluttered
    frames differ in as such. `power` 0 keeps the covariance of the frames, 1 whitens it.

    Attributes:
        latent: number of axes kept; None keeps all that carry variance.
        power: the power, or its prior mean.
        power_spread: prior standard deviation of the power; 0 fixes it (see `OrderedAxes`).
        normalise: unit norm before and after.
        axes: constants; None until `prepare`.
    """

    latent: int | None = 1000
    power: float = 0.3
    power_spread: float = 0.0
    normalise: bool = True
    axes: Axes | None = field(default=None, repr=False, compare=False)

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """The power, if it is learnt."""
        return power_sites(self.power, self.power_spread)

    def __call__(self, values: Values, x: Tensor, condition: Tensor) -> Tensor:
        """(task, n, latent)."""
        x = unit(x) if self.normalise else x
        if self.axes is not None:
            axes = self.axes.to(x)
            x = (x - by_condition(axes.centre, condition)) @ axes.basis
            x = x * torch.exp(-values.get("whitening", self.power) * axes.spread.log())
        return unit(x) if self.normalise else x

    def width(self, feature: int) -> int:
        """Number of axes; without axes the features themselves."""
        return feature if self.axes is None else self.axes.basis.shape[-1]

    def prepare(self, x: Tensor, condition: Tensor) -> PrincipalAxesMap:
        """The map with centres and axes of these frames."""
        x = unit(x) if self.normalise else x
        return replace(self, axes=Axes.of(x, condition, self.latent))


@dataclass(frozen=True)
class LinearMap(FeatureMap):
    """phi(x) = (unit(x) - centre_condition) P, P ~ N(first principal axes, spread^2).

    Without `prepare` the prior mean of P is the first `latent` coordinates. A point estimate of P
    over-fits a few dozen objects; the prior shrinks it to the axes and engines give its posterior.

    Attributes:
        latent: output dimension.
        spread: prior standard deviation of each entry of P.
        normalise: unit norm before and after.
        axes: constants; None until `prepare`.
    """

    latent: Count = 64
    spread: Positive = 0.01
    normalise: bool = True
    axes: Axes | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """P."""
        return {"projection": Hyperparameter(("feature", "latent"), self._prior)}

    def _prior(self, x: Tensor) -> dist.Distribution:
        if self.axes is None:
            mean = torch.eye(x.shape[-1], self.latent, dtype=x.dtype, device=x.device)
        else:
            mean = self.axes.to(x).basis
        return dist.Normal(mean, self.spread).to_event(2)

    def __call__(self, values: Values, x: Tensor, condition: Tensor) -> Tensor:
        """(task, n, latent)."""
        x = unit(x) if self.normalise else x
        if self.axes is not None:
            x = x - by_condition(self.axes.centre.to(x), condition)
        z = x @ values["projection"]
        return unit(z) if self.normalise else z

    def width(self, feature: int) -> int:
        """Columns of P."""
        return self.latent if self.axes is None else self.axes.basis.shape[-1]

    def prepare(self, x: Tensor, condition: Tensor) -> LinearMap:
        """The map with its prior mean at the principal axes of these frames."""
        axes = Axes.of(unit(x) if self.normalise else x, condition, self.latent)
        return replace(self, axes=axes)


@dataclass(frozen=True)
class MLP(FeatureMap):
    """phi(x) = unit(z + tanh(z W1 + b) W2), z = inner(x): a network that starts near its input.

    Attributes:
        inner: the map whose output z the network takes.
        hidden: number of hidden units.
        weight: prior standard deviation of W1 (times 1 / sqrt(latent)) and of b.
        residual: prior standard deviation of W2 (times 1 / sqrt(hidden)); small, it
            starts near the inner map.
    """

    inner: FeatureMap = field(default_factory=lambda: PrincipalAxesMap(latent=64))
    hidden: Count = 32
    weight: Positive = 1.0
    residual: Positive = 0.1

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """W1, b, W2 and the sites of the inner map."""
        own = {
            "mlp_in": Hyperparameter(("latent", "hidden"), self._in),
            "mlp_bias": Hyperparameter(("hidden",), self._bias),
            "mlp_out": Hyperparameter(("hidden", "latent"), self._out),
        }
        return merge(self.inner.sites, own)

    def width(self, feature: int) -> int:
        """Outputs of the inner map."""
        return self.inner.width(feature)

    def _in(self, x: Tensor) -> dist.Distribution:
        width = self.width(x.shape[-1])
        return dist.Normal(x.new_zeros(width, self.hidden), self.weight * width**-0.5).to_event(2)

    def _bias(self, x: Tensor) -> dist.Distribution:
        return dist.Normal(x.new_zeros(self.hidden), self.weight).to_event(1)

    def _out(self, x: Tensor) -> dist.Distribution:
        zeros = x.new_zeros(self.hidden, self.width(x.shape[-1]))
        return dist.Normal(zeros, self.residual * self.hidden**-0.5).to_event(2)

    def __call__(self, values: Values, x: Tensor, condition: Tensor) -> Tensor:
        """(task, n, latent)."""
        z = self.inner(values, x, condition)
        inside = torch.tanh(z @ values["mlp_in"] + values["mlp_bias"])
        return unit(z + inside @ values["mlp_out"])

    def fit_to(self, spectrum: tuple[float, ...]) -> MLP:
        """The map with its inner map told the spread of the train frames along each feature."""
        return replace(self, inner=self.inner.fit_to(spectrum))

    def prepare(self, x: Tensor, condition: Tensor) -> MLP:
        """The map with its inner map prepared."""
        return replace(self, inner=self.inner.prepare(x, condition))
