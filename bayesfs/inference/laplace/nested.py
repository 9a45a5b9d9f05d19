"""Laplace's approximation with one latent integrated over a grid: `nested_laplace`.

Where a scale is a latent, the joint mode lies far from the bulk: a larger scale allows smaller
standardised effects, and the density rewards that. Fixing the scale at each node of a grid, and
weighing the nodes by Laplace's evidence there, keeps to the bulk:

    p(h, z | data) ~ sum_j w_j N(z; mode_j, H_j^-1) on the cell of node h_j,
    w_j ~ p(mode_j, h_j, data) |H_j|^(-1/2).

Source: Rue, Martino and Chopin (2009), Approximate Bayesian inference for latent Gaussian models by
integrated nested Laplace approximations, section 3; refs.bib: rue2009.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesfs._distributions.categorical import at_points
from bayesfs.inference.laplace.factors import Factor
from bayesfs.inference.program.curvature import maximise
from bayesfs.inference.program.density import Density
from bayesfs.inference.program.streams import Streams

REACH = 3.5
"""The grid covers this many prior standard deviations on either side."""

Factors = Callable[[Density, Tensor], Sequence[Factor]]
"""(density, mode) -> factors of its curvature there, in the order of z."""


@dataclass(frozen=True)
class Pinned:
    """A density with one latent of every task held at a value.

    Attributes:
        density: density of z.
        index: which latent.
        value: what it is held at.
    """

    density: Density
    index: int
    value: float

    @property
    def tasks(self) -> int:
        """Rows of z."""
        return self.density.tasks

    @property
    def size(self) -> int:
        """One less than the density's."""
        return self.density.size - 1

    @property
    def reads(self) -> int:
        """Numbers that go into the density."""
        return self.density.reads

    def complete(self, z: Tensor) -> Tensor:
        """Put the pinned latent in its place: (task, particle, size) -> (..., size + 1)."""
        pinned = torch.full_like(z[..., :1], self.value)
        return torch.cat([z[..., : self.index], pinned, z[..., self.index :]], -1)

    def log_density(self, z: Tensor) -> Tensor:
        """(task, particle)."""
        return self.density.log_density(self.complete(z))

    def value_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Log density, and its gradient without the pinned latent."""
        value, gradient = self.density.value_and_gradient(self.complete(z))
        kept = (gradient[..., : self.index], gradient[..., self.index + 1 :])
        return value, torch.cat(kept, -1)


@dataclass(frozen=True)
class Node:
    """Laplace's approximation with the grid latent at one value.

    Attributes:
        density: the pinned density.
        mode: (task, size).
        gradient: (task,) largest absolute derivative at the mode.
        log_evidence: (task,) of the other latents, at this value of the pinned one.
        ridge: (task,) added to the curvature's diagonal.
    """

    density: Pinned
    mode: Tensor
    gradient: Tensor
    log_evidence: Tensor
    ridge: Tensor


def laplace_evidence(density: Density, mode: Tensor, factors: Sequence[Factor]) -> Tensor:
    """(task,): log p(mode, data) + (size / 2) log 2 pi - (1 / 2) log |H|, in nats."""
    value, _ = density.value_and_gradient(mode.unsqueeze(1))
    log_det = torch.stack([f.log_det for f in factors]).sum(0)
    return value[:, 0] + 0.5 * (density.size * math.log(2 * math.pi) - log_det)


def correlated_noise(factors: Sequence[Factor], noise: Tensor) -> Tensor:
    """White noise (task, draw, size) -> noise with the curvature's inverse as covariance."""
    parts = torch.split(noise, [f.size for f in factors], -1)
    return torch.cat([f.spread(n) for f, n in zip(factors, parts, strict=True)], -1)


def nested_laplace(
    density: Density,
    index: int,
    factors: Factors,
    *,
    nodes: int,
    steps: int,
    draws: int,
    streams: Streams,
    like: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Draws of all latents, latent `index` integrated over a grid.

    Args:
        density: unconstrained log density of the tasks.
        index: the latent on the grid; N(0, 1) a priori.
        factors: makes the curvature's factors at a mode.
        nodes: points of the grid, evenly spaced over -`REACH` .. `REACH`.
        steps: L-BFGS iterations at most, per node.
        draws: draws per task.
        streams: source of the noise.
        like: gives dtype and device.

    Returns:
        z (task, draw, size), and log_evidence, gradient, ridge (task,).
    """
    grid = torch.linspace(-REACH, REACH, nodes, dtype=torch.float64)
    fits = _fit_nodes(density, index, factors, grid.tolist(), steps, like)
    log_weight = torch.stack([node.log_evidence for node in fits], 1)
    width = 2 * REACH / (nodes - 1)
    place = streams.uniform((draws,), like).argsort(1)  # evenly spread, in random order
    points = (place + 1 - streams.uniform((1,), like)) / draws
    chosen = at_points(log_weight.softmax(1), points.mT).mT
    z = like.new_zeros(density.tasks, draws, density.size)
    noise = streams.normal((draws, density.size - 1), like)
    for j, node in enumerate(fits):
        here = chosen == j
        if here.any():
            draw = node.mode.unsqueeze(1) + correlated_noise(
                factors(node.density, node.mode), noise
            )
            z = torch.where(here.unsqueeze(-1), node.density.complete(draw), z)
    z[..., index] += width * (streams.uniform((draws,), like) - 0.5)
    used = torch.stack([(chosen == j).any(1) for j in range(nodes)])
    return z, {
        "log_evidence": log_weight.logsumexp(1) + math.log(width),
        "gradient": torch.stack([node.gradient for node in fits]).where(used, 0.0).amax(0),
        "ridge": torch.stack([node.ridge for node in fits]).where(used, 0.0).amax(0),
    }


def _fit_nodes(
    density: Density,
    index: int,
    factors: Factors,
    grid: Sequence[float],
    steps: int,
    like: Tensor,
) -> list[Node]:
    """Each node starts from the mode of the one before."""
    fits = []
    mode = like.new_zeros(density.tasks, density.size - 1)
    for value in grid:
        pinned = Pinned(density, index, value)
        mode, gradient = maximise(pinned, mode, steps=steps)
        made = factors(pinned, mode)
        ridge = torch.stack([f.ridge for f in made]).amax(0)
        fits.append(Node(pinned, mode, gradient, laplace_evidence(pinned, mode, made), ridge))
    return fits
