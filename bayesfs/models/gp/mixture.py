"""Predictives put together: pieces of a query (`join_videos`), draws of hyperparameters (`mix`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log

import torch
from torch import Tensor

from bayesfs.types import LabelDraws, Predictive


def join_videos(pieces: Sequence[Predictive]) -> Predictive:
    """One predictive of pieces of the query, along the video axis."""
    if len(pieces) == 1:
        return pieces[0]

    def joined(part: Callable[[Predictive], LabelDraws]) -> LabelDraws:
        parts = [part(p) for p in pieces]
        return LabelDraws(
            torch.cat([p.log_prob for p in parts], 1),
            torch.cat([p.log_prob_given for p in parts], 2),
            torch.cat([p.log_weight for p in parts], 2),
        )

    return Predictive(joined(lambda p: p.frame), joined(lambda p: p.video))


def mix(parts: Sequence[Predictive]) -> Predictive:
    """Equal mixture of predictives at several hyperparameters."""
    if len(parts) == 1:
        return parts[0]

    def mixed(part: Callable[[Predictive], LabelDraws]) -> LabelDraws:
        each = [part(p) for p in parts]
        return LabelDraws(
            log_mean(torch.stack([e.log_prob for e in each])),
            torch.cat([e.log_prob_given for e in each]),
            torch.cat([e.log_weight - log(len(each)) for e in each]),
        )

    return Predictive(mixed(lambda p: p.frame), mixed(lambda p: p.video))


def log_mean(log_prob: Tensor) -> Tensor:
    """(draw, ...) -> (...): log of the mean of the exponentials."""
    if len(log_prob) == 1:  # keeps gradients finite where a class is padding
        return log_prob[0]
    return log_prob.logsumexp(0) - log(len(log_prob))
