"""From latent values to class probabilities: `softmax`, `logistic_softmax`, `one_vs_each`.

A link gives log p(y = c | u), up to a constant over c that `normalise` takes out:

    softmax           u_c
    logistic_softmax  log sigma(u_c)                         Galy-Fajou et al. 2020, eq. 3
    one_vs_each       sum over c' != c of log sigma(u_c - u_c')     Titsias 2016, eq. 5
"""

from __future__ import annotations

from itertools import combinations
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


class Link(Protocol):
    """Log weight of every class, up to a constant over classes."""

    def __call__(self, u: Tensor, real: Tensor, axis: int = -1) -> Tensor:
        """Log weights of the shape of u.

        Args:
            u: latent values.
            real: existing classes, broadcasts with u.
            axis: of the classes.
        """
        ...


def softmax(u: Tensor, real: Tensor, axis: int = -1) -> Tensor:
    """Log weights: u itself."""
    return u


def logistic_softmax(u: Tensor, real: Tensor, axis: int = -1) -> Tensor:
    """Log weights: log sigma(u_c)."""
    return logsigmoid(u)


def one_vs_each(u: Tensor, real: Tensor, axis: int = -1) -> Tensor:
    """Log weights: sum over other existing classes of log sigma(u_c - u_c').

    Pair by pair, with log sigma(-d) = log sigma(d) - d.
    """
    value, exists = u.unbind(axis), real.expand(u.shape).unbind(axis)
    total = [torch.zeros_like(v) for v in value]
    for c, d in combinations(range(len(value)), 2):
        gap = value[c] - value[d]
        won = logsigmoid(gap)
        total[c] = total[c] + torch.where(exists[d], won, 0.0)
        total[d] = total[d] + torch.where(exists[c], won - gap, 0.0)
    return torch.stack(total, axis)
