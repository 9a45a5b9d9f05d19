"""The no-U-turn transition of many chains in lockstep: `transition`.

jax.vmap of a single-chain NUTS makes every loop and branch a selection over its whole state:
for 64 tasks NumPyro's kernel became four times slower than one task after another. Here the
trees of all chains grow together instead, leaf by leaf. So the leaf's number, its checkpoints and
the loops are common to all chains, and only what differs per chain is selected: direction, whether
its tree still grows, and its proposal. A chain whose tree is finished waits for the others.

Chains have the identity as mass matrix; scale the coordinates for another one.

Source: Hoffman and Gelman (2014), The no-U-turn sampler; Betancourt (2017), A conceptual
introduction to Hamiltonian Monte Carlo, appendix A (multinomial proposals, generalised criterion);
Phan, Pradhan and Jankowiak (2019), Composable effects for flexible and accelerated probabilistic
programming in NumPyro (the iterative tree). refs.bib: hoffman2014, betancourt2017, phan2019.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random

ValueAndGradient = Callable[[Array], tuple[Array, Array]]
"""Latents (*lane, size) -> log density (*lane) and gradient (*lane, size)."""

MAX_ENERGY_ERROR = 1000.0
"""Error of the energy beyond which a trajectory counts as divergent (Stan's)."""


class End(NamedTuple):
    """One end of a trajectory: position, momentum, gradient, each (*lane, size)."""

    position: Array
    momentum: Array
    gradient: Array


class Subtree(NamedTuple):
    """A subtree that grows leaf by leaf; arrays are (*lane) or (*lane, size)."""

    leaf: Array  # (), number of leaves so far
    end: End
    proposal: Array
    log_weight: Array
    momentum_sum: Array
    growing: Array
    diverging: Array
    acceptance: Array  # sum over leaves
    leaves: Array  # leaves this lane has used
    first: Array  # (depth + 1, *lane, size) momenta where subtrees start; the last entry is unused
    before: Array  # the same of the momentum sum, half of that momentum taken off
    product: Array  # (depth + 1, *lane): first . before


class Tree(NamedTuple):
    """The whole trajectory, which doubles."""

    depth: Array  # ()
    left: End
    right: End
    proposal: Array
    log_weight: Array
    momentum_sum: Array
    growing: Array
    diverging: Array
    acceptance: Array
    leaves: Array


class Info(NamedTuple):
    """What one transition tells: each (*lane)."""

    acceptance: Array  # mean Metropolis probability over the leaves
    leaves: Array
    diverging: Array
    energy: Array  # Hamiltonian at the start, after the momentum was drawn


def transition(
    density: ValueAndGradient,
    key: Array,
    position: Array,
    momentum: Array,
    step_size: Array,
    max_depth: Array,
) -> tuple[Array, Info]:
    """One NUTS transition of every chain.

    Args:
        density: log density and gradient.
        key: (*lane) random keys.
        position: (*lane, size).
        momentum: (*lane, size) draws of N(0, I).
        step_size: (*lane).
        max_depth: scalar, at most `DEPTHS`; the trajectory has at most 2^max_depth - 1 steps.

    Returns:
        New position and `Info`.
    """
    value, gradient = density(position)
    energy = 0.5 * _dot(momentum, momentum) - value
    end = End(position, momentum, gradient)
    zero, no = jnp.zeros_like(value), jnp.zeros(value.shape, bool)
    start = Tree(
        jnp.int32(0), end, end, position, zero, momentum, ~no, no, zero, no.astype(jnp.int32)
    )

    def grows(tree: Tree) -> Array:
        return (tree.depth < max_depth) & tree.growing.any()

    def double(tree: Tree) -> Tree:
        return _double(density, fold_in(key, tree.depth), tree, step_size, energy)

    tree = lax.while_loop(grows, double, start)
    info = Info(tree.acceptance / tree.leaves, tree.leaves, tree.diverging, energy)
    return tree.proposal, info


DEPTHS = 10
"""Checkpoints that a subtree keeps: trees have at most 2^10 leaves."""


def _double(
    density: ValueAndGradient, key: Array, tree: Tree, step_size: Array, energy: Array
) -> Tree:
    """Grow every unfinished tree by as many leaves as it has, each to a random side."""
    key_side, key_grow, key_accept = jnp.moveaxis(jax.vmap(lambda k: random.split(k, 3))(key), 1, 0)
    right = jax.vmap(random.bernoulli)(key_side)
    start = _select_end(right, tree.right, tree.left)
    signed = jnp.where(right, step_size, -step_size)
    new = _grow(density, key_grow, start, signed, energy, tree.depth, tree.growing)
    whole = new.growing  # neither turned back nor diverged
    accepted = whole & (_log_uniform(key_accept, energy) < new.log_weight - tree.log_weight)
    left_end = _select_end(right, tree.left, new.end)
    right_end = _select_end(right, new.end, tree.right)
    total = tree.momentum_sum + new.momentum_sum
    turning = _turning(left_end.momentum, right_end.momentum, total)
    return Tree(
        tree.depth + 1,
        left_end,
        right_end,
        _select(accepted, new.proposal, tree.proposal),
        jnp.logaddexp(tree.log_weight, new.log_weight),
        total,
        whole & ~turning,
        tree.diverging | new.diverging,
        tree.acceptance + new.acceptance,
        tree.leaves + new.leaves,
    )


def _grow(
    density: ValueAndGradient,
    key: Array,
    start: End,
    step_size: Array,
    energy: Array,
    depth: Array,
    growing: Array,
) -> Subtree:
    """A subtree of 2^depth leaves, of which a lane uses those until it turns or diverges."""
    no, zero = jnp.zeros_like(growing), jnp.zeros_like(energy)
    memory = jnp.zeros((DEPTHS + 1, *start.momentum.shape), start.momentum.dtype)
    empty = Subtree(
        leaf=jnp.int32(0),
        end=start,
        proposal=start.position,
        log_weight=zero - jnp.inf,
        momentum_sum=jnp.zeros_like(start.momentum),
        growing=growing,
        diverging=no,
        acceptance=zero,
        leaves=no.astype(jnp.int32),
        first=memory,
        before=memory,
        product=jnp.zeros((DEPTHS + 1, *energy.shape), energy.dtype),
    )

    def unfinished(tree: Subtree) -> Array:
        return (tree.leaf < (1 << depth)) & tree.growing.any()

    def add(tree: Subtree) -> Subtree:
        return _add_leaf(density, fold_in(key, tree.leaf), tree, step_size, energy)

    return lax.while_loop(unfinished, add, empty)


def _add_leaf(
    density: ValueAndGradient, key: Array, tree: Subtree, step_size: Array, energy: Array
) -> Subtree:
    end, value = _leapfrog(density, tree.end, step_size)
    error = 0.5 * _dot(end.momentum, end.momentum) - value - energy
    error = jnp.where(jnp.isnan(error), jnp.inf, error)
    log_weight = jnp.logaddexp(tree.log_weight, -error)
    taken = tree.growing & (_log_uniform(key, energy) < -error - log_weight)
    total = tree.momentum_sum + end.momentum
    memory = _remember(tree, end.momentum, total)
    turning = _any_turning(*memory, end.momentum, total, tree.leaf)
    diverging = error > MAX_ENERGY_ERROR
    return Subtree(
        tree.leaf + 1,
        end,
        _select(taken, end.position, tree.proposal),
        jnp.where(tree.growing, log_weight, tree.log_weight),
        total,
        tree.growing & ~turning & ~diverging,
        tree.diverging | (tree.growing & diverging),
        tree.acceptance + jnp.where(tree.growing, jnp.exp(jnp.minimum(-error, 0.0)), 0.0),
        tree.leaves + tree.growing,
        *memory,
    )


def _leapfrog(density: ValueAndGradient, end: End, step_size: Array) -> tuple[End, Array]:
    step = step_size[..., None]
    half = end.momentum + 0.5 * step * end.gradient
    position = end.position + step * half
    value, gradient = density(position)
    return End(position, half + 0.5 * step * gradient, gradient), value


def _checkpoints_to_compare(leaf: Array) -> tuple[Array, Array]:
    """Lowest and highest checkpoint whose subtree ends at an odd leaf; none at an even one.

    Leaf n of binary digits ...b_2 b_1 b_0 closes as many subtrees as it has trailing ones; the
    start of each is stored at the number of its ones above the last digit.
    """
    highest = lax.population_count(leaf >> 1)
    closed = lax.population_count((~leaf & (leaf + 1)) - 1)
    return highest - closed + 1, highest


def _remember(tree: Subtree, momentum: Array, total: Array) -> tuple[Array, Array, Array]:
    """Checkpoints with this leaf's, if it starts a subtree (is even)."""
    _, highest = _checkpoints_to_compare(tree.leaf)
    slot = jnp.where(tree.leaf % 2 == 0, highest, DEPTHS)
    before = total - 0.5 * momentum
    return (
        tree.first.at[slot].set(momentum),
        tree.before.at[slot].set(before),
        tree.product.at[slot].set(_dot(momentum, before)),
    )


def _any_turning(
    first: Array, before: Array, product: Array, last: Array, total: Array, leaf: Array
) -> Array:
    """Whether any subtree that this leaf closes turns back; see `_turning`.

    With first momentum p, last q and their sum S over the subtree, S - (p + q) / 2 is
    (total - q / 2) - before, so that two inner products per subtree are enough.
    """
    lowest, highest = _checkpoints_to_compare(leaf)
    after = total - 0.5 * last
    last_after = _dot(last, after)

    def compare(state: tuple[Array, Array]) -> tuple[Array, Array]:
        i, turning = state
        at_first = _dot(first[i], after) - product[i]
        at_last = last_after - _dot(before[i], last)
        return i - 1, turning | (at_first <= 0) | (at_last <= 0)

    none = jnp.zeros(last.shape[:-1], bool)
    _, turning = lax.while_loop(lambda state: state[0] >= lowest, compare, (highest, none))
    return turning


def _turning(first: Array, last: Array, total: Array) -> Array:
    """Whether a trajectory turns back: its ends' momenta against the sum over it."""
    middle = total - 0.5 * (first + last)
    return (_dot(first, middle) <= 0) | (_dot(last, middle) <= 0)


def _dot(a: Array, b: Array) -> Array:
    return (a * b).sum(-1)


def _select(condition: Array, a: Array, b: Array) -> Array:
    return jnp.where(condition[..., None], a, b)


def _select_end(condition: Array, a: End, b: End) -> End:
    return End(*(_select(condition, x, y) for x, y in zip(a, b, strict=True)))


def fold_in(key: Array, number: Array | int) -> Array:
    """Every lane's key with a number folded in."""
    return jax.vmap(random.fold_in, (0, None))(key, number)


def _log_uniform(key: Array, like: Array) -> Array:
    """(lane,) of each lane's own key: its numbers do not depend on the chains beside it."""
    return jnp.log(jax.vmap(lambda k: random.uniform(k, (), like.dtype, minval=1e-30))(key))
