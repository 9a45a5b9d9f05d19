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
from torch.utils._pytree import tree_flatten, tree_map_only

ELSEWHERE = torch.device("meta")
"""The device that is not there."""

_ATEN = torch.ops.aten
_BORDER = (_ATEN._to_copy.default, _ATEN.copy_.default)
"""Operations that take tensors from one device to the other."""

_FROM_DATA = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)
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

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"elsewhere: {self.held}"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {}, Crossings())


class _Dispatch(TorchDispatchMode):
    """Every operation, below autograd and vmap."""

    def __init__(self, count: Crossings) -> None:
        super().__init__()
        self.count = count

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
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
        if func in _FROM_DATA:
            device = given.pop("device", None)
            like = args[0] if func is Tensor.new_tensor else None
            if device is None and like is not None:
                device = like.device
            data = args[1] if func is Tensor.new_tensor else args[0]
            if device is not None and torch.device(device) == ELSEWHERE and not isinstance(data, Tensor):
                if func is Tensor.new_tensor:
                    given.setdefault("dtype", like.dtype)
                maker = torch.tensor if func is Tensor.new_tensor else func
                return maker(data, **given).to(ELSEWHERE)
            if device is not None:
                given["device"] = device
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

    with mock.patch.object(ThreadPoolExecutor, "submit", submit_here):
        with _Functions(), _Dispatch(count):
            yield count


def _run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], count: Crossings) -> Any:
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    away = [x for x in tensors if isinstance(x, _Away)]
    asked = kwargs.get("device")
    goes = asked is not None and torch.device(asked) == ELSEWHERE
    if not away and not goes:
        return func(*args, **kwargs)
    if func not in _BORDER and away:
        _refuse_plain(func, [x for x in tensors if not isinstance(x, _Away)])
    count.operations += 1
    count.read += func is _ATEN._local_scalar_dense.default
    bare_args, bare = tree_map_only(_Away, lambda x: x.held, (tuple(args), dict(kwargs)))
    if "device" in bare and bare["device"] is not None:
        bare["device"] = torch.device("cpu")
    result = func(*bare_args, **bare)
    stays = goes or (bool(away) and asked is None)
    if func is _ATEN._to_copy.default and asked is not None and not goes:
        count.carried += 1
    if not stays:
        return result
    if func._schema.is_mutable or func in (_ATEN.copy_.default,):
        return _same(args, bare_args, result)
    return tree_map_only(Tensor, _Away, result)


def _same(args: Sequence[Any], bare: Sequence[Any], result: Any) -> Any:
    """What an operation in place gives: the argument that it has changed."""
    for outer, inner in zip(args, bare, strict=True):
        if result is inner:
            return outer
    return tree_map_only(Tensor, _Away, result)


def _refuse_plain(func: Any, plain: Sequence[Tensor]) -> None:
    for value in plain:
        if value.ndim and value.numel() and value.device != ELSEWHERE:
            raise MixedDevicesError(
                f"{func} got tensors elsewhere and one on the {value.device} of shape "
                f"{tuple(value.shape)}; was it made without device=?"
            )
        if value.device == ELSEWHERE:
            raise MixedDevicesError(f"{func} got a tensor elsewhere without data; how was it made?")
