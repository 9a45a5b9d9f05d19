"""What goes wrong with a recording, done to good frames at five severities: use `corrupt` first.

Six follow the common corruptions of ImageNet-C, two are those of objects held before a camera:

    noise           x + s e, e ~ N(0, 1)
    blur            Gaussian, of a width in pixels of a frame of 224
    darkness        so many stops too little light
    overexposure    so many stops too much light, clipped
    low_contrast    m + c (x - m), with m each channel's mean
    jpeg            kept as JPEG of so low a quality
    occlusion       a grey square in front of this share of the frame, anywhere
    cut_off         the camera looks aside: this share of the width, and of the height, is lost

with x in [0, 1]. A stop is a factor of two of the light, 2^(1/2.2) of the grey level.

Source: Hendrycks and Dietterich 2019 (hendrycks2019), whose strengths noise, blur, low contrast
and JPEG have. They brighten in HSV where we count stops, and have neither darkness nor the last
two.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from bayesfs.errors import DataError, ShapeError

Image = NDArray[np.float64]
"""(height, width, 3) in [0, 1]."""

Corruption = Callable[[Image, float, np.random.Generator], Image]
"""Image, strength and randomness -> image, not yet clipped to [0, 1]."""

SEVERITIES = (1, 2, 3, 4, 5)

REFERENCE_PX = 224
"""Side of the frames that widths in pixels are told for."""

GAMMA = 2.2
"""Grey level = light ** (1 / GAMMA)."""


def _noise(image: Image, sd: float, rng: np.random.Generator) -> Image:
    return image + sd * rng.normal(size=image.shape)


def _blur(image: Image, width: float, rng: np.random.Generator) -> Image:
    sigma = width * image.shape[0] / REFERENCE_PX
    blurred: Image = gaussian_filter(image, (sigma, sigma, 0), mode="nearest")
    return blurred


def _exposure(image: Image, stops: float, rng: np.random.Generator) -> Image:
    return image * float(2.0 ** (stops / GAMMA))


def _low_contrast(image: Image, kept: float, rng: np.random.Generator) -> Image:
    mean = np.asarray(image.mean((0, 1)), np.float64)
    return mean + kept * (image - mean)


def _jpeg(image: Image, quality: float, rng: np.random.Generator) -> Image:
    levels = np.round(255.0 * image.clip(0.0, 1.0)).astype(np.uint8)
    with io.BytesIO() as file:
        PIL.Image.fromarray(levels).save(file, format="JPEG", quality=int(quality))
        kept: Image = np.asarray(PIL.Image.open(file), np.float64) / 255.0
    return kept


def _occlusion(image: Image, share: float, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    tall, wide = (round(side * share**0.5) for side in (height, width))
    top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
    hidden = image.copy()
    hidden[top : top + tall, left : left + wide] = 0.5
    return hidden


def _cut_off(image: Image, share: float, rng: np.random.Generator) -> Image:
    down, across = (
        round(share * side) * rng.choice((-1, 1)) + np.arange(side) for side in image.shape[:2]
    )
    rows, columns = (np.clip(at, 0, len(at) - 1) for at in (down, across))
    seen: Image = image[rows][:, columns]
    return seen


CORRUPTIONS: Mapping[str, tuple[Corruption, tuple[float, ...]]] = {
    "noise": (_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "blur": (_blur, (1, 2, 3, 4, 6)),
    "darkness": (_exposure, (-1, -2, -3, -4, -5)),
    "overexposure": (_exposure, (0.5, 1, 1.5, 2, 3)),
    "low_contrast": (_low_contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "jpeg": (_jpeg, (25, 18, 15, 10, 7)),
    "occlusion": (_occlusion, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "cut_off": (_cut_off, (0.1, 0.2, 0.3, 0.4, 0.5)),
}
"""Name -> what is done, and how strongly at each severity."""


def check_corruption(name: str, severity: int) -> None:
    """Refuse what there is not.

    Raises:
        DataError: no corruption has that name, or no severity that number.
    """
    if name not in CORRUPTIONS:
        raise DataError(f"expected a corruption out of {', '.join(CORRUPTIONS)}, got {name!r}")
    if severity not in SEVERITIES:
        raise DataError(f"expected a severity from 1 to {len(SEVERITIES)}, got {severity}")


def corrupt(
    images: NDArray[np.uint8], name: str, severity: int, *, frames: Sequence[int], seed: int
) -> NDArray[np.uint8]:
    """The frames with one thing wrong with them.

    Args:
        images: (frame, height, width, 3) uint8 RGB.
        name: one of `CORRUPTIONS`.
        severity: 1 (hardly) to 5 (badly).
        frames: number of each frame; its corruption depends on that and the seed alone.
        seed: of what is random.

    Returns:
        Frames of the same shape.

    Raises:
        DataError: there is no such corruption or severity.
        ShapeError: images are no uint8 RGB frames, or have more or fewer numbers.

    Example:
        >>> grey = np.full((1, 64, 64, 3), 128, np.uint8)
        >>> int(corrupt(grey, "darkness", 1, frames=[0], seed=0).max())
        93
    """
    check_corruption(name, severity)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ShapeError(f"expected uint8 (frame, height, width, 3), got {images.shape}")
    if len(frames) != len(images):
        raise ShapeError(f"expected a number for each of {len(images)} frames, got {len(frames)}")
    change, strengths = CORRUPTIONS[name]
    worse: NDArray[Any] = np.empty_like(images)
    for i, (image, number) in enumerate(zip(images, frames, strict=True)):
        rng = np.random.default_rng([seed, number])
        changed = change(image / 255.0, strengths[severity - 1], rng)
        worse[i] = np.round(255.0 * changed.clip(0.0, 1.0))
    return worse
