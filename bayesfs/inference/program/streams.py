"""Random numbers that belong to a task, whatever stands beside it in a batch: `Streams`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bayesfs._distributions.keys import Keys
from bayesfs._distributions.noise import Noise, TaskOrder, normal_like
from bayesfs.inference.program.potential import Potential


class Streams:
    """A generator for each row of a density, chosen by the content of the row's support.

    Tasks of equal support have equal numbers; others are independent. Numbers are made on the CPU,
    so that they do not depend on the device either.

    Args:
        generators: one a row.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self._generators = generators

    @classmethod
    def of(cls, density: Potential, seed: int, branch: int = 0) -> Streams:
        """Streams of the tasks of a density, or the one stream of a joint density.

        Args:
            density: whose tasks.
            seed: the same seed and support give the same numbers.
            branch: other numbers for each, such as for each draw of the population.
        """
        if density.joint:
            return cls([torch.Generator().manual_seed(seed)])
        noise = Noise(seed, TaskOrder.of(density.episodes), branch)
        return cls(noise.generators())

    def normal(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """(task, *shape) standard normal, the same in any precision up to rounding."""
        return torch.stack([normal_like(shape, g, like) for g in self._generators])

    def uniform(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """(task, *shape) uniform on [0, 1], the same in any precision up to rounding."""
        made = [torch.rand(shape, generator=g, dtype=torch.float64) for g in self._generators]
        return torch.stack(made).to(like)

    def keys(self) -> Keys:
        """(task,) keys, for samplers whose need of numbers differs by entry."""
        return Keys.of(torch.tensor(self.integers(2**62)))

    def integers(self, below: int) -> list[int]:
        """One of 0, ..., below - 1 for each task."""
        return [int(torch.randint(below, (), generator=g)) for g in self._generators]
