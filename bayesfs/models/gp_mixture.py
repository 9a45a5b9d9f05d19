"""Predictives put together: pieces of a query (`join_videos`), draws of hyperparameters (`mix`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from bayesfs.types import LabelDraws, Predictive

T = TypeVar("T")


def thin(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, evenly spaced."""
    if len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]


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
    """Equal mixture of predictives at several hyperparameters.

    A part with more draws gives each of them less weight, so that every part weighs the same.
    """
    if len(parts) == 1:
        return parts[0]

    def mixed(part: Callable[[Predictive], LabelDraws]) -> LabelDraws:
        each = [part(p) for p in parts]
        log_count = torch.tensor(float(len(each))).log().to(each[0].log_prob)
        return LabelDraws(
            _log_mean(torch.stack([e.log_prob for e in each])),
            torch.cat([e.log_prob_given for e in each]),
            torch.cat([e.log_weight - log_count for e in each]),
        )

    return Predictive(mixed(lambda p: p.frame), mixed(lambda p: p.video))


def _log_mean(log_prob: Tensor) -> Tensor:
    return log_prob.logsumexp(0) - torch.tensor(float(len(log_prob))).log().to(log_prob)
