"""Covariances as operators: the Gaussian algebra is written once, for diagonal and dense alike.

Start with `Diagonal` (elementwise, any dimension) or `Dense` (D x D matrices, small D). Both
broadcast over leading axes and offer the same few operations; models never ask which one it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayesfs._linalg.jitter import jittered_cholesky

Array = NDArray[Any]

Index = Tensor | int | slice | tuple[Tensor | slice | int, ...]
"""What selects batch entries of an operator."""


@dataclass(frozen=True)
class Points:
    """Places that do not change while covariances do: their squares are computed once.

    Attributes:
        x: (..., query, feature).
    """

    x: Tensor

    @cached_property
    def squared(self) -> Tensor:
        """(..., query, feature) elementwise."""
        return self.x.square()


class Operator(Protocol):
    """A linear map of the feature axis, with leading batch axes."""

    def __add__(self, other: Self) -> Self:
        """Sum; batch axes broadcast."""
        ...

    def __sub__(self, other: Self) -> Self:
        """Difference; batch axes broadcast."""
        ...

    def __matmul__(self, other: Self) -> Self:
        """Product of two maps."""
        ...

    def scaled(self, weight: Tensor | float) -> Self:
        """Times a scalar per batch entry, (...,)."""
        ...

    def inverse(self) -> Self:
        """Inverse of a symmetric positive definite map."""
        ...

    def apply(self, x: Tensor) -> Tensor:
        """(..., feature) -> (..., feature)."""
        ...

    def transposed(self) -> Self:
        """Transpose."""
        ...

    def logdet(self) -> Tensor:
        """Log determinant of a symmetric positive definite map, (...,)."""
        ...

    def colour(self, noise: Tensor) -> Tensor:
        """Standard normal (..., feature) -> noise with this covariance."""
        ...

    def whiten(self, x: Tensor) -> Tensor:
        """Inverse of `colour`."""
        ...

    def squares(self, points: Points) -> Tensor:
        """Squares x' M_way x: (..., query, feature), M over (..., way) -> (..., query, way)."""
        ...

    def squares_of_one(self, x: Array) -> Array:
        """The same of one vector a batch entry, in NumPy: (..., feature) -> (..., way)."""
        ...

    def sum(self, axis: int) -> Self:
        """Sum over one batch axis, counted from the left."""
        ...

    def expand_axis(self, axis: int) -> Self:
        """Insert a batch axis of size 1 at a non-negative position."""
        ...

    def of_diagonal(self, d: Tensor) -> Self:
        """The map of this kind with the diagonal (..., feature), and zero beside it."""
        ...

    def __getitem__(self, index: Index) -> Self:
        """Select batch entries."""
        ...


@dataclass(frozen=True)
class Diagonal:
    """Diagonal map.

    Attributes:
        d: (..., feature) diagonal.
    """

    d: Tensor

    def __add__(self, other: Diagonal) -> Diagonal:
        return Diagonal(self.d + other.d)

    def __sub__(self, other: Diagonal) -> Diagonal:
        return Diagonal(self.d - other.d)

    def __matmul__(self, other: Diagonal) -> Diagonal:
        return Diagonal(self.d * other.d)

    def scaled(self, weight: Tensor | float) -> Diagonal:
        """Times a scalar per batch entry."""
        return Diagonal(self.d * (weight[..., None] if isinstance(weight, Tensor) else weight))

    def inverse(self) -> Diagonal:
        """Elementwise reciprocal."""
        return Diagonal(self.d.reciprocal())

    def apply(self, x: Tensor) -> Tensor:
        """Elementwise product."""
        return self.d * x

    def transposed(self) -> Diagonal:
        """Itself."""
        return self

    def logdet(self) -> Tensor:
        """Sum of logs."""
        return self.d.log().sum(-1)

    def colour(self, noise: Tensor) -> Tensor:
        """Noise times the sds."""
        return self.d.sqrt() * noise

    def whiten(self, x: Tensor) -> Tensor:
        """Divide by the sds."""
        return x / self.d.sqrt()

    def squares(self, points: Points) -> Tensor:
        """One matrix product with the squared entries."""
        return points.squared @ self.d.mT

    def squares_of_one(self, x: Array) -> Array:
        """Squared entries times the diagonals."""
        return np.asarray((self.d.numpy() @ np.square(x)[..., None])[..., 0])

    def sum(self, axis: int) -> Diagonal:
        """Sum over a batch axis."""
        return Diagonal(self.d.sum(axis))

    def expand_axis(self, axis: int) -> Diagonal:
        """Insert a batch axis."""
        return Diagonal(self.d.unsqueeze(axis))

    def of_diagonal(self, d: Tensor) -> Diagonal:
        """With this diagonal."""
        return Diagonal(d)

    def __getitem__(self, index: Index) -> Diagonal:
        return Diagonal(self.d[index])


