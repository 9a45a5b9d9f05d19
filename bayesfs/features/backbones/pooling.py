"""From the positions that a network looks at to one vector a frame: `Pooling`.

Of values a_l (one channel) at positions l, with weights w_l that sum to one,

    mean   sum_l w_l a_l
    gem    sgn(m) |m|^(1/p),    m = sum_l w_l sgn(a_l) |a_l|^p,    p >= 1

and w_l the same everywhere, or exp(-|l|^2 / (2 centre^2)) with l from the frame's centre in sides
of the frame. `cls` takes the token that a transformer keeps for the whole frame. In clutter an
object fills a part of the frame: a power above 1 lets its strongest positions count for more, where
the plain mean dilutes them with the background; and a person who records an object holds the camera
to it, so that it is near the centre more often than what is around it.

Source: Radenovic, Tolias and Chum (2019), equation 2, for values above 0; Tatler (2007) on the
centre bias of what people frame.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, Self, cast

import torch
from torch import Tensor

from bayesfs.errors import DataError, ShapeError

Kind = Literal["cls", "mean", "gem"]

FORMS = '"cls", "mean", "gem3", "mean:centre0.2" or "gem3:centre0.125"'
"""What the text of a pooling looks like."""


@dataclass(frozen=True)
class Pooling:
    """How positions become one vector; its `text` is part of a backbone's name.

    Attributes:
        kind: "cls", "mean" or "gem".
        power: exponent p of the generalised mean, at least 1; of "gem" only.
        centre: sd of the weights of positions in sides of the frame, above 0; None weights all
            alike. None for "cls".

    Raises:
        DataError: a number is out of range, or is for another kind.

    Example:
        >>> Pooling.of_text("gem3:centre0.125")
        Pooling(kind='gem', power=3.0, centre=0.125)
    """

    kind: Kind = "mean"
    power: float = 1.0
    centre: float | None = None

    def __post_init__(self) -> None:
        weights = self.centre is None or (self.kind != "cls" and 0 < self.centre < math.inf)
        powers = 1 <= self.power < math.inf and (self.kind == "gem" or self.power == 1)
        if self.kind not in ("cls", "mean", "gem") or not (weights and powers):
            raise DataError(
                f"expected power >= 1 and centre > 0 (or None) for pooling, got {self.power}, "
                f"{self.centre} for {self.kind!r}; it is written {FORMS}"
            )

    @classmethod
    def of_text(cls, text: str) -> Self:
        """The pooling of that text.

        Raises:
            DataError: there is none.
        """
        read = re.fullmatch(r"(cls|mean|gem)(\d[\d.]*)?(?::centre(\d[\d.e-]*))?", text)
        try:
            if read is not None:
                kind, power, centre = read.groups()
                return cls(
                    cast(Kind, kind),
                    float(power or (3.0 if kind == "gem" else 1.0)),
                    None if centre is None else float(centre),
                )
        except ValueError as error:
            raise DataError(f"expected a pooling such as {FORMS}, got {text!r}") from error
        raise DataError(f"expected a pooling such as {FORMS}, got {text!r}")

    @property
    def text(self) -> str:
        """What `of_text` reads."""
        power = f"{self.power:g}" if self.kind == "gem" else ""
        where = "" if self.centre is None else f":centre{self.centre:g}"
        return f"{self.kind}{power}{where}"

    def of_maps(self, maps: Tensor) -> Tensor:
        """(frame, channel, height, width) -> (frame, channel).

        Raises:
            DataError: the pooling is "cls", and a map has no such token.
        """
        if self.kind == "cls":
            raise DataError(
                "expected tokens for the pooling 'cls', got maps: this network keeps no token for "
                "the whole frame; use pool=mean or pool=gem3"
            )
        powers = maps if self.power == 1 else maps.abs().pow(self.power).copysign(maps)
        if self.centre is None:
            pooled = powers.mean((2, 3))
        else:
            weights = centre_weights(powers.shape[2], powers.shape[3], self.centre)
            pooled = (powers * weights.to(powers)).sum((2, 3))
        return pooled if self.power == 1 else pooled.abs().pow(1 / self.power).copysign(pooled)

    def of_tokens(self, tokens: Tensor, prefix: int | None = None) -> Tensor:
        """(frame, token, channel) -> (frame, channel).

        Args:
            tokens: the first `prefix` are of the whole frame, the token "cls" before any others
                (registers); then those of a square grid of positions, row by row.
            prefix: how many; those beyond the largest square by default.

        Raises:
            DataError: the pooling is "cls" and there is no such token, or positions are weighted
                and those that are there make no square.
        """
        if prefix is None:
            prefix = tokens.shape[1] - math.isqrt(tokens.shape[1]) ** 2
        if self.kind == "cls":
            if not prefix:
                raise DataError("this network has no token for 'cls'; use pool=mean or pool=gem3")
            return tokens[:, 0]
        grid = tokens[:, prefix:].mT
        side = math.isqrt(grid.shape[-1])
        if side * side == grid.shape[-1]:
            return self.of_maps(grid.reshape(*grid.shape[:2], side, side))
        if self.centre is not None:
            raise DataError(f"{grid.shape[-1]} tokens make no square, so that none is central")
        return self.of_maps(grid[..., None])

    def __call__(self, output: Tensor, prefix: int | None = None) -> Tensor:
        """(frame, feature) of maps, of tokens, or of a network that has pooled by itself.

        Raises:
            ShapeError: the output has one axis, or more than four.
            DataError: as the other two.
        """
        if output.ndim == 4:
            return self.of_maps(output)
        if output.ndim == 3:
            return self.of_tokens(output, prefix)
        if output.ndim == 2:
            return output
        raise ShapeError(
            "expected (frame, feature), (frame, token, channel) or (frame, channel, height, width) "
            f"from the network, got {tuple(output.shape)}; name another of its outputs?"
        )


def centre_weights(height: int, width: int, sd: float) -> Tensor:
    """(height, width) weights of positions, normal about the centre; `sd` in sides; sum to 1."""
    y, x = ((torch.arange(n) + 0.5) / n - 0.5 for n in (height, width))
    exponent = -(y[:, None] ** 2 + x**2) / (2 * sd**2)
    return exponent.flatten().softmax(0).view(height, width)
