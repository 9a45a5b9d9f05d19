"""Random keys for every entry of an array: `Keys`.

A key is used once, as in JAX: for a number, or for further keys. So the numbers of an entry depend
on its own key alone, and not on how many numbers the entries beside it need.

Keys are the outputs of SplitMix64, a counter with a finaliser: key_n = mix(key + n gamma).

Source: Steele, Lea and Flood (2014), Fast splittable pseudorandom number generators, figure 17;
Marsaglia and Tsang (2000), A simple method for generating gamma variables. refs.bib: steele2014,
marsaglia2000.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

GAMMA = 0x9E3779B97F4A7C15 - 2**64
"""The odd integer closest to 2^64 divided by the golden ratio, as a signed number."""


@dataclass(frozen=True)
class Keys:
    """A key for each entry.

    Attributes:
        value: int64 of any shape.
    """

    value: Tensor

    @classmethod
    def of(cls, *numbers: Tensor | int) -> Keys:
        """Keys that depend on all of the numbers, which are broadcast; int64."""
        keys = cls(torch.zeros((), dtype=torch.int64))
        for number in numbers:
            keys = keys.fold_in(number)
        return keys

    def fold_in(self, number: Tensor | int) -> Keys:
        """Other keys for each number, which is broadcast."""
        return Keys(_mix(self.value + GAMMA * (torch.as_tensor(number) + 1)))

    def extend(self, *shape: int) -> Keys:
        """(*entry) -> (*entry, *shape): a key for each place, whatever the lengths are."""
        keys = self
        for length in shape:
            keys = Keys(keys.value[..., None]).fold_in(torch.arange(length))
        return keys

    def __getitem__(self, index: Any) -> Keys:
        return Keys(self.value[index])

    def uniform(self) -> Tensor:
        """Double precision numbers of (0, 1)."""
        return ((self.value >> 11) & (2**53 - 1)).double().add(0.5) * 2.0**-53

    def normal(self) -> Tensor:
        """Standard normal numbers, by the quantile."""
        normal: Tensor = torch.special.ndtri(self.uniform())
        return normal

    def gamma(self, shape: Tensor) -> Tensor:
        """Gamma variables of rate 1; 0 where `shape`, which has as many entries, is 0.

        Rejection sampling of Marsaglia and Tsang, on all entries at once; a shape a below 1 is
        drawn as one of a + 1 times u^(1 / a).
        """
        a, keys = shape.double().flatten(), Keys(self.value.flatten())
        real = (a > 0).nonzero()[:, 0]
        d = (torch.where(a < 1, a + 1, a) - 1 / 3)[real]

        def propose(todo: Tensor, now: Keys) -> tuple[Tensor, Tensor]:
            at, x = d[todo], now.fold_in(0).normal()
            v = (1 + x / (9 * at).sqrt()) ** 3
            level = now.fold_in(1).uniform().log()
            fits = level < 0.5 * x * x + at * (1 - v + v.clamp_min(1e-300).log())
            return at * v, (v > 0) & fits

        result = torch.zeros_like(a)
        result[real] = keys[real].accepted(propose)
        boost = (keys.fold_in(-2).uniform().log() / a).exp()
        return torch.where((a > 0) & (a < 1), result * boost, result).reshape(shape.shape)

    def accepted(self, propose: Callable[[Tensor, Keys], tuple[Tensor, Tensor]]) -> Tensor:
        """(entry,) double precision numbers by rejection, on all open entries at once.

        Args:
            propose: (numbers of the entries that are open, a key for each) -> a proposal for each
                of them, and whether it is taken.
        """
        result = torch.empty(len(self.value), dtype=torch.float64)
        todo, attempt = torch.arange(len(result)), 0
        while len(todo):
            x, taken = propose(todo, self[todo].fold_in(attempt))
            result[todo[taken]] = x[taken]
            todo, attempt = todo[~taken], attempt + 1
        return result


def _mix(z: Tensor) -> Tensor:
    """The finaliser: every bit of the result depends on every bit of z; one to one."""
    z = (z ^ _right(z, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    z = (z ^ _right(z, 27)) * (0x94D049BB133111EB - 2**64)
    return z ^ _right(z, 31)


def _right(z: Tensor, bits: int) -> Tensor:
    """Shift that fills with zeros: torch's keeps the sign."""
    return torch.bitwise_and(z >> bits, 2 ** (64 - bits) - 1)
