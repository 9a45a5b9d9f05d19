"""What depends on a batch of tasks alone, computed once for it: `once_per_batch`.

An engine runs a model's program hundreds of times on the same batch, with other values of its
sites each time. A batch never changes, so what follows from it alone is kept as long as it lives.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch

from bayesfs.types import EpisodeBatch

P = ParamSpec("P")
R = TypeVar("R")


def once_per_batch(
    function: Callable[Concatenate[EpisodeBatch, P], R], /
) -> Callable[Concatenate[EpisodeBatch, P], R]:
    """The function, its results kept for as long as their batch lives.

    Args:
        function: of a batch and further positional arguments, which are told apart by identity;
            pure, and its results are not changed by anybody.
    """
    kept: dict[int, dict[tuple[int, ...], tuple[tuple[Any, ...], R]]] = {}

    @wraps(function)
    def remembered(episodes: EpisodeBatch, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if kwargs:
            return function(episodes, *args, **kwargs)
        own, key = kept.get(id(episodes), {}), tuple(map(id, args))
        if key in own:
            return own[key][1]
        found = function(episodes, *args, **kwargs)
        if not _differentiated(episodes):
            if id(episodes) not in kept:
                weakref.finalize(episodes, kept.pop, id(episodes), None)
            kept.setdefault(id(episodes), {})[key] = (args, found)  # args: their ids stay taken
        return found

    return remembered


def _differentiated(episodes: EpisodeBatch) -> bool:
    """Whether results may be tied to a transformation that ends before the batch does."""
    inside = torch._C._functorch.peek_interpreter_stack() is not None
    return inside or episodes.support.requires_grad or episodes.query.requires_grad
