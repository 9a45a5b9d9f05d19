"""Videos -> decoded, measured batches of frames, ready for a backbone: `batches`."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bayesfs._utils.spacing import evenly_spaced
from bayesfs.data.sources.video import UNDECODED, Skipped, Video
from bayesfs.features.decoding.sampling import Sampling
from bayesfs.features.decoding.video import Frame, decode, frame_count
from bayesfs.features.quality import quality

THUMBNAILS = 3
"""Pictures kept of each video: its first, middle and last frame."""

THUMBNAIL_PX = 96

Picture = tuple[int, int, bytes]
"""Position of the video in the list, frame number, JPEG."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Decoded frames of one or more videos, in order.

    Attributes:
        images: (frame, px, px, 3) uint8 RGB.
        rows: (frame, 3) position of the video in the list, position in the video, frame number.
        quality: (frame, covariate) measured quality.
        pictures: frames kept as thumbnails.
        skipped: what could not be decoded since the last batch.
    """

    images: NDArray[np.uint8]
    rows: NDArray[np.int64]
    quality: NDArray[np.float32]
    pictures: tuple[Picture, ...]
    skipped: tuple[Skipped, ...]


def batches(
    videos: Sequence[Video],
    first: int,
    *,
    px: int,
    size: int,
    sampling: Sampling,
    thumbnails: bool,
) -> Iterator[Batch]:
    """Decode and measure videos, batch by batch; made to run in a thread of its own.

    Args:
        videos: consecutive videos.
        first: position of the first of them in the whole list.
        px: side of the frames.
        size: frames in a batch; only the last may be smaller, or empty.
        sampling: which frames.
        thumbnails: whether to keep small pictures.

    Yields:
        Batches. A video of which no frame could be decoded is noted as skipped.
    """
    frames: list[tuple[int, Frame]] = []
    pictures: list[Picture] = []
    skipped: list[Skipped] = []
    for position, video in enumerate(videos, first):
        targets = _targets(frame_count(video, sampling)) if thumbnails else []
        used, is_told = 0, False
        for item in decode(video, px, sampling):
            if isinstance(item, Skipped):
                skipped.append(item)
                is_told |= item.level == "video"
                continue
            if used in targets:
                pictures.append((position, item.number, thumbnail(item.image)))
            used += 1
            frames.append((position, item))
            if len(frames) == size:
                yield _batch(frames, pictures, skipped, px)
                frames, pictures, skipped = [], [], []
        if not used and not is_told:
            skipped.append(Skipped(video.path, UNDECODED, "video"))
    yield _batch(frames, pictures, skipped, px)


def thumbnail(image: NDArray[np.uint8]) -> bytes:
    """A small JPEG of a frame, with none of the original's metadata."""
    small = Image.fromarray(image).resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=80)
    return stream.getvalue()


def _targets(frames: int) -> set[int]:
    """Which frames become thumbnails: spread from the first to the last."""
    return set(evenly_spaced(frames, THUMBNAILS))


def _batch(
    frames: list[tuple[int, Frame]], pictures: list[Picture], skipped: list[Skipped], px: int
) -> Batch:
    images = (
        np.stack([f.image for _, f in frames]) if frames else np.zeros((0, px, px, 3), np.uint8)
    )
    rows = np.array([(v, f.index, f.number) for v, f in frames], np.int64).reshape(-1, 3)
    return Batch(images, rows, quality(images), tuple(pictures), tuple(skipped))
