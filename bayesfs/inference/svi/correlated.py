"""How what a mean field takes apart correlates, from the scores of its draws: `correlated_block`.

The scales of a population correlate with each other, where its many offsets, N(0, I) a priori,
hardly do. A mean field of all is then too narrow in a few latents alone. Let q be the fit, mu its
mean there and s the score grad log p of its draws z. Least squares of s on z,

    s ~ a - H (z - mu),

gives a = E_q s and, by Stein's identity, H = -E_q Hessian log p, the precision of the Gaussian that
is closest to p among all of that block: one step of the fixed point of variational inference,
N(mu + H^-1 a, H^-1).

Source: Khan and Nielsen (2018), natural-gradient variational inference; Stein (1972).
refs.bib: khan2018.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesfs.inference.program.density import Density

AT_ONCE = 16
"""Draws whose scores are evaluated at a time; bounds the memory."""

WIDEST, NARROWEST = 0.02, 100.0
"""Least and largest curvature, in units of the fit's own sds."""

FARTHEST = 2.0
"""Sds that the mean moves at most."""


def correlated_block(
    density: Density, z: Tensor, mean: Tensor, sd: Tensor, latents: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and covariance root of the Gaussian that the scores say some latents have.

    Args:
        density: of T tasks.
        z: (task, draw, size) draws of a fit with independent latents.
        mean: (task, size) of the fit.
        sd: (task, size) of the fit.
        latents: (k,) numbers of those that are taken together.

    Returns:
        (task, k), and a lower triangular L with L L' = H^-1, (task, k, k).
    """
    parts = [density.value_and_gradient(part)[1] for part in torch.split(z, AT_ONCE, 1)]
    own = sd[:, latents]
    x = (z - mean.unsqueeze(1))[..., latents] / own.unsqueeze(1)
    score = torch.cat(parts, 1)[..., latents] * own.unsqueeze(1)
    known = torch.cat([torch.ones_like(x[..., :1]), x], -1)
    found = torch.linalg.lstsq(known, score).solution  # (task, 1 + k, k)
    values, vectors = torch.linalg.eigh(-0.5 * (found[:, 1:] + found[:, 1:].mT))
    root = vectors @ (values.clamp(WIDEST, NARROWEST).rsqrt().unsqueeze(-1) * vectors.mT)
    moved = (root @ found[:, :1].mT).clamp(-FARTHEST, FARTHEST)
    axes = own.unsqueeze(-1) * root
    return mean[:, latents] + (axes @ moved).squeeze(-1), torch.linalg.cholesky(axes @ axes.mT)
