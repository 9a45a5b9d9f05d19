"""Record a tensor function once as a straight list of tensor operations, and replay it.

Use `capture`. A Pyro program spends most of its time in Python: handlers, distributions, vmap
and autograd bookkeeping. Its tensor operations do not change from one step to the next, so they
are recorded once (with the backward pass) below all of that, and replayed alone. What depends on
no input is evaluated while recording; repeated, idle and unused operations are dropped.

Source: the same idea as torch.fx's make_fx, without symbolic proxies (ten times quicker to record).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

logger = logging.getLogger(__name__)

_ATEN = torch.ops.aten
_IDLE_IF_UNCHANGED = frozenset(
    (
        _ATEN.view.default,
        _ATEN._unsafe_view.default,
        _ATEN.expand.default,
        _ATEN.permute.default,
        _ATEN.alias.default,
        _ATEN.detach.default,
        _ATEN.lift_fresh.default,
    )
)


# operation -> (argument that is kept, argument that must be constant, its value)
_IDLE_BY_CONSTANT: Mapping[Any, tuple[tuple[int, int, float], ...]] = {
    _ATEN.add.Tensor: ((0, 1, 0.0), (1, 0, 0.0)),
    _ATEN.sub.Tensor: ((0, 1, 0.0),),
    _ATEN.mul.Tensor: ((0, 1, 1.0), (1, 0, 1.0)),
    _ATEN.div.Tensor: ((0, 1, 1.0),),
    _ATEN.pow.Tensor_Scalar: ((0, 1, 1.0),),
    _ATEN.masked_fill.Scalar: ((0, 1, False),),
    _ATEN.where.self: ((1, 0, True), (2, 0, False)),
}
# operation -> the same one through a quicker Python binding
_QUICK: Mapping[Any, Any] = {
    _ATEN.add.Tensor: torch.add,
    _ATEN.sub.Tensor: torch.sub,
    _ATEN.mul.Tensor: torch.mul,
    _ATEN.mul.Scalar: torch.mul,
    _ATEN.div.Tensor: torch.div,
    _ATEN.neg.default: torch.neg,
    _ATEN.exp.default: torch.exp,
    _ATEN.pow.Tensor_Scalar: torch.pow,
    _ATEN.sum.dim_IntList: torch.sum,
    _ATEN.mean.dim: torch.mean,
    _ATEN.logsumexp.default: torch.logsumexp,
    _ATEN.bmm.default: torch.bmm,
    _ATEN.addcmul.default: torch.addcmul,
    _ATEN.addcdiv.default: torch.addcdiv,
    _ATEN.cat.default: torch.cat,
    _ATEN.unsqueeze.default: torch.unsqueeze,
    _ATEN.permute.default: torch.permute,
    _ATEN.transpose.int: torch.transpose,
    _ATEN.view.default: torch.Tensor.reshape,
    _ATEN._unsafe_view.default: torch.Tensor.reshape,
    _ATEN.expand.default: torch.Tensor.expand,
}
_SCATTER: Mapping[Any, Any] = {
    _ATEN.select.int: _ATEN.select_scatter.default,
    _ATEN.slice.Tensor: _ATEN.slice_scatter.default,
}
"""View -> the operation that writes a value into its place."""

_IN_PLACE: Mapping[Any, Any] = {
    _ATEN.copy_.default: _ATEN.copy.default,
    _ATEN.index_put_.default: _ATEN.index_put.default,
    _ATEN.masked_fill_.Scalar: _ATEN.masked_fill.Scalar,
    _ATEN.masked_fill_.Tensor: _ATEN.masked_fill.Tensor,
    _ATEN.add_.Tensor: _ATEN.add.Tensor,
    _ATEN.sub_.Tensor: _ATEN.sub.Tensor,
    _ATEN.mul_.Tensor: _ATEN.mul.Tensor,
    _ATEN.div_.Tensor: _ATEN.div.Tensor,
}
"""Operation in place -> the one that makes a new tensor."""

_ITSELF = frozenset((_ATEN.detach.default, _ATEN.alias.default))
_WRITABLE = _ITSELF | set(_SCATTER)

_BY_SHAPE = frozenset(
    (
        _ATEN.new_zeros.default,
        _ATEN.new_ones.default,
        _ATEN.new_full.default,
        _ATEN.zeros_like.default,
        _ATEN.ones_like.default,
        _ATEN.full_like.default,
    )
)
"""Operations whose result depends on the shape of their input only: constants."""

_BY_VALUE = frozenset((torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape))


class CannotRecord(RuntimeError):
    """The operations depend on tensor values, on chance, or change what others may see.

    As torch's transforms raise it, so that code which can do without a look at values does
    (`bayesfs._linalg.cholesky.readable`).
    """


@dataclass(frozen=True)
class Slot:
    """A tensor that depends on the input: its variable in the replay."""

    number: int

    def __repr__(self) -> str:
        return f"v{self.number}"


@dataclass(frozen=True)
class Call:
    """One operation; where the recorded call had tensors that depend on the input, Slots."""

    operation: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any  # a Slot, or a tuple of Slots and None


@dataclass(frozen=True)
class Recording:
    """What `record` saw: replayed by `capture`, translated by `bayesfs.inference.nuts.translate`.

    Attributes:
        calls: operations that the result depends on.
        inputs: number of inputs; they are the Slots 0, 1, ...
        result: a Slot, or a tuple of Slots and constants.
    """

    calls: tuple[Call, ...]
    inputs: int
    result: Any


def capture(function: Callable[..., Any], *example: Tensor) -> Callable[..., Any]:
    """The same function, recorded at the shapes of `example`.

    Where recording is impossible (a branch on a tensor's value, randomness, a change in place
    of what others may see), the function itself is returned and the reason is logged.

    Args:
        function: tensors -> a tensor or a tuple of tensors; pure.
        example: inputs whose shapes, dtypes and device the recording is for.

    Returns:
        A function of the same arguments; its results carry no autograd history.

    Example:
        >>> square = capture(lambda x: x * x, torch.ones(3))
        >>> square(torch.arange(3.0))
        tensor([0., 1., 4.])
    """
    try:
        recording = record(function, *example)
    except CannotRecord as reason:
        logger.info("not recorded, run as it is: %s", reason)
        return torch.no_grad()(function)
    return torch.no_grad()(_assemble(recording))


def record(function: Callable[..., Any], *example: Tensor) -> Recording:
    """The tensor operations of a function at the shapes of `example`, in order.

    Raises:
        CannotRecord: there is a branch on a tensor's value, randomness, or a change in place of
            what others may see.
    """
    recorder = _Recorder(example)
    with torch.no_grad(), recorder:
        output = function(*example)
    result = recorder.refer(output)
    return Recording(tuple(_needed(recorder.calls, result)), len(example), result)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation that depends on an input, below vmap and autograd."""

    def __init__(self, inputs: tuple[Tensor, ...]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self._slots: dict[int, Slot] = {}
        self._count = 0
        self._alive: list[Any] = []  # so that no id is used twice
        self._outputs: dict[Any, Any] = {}
        self._views: dict[int, tuple[Tensor, Any, Any]] = {}
        self._made: set[int] = set()  # constants that nobody outside holds
        self._used: set[int] = set()  # constants that a call holds
        self._past: set[int] = set()  # views whose tensor was changed since
        for tensor in inputs:
            self._new_slot(tensor)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: else torch imports its compiler at the first operation, for three seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation, and note it if an input is among its ancestors."""
        kwargs = kwargs or {}
        tracked = func not in _BY_SHAPE and any(
            id(x) in self._slots for x in _leaves((args, kwargs))
        )
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise CannotRecord(f"{func} is random")
        if tracked and func._schema.is_mutable:
            return self._change(func, args, kwargs)
        if tracked and self._by_value(func, args):
            raise CannotRecord(f"{func} reads values that depend on the input")
        if not self._past.isdisjoint(map(id, _leaves((args, kwargs)))):
            raise CannotRecord(f"{func} reads a view that was taken before its tensor was changed")
        output = func(*args, **kwargs)
        if tracked:
            self._note(func, args, kwargs, output)
        self._remember(func, args, output)
        return output

    def _remember(self, func: Any, args: Any, output: Any) -> None:
        """What is seen through which view, and which constants were made while recording."""
        for tensor in (x for x in _leaves(output) if isinstance(x, Tensor)):
            if not func.is_view:
                self._made.add(id(tensor))
            elif tensor is not args[0]:
                self._views[id(tensor)] = (args[0], func, args[1:])
            self._alive.append(tensor)

    def _change(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation in place, noted as one that makes a new tensor.

        What is changed is the tensor, or through selections and slices of it the one below them.
        """
        twin = _IN_PLACE.get(func)
        below = self._below(id(args[0])) if args else []
        root = below[-1][0] if below else (args[0] if args else None)
        seen_as = {id(root)} | {at for at in self._views if self._root_of(at) is root}
        known = id(root) in self._slots or (
            id(root) in self._made and self._used.isdisjoint(seen_as)
        )
        if twin is None or not known or any(f not in _WRITABLE for _, f, _ in below):
            raise CannotRecord(f"{func} changes values that depend on the input")
        value = self._call(twin, (self._before(args[0]), *args[1:]), kwargs)
        for base, view, where in (b for b in below if b[1] not in _ITSELF):
            value = self._call(_SCATTER[view], (self._before(base), value, *where), {})
        output = func(*args, **kwargs)
        self._slots[id(root)] = value
        for at in seen_as - {id(root)}:
            same = all(view in _ITSELF for _, view, _ in self._below(at))
            self._slots |= {at: value} if same else {}
            self._past |= set() if same else {at}
        self._alive.append((args, kwargs))
        return output

    def _below(self, at: int) -> list[tuple[Tensor, Any, Any]]:
        """The tensors that one, known by its id, is a view of, nearest first, and how."""
        found = []
        while at in self._views:
            found.append(self._views[at])
            at = id(found[-1][0])
        return found

    def _root_of(self, at: int) -> Tensor:
        """The tensor below a view, known by its id."""
        return self._below(at)[-1][0]

    def _before(self, tensor: Tensor) -> Any:
        """A tensor as it is now."""
        return tensor if id(tensor) in self._slots else tensor.clone()

    def _call(self, func: Any, args: Any, kwargs: Any) -> Slot:
        slot = Slot(self._count)
        self._count += 1
        self.calls.append(Call(func, self.refer(args), self.refer(kwargs), slot))
        return slot

    def _by_value(self, func: Any, args: Any) -> bool:
        """Whether the result's shape, or a Python number, depends on values of the input."""
        if func is _ATEN.index.Tensor:  # by numbers, or by a constant mask, it does not
            index = [x for x in args[1] if id(x) in self._slots]
            return any(x.dtype in (torch.bool, torch.uint8) for x in index)
        return not _BY_VALUE.isdisjoint(func.tags)

    def refer(self, value: Any) -> Any:
        """Replace tensors that depend on an input by their Slot."""
        return _mapped(lambda x: self._slots.get(id(x), x), value)

    def _note(self, func: Any, args: Any, kwargs: Any, output: Any) -> None:
        unchanged = self._unchanged(func, args, kwargs, output)
        if unchanged is not None:
            known: Any = self._slots[id(unchanged)]
        else:
            arguments = (self.refer(args), self.refer(kwargs))
            key = (func, repr(_mapped(_identity, arguments)))
            if key not in self._outputs:
                self._used |= {id(x) for x in _leaves(arguments) if isinstance(x, Tensor)}
                self._outputs[key] = _mapped(self._new_slot, output)
                self.calls.append(Call(func, *arguments, self._outputs[key]))
            known = self._outputs[key]
        for tensor, slot in zip(_leaves(output), _leaves(known), strict=True):
            if slot is not None:
                self._slots[id(tensor)] = slot
        self._alive.append((args, kwargs, output))

    def _unchanged(self, func: Any, args: Any, kwargs: Any, output: Any) -> Tensor | None:
        """The input-dependent argument that the operation leaves as it is, if there is one.

        By a constant, its values are left as they are, and its strides may differ: the replay
        reshapes where the recorded function took a view.
        """
        if func in _IDLE_IF_UNCHANGED:
            kept = args[0]
            return kept if id(kept) in self._slots and _same_layout(kept, output) else None
        if func in _IDLE_BY_CONSTANT and not kwargs:  # `alpha` scales what is added
            kept = next(
                (args[i] for i, at, x in _IDLE_BY_CONSTANT[func] if self._holds(args[at], x)), None
            )
            same = kept is not None and (kept.shape, kept.dtype) == (output.shape, output.dtype)
            return kept if same and id(kept) in self._slots else None
        return None

    def _holds(self, constant: Any, value: float) -> bool:
        """Whether an argument is a constant, `value` throughout."""
        if isinstance(constant, Tensor):
            return id(constant) not in self._slots and bool((constant == value).all())
        return bool(constant == value)

    def _new_slot(self, tensor: Any) -> Slot | None:
        if not isinstance(tensor, Tensor):
            return None
        self._slots[id(tensor)] = slot = Slot(self._count)
        self._count += 1
        self._alive.append(tensor)
        return slot


def _leaves(value: Any) -> list[Any]:
    """What lies in tuples, lists and dicts, in order; a fifth of the time of torch's pytree."""
    if not isinstance(value, tuple | list | dict):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [
        leaf
        for part in parts
        for leaf in (_leaves(part) if isinstance(part, tuple | list | dict) else (part,))
    ]


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """The same tuples, lists and dicts with the function of each leaf."""
    if isinstance(value, tuple | list):
        return type(value)([_mapped(function, part) for part in value])
    if isinstance(value, dict):
        return {name: _mapped(function, part) for name, part in value.items()}
    return function(value)


def _identity(value: Any) -> Any:
    return id(value) if isinstance(value, Tensor) else value


def _same_layout(before: Tensor, after: Tensor) -> bool:
    same = before.shape == after.shape and before.stride() == after.stride()
    return same and before.dtype == after.dtype


def _slots(value: Any) -> set[Slot]:
    return {x for x in _leaves(value) if isinstance(x, Slot)}


def _needed(calls: list[Call], result: Any) -> list[Call]:
    """The calls that the result depends on, in order."""
    wanted, kept = _slots(result), []
    for call in reversed(calls):
        if wanted & _slots(call.output):
            wanted |= _slots((call.args, call.kwargs))
            kept.append(call)
    return kept[::-1]


def _assemble(recording: Recording) -> Callable[..., Any]:
    """Python function that makes the calls one after another and forgets what it can."""
    calls, inputs, result = recording.calls, recording.inputs, recording.result
    names: dict[str, Any] = {}
    last = {slot: i for i, call in enumerate(calls) for slot in _slots((call.args, call.kwargs))}
    kept, over = _slots(result), defaultdict[int, list[Slot]](list)
    for slot, at in last.items():
        if slot not in kept:
            over[at].append(slot)
    lines = [f"def replay({', '.join(f'v{i}' for i in range(inputs))}):"]
    for i, call in enumerate(map(_folded, calls)):
        names[f"f{i}"] = _QUICK.get(call.operation, call.operation)
        arguments = [_source(x, names) for x in call.args]
        arguments += [f"{k}={_source(x, names)}" for k, x in call.kwargs.items()]
        lines.append(f"    {_target(call.output)} = f{i}({', '.join(arguments)})")
        if over[i]:
            lines.append(f"    del {', '.join(f'v{slot.number}' for slot in over[i])}")
    lines.append(f"    return {_source(result, names)}")
    exec("\n".join(lines), names)
    replay: Callable[..., Any] = names["replay"]
    return replay


def _folded(call: Call) -> Call:
    """A batch of products with a constant that repeats itself, as fewer and larger products.

    vmap over particles repeats a task's constant matrix for every particle; matrices of a few
    rows each are slow to multiply.
    """
    if call.operation is not _ATEN.bmm.default or not isinstance(call.args[1], Tensor):
        return call
    constant = call.args[1]
    period = _period(constant)
    if period == len(constant):
        return call
    few = constant[:period].contiguous()
    return Call(lambda a: _product(a, few), call.args[:1], call.kwargs, call.output)


def _product(a: Tensor, few: Tensor) -> Tensor:
    """(repeats x n, i, j) times a constant (n, j, k) that every repeat shares."""
    n, _, k = few.shape
    rows = a.reshape(-1, n, *a.shape[1:]).transpose(0, 1)
    flat = torch.bmm(rows.flatten(1, 2), few)
    return flat.view(n, -1, a.shape[1], k).transpose(0, 1).reshape(len(a), a.shape[1], k)


def _period(constant: Tensor) -> int:
    """Smallest n such that the first n entries repeat along the first axis."""
    size = len(constant)
    alike = (constant == constant[:1]).flatten(1).all(1).nonzero().flatten().tolist()
    for n in alike[1:]:
        if size % n == 0 and torch.equal(
            constant.reshape(-1, n, *constant.shape[1:]),
            constant[:n].expand(size // n, *constant[:n].shape),
        ):
            return int(n)
    return size


def _target(output: Any) -> str:
    if isinstance(output, Slot):
        return f"v{output.number}"
    return ", ".join("_" if s is None else f"v{s.number}" for s in output) + ","


def _source(value: Any, names: dict[str, Any]) -> str:
    """Source text of an argument; whatever has no short literal becomes a named constant."""
    if isinstance(value, Slot):
        return f"v{value.number}"
    if isinstance(value, tuple):
        return "(" + "".join(_source(x, names) + ", " for x in value) + ")"
    if isinstance(value, list):
        return "[" + ", ".join(_source(x, names) for x in value) + "]"
    if value is None or isinstance(value, bool | int):
        return repr(value)
    name = f"c{len(names)}"
    names[name] = value
    return name
