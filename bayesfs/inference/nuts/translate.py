"""A density recorded in torch, as a JAX function: `translate`.

NUTS and compiled scores need JAX. Instead of a second copy of every model, the tensor operations
of `bayesfs.inference.program.capture.record` are translated one by one. A `JaxProgram` is their
structure alone and hashable; the data are arguments of it. So a compiled sampler is used again for
every batch of tasks of the same shapes.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import torch
from jax import Array
from torch import Tensor

from bayesfs.errors import InferenceError, UntranslatableError
from bayesfs.inference.nuts.aten_in_jax import OPERATIONS
from bayesfs.inference.program.capture import CannotRecord, Recording, Slot, record
from bayesfs.inference.program.density import Density


@dataclass(frozen=True)
class _Data:
    """Place of a constant tensor among the arguments of a program."""

    number: int


@dataclass(frozen=True)
class Step:
    """One operation: name in `OPERATIONS`, arguments, keyword arguments, results."""

    name: str
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]
    output: Any


@dataclass(frozen=True)
class JaxProgram:
    """Density of a batch of tasks as a JAX function of latents and data; equal if alike.

    Calling it with z (task, size) and the data gives (task,).

    Attributes:
        steps: operations, in order.
        result: the Slot of the density.
    """

    steps: tuple[Step, ...]
    result: Slot

    def __call__(self, z: Array, data: tuple[Array, ...]) -> Array:
        """Run the steps."""
        values: dict[Slot, Any] = {Slot(0): z}
        for step in self.steps:
            args = [_lookup(a, values, data) for a in step.args]
            kwargs = {name: _lookup(a, values, data) for name, a in step.kwargs}
            _store(step.output, OPERATIONS[step.name](*args, **kwargs), values)
        result: Array = values[self.result]
        return result


def translate(density: Density, like: Tensor) -> tuple[JaxProgram, tuple[Array, ...]]:
    """The log density of all tasks at one particle each, as a program and its data.

    Args:
        density: unconstrained log density of the tasks.
        like: gives dtype and device of the latents.

    Returns:
        The program, and the arrays to call it with. Floats are double if `like` is; use them
        within `precision_of(like)`.

    Raises:
        UntranslatableError: the density branches on values, or uses an operation that has no
            translation here; the message names it.

    Example:
        >>> program, data = translate(potential(model, episodes, population), torch.ones(()))
        ... # doctest: +SKIP
        >>> program(jnp.zeros((tasks, size)), data)  # (task,)  # doctest: +SKIP
    """
    example = like.new_zeros(density.tasks, density.size)
    try:
        recording = record(lambda z: density.log_density(z[:, None])[:, 0], example)
    except CannotRecord as reason:
        raise UntranslatableError(
            f"the model cannot be compiled for JAX: {reason}; use `PyroNUTS`, SVI or SVGD"
        ) from reason
    constants: dict[int, tuple[int, Tensor]] = {}
    steps = tuple(_steps(recording, constants))
    if not isinstance(recording.result, Slot):
        raise InferenceError("the log density does not depend on any latent")
    with precision_of(like):
        data = tuple(jax.numpy.asarray(_numpy(t)) for _, t in constants.values())
    return JaxProgram(steps, recording.result), data


def precision_of(like: Tensor) -> AbstractContextManager[Any]:
    """A scope in which JAX computes in the precision of a tensor; global settings stay."""
    home: Any = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    scope: AbstractContextManager[Any] = home.enable_x64(like.dtype == torch.float64)
    return scope


def _steps(recording: Recording, constants: dict[int, tuple[int, Tensor]]) -> Iterator[Step]:
    """Steps of a recording; its constant tensors are collected in `constants`."""

    def freeze(value: Any) -> Any:
        if isinstance(value, Tensor):
            number, _ = constants.setdefault(id(value), (len(constants), value))
            return _Data(number)
        if isinstance(value, list | tuple):
            return tuple(freeze(v) for v in value)
        return value

    for call in recording.calls:
        name = str(call.operation).removeprefix("aten.")
        if name not in OPERATIONS:
            raise UntranslatableError(
                f"the model uses {name!r}, which has no translation to JAX yet; add it to "
                "bayesfs/inference/nuts/aten_in_jax.py, or use `PyroNUTS`, SVI or SVGD"
            )
        kwargs = tuple((k, freeze(v)) for k, v in call.kwargs.items())
        args = _with_places(call.args) if name.startswith("index") else call.args
        yield Step(name, freeze(args), kwargs, freeze(call.output))


def _with_places(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Constant masks among the indices, which JAX would not know while compiling, as numbers."""
    return tuple(
        [place for index in arg for place in _places(index)] if isinstance(arg, list) else arg
        for arg in args
    )


def _places(index: Any) -> tuple[Any, ...]:
    is_mask = isinstance(index, Tensor) and index.dtype is torch.bool
    return index.nonzero(as_tuple=True) if is_mask else (index,)


def _lookup(value: Any, values: dict[Slot, Any], data: tuple[Array, ...]) -> Any:
    if isinstance(value, Slot):
        return values[value]
    if isinstance(value, _Data):
        return data[value.number]
    if isinstance(value, tuple):
        return tuple(_lookup(v, values, data) for v in value)
    return value


def _store(output: Any, result: Any, values: dict[Slot, Any]) -> None:
    if isinstance(output, Slot):
        values[output] = result
    elif isinstance(output, tuple):
        for slot, value in zip(output, result, strict=True):
            _store(slot, value, values)


def _numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = tensor.detach().cpu().numpy()
    return array
