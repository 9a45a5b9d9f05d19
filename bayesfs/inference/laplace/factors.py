"""Gaussians given by their precision: dense, diagonal, or identity plus a Kronecker product.

`dense_factor`, `diagonal_factor` and `kronecker_factor` take the curvature of a density at a point
and make a `Factor`: its log determinant, and a map from white noise to noise of that precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bayesfs._linalg.jitter import robust_cholesky
from bayesfs.inference.program.curvature import precision, precision_columns
from bayesfs.inference.program.density import Density

COLUMNS = 8
"""Columns of a curvature whose diagonal is taken, at a time: what holds for many tasks or folds is
large, and 32 of a low-rank family's 64 features at once took 16 GB."""

SMALLEST = 1e-6
"""Smallest precision of one latent; below it the density has no maximum there."""


class Factor(Protocol):
    """A batch of precisions H (task, size, size), ready to sample N(0, H^-1)."""

    @property
    def size(self) -> int:
        """Number of latents."""
        ...

    @property
    def log_det(self) -> Tensor:
        """(task,): log |H|."""
        ...

    @property
    def ridge(self) -> Tensor:
        """(task,): what was added to the diagonal of H."""
        ...

    def spread(self, noise: Tensor) -> Tensor:
        """White noise (task, draw, size) -> noise with covariance H^-1."""
        ...


@dataclass(frozen=True)
class DensePrecision:
    """H = L L^T.

    Attributes:
        lower: L (task, size, size).
        ridge: (task,).
    """

    lower: Tensor
    ridge: Tensor

    @property
    def size(self) -> int:
        """See `Factor`."""
        return self.lower.shape[-1]

    @property
    def log_det(self) -> Tensor:
        """See `Factor`."""
        return 2 * self.lower.diagonal(0, -2, -1).log().sum(-1)

    def spread(self, noise: Tensor) -> Tensor:
        """L^-T noise."""
        columns: Tensor = torch.linalg.solve_triangular(self.lower.mT, noise.mT, upper=True)
        return columns.mT


@dataclass(frozen=True)
class DiagonalPrecision:
    """H = diag(h).

    Attributes:
        values: h (task, size).
        ridge: (task,).
    """

    values: Tensor
    ridge: Tensor

    @property
    def size(self) -> int:
        """See `Factor`."""
        return self.values.shape[-1]

    @property
    def log_det(self) -> Tensor:
        """See `Factor`."""
        return self.values.log().sum(-1)

    def spread(self, noise: Tensor) -> Tensor:
        """Noise / sqrt(h)."""
        return noise * self.values.rsqrt().unsqueeze(1)


@dataclass(frozen=True)
class KroneckerPrecision:
    """H = I + A (x) B = (Q_A (x) Q_B) diag(1 + a_i b_j) (Q_A (x) Q_B)^T.

    Attributes:
        rows: Q_A (task, row, row).
        columns: Q_B (task, column, column).
        values: 1 + a_i b_j (task, row, column).
    """

    rows: Tensor
    columns: Tensor
    values: Tensor

    @property
    def size(self) -> int:
        """See `Factor`."""
        return self.rows.shape[-1] * self.columns.shape[-1]

    @property
    def log_det(self) -> Tensor:
        """See `Factor`."""
        return self.values.log().sum((-2, -1))

    @property
    def ridge(self) -> Tensor:
        """Zero: H is positive definite by construction."""
        return self.values.new_zeros(len(self.values))

    def spread(self, noise: Tensor) -> Tensor:
        """Q_A (noise / sqrt(1 + a b^T)) Q_B^T, noise as (row, column) matrices."""
        matrices = noise.reshape(*noise.shape[:-1], *self.values.shape[1:])
        scaled = matrices * self.values.rsqrt().unsqueeze(1)
        turned: Tensor = self.rows.unsqueeze(1) @ scaled @ self.columns.mT.unsqueeze(1)
        return turned.flatten(-2)


def dense_factor(density: Density, z: Tensor, block: slice) -> DensePrecision:
    """The curvature block at z (task, size), with as little ridge as a Cholesky factor takes.

    Raises:
        NotPositiveDefiniteError: z is far from a maximum.
    """
    return DensePrecision(*robust_cholesky(precision(density, z, block)))


def diagonal_factor(density: Density, z: Tensor, block: slice) -> DiagonalPrecision:
    """The diagonal of the curvature block at z (task, size), at least `SMALLEST`."""
    parts = []
    for index, columns in precision_columns(density, z, block, chunk=COLUMNS):
        parts.append(columns[:, torch.arange(len(index), device=index.device), index])
    values = torch.cat(parts, -1)
    ridge = (SMALLEST - values).clamp(min=0).amax(-1)
    return DiagonalPrecision(values.clamp(min=SMALLEST), ridge)


def kronecker_factor(density: Density, z: Tensor, block: slice, rows: int) -> KroneckerPrecision:
    r"""Identity plus a Kronecker product, from the curvature block of a standard normal site.

    With the likelihood's part G = H - I, as rows x columns indices,

        A_ij = sum_d G_{id, jd},    B_de = sum_i G_{id, ie} / tr G,    G ~ A (x) B,

    which is exact where G is a Kronecker product (a linear head whose uncertainty about the label
    does not depend on the frame). Needs memory rows^2 + columns^2, never the whole block.

    Args:
        density: unconstrained log density of the tasks.
        z: (task, size) the mode.
        block: where the site lies in z.
        rows: size of the site's first axis.

    Source: Ritter, Botev and Barber (2018), section 3; partial traces instead of factored
    expectations. refs.bib: ritter2018.
    """
    columns = (block.stop - block.start) // rows
    a = z.new_zeros(len(z), rows, rows)
    b = z.new_zeros(len(z), columns, columns)
    for index, part in precision_columns(density, z, block):
        at = torch.arange(len(index), device=index.device)
        row, column = index // columns, index % columns
        part[:, at, index] -= 1
        grid = part.reshape(*part.shape[:-1], rows, columns)
        a.index_add_(1, row, grid[:, at, :, column].movedim(0, 1))
        b.index_add_(1, column, grid[:, at, row])
    trace = a.diagonal(0, -2, -1).sum(-1).clamp(min=torch.finfo(a.dtype).tiny)
    row_values, row_vectors = torch.linalg.eigh(a)
    column_values, column_vectors = torch.linalg.eigh(b / trace[:, None, None])
    curvature = row_values.clamp(min=0).unsqueeze(-1) * column_values.clamp(min=0).unsqueeze(-2)
    return KroneckerPrecision(row_vectors, column_vectors, 1 + curvature)
