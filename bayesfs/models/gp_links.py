"""From latent values to class probabilities: `softmax`, `logistic_softmax`, `one_vs_each`.

A link gives log p(y = c | u), up to a constant over c that `normalise` takes out:

    softmax           u_c
    logistic_softmax  log sigma(u_c)                         Galy-Fajou et al. 2020, eq. 3
    one_vs_each       sum over c' != c of log sigma(u_c - u_c')     Titsias 2016, eq. 5
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Link = Callable[[Tensor, Tensor], Tensor]
"""Latent values (..., way), existing classes (..., way) -> log weight (..., way)."""


def softmax(u: Tensor, real: Tensor) -> Tensor:
    """(..., way): u itself."""
    return u


def logistic_softmax(u: Tensor, real: Tensor) -> Tensor:
    """(..., way): log sigma(u_c)."""
    return logsigmoid(u)


def one_vs_each(u: Tensor, real: Tensor) -> Tensor:
    """(..., way): sum over other existing classes of log sigma(u_c - u_c')."""
    way = u.shape[-1]
    other = ~torch.eye(way, dtype=torch.bool, device=u.device)
    terms = logsigmoid(u[..., :, None] - u[..., None, :])
    return torch.where(other & real[..., None, :], terms, 0.0).sum(-1)
