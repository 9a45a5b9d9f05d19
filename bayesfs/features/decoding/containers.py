"""Open video files that nobody vouches for, in bounded time and memory: `opened_video`, `survey`.

FFmpeg believes what a file says of itself: an MP4 of 600 bytes that promises a hundred million
samples takes 3.5 GB before the first of them is asked for. So the tables of an MP4 are looked
through first (`bayesfs.features.decoding.boxes`), then the packets are counted, which needs no
decoding, and only then is anything decoded.
"""

from __future__ import annotations

import importlib
import math
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesfs._utils.guarded_files import open_regular
from bayesfs.errors import DataError
from bayesfs.features.decoding.boxes import FIRST_BOXES, check_boxes
from bayesfs.features.decoding.pictures import content_kind, scan_count

FRAME_RATE = 30.0
"""Frames per second assumed for a folder of frames (ORBIT's), or where a file does not say."""

MOVIES = "mov,mp4,m4a,3gp,3g2,mj2"
OTHERS = "matroska,webm,avi,mpegts,mpeg,mpegvideo,gif,ogg,asf,flv"
"""FFmpeg demultiplexers that may open a file that begins with a box of MP4, and any other file;
playlists, which open other files, may not."""

MAX_PIXELS = 2**25
"""Largest frame of a video, in pixels: 8K has 33.2 million."""

MAX_FRAMES = 2**22
"""Frames of a video file at most: 38 hours at 30 a second."""

FREE_PIXELS = 2**31
PIXELS_PER_BYTE = 10**6
"""Pixels of all frames (times the scans of each, in JPEG) that any file may decode to, and for each
of its bytes: a recording of a screen on which nothing moves has about 100,000 a byte."""

READ_AGAIN = 4
"""Times its size that a file's packets may have in all: packets may share bytes, but rarely do."""

_HIDDEN = 0x400 | 0x800  # FFmpeg's dispositions attached_pic and timed_thumbnails
_DEFAULT = 0x1
_SHOWN = 0x10
"""Bit in the first byte of a VP8 frame that is shown, not only referred to (RFC 6386, 9.1)."""


@dataclass(frozen=True, eq=False)
class Survey:
    """The frames of a video file, found without decoding any.

    Attributes:
        stamps: (frame,) time stamps in order, in units of the stream; or 0, 1, ... where the file
            has none that can be believed.
        unit: seconds of one unit.
        stamped: whether `stamps` are time stamps.
        cut: bytes that a file of boxes should have beyond its end.
    """

    stamps: NDArray[np.int64]
    unit: float
    stamped: bool
    cut: int = 0

    @property
    def seconds(self) -> NDArray[np.float64]:
        """(frame,) times."""
        return np.asarray(self.stamps * self.unit, np.float64)


def pyav(path: Path) -> Any:
    """PyAV.

    Raises:
        DataError: the extra `video` is not installed.
    """
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise DataError(
            f"{str(path)!r} is a video file, which needs PyAV: pip install 'bayesfs[video]'; "
            "or give folders of frames instead"
        ) from error


@contextmanager
def opened_video(path: Path) -> Iterator[tuple[Any, Any]]:
    """A video file and its stream of moving pictures, with the decoder's limits set.

    Raises:
        DataError: no regular file, empty, another kind of file under this name, or without moving
            pictures; or it promises more than it can hold.
        Exception: FFmpeg cannot read it; its errors are of many kinds.
    """
    av = pyav(path)
    with open_regular(path) as file:
        head = file.read(32)
    if not head:
        raise DataError("an empty file (0 bytes); an interrupted copy?")
    kind = content_kind(head)
    if kind not in (None, "a GIF picture") and not str(kind).endswith("video"):
        raise DataError(f"expected a video, but this is {kind}")
    is_movie = head[4:8] in FIRST_BOXES
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": MOVIES if is_movie else OTHERS,
        "max_pixels": str(MAX_PIXELS),
    }
    if is_movie:
        check_boxes(path)
    old = int(av.__version__.partition(".")[0]) < 19  # later ones never fail on metadata
    lenient = {"metadata_errors": "ignore"} if old else {}
    with av.open(str(path), options=options, **lenient) as container:
        yield container, _moving_pictures(container)


