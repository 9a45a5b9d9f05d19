"""What optimisers and samplers need of a log density: `Density`; and in what portions."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

READS = 2**20
"""Numbers that all draws of one call read together, beyond its least draws; bounds the memory."""


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


def draws_at_once(density: Density, least: int) -> int:
    """How many draws go into one call: `least` at least, and the more, the fewer data there are."""
    return max(least, READS // density.reads)
