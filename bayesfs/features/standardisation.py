"""Features of a table, each centred and divided by its own sd: `Standardise`, for `Study`.

With m_d and s_d the mean and sd of feature d over the train rows and D features,

    z_d = (x_d - m_d) / (s_d sqrt(D)),

so that rows have root mean square length 1, which the weak priors of `bayesfs.models.gaussian` are
made for, whatever the units of the data and however far they lie from zero. Lengths are kept: no
row is brought to unit norm. `Standardisation.in_data_units` is the way back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesfs.errors import DataError, ShapeError
from bayesfs.features.projection import ROUNDING, Projection, condition_index, quality_moments
from bayesfs.types import CONDITIONS, Embeddings

Array = NDArray[Any]


@dataclass(frozen=True)
class Standardisation(Projection):
    """A fitted standardisation; of the attributes of a `Projection`, `axes` is None.

    Attributes:
        scale: (feature,) s_d sqrt(D).
    """

    scale: Array = field(default_factory=lambda: np.ones(0))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale.shape != (self.input_dim,) or not (self.scale > 0).all():
            raise ShapeError(
                f"expected {self.input_dim} scales above 0, got shape {self.scale.shape}"
            )

    def of_frames(self, embeddings: Embeddings, condition: Array) -> Array:
        """(row, feature) standardised features in double precision."""
        return self._scaled(embeddings.features.astype(np.float64), condition)

    def of_features(self, features: Array, condition: str) -> Array:
        """(row, feature) standardised features; see `Projection.of_features`."""
        x = self._checked(features, condition)
        if not np.isfinite(x).all():
            raise DataError("features are NaN or infinite")
        return self._scaled(x, CONDITIONS.index(condition))

    def _scaled(self, x: Array, condition: Array | int) -> Array:
        return np.asarray((x - self.means[condition]) / self.scale)

    def in_data_units(self, values: Array, *, centred: bool) -> Array:
        """(..., feature) means or sds of the model's features, in the units of the data.

        Args:
            values: positions, or differences and sds.
            centred: whether they are positions, which the mean of the data belongs to.
        """
        return np.asarray(values * self.scale + (self.means[0] if centred else 0.0))


@dataclass(frozen=True)
class Standardise:
    """Every feature centred and divided by its sd over the train rows; lengths are kept.

    Example:
        >>> data = Embeddings.from_arrays(np.array([[1.0, 0], [3, 40]]), object=["a", "b"])
        >>> Standardise().fit(data)(data).features.round(3).tolist()
        [[-0.707, -0.707], [0.707, 0.707]]
    """

    def fit(self, embeddings: Embeddings) -> Standardisation:
        """Means and sds of the given rows, which must be of train groups only.

        Raises:
            DataError: fewer than two rows, or a feature is the same in all of them.
        """
        if len(embeddings) < 2:
            raise DataError(f"expected at least 2 train rows to standardise, got {len(embeddings)}")
        x, condition = embeddings.features.astype(np.float64), condition_index(embeddings)
        means = np.stack(
            [
                x[condition == k].mean(0) if (condition == k).any() else x.mean(0)
                for k in range(len(CONDITIONS))
            ]
        )
        rest = x - means[condition]
        peak = np.abs(rest).max(0)
        flat = np.flatnonzero(peak <= ROUNDING * np.abs(x).max(0))
        if len(flat):
            names = embeddings.dataset.coords.get("feature", np.arange(x.shape[1]))
            shown = [str(np.asarray(names)[i]) for i in flat[:8]]
            raise DataError(
                f"expected features that vary, got the same value in all train rows of {shown}; "
                "leave them out"
            )
        sd = peak * np.sqrt(np.square(rest / peak).mean(0))  # no square under- or overflows
        root = np.sqrt(x.shape[1])
        spectrum = np.full(x.shape[1], 1.0 / root)
        quality = quality_moments(embeddings, condition)
        return Standardisation(means, None, spectrum, *quality, scale=sd * root)

    def fit_unlabelled(self, embeddings: Embeddings) -> Standardisation:
        """The same: no label is looked at."""
        return self.fit(embeddings)

    def cross_fit(self, embeddings: Embeddings, dim: int) -> Embeddings:
        """The rows as `fit` gives them: one centre and one scale for all groups.

        A mean and an sd over many groups hardly know of one of them, and a class that means the
        same in every group needs one origin.

        Args:
            embeddings: rows of the train groups.
            dim: number of features, which must be that of the rows.
        """
        return self.fit(embeddings)(embeddings)
