"""Coordinates in which a density's average curvature is the identity: `Metric`.

Steepest descent with the matrix-valued kernel H^-1/2 k(H^1/2 x, H^1/2 y) H^-1/2 is the same as with
the kernel k in the coordinates u = H^1/2 (z - centre).

Source: Wang, Tang, Bajaj and Liu (2019), Stein variational gradient descent with matrix-valued
kernels, section 3.2 (averaged preconditioner); refs.bib: wang2019. As there, H is averaged over
particles; here over a few of them, and its eigenvalues are made positive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bayesfs.errors import InferenceError
from bayesfs.inference.program.curvature import maximise, precision
from bayesfs.inference.program.density import Density

MAX_DENSE = 2048
"""Largest number of latents for a dense curvature (16 MB per task in single precision)."""

PARTICLES = 4
"""Particles whose curvatures are averaged."""

SMALLEST = 1e-6
"""Smallest eigenvalue that is kept, as a share of the largest one of the task."""


class Scored(Density, Protocol):
    """A density whose score is to be had without its value."""

    def gradient(self, z: Tensor) -> Tensor:
        """(task, particle, size) -> gradient of the log density, of the same shape, detached."""
        ...


@dataclass(frozen=True)
class Metric:
    """The map between z and u = H^1/2 (z - centre), for every task.

    Attributes:
        centre: (task, 1, size).
        root: (task, size, size), symmetric, H^1/2: u stays as close to z as it can, so that the
            blocks of the latents keep their meaning.
        inverse: H^-1/2.
    """

    centre: Tensor
    root: Tensor
    inverse: Tensor

    @classmethod
    def at_mode(cls, density: Density, z: Tensor) -> Metric:
        """Curvature at the mode, searched from the mean of particles z (task, particle, size).

        Raises:
            InferenceError: as for `at`, or the density is not finite there.
        """
        mode, _ = maximise(density, z.mean(1))
        return cls.at(density, mode.unsqueeze(1))

    @classmethod
    def at(cls, density: Density, z: Tensor) -> Metric:
        """Average curvature at the first few particles z (task, particle, size).

        Raises:
            InferenceError: there are too many latents, or the curvature is not finite.
        """
        if density.size > MAX_DENSE:
            raise InferenceError(
                f"a dense preconditioner of {density.size} latents is too large (at most "
                f"{MAX_DENSE}); set precondition=False"
            )
        some = z[:, :PARTICLES].unbind(1)
        curvature = sum((precision(density, x) for x in some[1:]), precision(density, some[0]))
        curvature = curvature / len(some)
        if not torch.isfinite(curvature).all():
            raise InferenceError("the log density has no finite curvature at the particles")
        values, vectors = torch.linalg.eigh(curvature)
        values = values.abs()
        values = values.clamp_min(SMALLEST * values.amax(-1, keepdim=True)).unsqueeze(-2)
        root = (vectors * values.sqrt()) @ vectors.mT
        inverse = (vectors * values.rsqrt()) @ vectors.mT
        return cls(z.mean(1, keepdim=True), root, inverse)

    def to_u(self, z: Tensor) -> Tensor:
        """(task, particle, size) z to u."""
        return (z - self.centre) @ self.root

    def to_z(self, u: Tensor) -> Tensor:
        """The inverse of `to_u`."""
        return self.centre + u @ self.inverse

    def score(self, density: Scored, u: Tensor) -> Tensor:
        """Gradient of the log density of u."""
        return density.gradient(self.to_z(u)) @ self.inverse


class IdentityMetric:
    """The coordinates of the density as they are."""

    def to_u(self, z: Tensor) -> Tensor:
        """Z itself."""
        return z

    def to_z(self, u: Tensor) -> Tensor:
        """U itself."""
        return u

    def score(self, density: Scored, u: Tensor) -> Tensor:
        """Gradient of the log density."""
        return density.gradient(u)
