"""Decode recordings to small square RGB frames, one at a time: `decode`.

A folder of images is read with Pillow, a video file with PyAV (extra `video`). Frames are squeezed
to px by px, so that nothing at the border is lost; EXIF and display rotation are applied. Memory
is bounded by one full-size frame. Whatever cannot be decoded becomes a `Skipped`, never an error.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from bayesfs.data.videos import Skipped, Video
from bayesfs.errors import DataError

MAX_PIXELS = 50_000_000
"""Largest frame that is decoded, in pixels: more is taken for a decompression bomb."""

FRAME_RATE = 30.0
"""Frames per second assumed for a folder of frames (ORBIT's), or where a file does not say."""

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo"
"""FFmpeg demultiplexers that may open a file; playlists, which open other files, may not."""


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


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video to use; all of them by default.

    Attributes:
        every: use every n-th frame.
        fps: use about so many frames a second instead.
        max_frames: use at most so many, spread evenly over the video.

    Raises:
        DataError: a value is not positive, or both `every` and `fps` are given.
    """

    every: int = 1
    fps: float | None = None
    max_frames: int | None = None

    def __post_init__(self) -> None:
        given = (x for x in (self.every, self.fps, self.max_frames) if x is not None)
        if not all(x > 0 for x in given) or (self.fps is not None and self.every > 1):
            raise DataError(f"expected positive values, and every or fps but not both, got {self}")

    def plan(self, frames: int, rate: float) -> tuple[float, int]:
        """Step between used frames, and how many are used, of a video of that length and rate."""
        step = float(self.every) if self.fps is None else max(1.0, rate / self.fps)
        if self.max_frames is not None:
            step = max(step, frames / self.max_frames)
        used = math.ceil(frames / step)
        return step, used if self.max_frames is None else min(used, self.max_frames)


def decode(video: Video, px: int, sampling: Sampling | None = None) -> Iterator[Frame | Skipped]:
    """Frames of a video in order of time, each px by px.

    Args:
        video: a folder of frames or a video file.
        px: side of the frames in pixels.
        sampling: which frames; all of them by default.

    Yields:
        A Frame, or a Skipped that names the file and the likely cause.

    Raises:
        DataError: a video file, but the extra `video` is not installed.
    """
    chosen = sampling or Sampling()
    return _decode_file(video, px, chosen) if video.is_file else _decode_folder(video, px, chosen)


def frame_count(video: Video, sampling: Sampling | None = None) -> int:
    """How many frames `decode` will give: exact for folders, from the header for files.

    Raises:
        DataError: a video file, but the extra `video` is not installed.
    """
    chosen = sampling or Sampling()
    if not video.is_file:
        return chosen.plan(len(video.files), FRAME_RATE)[1]
    try:
        with _open(video.location) as container:
            return chosen.plan(*_length(container, video.location))[1]
    except DataError:
        raise
    except Exception:  # FFmpeg's many kinds; `decode` will say which
        return 0


def read_image(path: Path, px: int) -> NDArray[np.uint8]:
    """(px, px, 3) uint8 RGB of a JPEG or PNG file.

    Raises:
        DataError: no complete JPEG or PNG, or more than MAX_PIXELS.
    """
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as opened:
            if math.prod(opened.size) > MAX_PIXELS:
                raise DataError(f"{opened.size} pixels; expected at most {MAX_PIXELS} in all")
            opened.draft("RGB", (px, px))  # decode a large JPEG at the lowest scale that has px
            image = ImageOps.exif_transpose(opened).convert("RGB")
            return np.asarray(image.resize((px, px), Image.Resampling.BILINEAR, reducing_gap=2.0))
    except DataError:
        raise
    except Exception as error:  # Pillow raises many kinds on bytes that nobody vouches for
        raise DataError(f"corrupt or truncated image ({_brief(error)})") from error


def _decode_folder(video: Video, px: int, sampling: Sampling) -> Iterator[Frame | Skipped]:
    step, used = sampling.plan(len(video.files), FRAME_RATE)
    for index in (math.ceil(k * step) for k in range(used)):
        if index >= len(video.files):
            return
        name = video.files[index]
        try:
            image = read_image(video.location / name, px)
        except DataError as error:
            yield Skipped(f"{video.path}/{name}", str(error), "frame")
        else:
            yield Frame(index, int(video.numbers[index]), image)


def _decode_file(video: Video, px: int, sampling: Sampling) -> Iterator[Frame | Skipped]:
    try:
        with _open(video.location) as container:
            step, used = sampling.plan(*_length(container, video.location))
            limit = used if sampling.max_frames is not None else None
            wanted = (math.ceil(k * step) for k in (range(limit) if limit else count()))
            yield from _chosen(video, container, px, wanted)
    except DataError:
        raise
    except Exception as error:  # FFmpeg's errors are of many kinds, on bytes nobody vouches for
        yield Skipped(video.path, f"no readable video ({_brief(error)}); truncated?", "video")


def _chosen(
    video: Video, container: Any, px: int, wanted: Iterator[int]
) -> Iterator[Frame | Skipped]:
    """The wanted frames of an open file, decoding each of the others only to pass over it."""
    position = next(wanted, None)
    for index, frame in enumerate(_frames(container)):
        if position is None:
            return
        if index < position:
            continue
        position = next(wanted, None)
        if isinstance(frame, Exception):
            yield Skipped(video.path, f"frame {index + 1}: {_brief(frame)}; damaged?", "frame")
        else:
            yield Frame(index, index + 1, _square(frame, px))


def _frames(container: Any) -> Iterator[Any]:
    """Decoded frames; for each packet that cannot be decoded, the error."""
    stream = container.streams.video[0]
    size = stream.codec_context.width * stream.codec_context.height
    if not 0 < size <= MAX_PIXELS:
        raise ValueError(f"frames of {size} pixels; expected at most {MAX_PIXELS}")
    stream.thread_type = "AUTO"
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except Exception as error:  # FFmpeg's errors are of many kinds
            yield error


def _square(frame: Any, px: int) -> NDArray[np.uint8]:
    """One PyAV frame as (px, px, 3) RGB, turned as its display matrix says."""
    if frame.width * frame.height > MAX_PIXELS:
        raise ValueError(f"a frame of {frame.width} x {frame.height} pixels")
    image = frame.reformat(px, px, format="rgb24", interpolation="BILINEAR").to_ndarray()
    turns = round(getattr(frame, "rotation", 0) / 90) % 4  # anticlockwise
    return np.ascontiguousarray(np.rot90(image, turns))


def _length(container: Any, path: Path) -> tuple[int, float]:
    """Number of frames by the header (at most one a byte), and frames per second."""
    stream = container.streams.video[0]
    rate = float(stream.average_rate or FRAME_RATE)
    seconds = float(stream.duration * stream.time_base) if stream.duration else 0.0
    if not seconds and container.duration:
        seconds = container.duration / 1e6
    frames = stream.frames or round(seconds * rate) or 1
    return max(1, min(frames, path.stat().st_size)), rate


def _open(path: Path) -> AbstractContextManager[Any]:
    try:
        av = importlib.import_module("av")
    except ImportError as error:
        raise DataError(
            f"{str(path)!r} is a video file, which needs PyAV: pip install 'bayesfs[video]'; "
            "or give folders of frames instead"
        ) from error
    safe = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    old = int(av.__version__.partition(".")[0]) < 19  # later ones never fail on metadata
    lenient = {"metadata_errors": "ignore"} if old else {}
    opened: AbstractContextManager[Any] = av.open(str(path), options=safe, **lenient)
    return opened


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split())[:100] or type(error).__name__
    return text.encode(errors="backslashreplace").decode()
