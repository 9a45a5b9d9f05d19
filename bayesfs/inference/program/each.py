"""A function of one row as a function of many, also where torch cannot vectorise it: `each`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

logger = logging.getLogger(__name__)


def each(function: Callable[..., Any], parts: Sequence[Tensor], axis: int = 0) -> Any:
    """What a function gives for each entry of an axis of its arguments.

    By `torch.func.vmap`; a single entry, and a function that branches on values or writes to
    tensors of its own, are run as they stand, one entry after another.

    Args:
        function: tensors -> a tensor, or tensors by name.
        parts: its arguments, all as long along the axis.
        axis: of the arguments and of what comes back.

    Returns:
        As the function, with the axis.
    """
    count = parts[0].shape[axis]
    if count != 1:
        try:
            return vmap(function, in_dims=axis, out_dims=axis)(*parts)
        except RuntimeError as reason:
            if "vmap" not in str(reason):
                raise
            logger.info("run one after another: %s", reason)
    found = [function(*(part.select(axis, k) for part in parts)) for k in range(count)]
    if isinstance(found[0], dict):
        return {name: torch.stack([one[name] for one in found], axis) for name in found[0]}
    return torch.stack(found, axis)
