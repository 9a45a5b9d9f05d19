"""Frames of one source as they arrive, of a file, a folder of frames or a camera: `stream`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from bayesfs.data.sources.folder import recording
from bayesfs.data.sources.video import Skipped
from bayesfs.errors import DataError
from bayesfs.features.decoding.containers import pyav
from bayesfs.features.decoding.sampling import Sampling
from bayesfs.features.decoding.video import Frame, decode, square_frame

CAMERAS = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}"),
    "win32": ("dshow", "video={}"),
}
"""Operating system -> FFmpeg's input of its cameras, and how the one of a number is called."""


def stream(source: str, px: int, sampling: Sampling | None = None) -> Iterator[Frame | Skipped]:
    """Frames, px by px, one after the other; a camera's come as long as they are asked for.

    Args:
        source: a video file, a folder of frames, a photograph, or the number of a camera.
        px: side of the frames in pixels.
        sampling: which frames of a recording; all of them by default.

    Raises:
        DataError: there is no such recording or camera, or PyAV is not installed.
    """
    if source.isdecimal():
        return _of_camera(*camera(int(source)), px)
    return decode(recording(Path(source)), px, sampling)


def camera(number: int, system: str = sys.platform) -> tuple[str, str]:
    """What FFmpeg calls a camera: its address, and the format of it.

    Raises:
        DataError: cameras of this system are not known.
    """
    if system not in CAMERAS:
        raise DataError(f"cameras are read on {', '.join(CAMERAS)}, not on {system!r}; give a file")
    kind, address = CAMERAS[system]
    return address.format(number), kind


def _of_camera(address: str, kind: str, px: int) -> Iterator[Frame]:
    """Frames of an open camera, which is closed when nobody asks any more."""
    try:
        opened = pyav(Path(address)).open(address, format=kind)
    except DataError:
        raise
    except Exception as error:  # FFmpeg's errors are of many kinds
        raise DataError(
            f"camera {address!r} cannot be opened ({error}); is it connected, free and allowed?"
        ) from error
    with opened as container:
        for index, frame in enumerate(container.decode(video=0)):
            yield Frame(index, index + 1, square_frame(frame, px))
