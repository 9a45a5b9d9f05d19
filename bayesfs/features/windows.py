"""Parts of frames, each looked at as if it were the frame: `Windowed`, a backbone of `WINDOWS`.

One vector of a frame does not say where in it something is. A window of side s at the place
(x, y) is what the camera would see from nearer, turned that way: the picture counterpart of "move
closer" (the middle) and "turn to the left". What a recogniser says of it is evidence of place and
size that one vector of the whole frame does not have (`bayesfs.explanation.framing`).

Source: Krizhevsky et al. (2012) for several crops of one picture; here they are not averaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bayesfs.errors import DataError

if TYPE_CHECKING:
    from bayesfs.protocols import Backbone
    from bayesfs.types import Embeddings


@dataclass(frozen=True)
class Window:
    """A square part of a square frame.

    Attributes:
        x: place from 0, at the left edge, to 1, at the right one.
        y: from 0, at the top edge, to 1, at the bottom one.
        side: in sides of the frame, above 0 and at most 1.

    Raises:
        DataError: it does not lie within the frame.
    """

    x: float
    y: float
    side: float

    def __post_init__(self) -> None:
        if not (0 <= self.x <= 1 and 0 <= self.y <= 1 and 0 < self.side <= 1):
            raise DataError(f"expected x and y in [0, 1] and a side in (0, 1], got {self}")

    def of(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(frame, px, px, 3) -> the window of each, enlarged to the same size."""
        px = images.shape[1]
        left, top = ((1 - self.side) * px * at for at in (self.x, self.y))
        box = (left, top, left + self.side * px, top + self.side * px)
        each = [
            Image.fromarray(image).resize((px, px), Image.Resampling.BILINEAR, box=box)
            for image in images
        ]
        return np.stack([np.asarray(one) for one in each]) if each else images


WINDOWS: Mapping[str, Window] = {
    "middle": Window(0.5, 0.5, 0.6),
    "left": Window(0.0, 0.5, 0.6),
    "right": Window(1.0, 0.5, 0.6),
    "top": Window(0.5, 0.0, 0.6),
    "bottom": Window(0.5, 1.0, 0.6),
}
"""Those that are looked at; each two opposite ones share a fifth of the frame."""


WHOLE = "whole"
"""Name of the frame itself among its parts."""

PARTS: Mapping[str, Window] = {WHOLE: Window(0.5, 0.5, 1.0), **WINDOWS}
"""The frame itself, and windows of it."""

LOOKED = 3
"""Frames of a video of which windows are looked at."""


class Windowed:
    """A backbone whose features are another's of every window, side by side; fulfils `Backbone`.

    Args:
        backbone: of frames as large as those that this takes.
        windows: name -> window, in order.

    Example:
        >>> from bayesfs.features.backbones.efficientnet_lite0 import EfficientNetLite0
        >>> seen = Windowed(EfficientNetLite0(px=32))
        >>> seen(np.zeros((1, 32, 32, 3), np.uint8)).shape
        (1, 6400)
    """

    def __init__(self, backbone: Backbone, windows: Mapping[str, Window] = WINDOWS) -> None:
        self._backbone, self.windows = backbone, windows
        self.px, self.batch = backbone.px, backbone.batch
        self.dim = backbone.dim * len(windows)
        self.name = f"windows({','.join(windows)}) of {backbone.name}"

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(frame, px, px, 3) uint8 -> (frame, window * feature) float32."""
        each = [self._backbone(window.of(images)) for window in self.windows.values()]
        return np.concatenate(each, 1)

    def apart(self, found: Embeddings) -> Mapping[str, Embeddings]:
        """Window -> its embeddings, named and labelled as the frames are.

        Args:
            found: of this backbone.
        """
        import xarray as xr

        from bayesfs.types import Embeddings

        whole = found.dataset
        parts = np.split(whole["features"].values, len(self.windows), axis=1)
        bare = whole.drop_vars("features")
        name = self._backbone.name
        return {
            window: Embeddings.of_own(
                bare.assign(features=xr.Variable(("frame", "feature"), part)).assign_attrs(
                    {**whole.attrs, "backbone": name}
                )
            )
            for window, part in zip(self.windows, parts, strict=True)
        }