@dataclass(frozen=True)
class Dense:
    """Dense map.

    Attributes:
        m: (..., feature, feature) matrix.
    """

    m: Tensor

    def __add__(self, other: Dense) -> Dense:
        return Dense(self.m + other.m)

    def __sub__(self, other: Dense) -> Dense:
        return Dense(self.m - other.m)

    def __matmul__(self, other: Dense) -> Dense:
        return Dense(self.m @ other.m)

    def scaled(self, weight: Tensor | float) -> Dense:
        """Times a scalar per batch entry."""
        return Dense(self.m * (weight[..., None, None] if isinstance(weight, Tensor) else weight))

    def inverse(self) -> Dense:
        """Inverse through the Cholesky factor."""
        return Dense(torch.cholesky_inverse(jittered_cholesky(self.m)))

    def apply(self, x: Tensor) -> Tensor:
        """Matrix times vector."""
        return (self.m @ x[..., None])[..., 0]

    def transposed(self) -> Dense:
        """Transpose."""
        return Dense(self.m.mT)

    def logdet(self) -> Tensor:
        """Twice the log diagonal of the Cholesky factor."""
        return 2.0 * jittered_cholesky(self.m).diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def colour(self, noise: Tensor) -> Tensor:
        """Cholesky factor times noise."""
        return (jittered_cholesky(self.m) @ noise[..., None])[..., 0]

    def whiten(self, x: Tensor) -> Tensor:
        """Solve with the Cholesky factor."""
        factor = jittered_cholesky(self.m)
        shape = (factor[..., 0] + x).shape
        solved = torch.linalg.solve_triangular(
            factor.expand(*shape, shape[-1]), x.expand(shape)[..., None], upper=False
        )
        return torch.as_tensor(solved[..., 0])

    def squares(self, points: Points) -> Tensor:
        """Through M_way x."""
        return torch.einsum("...qd,...wde,...qe->...qw", points.x, self.m, points.x)

    def squares_of_one(self, x: Array) -> Array:
        """Through M_way x."""
        moved = (self.m.numpy() @ x[..., None, :, None])[..., 0]
        return np.asarray((moved @ x[..., None])[..., 0])

    def sum(self, axis: int) -> Dense:
        """Sum over a batch axis."""
        return Dense(self.m.sum(axis))

    def expand_axis(self, axis: int) -> Dense:
        """Insert a batch axis."""
        return Dense(self.m.unsqueeze(axis))

    def of_diagonal(self, d: Tensor) -> Dense:
        """With this diagonal."""
        return Dense(torch.diag_embed(d))

    def __getitem__(self, index: Index) -> Dense:
        return Dense(self.m[index])


AnOperator = TypeVar("AnOperator", bound=Operator)


def stacked(operators: Sequence[AnOperator]) -> AnOperator:
    """Operators of one kind along a new first batch axis."""
    return _together(operators, torch.stack, 0)


def joined(operators: Sequence[AnOperator], axis: int = 0) -> AnOperator:
    """Operators of one kind along a batch axis that they have, counted from the left."""
    return _together(operators, torch.cat, axis)


def _together(operators: Sequence[AnOperator], how: Any, axis: int) -> AnOperator:
    kind: Any = type(operators[0])
    parts = ([getattr(each, f.name) for each in operators] for f in fields(kind))
    made: AnOperator = kind(*(how(part, axis) for part in parts))
    return made
