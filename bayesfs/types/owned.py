"""Values keep no reference to the caller's arrays: `owned` copies once, `ours` says it is done.

A value (an `EpisodeBatch`, a `Posterior`, `Embeddings`) copies every array that it is given, for
the caller may change it afterwards. What the library has made itself, or took from another of its
values, is known by identity and is not copied again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast
from weakref import WeakValueDictionary

import xarray as xr
from torch import Tensor

T = TypeVar("T")

_OURS: WeakValueDictionary[int, Any] = WeakValueDictionary()
"""Tensors and datasets that nobody else holds, by identity."""


def ours(value: T) -> T:
    """The same value; its tensors and datasets are from now on known as the library's own."""
    if isinstance(value, Tensor | xr.Dataset):
        _OURS[id(value)] = value
    elif isinstance(value, Mapping):
        for part in value.values():
            ours(part)
    return value


def owned(value: T) -> T:
    """The value, copied unless it is the library's own; mappings part by part."""
    copied: Any = value
    if isinstance(value, Tensor | xr.Dataset):
        if _OURS.get(id(value)) is not value:
            copied = ours(value.clone() if isinstance(value, Tensor) else value.copy(deep=True))
    elif isinstance(value, Mapping):
        copied = {name: owned(part) for name, part in value.items()}
    return cast(T, copied)
