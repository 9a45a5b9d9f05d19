"""Projection of backbone features: centring by recording condition, principal axes, unit norm.

Start with `fit_projection(embeddings, dim)` on the train users, then `projection(embeddings)`.

Features of one backbone lie far from the origin in a common direction, and clutter shifts them as
a whole. With g = x / ||x||, m_condition the train mean of g in that condition, and the columns of V
the leading principal axes of g - m_condition over train frames,

    z = (g - m_condition) V / ||(g - m_condition) V||.

Only the direction is kept, as in cosine similarity: the length depends on how far the axes were
fitted on the very users they are applied to (for new users it is a quarter shorter), and scales
learnt on some users would be wrong for others. `spectrum` is the sd of each column before that,
relative to their root sum of squares.

Measured quality, where frames have it, is standardised by the train frames of the same condition.

A projection without axes (`unit_projection`) leaves features as they are, but for what a recording
condition shifts as a whole: z = (g - d_condition) / ||g - d_condition||, with `condition_shift` d.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from bayesfs._utils.threads import blas_threads
from bayesfs.errors import DataError, ShapeError
from bayesfs.types import CONDITIONS, Embeddings

Array = NDArray[Any]

QUALITY_LIMIT = 4.0
"""Standardised quality is cut here: a slope learnt within the train frames' range is not
extrapolated far beyond it."""

ROUNDING = 64 * float(np.finfo(np.float64).eps)
"""Deviations from the mean, as shares of the features, that are taken for rounding."""


@dataclass(frozen=True)
class Projection:
    """A fitted projection; a value of plain arrays, so that it is stored without pickling.

    Attributes:
        means: (condition, input feature) mean unit-norm feature in each of `CONDITIONS`.
        axes: (input feature, feature) principal axes divided by the common scale s; None leaves
            the features as they are.
        spectrum: (feature,) sd of each projected feature over the train frames.
        quality_mean: (condition, covariate) mean measured quality in each of `CONDITIONS`; without
            columns where the frames have none.
        quality_sd: (condition, covariate) its sd.
    """

    means: Array
    axes: Array | None
    spectrum: Array
    quality_mean: Array = field(default_factory=lambda: np.zeros((len(CONDITIONS), 0)))
    quality_sd: Array = field(default_factory=lambda: np.ones((len(CONDITIONS), 0)))

    def __post_init__(self) -> None:
        width = self.spectrum.shape[0] if self.axes is None else self.axes.shape[0]
        if self.means.shape != (len(CONDITIONS), width):
            raise ShapeError(
                f"expected means of shape ({len(CONDITIONS)}, {width}), got {self.means.shape}"
            )

    @property
    def input_dim(self) -> int:
        """Number of backbone features."""
        return int(self.means.shape[1])

    @property
    def dim(self) -> int:
        """Number of projected features."""
        return self.input_dim if self.axes is None else int(self.axes.shape[1])

    def __call__(self, embeddings: Embeddings) -> Embeddings:
        """The same frames with projected features, float32.

        Raises:
            DataError: the features have another width; the store is of another backbone.
        """
        width = embeddings.features.shape[1]
        if width != self.input_dim:
            raise DataError(
                f"expected {self.input_dim} features per frame, got {width}; was this store made "
                "with another backbone than the one the population was learnt on?"
            )
        condition = condition_index(embeddings)
        columns = embeddings.columns if self.axes is None else ()
        projected = embeddings.with_features(self.of_frames(embeddings, condition), columns)
        return self._with_standard_quality(projected, condition)

    def of_frames(self, embeddings: Embeddings, condition: Array) -> Array:
        """(frame, feature) projected features of frames in the given conditions (frame,)."""
        return self.directions(unit_norm(embeddings), condition)

    def of_features(self, features: Array, condition: str) -> Array:
        """(frame, feature) float32 projected backbone features of frames of one condition.

        Plain features have no measured quality, so that none is asked for.

        Raises:
            DataError: another number of features, none at all, zeros only, one not finite, or an
                unknown condition.
        """
        x = self._checked(features, condition)
        peak = np.abs(x).max(1, keepdims=True)
        if not (np.isfinite(peak) & (peak > 0)).all():
            raise DataError("features are NaN, infinite or all zero; a corrupt frame?")
        x = x / peak  # no square under- or overflows
        norm = np.sqrt(np.einsum("fd,fd->f", x, x))[:, None]
        return self.directions(x / norm, CONDITIONS.index(condition))

    def _checked(self, features: Array, condition: str) -> Array:
        """Features in double precision, of the width that is expected."""
        x = np.asarray(features, np.float64)
        if x.ndim != 2 or x.shape[1] != self.input_dim or not len(x):
            raise DataError(
                f"expected (frame, {self.input_dim}) features, got {x.shape}; was another "
                "backbone used?"
            )
        if condition not in CONDITIONS:
            raise DataError(f"expected a recording condition of {CONDITIONS}, got {condition!r}")
        return x

    def directions(self, unit: Array, condition: Array | int) -> Array:
        """(frame, feature) float32 projected features of unit-norm ones, without any labels.

        Args:
            unit: (frame, input feature) of norm one.
            condition: (frame,) recording condition, or one for all frames.
        """
        centred = unit - self.means[condition]
        z = centred if self.axes is None else centred @ self.axes
        length = np.linalg.norm(z, axis=1, keepdims=True)
        return np.asarray((z / np.maximum(length, 1e-12)).astype(np.float32))

    def _with_standard_quality(self, embeddings: Embeddings, condition: Array) -> Embeddings:
        """Quality as sds above the train frames of the same condition."""
        covariates = self.quality_mean.shape[1]
        if not covariates:
            return embeddings
        raw = embeddings.dataset.get("quality")
        if raw is None or raw.shape[1] != covariates:
            raise DataError(
                f"expected {covariates} covariates of quality per frame, as the population was "
                f"learnt with, got {0 if raw is None else raw.shape[1]}"
            )
        z = (raw.values - self.quality_mean[condition]) / self.quality_sd[condition]
        clipped = np.clip(z, -QUALITY_LIMIT, QUALITY_LIMIT).astype(np.float32)
        return Embeddings.of_own(embeddings.dataset.assign(quality=(raw.dims, clipped)))


def fit_projection(embeddings: Embeddings, dim: int) -> Projection:
    """Fit the projection on train frames.

    Args:
        embeddings: frames of the train users only.
        dim: number of principal axes to keep; cut to the rank of the data.

    Returns:
        Projection. A condition without frames takes the mean of the other.

    Raises:
        DataError: fewer than two frames, or all frames are identical.
        ShapeError: dim is below 1.
    """
    if dim < 1:
        raise ShapeError(f"expected dim >= 1, got {dim}")
    if len(embeddings) < 2:
        raise DataError(
            f"expected at least 2 train frames to fit a projection, got {len(embeddings)}"
        )
    unit, condition = unit_norm(embeddings), condition_index(embeddings)
    means = np.stack(
        [
            unit[condition == k].mean(0) if (condition == k).any() else unit.mean(0)
            for k in range(len(CONDITIONS))
        ]
    )
    centred = unit - means[condition]
    sd, vectors = principal_axes(centred, dim, size=1.0)
    if not len(sd):
        raise DataError("all train frames have the same features; did the backbone run?")
    scale = np.linalg.norm(sd)
    quality = quality_moments(embeddings, condition)
    return Projection(means, vectors / scale, sd / scale, *quality)


def unit_projection(embeddings: Embeddings) -> Projection:
    """Unit length, less what clutter shifts as a whole: no other centring, and no axes.

    Args:
        embeddings: frames of the train users only, for the spectrum, the measured quality and the
            shift.

    Raises:
        DataError: no frame, or one of norm zero.
    """
    if not len(embeddings):
        raise DataError("expected train frames, got none")
    unit, condition = unit_norm(embeddings), condition_index(embeddings)
    sd = unit.std(0)
    spectrum = sd / max(float(np.linalg.norm(sd)), 1e-12)
    means = np.zeros((len(CONDITIONS), unit.shape[1]))
    means[1] = condition_shift(embeddings, unit, condition)
    return Projection(means, None, spectrum, *quality_moments(embeddings, condition))


def condition_shift(embeddings: Embeddings, unit: Array, condition: Array) -> Array:
    """(input feature,) mean shift of an object's frames from a clean recording to a cluttered one.

    The mean over objects that were recorded in both, shrunk towards none by its own error: with d_i
    the shift of object i of n, and m their mean, (1 - min(1, e / ||m||^2)) m with
    e = sum_i ||d_i - m||^2 / (n (n - 1)).

    Source: James and Stein (1961), the positive part.
    """
    names = zip(embeddings.coord("user").tolist(), embeddings.coord("object").tolist(), strict=True)
    _, thing = np.unique(np.array([*names], str), axis=0, return_inverse=True)
    both = []
    for kind in range(len(CONDITIONS)):
        rows = condition == kind
        count = np.bincount(thing.ravel()[rows], minlength=thing.max() + 1)
        total = np.zeros((len(count), unit.shape[1]))
        np.add.at(total, thing.ravel()[rows], unit[rows])
        both.append((total, count))
    (clean, n_clean), (clutter, n_clutter) = both
    paired = (n_clean > 0) & (n_clutter > 0)
    if (n := int(paired.sum())) < 2:
        return np.zeros(unit.shape[1])
    shift = clutter[paired] / n_clutter[paired, None] - clean[paired] / n_clean[paired, None]
    mean = shift.mean(0)
    error, size = np.square(shift - mean).sum() / (n * (n - 1.0)), np.square(mean).sum()
    return np.asarray(mean * (1.0 - min(1.0, error / size))) if size > 0 else mean


def quality_moments(embeddings: Embeddings, condition: Array) -> tuple[Array, Array]:
    """(condition, covariate) mean and sd of the measured quality in each condition.

    A condition without frames takes those of all; a covariate that is constant takes sd 1.
    """
    raw = embeddings.dataset.get("quality")
    table = np.zeros((len(embeddings), 0)) if raw is None else raw.values.astype(np.float64)
    rows = [
        condition == k if (condition == k).any() else np.full(len(condition), True)
        for k in range(len(CONDITIONS))
    ]
    sd = np.stack([table[keep].std(0) for keep in rows])
    varies = sd > 1e-9 * np.abs(table).max(0)
    return np.stack([table[keep].mean(0) for keep in rows]), np.where(varies, sd, 1.0)


def principal_axes(centred: Array, dim: int, *, size: float) -> tuple[Array, Array]:
    """Leading sds (feature,) and principal axes (input feature, feature) of centred features.

    Axes whose variance is below 1e-10 of the largest are left out, and so is what rounding leaves
    of features that are all alike; nothing else depends on the features' units. Signs are fixed
    (the entry of largest size in each axis is positive), so that the result does not depend on the
    solver.

    Args:
        centred: (frame, input feature), double precision.
        dim: axes at most.
        size: largest entry of the features before they were centred.
    """
    n, width = centred.shape
    keep, peak = min(dim, width), float(np.abs(centred).max())
    if peak <= ROUNDING * size:
        return np.zeros(0), np.zeros((width, 0))
    scaled = centred / peak  # no square under- or overflows
    with blas_threads(1):
        values, vectors = eigh(scaled.T @ scaled / n, subset_by_index=[width - keep, width - 1])
    values, vectors = values[::-1], vectors[:, ::-1]
    good = values > 1e-10 * values[0]
    values, vectors = values[good], vectors[:, good]
    top = np.abs(vectors).argmax(0)
    return peak * np.sqrt(values), vectors * np.sign(vectors[top, np.arange(len(top))])


def unit_norm(embeddings: Embeddings) -> Array:
    """(frame, input feature) float64 features divided by their Euclidean norm.

    Raises:
        DataError: a frame has norm zero.
    """
    x = embeddings.features.astype(np.float64)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    if (norm == 0).any():
        video = embeddings.coord("video")[int((norm[:, 0] == 0).argmax())]
        raise DataError(f"a frame of video {video!r} has all features zero; a corrupt frame?")
    return np.asarray(x / norm)


def condition_index(embeddings: Embeddings) -> Array:
    """(frame,) index of each frame's recording condition in `CONDITIONS`."""
    condition = embeddings.coord("condition")
    return np.asarray(
        sum(i * (condition == name) for i, name in enumerate(CONDITIONS)), dtype=np.int64
    )
