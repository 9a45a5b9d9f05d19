"""Adaptive chains of a translated density: `Run`.

Transitions are those of `bayesfs.inference.nuts.lockstep`, in coordinates scaled by the diagonal
mass matrix. Step size and mass matrix of every chain follow NumPyro's `warmup_adapter` (Stan's
windows, dual averaging, Welford's variances). One compiled function makes `BLOCK` transitions.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from numpy.typing import NDArray
from numpyro.infer.hmc_util import IntegratorState, warmup_adapter

from bayesfs.inference.nuts.lockstep import Info, ValueAndGradient, fold_in, transition
from bayesfs.inference.nuts.translate import JaxProgram

logger = logging.getLogger(__name__)

BLOCK = 50
"""Transitions per call of the compiled function, between two reports of progress."""

SETTLING = 0.4
"""Share of warm-up with shallow trees: there, step sizes are far off and one tree holds up all."""

VECTOR = 16
"""Latents are padded to a multiple of this, so that every loop is vectorised: a fifth faster."""

_OPTIONS: Mapping[str, Any] = {
    "xla_cpu_multi_thread_eigen": False,
    "xla_cpu_experimental_ynn_fusion_type": "",
}
"""Each call stays in its thread: batches run side by side instead, which divides the work better.
Two calls at a time that share XLA's pool for YNNPACK wait for each other for ever (jax 0.10)."""

Data = tuple[Array, ...]


