"""Scales whose squares add up, and their polar coordinates: `PairedHalfNormal`, `PolarPairs`.

Data know the sum of two variances v^2 + f^2 well, such as that of a video's effect and that of its
frames' noise, and their parts poorly: the posterior lies along an arc. In polar coordinates

    v = r sin(pi/2 Phi(a)),    f = r cos(pi/2 Phi(a)) = r sin(pi/2 Phi(-a))

it lies along an axis. Half-normal v and f of one scale have a Rayleigh length r and an angle that
is uniform on (0, pi/2), so that a ~ N(0, 1) a priori, independent of r. The unconstrained numbers
of a pair are log r and a, with

    log |d(v, f) / d(log r, a)| = 2 log r + log(pi/2) - a^2 / 2 - log(2 pi) / 2.

Numbers that are in no pair have their logarithm. The law says which belong together; an engine
whose shapes are straight asks for these coordinates (`bayesfs.inference.program.polar`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Transform, constraints

Pairs = tuple[tuple[int, int], ...]
"""Places of the two numbers of each pair; no place is in two."""

QUARTER = 0.5 * math.pi


def _normal_cdf(x: Tensor) -> Tensor:
    """Phi, precise far below zero, where `torch.special.ndtr` is 0 from -8.3 on."""
    return 0.5 * torch.erfc(-x / math.sqrt(2.0))


class PolarPairs(Transform):
    """Real numbers -> positive ones, the pairs by their length and angle; see the module."""

    domain = constraints.real_vector
    codomain = constraints.independent(constraints.positive, 1)  # type: ignore[no-untyped-call]
    bijective = True

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        super().__init__()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PolarPairs) and other.pairs == self.pairs

    def __hash__(self) -> int:
        return hash(self.pairs)

    def _call(self, x: Tensor) -> Tensor:
        out = list(x.exp().unbind(-1))
        for first, second in self.pairs:
            length, angle = out[first], x[..., second]
            out[first] = length * (QUARTER * _normal_cdf(angle)).sin()
            out[second] = length * (QUARTER * _normal_cdf(-angle)).sin()
        return torch.stack(out, -1)

    def _inverse(self, y: Tensor) -> Tensor:
        out = list(y.log().unbind(-1))
        for first, second in self.pairs:
            one, two = y[..., first], y[..., second]
            out[first] = torch.hypot(one, two).log()
            low = torch.special.ndtri(torch.atan2(one, two) / QUARTER)
            high = -torch.special.ndtri(torch.atan2(two, one) / QUARTER)
            out[second] = torch.where(one < two, low, high)
        return torch.stack(out, -1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Log |d value / d x|, summed over the vector."""
        del y
        out = list(x.unbind(-1))
        for first, second in self.pairs:
            out[first] = 2.0 * x[..., first] + math.log(QUARTER) - 0.5 * math.log(2 * math.pi)
            out[second] = -0.5 * x[..., second].square()
        return torch.stack(out, -1).sum(-1)


class PairedHalfNormal(dist.Independent):  # type: ignore[misc]
    """Independent half-normal numbers as one event, of which some belong together in pairs.

    Args:
        scale: (..., size) of each.
        pairs: places of the two numbers of each pair.
    """

    def __init__(self, scale: Tensor, pairs: Sequence[tuple[int, int]]) -> None:
        self.pairs: Pairs = tuple(pairs)
        super().__init__(dist.HalfNormal(scale), 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> PairedHalfNormal:
        """The same law with further axes on the left."""
        scale = self.base_dist.scale
        return PairedHalfNormal(scale.expand(*batch_shape, scale.shape[-1]), self.pairs)
