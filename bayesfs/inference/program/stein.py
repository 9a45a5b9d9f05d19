"""Are draws where the density is, and as wide? Two moments of every posterior: `stein_moments`.

For z ~ p and s = grad log p(z), each latent d has

    E s_d = 0,      E (z_d - E z_d) s_d = -1,

whatever p is, as long as it vanishes at its ends (Stein's identity). Draws whose mean is off by one
sd of a Gaussian have E s_d = 1 / sd; draws that are k times too wide have -k^2 in place of -1.
With sd_d that of the draws, the deviations

    |mean s_d| sd_d      and      |1 + mean (z_d - zbar_d) s_d|

are held against `TOLERATED` plus their standard errors, times a normal quantile at which one in a
hundred tasks would have a latent beyond it by chance.

Source: Stein (1972); Gorham and Mackey (2015), Measuring sample quality with Stein's method.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

TOLERATED = 0.15
"""Shift in sds, and relative error of a variance, that pass."""


def stein_moments(z: Tensor, score: Tensor) -> Tensor:
    """(task,) largest deviation of any latent, as a multiple of what passes; NaN below 20 draws.

    Args:
        z: (task, draw, size).
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
    for value in (shift, width):
        error = value.std(1) / math.sqrt(draws)
        ratios.append(value.mean(1).abs() / (TOLERATED + beyond * error))
    found: Tensor = torch.stack(ratios).amax((0, 2))
    return torch.where(torch.isfinite(score).all(2).all(1), found, math.inf)
