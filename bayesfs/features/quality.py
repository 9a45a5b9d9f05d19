"""Measured quality of each frame: sharpness, exposure, contrast. Start with `quality`.

Nothing here is learnt; each covariate is a formula on the pixels that the backbone sees.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bayesfs.errors import ShapeError

COVARIATES = ("sharpness", "brightness", "contrast", "dark_clipped", "bright_clipped")
"""Names and order of the covariates."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue (ITU-R BT.601)."""

SHARPNESS_FLOOR = 1e-2
"""Added to the variance before its logarithm: a flat frame has sharpness ln 0.01 = -4.6."""

CLIP_MARGIN = 2
"""Grey levels from 0 or 255 within which a pixel counts as clipped: JPEG moves it so far."""


def quality(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Covariates of each frame.

    With luma Y = .299 R + .587 G + .114 B in grey levels 0..255 and the 4-neighbour Laplacian
    L = Y(up) + Y(down) + Y(left) + Y(right) - 4 Y over the interior pixels:

        sharpness       ln(var(L) + 0.01), in ln grey-levels^2
        brightness      mean(Y) / 255, in [0, 1]
        contrast        sd(Y) / 255, in [0, 0.5]
        dark_clipped    fraction of pixels with max(R, G, B) <= 2
        bright_clipped  fraction of pixels with max(R, G, B) >= 253

    All are of the frame as resized for the backbone, so sharpness compares only at one size.

    Args:
        images: (frame, height, width, 3) uint8 RGB, at least 3 by 3 pixels.

    Returns:
        (frame, covariate) in the order of `COVARIATES`.

    Raises:
        ShapeError: images are no uint8 RGB frames of at least 3 by 3 pixels.

    Source:
        Variance of the Laplacian as a measure of focus: Pech-Pacheco et al. (2000).
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ShapeError(
            f"expected uint8 (frame, height, width, 3), got {images.dtype} {images.shape}"
        )
    if min(images.shape[1:3]) < 3:
        raise ShapeError(f"expected frames of at least 3 x 3 pixels, got {images.shape[1:3]}")
    luma = images.astype(np.float32) @ LUMA
    red, green, blue = np.moveaxis(images, -1, 0)
    brightest = np.maximum(np.maximum(red, green), blue)  # ten times as fast as max(axis=-1)
    pixels = (1, 2)
    columns = (
        np.log(laplacian(luma).var(axis=pixels) + SHARPNESS_FLOOR),
        luma.mean(axis=pixels) / 255,
        luma.std(axis=pixels) / 255,
        (brightest <= CLIP_MARGIN).mean(axis=pixels),
        (brightest >= 255 - CLIP_MARGIN).mean(axis=pixels),
    )
    return np.stack(columns, axis=1).astype(np.float32)


def laplacian(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    """4-neighbour Laplacian of (frame, height, width) over the interior pixels."""
    centre = luma[:, 1:-1, 1:-1]
    rows = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1]
    columns = luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:]
    return rows + columns - 4 * centre
