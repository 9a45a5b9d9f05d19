"""Measured quality of each frame: focus, exposure, contrast. Start with `quality`.

Nothing here is learnt; each covariate is a formula on the pixels that the backbone sees. A defect
moves its own one most: exposure scales luma, which leaves contrast as it is and focus nearly, and a
flat picture has nearly the focus of the same one with more contrast. A hand that moves sideways
leaves edges along the motion as sharp as they were: focus is that of the least sharp direction.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bayesfs.errors import ShapeError

COVARIATES = ("focus", "brightness", "contrast", "dark_clipped", "bright_clipped")
"""Names and order of the covariates."""

MEASURED_AS = "focus of the least sharp direction"
"""Belongs to what a store is known by, so that frames measured otherwise are never mixed."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue (ITU-R BT.601)."""

SLOPES = (-0.15, 0.0, -0.15, 0.1, 0.1)
"""What a poorer picture is expected to do: effect of one sd of each covariate on the log sd of a
frame's noise, before it is learnt."""

ROUNDING = 6.0 / 12.0 * float(np.square(LUMA).sum())
"""Variance of a second difference by rounding to grey levels: each channel errs by 1/12."""

EDGES_FLOOR, LUMA_FLOOR = 1e-2, 400.0
"""Added to variances before their ratio's logarithm: an even frame has the focus -10.6. Before a
bare table var(Y) says how large and how pale a thing is, more than how well it is lit; it counts in
full only from an sd of 20 grey levels on."""

FLOOR = 1e-2
"""Added to brightness, and to its ratio with the sd: an even frame has the contrast -4.6, too."""

CLIP_MARGIN = 2
"""Grey levels from 0 or 255 within which a pixel counts as clipped: JPEG moves it so far."""


def quality(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Covariates of each frame.

    With luma Y = .299 R + .587 G + .114 B in grey levels 0..255 and its second differences
    D_d = Y(d) - 2 Y + Y(-d) over the interior pixels, d to the right, down, along both diagonals:

        focus           ln((max(min_d var(D_d) - r, 0) + 0.01) / (var(Y) + 400)), r what rounding
                        adds
        brightness      mean(Y) / 255, in [0, 1]
        contrast        ln(sd(Y) / 255 / (brightness + 0.01) + 0.01)
        dark_clipped    fraction of pixels with max(R, G, B) <= 2
        bright_clipped  fraction of pixels with max(R, G, B) >= 253

    All are of the frame as resized for the backbone, so focus compares only at one size.

    Args:
        images: (frame, height, width, 3) uint8 RGB, at least 3 by 3 pixels.

    Returns:
        (frame, covariate) in the order of `COVARIATES`.

    Raises:
        ShapeError: images are no uint8 RGB frames of at least 3 by 3 pixels.

    Source:
        Pech-Pacheco et al. (2000) for the variance of the Laplacian, the sum of two of these
        differences, as a measure of focus; the least of them is our own. Peli (1990) for contrast
        relative to the mean. refs.bib: pechpacheco2000, peli1990.
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
    spread, mean = luma.std(axis=pixels), luma.mean(axis=pixels) / 255
    sharp = np.stack([d.var(axis=pixels) for d in second_differences(luma)])
    edges = (sharp.min(0) - ROUNDING).clip(min=0.0)
    columns = (
        np.log((edges + EDGES_FLOOR) / (spread**2 + LUMA_FLOOR)),
        mean,
        np.log(spread / 255 / (mean + FLOOR) + FLOOR),
        (brightest <= CLIP_MARGIN).mean(axis=pixels),
        (brightest >= 255 - CLIP_MARGIN).mean(axis=pixels),
    )
    return np.stack(columns, axis=1).astype(np.float32)


def second_differences(luma: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Y(d) - 2 Y + Y(-d) of (frame, height, width) over the interior pixels.

    Yields:
        For d to the right, down, down to the right and down to the left.
    """
    twice = 2 * luma[:, 1:-1, 1:-1]
    whole = (slice(1, -1), slice(2, None), slice(None, -2))
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        there = luma[:, whole[down], whole[right]]
        yield there + luma[:, whole[-down], whole[-right]] - twice
