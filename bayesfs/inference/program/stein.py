"""Are draws where the density is, and as wide? Two moments: `stein_moments`, `widest`.

For z ~ p and s = grad log p(z), each latent d has

    E s_d = 0,      E (z_d - E z_d) s_d = -1,

whatever p is, as long as it vanishes at its ends (Stein's identity). Draws whose mean is off by one
sd of a Gaussian have E s_d = 1 / sd; draws that are k times too wide have -k^2 in place of -1.
With sd_d that of the draws, the deviations

    |mean s_d| sd_d      and      |1 + mean (z_d - zbar_d) s_d|

are held against `TOLERATED` plus their standard errors, times a normal quantile at which one in a
hundred tasks would have a latent beyond it by chance. Errors are at least what a Gaussian has, 1
and 2^(1/2) over the root of the draws: draws that happen to be narrow make their own errors small.

The same holds of any direction w in place of an axis. Latents that are each as wide as the density
is while all others stay, which is what a mean field is, pass along every axis, however narrow the
whole: with precision H and draws of variances 1 / H_dd, E (z_d - E z_d) s_d = -1. Along the
direction in which the density is least curved it is -w'Aw instead, with A the curvature in units of
the draws' own sds and w its eigenvector of the lowest eigenvalue. `widest` finds such directions
from differences of the scores, by Lanczos' method; `along_widest` of a few latents from the scores
themselves, whose slopes on the draws are -A.

Source: Stein (1972); Gorham and Mackey (2015), Measuring sample quality with Stein's method.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

TOLERATED = 0.15
"""Shift in sds, and relative error of a variance, that pass."""

WIDEST = 4
"""Directions that are looked at."""

STEP = 0.01
"""Sds between two scores whose difference is a product with the curvature."""


def stein_moments(z: Tensor, score: Tensor) -> Tensor:
    """(task,) largest deviation of any latent, as a multiple of what passes; NaN below 20 draws.

    Args:
        z: (task, draw, size); several directions may stand beside the axes, see `widest`.
        score: (task, draw, size) gradient of the log density there.
    """
    tasks, draws, size = z.shape
    if draws < 20 or not size:
        return z.new_full((tasks,), math.nan)
    rest = z - z.mean(1, keepdim=True)
    sd = rest.square().mean(1).sqrt()
    shift, width = score * sd[:, None], 1.0 + rest * score
    beyond = float(torch.special.ndtri(torch.tensor(1.0 - 0.01 / (4 * size), dtype=torch.float64)))
    ratios = []
    for value, least in ((shift, 1.0), (width, math.sqrt(2.0))):
        error = value.std(1).clamp(min=least) / math.sqrt(draws)
        ratios.append(value.mean(1).abs() / (TOLERATED + beyond * error))
    found: Tensor = torch.stack(ratios).amax((0, 2))
    return torch.where(torch.isfinite(score).all(2).all(1), found, math.inf)


def along_widest(z: Tensor, score: Tensor) -> Tensor:
    """(task,) `stein_moments` along the directions in which a few latents' density is widest.

    Directions are taken from one half of the draws, and looked at in the other: least squares of
    s_d sd_d on (z_d - zbar_d) / sd_d gives -A.

    Args:
        z: (task, draw, k) of independent draws; NaN where they are fewer than 8 k.
        score: (task, draw, k) there.
    """
    tasks, draws, size = z.shape
    if draws < 8 * size or not torch.isfinite(score).all():
        return z.new_full((tasks,), math.nan)
    sd = z.std(1, keepdim=True)
    x, slope = (z - z.mean(1, keepdim=True)) / sd, score * sd
    half = draws // 2
    known = torch.cat([torch.ones_like(x[:, :half, :1]), x[:, :half]], -1)
    found = torch.linalg.lstsq(known, slope[:, :half]).solution[:, 1:]
    vectors = torch.linalg.eigh(-0.5 * (found + found.mT))[1][..., :WIDEST]
    return stein_moments(x[:, half:] @ vectors, slope[:, half:] @ vectors)


def widest(
    score_of: Callable[[Tensor], Tensor],
    z: Tensor,
    score: Tensor,
    *,
    count: int = WIDEST,
    products: int = 24,
) -> Tensor:
    """(task, size, direction) in which the density is widest, for the draws that there are.

    They are the eigenvectors of the lowest eigenvalues of A = -S E[H] S, with H the Hessian of the
    log density, averaged over the draws, and S their sds: (z / sd) @ directions are further latents
    for `stein_moments`, beside (score * sd) @ directions.

    Args:
        score_of: (task, draw, size) points -> gradients of the log density there.
        z: (task, draw, size).
        score: (task, draw, size) at z.
        count: directions.
        products: products with A.
    """
    sd = z.std(1, correction=0, keepdim=True)

    def product(v: Tensor) -> Tensor:
        moved = score_of(z + STEP * sd * v[:, None])
        return -(moved - score).mean(1) * sd[:, 0] / STEP

    size = z.shape[2]
    wave = torch.sin(torch.arange(1, size + 1, device=z.device, dtype=z.dtype).square())
    basis = [(wave / wave.norm()).expand(len(z), size)]
    images = [product(basis[0])]
    for _ in range(min(products, size) - 1):
        rest = images[-1]
        for _ in range(2):  # once leaves rounding errors that grow
            known = torch.stack(basis, -1)
            rest = rest - (known @ (known.mT @ rest[..., None]))[..., 0]
        basis.append(rest / rest.norm(dim=1, keepdim=True).clamp(min=torch.finfo(z.dtype).tiny))
        images.append(product(basis[-1]))
    known = torch.stack(basis, -1)
    small = known.mT @ torch.stack(images, -1)
    vectors: Tensor = torch.linalg.eigh(0.5 * (small + small.mT))[1]
    return known @ vectors[..., :count]
