"""A device that is not there, to find tensors that were born on the wrong one: `elsewhere`.

Inside `with elsewhere():` the device `ELSEWHERE` holds data, though no card is needed: a tensor on
it is a CPU tensor in a wrapper that says it is elsewhere. An operation that mixes it with a plain
CPU tensor is refused, as a GPU refuses it, but for plain numbers (tensors without axes); and so is
NumPy, which reads the CPU only. `.cpu()` and `.to(...)` carry tensors over the border, and reading
single numbers (`.item()`, `if tensor.any()`) works as it does on a card, where it waits.

    with elsewhere() as count:
        posterior = engine.infer(model, episodes.to(ELSEWHERE), seed=0)

Stricter than a card in one respect: CPU tensors are refused as indices, which a GPU takes after a
copy. The device's name is "meta", which has no memory in torch itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ELSEWHERE = torch.device("meta")
"""The device that is not there."""

_ATEN = torch.ops.aten
_BORDER = (_ATEN._to_copy.default, _ATEN.copy_.default)
"""Operations that take tensors from one device to the other."""

_FROM_DATA = (torch.tensor, torch.as_tensor, torch.asarray)
"""Functions that make tensors of Python's data."""


class MixedDevicesError(RuntimeError):
    """A tensor on the CPU met one that is elsewhere."""


@dataclass
class Crossings:
    """How often data crossed the border.

    Attributes:
        operations: made elsewhere.
        read: single numbers that were read, for each of which a card would wait.
        carried: tensors that were taken to the CPU.
    """

    operations: int = 0
    read: int = 0
    carried: int = 0


class _Away(Tensor):
    """A tensor elsewhere, with its data in `held`."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> _Away:
        if held._is_zerotensor():  # forward-mode AD's zeros, which have no data
            held = torch.zeros(held.shape, dtype=held.dtype)
        shape = torch.empty_strided(held.shape, held.stride(), dtype=held.dtype, device=ELSEWHERE)
        made = Tensor._make_subclass(cls, shape)  # with a storage, which forward-mode AD looks at
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"elsewhere: {self.held}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _run(func, args, kwargs or {}, Crossings())


class _Dispatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operation, below autograd and vmap."""

    def __init__(self, count: Crossings) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = count

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return _run(func, args, kwargs or {}, self.count)


class _Functions(TorchFunctionMode):
    """Tensors of Python's data, which torch makes below every other hook."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func is Tensor.tolist:  # works on a card
            return args[0].cpu().tolist()
        if func in (Tensor.__getitem__, Tensor.__setitem__) and args[0].device == ELSEWHERE:
            return func(args[0], _carried(args[1]), *args[2:])
        if func is Tensor.new_tensor:
            given = {"device": args[0].device, "dtype": args[0].dtype, **given}
            func, args = torch.tensor, args[1:]
        if func in _FROM_DATA and not isinstance(args[0], Tensor):
            device = given.pop("device", None)
            made = func(*args, **given)
            return made if device is None else made.to(device)
        return func(*args, **given)


def _carried(index: Any) -> Any:
    """An index with the lists in it as tensors elsewhere, which a card makes of them by itself."""
    if isinstance(index, tuple):
        return tuple(map(_carried, index))
    if isinstance(index, list | range | np.ndarray):
        return torch.as_tensor(list(index) if isinstance(index, range) else index).to(ELSEWHERE)
    return index


@contextmanager
def elsewhere() -> Iterator[Crossings]:
    """Inside, `ELSEWHERE` is a device that holds data.

    Yields:
        How often data crossed the border, counted as it happens.
    """
    count = Crossings()
    submit = ThreadPoolExecutor.submit

    def submit_here(pool: Any, task: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Torch's modes are of one thread; those of a pool get them, too."""

        def inside(*args: Any, **kwargs: Any) -> Any:
            with _Functions(), _Dispatch(count):
                return task(*args, **kwargs)

        return submit(pool, inside, *args, **kwargs)

    pools = mock.patch.object(ThreadPoolExecutor, "submit", submit_here)
    with pools, _Functions(), _Dispatch(count):
        yield count


def _run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], count: Crossings) -> Any:
    away: list[Tensor] = []
    plain: list[Tensor] = []
    bare = [_held(x, away, plain) for x in args]
    named = {name: _held(x, away, plain) for name, x in kwargs.items()}
    asked = kwargs.get("device")
    goes = asked is not None and torch.device(asked) == ELSEWHERE
    if not away and not goes:
        return func(*args, **kwargs)
    if away and plain and func not in _BORDER:
        _refuse_plain(func, plain)
    count.operations += 1
    count.read += func is _ATEN._local_scalar_dense.default
    if asked is not None:
        named["device"] = torch.device("cpu")
    result = func(*bare, **named)
    if asked is not None and not goes:
        count.carried += func is _ATEN._to_copy.default
        return result
    if func._schema.is_mutable:  # what was changed in place is the argument
        changed = (x for x, held in zip(args, bare, strict=True) if held is result)
        return next(changed, None) if result is None else next(changed, _taken(result))
    return _taken(result)


def _held(value: Any, away: list[Tensor], plain: list[Tensor]) -> Any:
    """A value with the data of what is elsewhere; what it holds is noted."""
    if isinstance(value, _Away):
        away.append(value)
        return value.held
    if isinstance(value, Tensor):
        plain.append(value)
    elif isinstance(value, list | tuple):
        return type(value)([_held(x, away, plain) for x in value])
    return value


def _taken(value: Any) -> Any:
    """A result with its tensors elsewhere."""
    if isinstance(value, Tensor):
        return _Away(value)
    if isinstance(value, list | tuple):
        return type(value)([_taken(x) for x in value])
    return value


def _refuse_plain(func: Any, plain: Sequence[Tensor]) -> None:
    for value in plain:
        if value.device == ELSEWHERE:
            raise MixedDevicesError(f"{func} got a tensor elsewhere without data; how was it made?")
        if value.ndim and value.numel():
            raise MixedDevicesError(
                f"{func} got tensors elsewhere and one on the {value.device} of shape "
                f"{tuple(value.shape)}; was it made without device=?"
            )
