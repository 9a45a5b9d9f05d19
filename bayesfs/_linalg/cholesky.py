"""Batched Cholesky factors with a jitter policy that says what it did: `cholesky`.

The factor of K + j I is tried with j = 0 and then with growing multiples of the mean diagonal,
only for those matrices of the batch that need it. What still fails raises
`NotPositiveDefiniteError` with kernel, task, jitter and condition number.
"""

from __future__ import annotations

import logging
from typing import cast

import torch
from torch import Tensor

from bayesfs.errors import NotPositiveDefiniteError

logger = logging.getLogger(__name__)


def jitters(dtype: torch.dtype) -> tuple[float, ...]:
    """Multiples of the mean diagonal that are tried in turn."""
    if dtype == torch.float64:
        return (0.0, 1e-12, 1e-10, 1e-8, 1e-6)
    return (0.0, 1e-7, 1e-6, 1e-5, 1e-4)


def cholesky(matrix: Tensor, *, name: str) -> Tensor:
    """Lower Cholesky factor of each matrix, with as little jitter as it needs.

    Inside a transform (`torch.func.vmap`, a recording) values cannot be looked at; there the last
    jitter but one is added where none does not do, and the factor is NaN where that fails too.

    Args:
        matrix: (..., n, n) symmetric.
        name: what the matrix is, for the message, such as "Linear() + video".

    Returns:
        (..., n, n).

    Raises:
        NotPositiveDefiniteError: not finite, or no factor with the largest jitter.
    """
    factor, info = _factor(matrix)
    failed = readable(info.any())
    if failed is None:
        return _without_looking(matrix, info)
    if not failed:
        return factor
    require_finite(matrix, name)
    scale = matrix.diagonal(dim1=-2, dim2=-1).mean(-1).abs()
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    for jitter in jitters(matrix.dtype)[1:]:
        added = torch.where(info > 0, jitter * scale, torch.zeros_like(scale))
        retried, again = _factor(matrix + added[..., None, None] * eye)
        factor = torch.where((info > 0)[..., None, None], retried, factor)
        info = torch.where(info > 0, again, info)  # what has a factor by now keeps it
        if not bool(info.any()):
            logger.info("%s needed jitter %g x its mean diagonal", name, jitter)
            return factor
    raise NotPositiveDefiniteError(_explain(matrix, info, name))


def readable(condition: Tensor) -> bool | None:
    """Whether the condition holds; None inside a transform that hides values."""
    try:
        return bool(condition)
    except RuntimeError:  # vmap, make_fx and recordings: values are symbols
        return None


def solve(factor: Tensor, right: Tensor) -> Tensor:
    """(L L^T)^-1 right, for L (..., n, n) and right (..., n, k)."""
    if factor.shape[-1] == 1:
        return right / factor.square()
    return torch.cholesky_solve(right, factor)


def half_solve(factor: Tensor, right: Tensor) -> Tensor:
    """L^-1 right, for L (..., n, n) and right (..., n, k)."""
    if factor.shape[-1] == 1:
        return right / factor
    return cast(Tensor, torch.linalg.solve_triangular(factor, right, upper=False))


def deviation_of(variance: Tensor) -> Tensor:
    """sqrt(max(variance, 0)), with slope 0 where nothing varies: there 0 times infinity is NaN.

    A padded video varies by nothing, and what is known exactly by rounding below it.
    """
    varies = variance > 0
    return torch.where(varies, torch.where(varies, variance, 1.0).sqrt(), 0.0)


def log_determinant(factor: Tensor) -> Tensor:
    """(...,): log |L L^T|."""
    return 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _factor(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factor and, per matrix, 0 or where it failed; scalars without a solver's call."""
    if matrix.shape[-1] == 1:
        value = matrix[..., 0, 0]
        good = value > 0
        return torch.where(good, value, 1.0).sqrt()[..., None, None], (~good).int()
    factor, info = torch.linalg.cholesky_ex(matrix)
    return factor, info


def _without_looking(matrix: Tensor, info: Tensor) -> Tensor:
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    jitter = jitters(matrix.dtype)[-2] * diagonal.detach().mean(-1, keepdim=True).abs()
    added = torch.where((info > 0)[..., None], jitter, 0.0).expand_as(diagonal)
    factor, again = _factor(matrix + torch.diag_embed(added))
    return torch.where((again > 0)[..., None, None], torch.nan, factor)


def require_finite(matrix: Tensor, name: str) -> None:
    """Raise NotPositiveDefiniteError, naming the first task, if an entry is NaN or infinite."""
    finite = torch.isfinite(matrix).flatten(-2).all(-1)
    if not bool(finite.all()):
        where = (~finite).nonzero()[0].tolist()
        raise NotPositiveDefiniteError(
            f"the covariance {name} of task {where[0] if where else 0} holds NaN or infinite "
            "entries; expected finite features and hyperparameters: did an optimiser diverge, "
            "or is a lengthscale 0?"
        )


def _explain(matrix: Tensor, info: Tensor, name: str) -> str:
    where = cast(list[int], (info > 0).nonzero()[0].tolist())
    failed = matrix[tuple(where)] if where else matrix
    eigenvalues = torch.linalg.eigvalsh(failed.double())
    low, high = float(eigenvalues[0]), float(eigenvalues[-1])
    condition = high / abs(low) if low else float("inf")
    tried = jitters(matrix.dtype)[-1] * float(failed.diagonal().mean().abs())
    return (
        f"the covariance {name} of task {where[0] if where else 0} ({len(failed)} points) has no "
        f"Cholesky factor with jitter up to {tried:.1e}: condition number {condition:.1e}, "
        f"smallest eigenvalue {low:.1e}. Raise the noise (frame_scale), use float64, or check "
        "that the kernel is positive semi-definite"
    )
