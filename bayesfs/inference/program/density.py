"""What optimisers and samplers need of a log density: `Density`."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Density(Protocol):
    """What the optimiser needs of a potential."""

    @property
    def tasks(self) -> int:
        """Rows of z."""
        ...

    @property
    def size(self) -> int:
        """Length of z."""
        ...

    @property
    def reads(self) -> int:
        """Numbers that go into the density of one row per task: latents and data."""
        ...

    def log_density(self, z: Tensor) -> Tensor:
        """(task, particle, size) -> (task, particle)."""
        ...

    def value_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Log density and its gradient, both detached."""
        ...