def survey(path: Path) -> Survey:
    """Count the frames of a video file and read their time stamps; the last few are kept.

    Raises:
        DataError, Exception: as `opened_video`; or more packets, bytes or pixels than are decoded.
    """
    status = path.stat()
    return _survey(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=16)
def _survey(path: Path, size: int, _: int) -> Survey:
    shown, ordered, passes = array("q"), True, 0
    with opened_video(path) as (container, stream):
        read, last = 0, -math.inf
        is_jpeg, is_vp8 = (part in stream.codec_context.name for part in ("jpeg", "vp8"))
        for packets, packet in enumerate(_packets(container, stream), 1):
            read += packet.size
            if packets > MAX_FRAMES or read > READ_AGAIN * size:
                raise DataError(
                    f"more than {packets - 1} packets of {read} bytes in a file of {size} bytes; "
                    "damaged, or a bomb?"
                )
            if not packet.size or packet.is_discard:  # cut off by the file's own list of edits
                continue
            if is_vp8 and not bytes(packet)[0] & _SHOWN:
                continue
            # Matroska keeps no dts, and FFmpeg knows none of the first frames where some are early
            ordered &= packet.pts is not None and (packet.dts is None or packet.dts >= last)
            last = packet.dts if packet.dts is not None else last
            shown.append(packet.pts if packet.pts is not None else 0)
            passes += max(1, scan_count(bytes(packet)) if is_jpeg else 1)
        _check_pixels(passes * _pixels(stream), size)
        stamps = np.sort(np.frombuffer(shown, np.int64))
        is_movie = container.format.name == MOVIES
        cut = check_boxes(path) if is_movie else 0
        has_stamps = container.format.name != "avi"  # its packets have an order only
        if has_stamps and ordered and (np.diff(stamps) > 0).all():
            return Survey(stamps, float(stream.time_base), True, cut)
        rate = float(stream.average_rate or 0)
        unit = 1 / rate if math.isfinite(rate) and rate > 0 else 1 / FRAME_RATE
        return Survey(np.arange(len(shown)), unit, False, cut)


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """Packets up to the end, or up to where they cannot be read: `decode` will say which."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except Exception:  # FFmpeg's errors are of many kinds
            return
        if packet is None:
            return
        yield packet


def _check_pixels(pixels: int, size: int) -> None:
    if pixels > max(FREE_PIXELS, PIXELS_PER_BYTE * size):
        raise DataError(
            f"{size} bytes that decode to {pixels} pixels; expected at most {PIXELS_PER_BYTE} a "
            "byte; a bomb?"
        )


def _moving_pictures(container: Any) -> Any:
    """The stream to decode, of those that are no cover: a default one, and of these the largest.

    Raises:
        DataError: there is none; or its frames are too large, or have transparency that FFmpeg's
            own decoder leaves out.
    """
    kinds = {stream: stream.disposition.value for stream in container.streams.video}
    moving = [stream for stream, kind in kinds.items() if not kind & _HIDDEN]
    if not moving:
        sound = " beside the sound" if container.streams.audio else ""
        covers = f"a cover picture{sound}, but no moving pictures" if kinds else ""
        heard = "sound only, no pictures" if container.streams.audio else "no pictures in it"
        raise DataError(f"{covers or heard}; a sound recording?")
    stream = max(moving, key=lambda s: (kinds[s] & _DEFAULT, _pixels(s)))  # the first of equal ones
    if not 0 < _pixels(stream) <= MAX_PIXELS:
        raise DataError(f"frames of no size, or of more than {MAX_PIXELS} pixels")
    if stream.metadata.get("alpha_mode") == "1":
        raise DataError("transparent frames in VP8 or VP9, which are not decoded; convert it")
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    # one frame at a time where frames are large: each thread would hold some of its own
    stream.thread_type = "AUTO" if _pixels(stream) <= MAX_PIXELS // 4 else "SLICE"
    return stream


def _pixels(stream: Any) -> int:
    return int(stream.codec_context.width * stream.codec_context.height)
