"""A density in coordinates in which it is close to a standard normal: `Whitened`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesfs.inference.laplace.factors import DensePrecision, dense_factor
from bayesfs.inference.program.curvature import maximise
from bayesfs.inference.program.density import Density


@dataclass(frozen=True)
class Whitened:
    """The density of u, where z = mode + L^-T u and L L^T is the curvature at the mode.

    A Gaussian becomes exactly N(0, I), so that a guide that starts there has nothing to learn.

    Attributes:
        density: density of z.
        mode: (task, size) maximum of it.
        factor: its curvature there.
    """

    density: Density
    mode: Tensor
    factor: DensePrecision

    @classmethod
    def at_mode(cls, density: Density, start: Tensor) -> Whitened:
        """Find the mode of every task from `start` (task, size).

        Raises:
            NotPositiveDefiniteError: the search ended where the density has no maximum.
        """
        mode, _ = maximise(density, start)
        return cls(density, mode, dense_factor(density, mode, slice(0, density.size)))

    @property
    def tasks(self) -> int:
        """Rows of u."""
        return self.density.tasks

    @property
    def size(self) -> int:
        """Length of u."""
        return self.density.size

    def unwhiten(self, u: Tensor) -> Tensor:
        """From u (task, particle, size) to z."""
        return self.mode.unsqueeze(1) + self.factor.spread(u)

    def log_density(self, u: Tensor) -> Tensor:
        """(task, particle): log density of u, Jacobian included."""
        return self._with_jacobian(self.density.log_density(self.unwhiten(u)))

    def value_and_gradient(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Log density of u and its gradient L^-1 (gradient in z)."""
        value, score = self.density.value_and_gradient(self.unwhiten(u))
        lower = self.factor.lower
        return self._with_jacobian(value), torch.linalg.solve_triangular(
            lower, score.mT, upper=False
        ).mT

    def _with_jacobian(self, value: Tensor) -> Tensor:
        return value - 0.5 * self.factor.log_det.unsqueeze(1)
