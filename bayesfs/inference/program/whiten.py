"""A density in coordinates in which it is close to a standard normal: `Whitened`.

With H the curvature (minus the Hessian) at the mode, S = diag(H)^-1/2 and S H S = L L',

    z = mode + A u,    A = S L'^-1,

so that a Gaussian becomes exactly N(0, I), whatever its scales and correlations were. That is worth
something only where there is a mode: the Newton decrement g' H^-1 g, twice the nats that a
quadratic says are left to climb, is near zero, and no eigenvalue is negative. A task without one (a
density that grows without bound, say) keeps its own coordinates, and `has_mode` says so.

Source: Nocedal and Wright (2006), Numerical optimization, section 3.4 (eigenvalues made positive).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesfs.errors import InferenceError
from bayesfs.inference.program.curvature import maximise, precision
from bayesfs.inference.program.density import Density
from bayesfs.inference.program.potential import Potential

MAX_WHITE = 1024
"""Largest number of latents for a dense curvature, and so for whitened coordinates."""

NEWTON = 30
"""Newton steps at most, after the quasi-Newton ones."""

LENGTHS = (1.0, 0.5, 0.25, 0.1, 0.02, 0.002)
"""Step lengths tried at once along Newton's direction; the best one is taken."""

DECREMENT_MAX = 0.02
"""Newton decrement (twice the nats left to climb) at what counts as a mode."""

SMALLEST = 1e-12
"""Smallest eigenvalue of a curvature whose diagonal is 1."""


@dataclass(frozen=True)
class Whitened:
    """The density of u, where z = centre + A u.

    Attributes:
        density: density of z.
        centre: (task, size) its mode; 0 for a task without one.
        axes: (task, size, size) A; the identity for a task without a mode.
        log_det: (task,) log |det A|.
        has_mode: (task,) bool.
    """

    density: Density
    centre: Tensor
    axes: Tensor
    log_det: Tensor
    has_mode: Tensor

    @classmethod
    def at_mode(cls, density: Density, start: Tensor) -> Whitened:
        """Find the mode of every task from `start` (task, size).

        Raises:
            InferenceError: there are too many latents for a dense curvature, or the density is not
                finite at the start.
        """
        if density.size > MAX_WHITE:
            raise InferenceError(
                f"expected at most {MAX_WHITE} latents for whitened coordinates, got {density.size}"
            )
        mode, curvature, found = newton(density, maximise(density, start)[0])
        own = torch.eye(density.size, dtype=curvature.dtype, device=curvature.device)
        curvature = torch.where(found[:, None, None], curvature, own)
        scale = curvature.diagonal(0, -2, -1).rsqrt().unsqueeze(-1)
        lower = torch.linalg.cholesky(scale * curvature * scale.mT)
        axes = torch.linalg.solve_triangular(lower.mT, own.expand_as(lower), upper=True)
        axes = (scale * axes).to(start)
        centre = torch.where(found[:, None], mode, start)
        return cls(density, centre, axes, torch.linalg.slogdet(axes)[1], found)

    @property
    def tasks(self) -> int:
        """Rows of u."""
        return self.density.tasks

    @property
    def size(self) -> int:
        """Length of u."""
        return self.density.size

    @property
    def reads(self) -> int:
        """Numbers that go into the density."""
        return self.density.reads

    def unwhiten(self, u: Tensor) -> Tensor:
        """From u (task, particle, size) to z."""
        return self.centre.unsqueeze(1) + u @ self.axes.mT

    def whiten(self, z: Tensor) -> Tensor:
        """From z (task, particle, size) to u."""
        columns: Tensor = torch.linalg.solve(self.axes, (z - self.centre.unsqueeze(1)).mT)
        return columns.mT

    def log_density(self, u: Tensor) -> Tensor:
        """(task, particle): log density of u, Jacobian included."""
        return self.density.log_density(self.unwhiten(u)) + self.log_det.unsqueeze(1)

    def value_and_gradient(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Log density of u and its gradient A' (gradient in z)."""
        value, score = self.density.value_and_gradient(self.unwhiten(u))
        return value + self.log_det.unsqueeze(1), score @ self.axes


def is_worthwhile(density: Potential) -> bool:
    """Whether whitened coordinates are likely to pay.

    That is where latents come in scales of their own: those of a non-centred model are N(0, I) a
    priori, which is what guides, steps and starts are made for. A joint density is left as it is.
    """
    own = any(not block.standard for block in density.blocks.values())
    return own and not density.joint and density.size <= MAX_WHITE


def newton(density: Density, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Climb from near a mode by Newton steps, in which every curvature counts as positive.

    Args:
        density: unconstrained log density of the tasks.
        z: (task, size) where to start.

    Returns:
        Where the climb ended (task, size), H there (task, size, size) in double precision, and
        whether that is a mode (task,).
    """
    lengths = z.new_tensor(LENGTHS)[:, None]
    rows = torch.arange(len(z), device=z.device)
    for step in range(NEWTON + 1):
        curvature = precision(density, z).double()
        axes, curved = _axes(curvature)
        axes = axes.to(z)
        value, gradient = (x.squeeze(1) for x in density.value_and_gradient(z.unsqueeze(1)))
        along = (axes.mT @ gradient.unsqueeze(-1)).squeeze(-1)
        decrement = along.square().sum(-1)
        direction = (axes @ along.unsqueeze(-1)).squeeze(-1)
        trial = z.unsqueeze(1) + lengths * direction.unsqueeze(1)
        reached = density.value_and_gradient(trial)[0].nan_to_num(nan=-torch.inf)
        best = reached.argmax(1)
        better = (reached[rows, best] > value) & (decrement > DECREMENT_MAX / 100)
        if step == NEWTON or not better.any():
            break
        z = torch.where(better[:, None], trial[rows, best], z)
    return z, curvature, curved & (decrement < DECREMENT_MAX)


def _axes(curvature: Tensor) -> tuple[Tensor, Tensor]:
    """B (task, size, size), B B' = |H|^-1, and whether all curvature is positive (task,).

    The identity where a curvature is not finite.
    """
    finite = torch.isfinite(curvature).all(-1).all(-1)
    curvature = torch.where(finite[:, None, None], curvature, 0.0)
    diagonal = curvature.diagonal(0, -2, -1).abs()
    scale = torch.where(diagonal > 0, diagonal, 1.0).rsqrt()
    values, vectors = torch.linalg.eigh(scale.unsqueeze(-1) * curvature * scale.unsqueeze(-2))
    curved = finite & (values > SMALLEST).all(-1)
    root = torch.where(finite[:, None], values.abs().clamp_min(SMALLEST), 1.0).rsqrt()
    return scale.unsqueeze(-1) * vectors * root.unsqueeze(-2), curved
