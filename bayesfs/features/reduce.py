"""How many features a study keeps: `PrincipalAxes`, the setting behind a fitted `Projection`."""

from __future__ import annotations

from dataclasses import dataclass

from bayesfs.errors import ShapeError
from bayesfs.features.project import Projection, fit_projection
from bayesfs.types import Embeddings


@dataclass(frozen=True)
class PrincipalAxes:
    """Unit norm, centring by recording condition, and the leading principal axes.

    Attributes:
        dim: number of axes to keep; cut to the rank of the train frames.

    Raises:
        ShapeError: dim is below 1.
    """

    dim: int = 256

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ShapeError(f"expected dim >= 1, got {self.dim}")

    def fit(self, embeddings: Embeddings) -> Projection:
        """The projection of the given frames, which must be of train users only."""
        return fit_projection(embeddings, self.dim)