@dataclass(frozen=True)
class Sampler:
    """What a compiled sampler depends on; equal samplers share it.

    Attributes:
        program: density of the tasks.
        warmup: transitions that adapt.
        target_accept: acceptance rate to adapt to.
        warmup_depth: largest depth of a tree in the first of them, `SETTLING`.
        max_depth: the same afterwards.
    """

    program: JaxProgram
    warmup: int
    target_accept: float
    warmup_depth: int
    max_depth: int

    def density(self, data: Data, chains: int, size: int) -> ValueAndGradient:
        """Log density and gradient of (lane, padded size) latents; lanes are task-major."""

        def value(z: Array) -> Array:
            if chains == 1:
                return self.program(z[:, :size], data)
            z = z.reshape(-1, chains, z.shape[-1])[..., :size]
            return jax.vmap(self.program, (1, None), 1)(z, data).reshape(-1)

        def value_and_gradient(z: Array) -> tuple[Array, Array]:
            result, pull_back = jax.vjp(value, z)
            return result, pull_back(jnp.ones_like(result))[0]

        return value_and_gradient

    def adapter(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """NumPyro's adaptation, mapped over lanes: (start, update)."""
        start, update = warmup_adapter(self.warmup, target_accept_prob=self.target_accept)
        return jax.vmap(start, (0, 0, None)), jax.vmap(update, (None, 0, 0, 0))


class State(NamedTuple):
    """Chains between two transitions; a lane is one chain of one task."""

    position: Array  # (lane, padded size)
    adaptation: Any  # NumPyro's, per lane, of the unpadded size


class Chains(NamedTuple):
    """Draws after warm-up, and what their transitions told."""

    position: NDArray[Any]  # (draw, task, chain, size)
    statistics: Mapping[str, NDArray[Any]]  # (draw, task, chain) each


@dataclass(frozen=True)
class Run:
    """Chains that are compiled and ready to start.

    Attributes:
        sampler: density and settings.
        data: arguments of the density.
        shape: (tasks, chains, size).
        state: where the chains stand.
        key: (lane,) keys that fix all draws of a chain.
    """

    sampler: Sampler
    data: Data
    shape: tuple[int, int, int]
    state: State
    key: Array

    @classmethod
    def prepare(
        cls, sampler: Sampler, data: Data, position: NDArray[Any], seeds: Sequence[int]
    ) -> Run:
        """Compile, unless an equal sampler has been before.

        Args:
            sampler: density and settings.
            data: arguments of the density.
            position: (task, chain, size) where to start.
            seeds: of each task; fix all of its draws, whatever tasks stand beside it.
        """
        tasks, chains, size = position.shape
        of_tasks = jax.vmap(random.PRNGKey)(jnp.asarray(seeds))
        key = jax.vmap(lambda k: random.split(k, chains))(of_tasks).reshape(tasks * chains, -1)
        state = _start(sampler, jnp.asarray(position.reshape(-1, size)), key)
        run = cls(sampler, data, (tasks, chains, size), state, key)
        run.advance(state, 0, 0)  # no transition: compiles
        return run

    def advance(self, state: State, first: int, count: int) -> tuple[State, Array, Info]:
        """`count` transitions, at most `BLOCK`; the first of all has number 0."""
        _, chains, size = self.shape
        result: tuple[State, Array, Info] = _compiled()(
            self.sampler, chains, size, state, self.data, self.key, first, count
        )
        return result

    def draw(self, draws: int, report: Callable[[int], None]) -> Chains:
        """Warm up, then keep `draws` draws of every chain; `report` gets transitions made."""
        state, total = self.state, self.sampler.warmup + draws
        kept: list[list[NDArray[Any]]] = []
        for first in range(0, total, BLOCK):
            count = min(BLOCK, total - first)
            state, positions, info = self.advance(state, first, count)
            skip = min(max(self.sampler.warmup - first, 0), count)
            kept.append([np.asarray(x)[skip:count] for x in (positions, *info)])
            report(count)
        columns = (np.concatenate(c) for c in zip(*kept, strict=True))
        tasks, chains, _ = self.shape
        z, acceptance, leaves, diverging, energy = (
            c.reshape(draws, tasks, chains, *c.shape[2:]) for c in columns
        )
        step_size = np.asarray(state.adaptation.step_size).reshape(tasks, chains)
        statistics = {
            "diverging": diverging,
            "energy": energy,
            "acceptance_rate": acceptance,
            "n_steps": leaves,
            "step_size": np.broadcast_to(step_size, energy.shape),
        }
        return Chains(z, statistics)


@partial(jax.jit, static_argnums=0)
def _start(sampler: Sampler, position: Array, key: Array) -> State:
    start, _ = sampler.adapter()
    size = position.shape[-1]
    keys = fold_in(key, sampler.warmup)
    step_size = jnp.asarray(size**-0.25, position.dtype)
    return State(_padded(position), start(_as_point(position), keys, step_size))


def safe_workers() -> int:
    """How many batches may run at a time: one per core, if XLA lets calls keep to their thread."""
    return os.cpu_count() or 1 if _supported() == _OPTIONS else 1


@cache
def _compiled() -> Callable[..., Any]:
    return jax.jit(_advance, static_argnums=(0, 1, 2), compiler_options=_supported())


@cache
def _supported() -> dict[str, Any]:
    """The options that this version of XLA knows."""
    known = {}
    for name, value in _OPTIONS.items():
        try:
            jax.jit(jnp.negative, compiler_options={name: value})(0.0)
        except jax.errors.JaxRuntimeError:
            logger.info("this XLA has no option %s", name)
        else:
            known[name] = value
    return known


def _advance(
    sampler: Sampler,
    chains: int,
    size: int,
    state: State,
    data: Data,
    key: Array,
    first: Array,
    count: Array,
) -> tuple[State, Array, Info]:
    """`count` transitions, the first of which has number `first`."""
    density, (_, update) = sampler.density(data, chains, size), sampler.adapter()
    dtype = state.position.dtype
    lanes = len(state.position)
    reals = jnp.zeros((BLOCK, lanes), dtype)
    infos = Info(reals, reals.astype(jnp.int32), reals.astype(bool), reals)
    positions = jnp.zeros((BLOCK, lanes, size), dtype)

    def step(i: Array, carry: tuple[State, Array, Info]) -> tuple[State, Array, Info]:
        state, positions, infos = carry
        t = first + i
        warming = t < sampler.warmup
        settling = t < int(SETTLING * sampler.warmup)
        depth = jnp.where(settling, sampler.warmup_depth, sampler.max_depth)
        position, info = _scaled_transition(density, fold_in(key, t), state, chains, size, depth)
        point = position[:, :size]
        adaptation = lax.cond(
            warming,
            lambda: update(t, info.acceptance, _as_point(point), state.adaptation),
            lambda: state.adaptation,
        )
        stored = Info(*(a.at[i].set(b) for a, b in zip(infos, info, strict=True)))
        return State(position, adaptation), positions.at[i].set(point), stored

    result: tuple[State, Array, Info] = lax.fori_loop(0, count, step, (state, positions, infos))
    return result


def _scaled_transition(
    density: ValueAndGradient, key: Array, state: State, chains: int, size: int, depth: Array
) -> tuple[Array, Info]:
    """A transition in coordinates u, position = scale u, whose mass matrix is the identity."""
    pooled = state.adaptation.inverse_mass_matrix.reshape(-1, chains, size).mean(1)
    scale = _padded(jnp.repeat(jnp.sqrt(pooled), chains, 0), 1.0)
    key_momentum, key = jnp.moveaxis(jax.vmap(random.split)(key), 1, 0)
    normal = jax.vmap(partial(random.normal, shape=(size,), dtype=state.position.dtype))
    momentum = _padded(normal(key_momentum))

    def of_scaled(u: Array) -> tuple[Array, Array]:
        value, gradient = density(scale * u)
        return value, scale * gradient

    u, info = transition(
        of_scaled, key, state.position / scale, momentum, state.adaptation.step_size, depth
    )
    return scale * u, info


def _padded(x: Array, value: float = 0.0) -> Array:
    """Last axis filled up to a multiple of `VECTOR`; padded latents never move."""
    return jnp.pad(x, ((0, 0), (0, -x.shape[-1] % VECTOR)), constant_values=value)


def _as_point(position: Array) -> IntegratorState:
    """A state of the integrator of which adaptation reads the position only."""
    return IntegratorState(position, None, None, None)
