"""Decode recordings to small square RGB frames, one at a time: `decode`.

A folder of images is read with Pillow (`bayesfs.features.decoding.pictures`), a video file with
PyAV (extra `video`, `bayesfs.features.decoding.containers`). Frames are squeezed to px by px, so
that nothing at the border is lost; EXIF orientation and the display matrix are applied, mirrored
ones too. Memory is bounded by a few full-size frames. Whatever cannot be decoded becomes a
`Skipped`, never an error.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bayesfs.data.sources.video import Skipped, Video
from bayesfs.errors import DataError
from bayesfs.features.decoding.containers import FRAME_RATE, MAX_PIXELS, opened_video, pyav, survey
from bayesfs.features.decoding.pictures import brief, eight_bit_rgb, read_image
from bayesfs.features.decoding.sampling import Sampling

__all__ = ["Frame", "Sampling", "decode", "frame_count", "read_image"]

MAX_NOTED = 20
"""Frames of one video file that cannot be decoded and are named; the others are counted."""

OFF_AXIS = 0.02
"""Largest entry beside the main ones of a display matrix, relative to them: about a degree."""

IDENTITY = (1, 0, 0, 0, 1, 0, 0, 0, 1)
"""The display matrix of frames that are shown as they are."""


@dataclass(frozen=True)
class Frame:
    """One decoded frame.

    Attributes:
        index: position in `Video.files`, or in the order of decoding of a video file.
        number: the number in its file name, or index + 1.
        image: (px, px, 3) uint8 RGB.
    """

    index: int
    number: int
    image: NDArray[np.uint8]


def decode(video: Video, px: int, sampling: Sampling | None = None) -> Iterator[Frame | Skipped]:
    """Frames of a video in order of time, each px by px.

    Args:
        video: a folder of frames, a video file or a photograph.
        px: side of the frames in pixels.
        sampling: which frames; all of them by default.

    Yields:
        A Frame, or a Skipped that names the file and the likely cause.

    Raises:
        DataError: a video file, but the extra `video` is not installed.
    """
    chosen = sampling or Sampling()
    if video.is_photograph:
        return _decode_photograph(video, px)
    if not video.is_file:
        return _decode_folder(video, px, chosen)
    pyav(video.location)
    return _decode_file(video, px, chosen)


def frame_count(video: Video, sampling: Sampling | None = None) -> int:
    """How many frames `decode` will give, if all that are there can be decoded.

    A video file is read through for that, but nothing is decoded: headers are often wrong.

    Raises:
        DataError: a video file, but the extra `video` is not installed.
    """
    chosen = sampling or Sampling()
    if video.is_photograph:
        return 1
    if not video.is_file:
        return len(chosen.select(folder_seconds(video)))
    pyav(video.location)
    try:
        return len(chosen.select(survey(video.location).seconds))
    except Exception:  # FFmpeg's many kinds; `decode` will say which
        return 0


def folder_seconds(video: Video) -> NDArray[np.float64]:
    """(frame,) times of a folder's frames, by the numbers in their names at `FRAME_RATE`."""
    numbers = video.numbers.astype(np.int64)
    if (np.diff(numbers) <= 0).any():
        numbers = np.arange(len(numbers))
    return numbers / FRAME_RATE


def _decode_folder(video: Video, px: int, sampling: Sampling) -> Iterator[Frame | Skipped]:
    for index in sampling.select(folder_seconds(video)).tolist():
        name = video.files[index]
        try:
            image = read_image(video.location / name, px)
        except DataError as error:
            yield Skipped(f"{video.path}/{name}", str(error), "frame")
        else:
            yield Frame(index, int(video.numbers[index]), image)


def _decode_photograph(video: Video, px: int) -> Iterator[Frame | Skipped]:
    try:
        yield Frame(0, 1, read_image(video.location, px))
    except DataError as error:
        yield Skipped(video.path, str(error), "video")


def _decode_file(video: Video, px: int, sampling: Sampling) -> Iterator[Frame | Skipped]:
    used, noted = 0, False
    try:
        found = survey(video.location)
        keys = found.stamps[sampling.select(found.seconds)]
        with opened_video(video.location) as (container, stream):
            frames = _numbered(container, stream, found.stamped)
            if not sampling.is_all:
                frames = _chosen(frames, keys)
            matrix = _Display()
            for item in _noted(video, frames):
                if isinstance(item, Skipped):
                    yield item
                    noted = True
                else:
                    index, frame = item
                    yield Frame(
                        index, index + 1, displayed(square_frame(frame, px), matrix.of(frame))
                    )
                    used += 1
        if used < len(keys) and not noted and not sampling.is_all:  # as with fields for frames
            told = f"{used} of the {len(keys)} frames that were chosen are there; damaged?"
            yield Skipped(video.path, told, "frame" if used else "video")
        if found.cut:
            told = f"it ends {found.cut} bytes too early; an interrupted copy?"
            yield Skipped(video.path, told, "frame")
    except Exception as error:  # FFmpeg's errors are of many kinds, on bytes nobody vouches for
        known = isinstance(error, DataError)
        told = str(error) if known else f"{brief(error)}; no video, or one cut short?"
        if used:
            yield Skipped(video.path, f"what follows {used} used frames: {told}", "frame")
        else:
            yield Skipped(video.path, f"no readable video: {told}", "video")


