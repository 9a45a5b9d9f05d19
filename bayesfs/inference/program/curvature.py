"""Modes and curvatures of a batch of densities: `maximise`, `precision`, `precision_columns`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from bayesfs.errors import InferenceError
from bayesfs.inference.program.capture import capture
from bayesfs.inference.program.density import Density
from bayesfs.inference.program.sites import PYRO

MEMORY = 8
"""Pairs of steps and gradient changes that the quasi-Newton direction remembers."""

STEP_SIZES = (2.0, 1.0, 0.5, 0.2, 0.05, 0.01)
"""Step sizes tried at once along a direction; the best one is taken."""


def maximise(density: Density, z: Tensor, *, steps: int = 200) -> tuple[Tensor, Tensor]:
    """Mode of every task by L-BFGS, all tasks at once.

    Step sizes are searched in parallel: each iteration evaluates `STEP_SIZES` as particles.

    Args:
        density: unconstrained log density of the tasks.
        z: (task, size) where to start.
        steps: iterations at most; a task that moves no more stays, whatever the others do.

    Returns:
        Mode (task, size) and the largest absolute gradient at it (task,).

    Raises:
        InferenceError: the density or its gradient is not finite at the start.

    Source: Nocedal and Wright (2006), Numerical optimization, algorithm 7.4.
    """
    sizes = z.new_tensor(STEP_SIZES)
    start = z.unsqueeze(1).repeat(1, len(sizes), 1)  # as many as later: one recording
    value, gradient = (x[:, 0] for x in density.value_and_gradient(start))
    if not (torch.isfinite(value).all() and torch.isfinite(gradient).all()):
        raise InferenceError("the log density is not finite where the search for its mode starts")
    pairs: list[tuple[Tensor, Tensor]] = []
    plain, done = (z.new_full((len(z),), flag, dtype=torch.bool) for flag in (True, False))
    for _ in range(steps):
        direction = _lbfgs_direction(gradient, pairs)
        trial = z.unsqueeze(1) + sizes[:, None] * direction.unsqueeze(1)
        values, gradients = density.value_and_gradient(trial)
        smooth = torch.isfinite(gradients).all(-1)  # elsewhere there is no way on
        best = values.nan_to_num(nan=-torch.inf).masked_fill(~smooth, -torch.inf).argmax(1)
        rows = torch.arange(len(z), device=z.device)
        better = (values[rows, best] > value) & smooth[rows, best] & ~done
        done |= ~better & plain
        if done.all():
            break
        plain = ~better  # once more along the plain gradient, which pairs of zeros leave
        keep = better.unsqueeze(1)
        moved = torch.where(keep, trial[rows, best], z)
        changed = torch.where(keep, gradients[rows, best], gradient)
        pairs = [*pairs, (moved - z, gradient - changed)][-MEMORY:]
        pairs = [(step.where(keep, 0.0), change.where(keep, 0.0)) for step, change in pairs]
        z, gradient = moved, changed
        value = torch.where(better, values[rows, best], value)
    return z, gradient.abs().amax(1)


def _lbfgs_direction(gradient: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """(task, size): inverse curvature times gradient, by the two-loop recursion."""
    direction = gradient
    weights = []
    for step, change in reversed(pairs):
        inverse = _safe_inverse(step, change)
        weight = inverse * (step * direction).sum(1, keepdim=True)
        direction = direction - weight * change
        weights.append((weight, inverse))
    direction = direction * _initial_scale(gradient, pairs)
    for (step, change), (weight, inverse) in zip(pairs, reversed(weights), strict=True):
        correction = inverse * (change * direction).sum(1, keepdim=True)
        direction = direction + (weight - correction) * step
    return direction


def _initial_scale(gradient: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Step-to-gradient ratio of the newest pair; without one, a step of length at most 1."""
    length = gradient.norm(dim=1, keepdim=True)
    first: Tensor = 1 / length.clamp(min=1)
    if not pairs:
        return first
    step, change = pairs[-1]
    ratio = (step * change).sum(1, keepdim=True) / change.square().sum(1, keepdim=True)
    usable = torch.isfinite(ratio) & (ratio > 0)
    return torch.where(usable, ratio, first)


def _safe_inverse(step: Tensor, change: Tensor) -> Tensor:
    """1 / (step . change), or 0 where the curvature is not positive."""
    curvature = (step * change).sum(1, keepdim=True)
    return torch.where(curvature > 1e-12, 1 / curvature.clamp(min=1e-12), 0.0)


def precision(density: Density, z: Tensor, block: slice | None = None) -> Tensor:
    """(task, size, size): minus the Hessian of the log density at z (task, size), or its block."""
    columns = [c for _, c in precision_columns(density, z, block or slice(0, density.size))]
    matrix = torch.cat(columns, 1)
    return 0.5 * (matrix + matrix.mT)


def precision_columns(
    density: Density, z: Tensor, block: slice, *, chunk: int = 32
) -> Iterator[tuple[Tensor, Tensor]]:
    """Diagonal block of minus the Hessian, some columns at a time.

    Args:
        density: unconstrained log density of the tasks.
        z: (task, size) where.
        block: part of z.
        chunk: columns at a time; bounds the memory.

    Yields:
        Indices (column,) within the block, and those columns (task, column, block).
    """
    start, stop, _ = block.indices(density.size)

    def products(z: Tensor, vectors: Tensor) -> Tensor:
        return _hessian_products(density, z, vectors)

    often = stop - start >= 2 * chunk  # what runs once is not worth a recording
    product: Callable[..., Tensor] | None = None
    for first in range(start, stop, chunk):
        index = torch.arange(first, min(first + chunk, stop), device=z.device)
        vectors = torch.nn.functional.one_hot(index, density.size).to(z)
        vectors = vectors.expand(len(z), -1, -1)
        if len(index) < chunk or not often:
            product = torch.no_grad()(products)
        elif product is None:
            product = capture(products, z, vectors)
        yield index - start, -product(z, vectors)[..., start:stop]


def _hessian_products(density: Density, z: Tensor, vectors: Tensor) -> Tensor:
    """(task, vector, size): Hessian at z times vectors (task, vector, size)."""
    score = grad(lambda x: density.log_density(x.unsqueeze(1)).sum())
    with PYRO:
        product: Tensor = vmap(lambda v: jvp(score, (z,), (v,))[1], in_dims=1, out_dims=1)(vectors)
    return product.to(z)  # a constant without axes may have made it double
