"""What a backbone's name says, and how weights are told apart: `BackboneName`.

    [multiscale+]SOURCE-WEIGHTS:POOLING[:normMEAN/STD]@PIXELSpx

such as `timm:resnet18.a1_in1k-1f0a33c2:own:norm0.485,0.456,0.406/0.229,0.224,0.225@224px`. The
weights are told by the first eight digits of their SHA-256; the normalisation is left out where a
network has one only. Features of different names are never mixed, and the name is what makes the
backbone again (`bayesfs.features.backbones.spec.remade`). It holds no folder of anybody's machine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from bayesfs._utils.guarded_files import open_regular
from bayesfs.errors import DataError
from bayesfs.features.backbones.pooling import Pooling

MULTISCALE = "multiscale+"
"""Before the name, or the spec, of a backbone that sees frames at two scales."""

OWN = "own"
"""Pooling of a network that gives one vector a frame by itself."""

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and sd of colours that most networks are trained with."""

NAME = re.compile(
    r"(multiscale\+)?(.+)-([0-9a-f]{8}):([^@]+?)(?::norm([\d.,e-]+/[\d.,e-]+))?@(\d+)px"
)

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and sd of red, green and blue in [0, 1]."""


@dataclass(frozen=True)
class BackboneName:
    """The parts of a name.

    Attributes:
        source: what a person types for it, without files.
        weights: first eight digits of the SHA-256 of its weights.
        pooling: from positions to a vector; None for a network that does it by itself.
        normalisation: mean and sd of the colours; None for a network that has one only.
        px: side of the frames.
        multiscale: whether it sees them at two scales.

    Example:
        >>> BackboneName("onnx:net", "1f0a33c2", Pooling("cls"), None, 224).text
        'onnx:net-1f0a33c2:cls@224px'
    """

    source: str
    weights: str
    pooling: Pooling | None
    normalisation: Normalisation | None
    px: int
    multiscale: bool = False

    @property
    def text(self) -> str:
        """The name."""
        pooled = OWN if self.pooling is None else self.pooling.text
        norm = "" if self.normalisation is None else f":norm{_numbers(self.normalisation)}"
        scales = MULTISCALE if self.multiscale else ""
        return f"{scales}{self.source}-{self.weights}:{pooled}{norm}@{self.px}px"

    @classmethod
    def of_text(cls, text: str) -> Self:
        """The parts of a name.

        Raises:
            DataError: it is no name of a backbone.
        """
        read = NAME.fullmatch(text)
        if read is None:
            raise DataError(
                f"the features are of the backbone {text!r}, which cannot be made here; expected a "
                "name such as 'efficientnet-lite0-57934424:gem3:centre0.125@160px'"
            )
        scales, source, weights, pooled, norm, px = read.groups()
        pooling = None if pooled == OWN else Pooling.of_text(pooled)
        colours = read_normalisation(*norm.split("/")) if norm else None
        return cls(source, weights, pooling, colours, int(px), bool(scales))


def read_normalisation(mean: str, std: str) -> Normalisation:
    """Numbers between commas or semicolons, three each.

    Raises:
        DataError: they are not, or an sd is not above 0.
    """
    try:
        both = tuple(tuple(float(x) for x in re.split("[,;]", part)) for part in (mean, std))
    except ValueError:
        both = ((), ())
    if any(len(part) != 3 for part in both) or not all(x > 0 for x in both[1]):
        raise DataError(
            "expected a mean and an sd above 0 of red, green and blue, such as 0.5;0.5;0.5, got "
            f"{mean!r}, {std!r}"
        )
    return both[0], both[1]


def _numbers(normalisation: Normalisation) -> str:
    return "/".join(",".join(f"{x:.6g}" for x in part) for part in normalisation)


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """First eight digits of the SHA-256 of named tensors: names, types, shapes and bytes."""
    found = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\0".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:8]


def file_digest(*paths: Path) -> str:
    """First eight digits of the SHA-256 of files.

    Raises:
        DataError: one cannot be read.
    """
    found = hashlib.sha256()
    for path in paths:
        try:
            with open_regular(path) as file:
                while block := file.read(2**20):
                    found.update(block)
        except DataError as error:
            raise DataError(f"{str(path)!r}: {error}") from error
    return found.hexdigest()[:8]