Numbered = tuple[int, int, Any]
"""Position of a frame in the order of decoding, its time stamp or again the position, and the
frame, or the error in its place."""


def _numbered(container: Any, stream: Any, stamped: bool) -> Iterator[Numbered]:
    """Decoded frames; for each packet that cannot be decoded, the error."""
    index = key = 0
    for packet in container.demux(stream):
        try:
            frames = [(frame.pts, frame) for frame in packet.decode()]
        except Exception as error:  # FFmpeg's errors are of many kinds
            frames = [(packet.pts, error)]
        for stamp, frame in frames:
            if not stamped:
                key = index
            elif stamp is not None:
                key = stamp
            yield index, key, frame
            index += 1


def _chosen(frames: Iterator[Numbered], keys: NDArray[np.int64]) -> Iterator[Numbered]:
    """The first frame at or after each key; the others are decoded only to pass over them."""
    wanted = 0
    for index, key, frame in frames:
        if wanted == len(keys):
            return
        if key >= keys[wanted]:
            wanted = max(wanted + 1, int(np.searchsorted(keys, key, "right")))
            yield index, key, frame


def _noted(video: Video, frames: Iterator[Numbered]) -> Iterator[tuple[int, Any] | Skipped]:
    """Frames, and notes of those that cannot be decoded."""
    bad = 0
    for index, _, frame in frames:
        if not isinstance(frame, Exception):
            yield index, frame
            continue
        bad += 1
        if bad <= MAX_NOTED:
            yield Skipped(video.path, f"frame {index + 1}: {brief(frame)}; damaged?", "frame")
    if bad > MAX_NOTED:
        yield Skipped(video.path, f"{bad - MAX_NOTED} more frames are damaged", "frame")


def square_frame(frame: Any, px: int) -> NDArray[np.uint8]:
    """One PyAV frame as (px, px, 3) RGB, on white where it is transparent."""
    if frame.width * frame.height > MAX_PIXELS:
        raise DataError(f"a frame of {frame.width} x {frame.height} pixels")
    known = frame.format
    if known.has_palette or any(part.is_alpha for part in known.components):
        whole = eight_bit_rgb(Image.fromarray(frame.reformat(format="rgba").to_ndarray()))
        return np.asarray(whole.resize((px, px), Image.Resampling.BILINEAR))
    image: NDArray[np.uint8] = frame.reformat(
        px, px, format="rgb24", interpolation="BILINEAR"
    ).to_ndarray()
    return image


class _Display:
    """The display matrix of the frames of a stream.

    It is read where the rotation changes only: PyAV keeps a frame whose side data was asked for
    until Python looks for cycles, and these are large.
    """

    def __init__(self) -> None:
        self._rotation: int | None = None
        self._matrix: tuple[int, ...] = IDENTITY

    def of(self, frame: Any) -> tuple[int, ...]:
        """Nine numbers, those of the identity where the frame has none."""
        if frame.rotation != self._rotation:
            self._rotation = frame.rotation
            data = frame.side_data.get("DISPLAYMATRIX")
            self._matrix = struct.unpack("=9i", bytes(data)) if data else IDENTITY
        return self._matrix


def displayed(image: NDArray[np.uint8], matrix: tuple[int, ...]) -> NDArray[np.uint8]:
    """A square image as its display matrix says.

    Of a matrix (a, b, u, c, d, v, x, y, w) the pixel (p, q), counted to the right and down, is
    shown at (a p + c q, b p + d q) plus an offset. Sizes do not count: the image stays square.

    Args:
        image: (px, px, 3).
        matrix: nine numbers; all of a, b, c, d zero means nothing, as players take it.

    Raises:
        DataError: neither a quarter turn nor a mirrored one.

    Source:
        ISO/IEC 14496-12, 8.3.2 (track header) and 6.2.2.
    """
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    straight, crossed = sorted((abs(a), abs(d))), sorted((abs(b), abs(c)))
    if not straight[1] and not crossed[1]:
        return image
    if crossed[1] <= OFF_AXIS * straight[0]:
        right, down = a, d
    elif straight[1] <= OFF_AXIS * crossed[0]:
        image, right, down = image.swapaxes(0, 1), c, b
    else:
        raise DataError(f"its display matrix ({a}, {b}, {c}, {d}) is no quarter turn nor a mirror")
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1])
