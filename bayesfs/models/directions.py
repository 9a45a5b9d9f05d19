"""Directions of vectors, whatever their units: `unit`."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(x: Tensor) -> Tensor:
    """Unit vectors x / |x| along the last axis; zero stays zero.

    Vectors are divided by their largest entry first, so that no square under- or overflows.
    """
    peak = x.detach().abs().amax(-1, keepdim=True)
    x = x / torch.where(peak > 0, peak, 1.0)
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True).clamp_min(0.5))
