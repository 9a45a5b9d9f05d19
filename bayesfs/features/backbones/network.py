"""What all frozen networks share: input size, normalisation, batches. See `Network`."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayesfs._utils.devices import usable_device
from bayesfs.errors import DataError, ShapeError

CPU_PIXELS = 8 * 160 * 160
"""Pixels per pass on a CPU: so few that what a layer makes stays in caches, and is not given back
to the system before the next one (`bayesfs._utils.process_settings`)."""

GPU_BATCH = 64
"""Frames per pass on a GPU: so many that it is busy."""


class Network:
    """A network with its input size and normalisation; fulfils `Backbone`.

    Args:
        name: what it is, with its weights and pooling; see `naming` for how names are written.
        px: side of the frames in pixels, at least 32.
        dim: number of features.
        device: where it runs; the best there is by default.
        batch: frames per pass; `CPU_PIXELS` of them or `GPU_BATCH` by default.

    Raises:
        DataError: px or batch is too small.
    """

    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __init__(
        self, name: str, px: int, dim: int, device: torch.device | str | None, batch: int | None
    ) -> None:
        if px < 32 or (batch is not None and batch < 1):
            raise DataError(f"expected px >= 32 and batch >= 1, got px={px}, batch={batch}")
        self.name, self.px, self.dim = f"{name}@{px}px", px, dim
        self.device = usable_device(device)
        at_once = max(1, CPU_PIXELS // px**2) if self.device.type == "cpu" else GPU_BATCH
        self.batch = batch or at_once

    def forward(self, x: Tensor) -> Tensor:
        """(frame, 3, px, px) normalised -> (frame, feature)."""
        raise NotImplementedError

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(frame, px, px, 3) uint8 RGB -> (frame, feature) float32, in batches."""
        check_images(images, self.px)
        mean = 255 * torch.tensor(self.mean, device=self.device).view(3, 1, 1)
        std = 255 * torch.tensor(self.std, device=self.device).view(3, 1, 1)
        parts = [np.zeros((0, self.dim), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(images), self.batch):
                part = torch.from_numpy(images[start : start + self.batch].copy()).to(self.device)
                x = part.permute(0, 3, 1, 2).float().sub_(mean).div_(std)
                parts.append(self.forward(x).float().cpu().numpy())
        return np.concatenate(parts)


def check_images(images: NDArray[np.uint8], px: int) -> None:
    """Refuse what are no frames of that size.

    Raises:
        ShapeError: they are not.
    """
    size = (px, px, 3)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != size:
        raise ShapeError(f"expected uint8 (frame, *{size}), got {images.dtype} {images.shape}")
