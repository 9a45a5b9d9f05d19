"""Cholesky factors with the least jitter that makes them exist: `jittered_cholesky`."""

from __future__ import annotations

import torch
from torch import Tensor

from bayesfs.errors import NotPositiveDefiniteError

RIDGES = (0.0, 1e-6, 1e-4, 1e-2, 1.0)
"""Multiples of the mean diagonal added, in turn, until a precision has a Cholesky factor."""


def robust_cholesky(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factor of every matrix (task, size, size), with as little ridge as it takes.

    Returns:
        Lower factors, and the ridge added to each diagonal (task,).

    Raises:
        NotPositiveDefiniteError: no ridge of `RIDGES` is enough.
    """
    mean = matrix.diagonal(0, -2, -1).abs().mean(-1)
    ridge, failed = torch.zeros_like(mean), torch.ones_like(mean, dtype=torch.bool)
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    for multiple in RIDGES:
        ridge = torch.where(failed, multiple * mean, ridge)
        factor, info = torch.linalg.cholesky_ex(matrix + ridge[:, None, None] * eye)
        failed = info > 0
        if not failed.any():
            return factor, ridge
    raise NotPositiveDefiniteError(
        f"the precision of tasks {failed.nonzero().flatten().tolist()[:8]} has no Cholesky factor "
        f"even with {ridge[failed].tolist()[:8]} added to its diagonal; is this a mode?"
    )


JITTERS = (0.0, 1e-8, 1e-6, 1e-4)
"""Multiples of the mean diagonal that are added in turn until a Cholesky factor exists."""


def jittered_cholesky(matrix: Tensor) -> Tensor:
    """Cholesky factor of (..., D, D), adding jitter in stated steps where it is needed.

    Inside `torch.func` transforms no step can depend on whether the one before has failed, and the
    first jitter is always added.

    Raises:
        NotPositiveDefiniteError: no factor with the largest jitter; names sizes and eigenvalues.
    """
    scale = matrix.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None].detach()
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    if torch._C._functorch.is_functorch_wrapped_tensor(matrix):
        return torch.as_tensor(torch.linalg.cholesky(matrix + JITTERS[1] * scale * eye))
    amount, failed = torch.zeros_like(scale), torch.ones_like(scale, dtype=torch.bool)
    for jitter in JITTERS:  # only to matrices that the one before has left without a factor
        amount = torch.where(failed, jitter * scale, amount)
        factor, info = torch.linalg.cholesky_ex(matrix + amount * eye)
        failed = (info > 0)[..., None, None]
        if not failed.any():
            return torch.as_tensor(factor)
    low = torch.linalg.eigvalsh(matrix.detach().double()).min()
    raise NotPositiveDefiniteError(
        f"a {matrix.shape[-1]} x {matrix.shape[-1]} covariance has no Cholesky factor with jitter "
        f"up to {JITTERS[-1]:g} of its mean diagonal; smallest eigenvalue {float(low):.3g}, mean "
        f"diagonal {float(scale.mean()):.3g}; are the scales too far apart for {matrix.dtype}?"
    )
