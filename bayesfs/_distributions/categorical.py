"""Distributions over classes: their `entropy`, and `systematic` draws of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def entropy(log_prob: Tensor) -> Tensor:
    """(..., way) log probabilities -> (...) entropy in nats; 0 log 0 = 0."""
    return -(log_prob.exp() * log_prob.clamp(min=-1e4)).sum(-1)


def cross_entropy(log_prob: Tensor) -> Tensor:
    """(draw, ..., way) log probabilities p_s -> (draw, ...) -sum_y p_s(y) log p(y), in nats.

    p is the mean of p_s over the draws, so that the mean over the draws is the entropy of p.
    """
    mean = log_prob.logsumexp(0) - math.log(len(log_prob))
    return -(log_prob.exp() * mean.clamp(min=-1e4)).sum(-1)


def systematic(prob: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """(draw, ...) classes drawn with probabilities (..., way), evenly spread over the draws.

    Each class comes up floor or ceil of draws x prob times, in an order that is random and the same
    for all queries; a class of probability 0 never.

    Source: Madow and Madow 1944 (systematic sampling).
    """
    device = generator.device
    start = 1 - torch.rand(prob.shape[:-1], generator=generator, dtype=prob.dtype, device=device)
    order = torch.randperm(draws, generator=generator, device=device).to(prob)
    points = (order.reshape(-1, *[1] * start.ndim) + start.to(prob.device)) / draws
    return at_points(prob, points)


def at_points(prob: Tensor, points: Tensor) -> Tensor:
    """(draw, ...) classes whose stretch of the cumulated (..., way) probabilities holds the point.

    Args:
        prob: (..., way).
        points: (draw, ...) in (0, 1].
    """
    chosen = (points[..., None] > prob.cumsum(-1)[..., :-1]).sum(-1)
    last = prob.shape[-1] - 1 - (prob.flip(-1) > 0).to(torch.long).argmax(-1)
    return torch.minimum(chosen, last)
