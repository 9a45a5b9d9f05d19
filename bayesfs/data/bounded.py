"""Read files that nobody vouches for: `read_bounded`, `open_regular`.

A pipe is never waited for and a device never read: only a regular file is opened, and of that no
more than the caller allows.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from bayesfs.errors import DataError


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a regular file.

    Args:
        path: the file.
        limit: largest size in bytes that is read.

    Raises:
        DataError: no regular file, empty, too large, or the operating system refuses.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise DataError("an empty file (0 bytes); an interrupted copy?")
        if size > limit:
            raise DataError(f"a file of {size} bytes; expected at most {limit}")
        try:
            return file.read(limit)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}") from error


def open_regular(path: Path) -> BinaryIO:
    """A regular file, opened to be read; looked at before and after, so that nothing else is.

    Raises:
        DataError: no regular file, or the operating system refuses.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        _expect_regular(os.stat(path))
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"cannot be read: {reason}") from error
    try:
        _expect_regular(os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except DataError:
        os.close(descriptor)
        raise


def _expect_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise DataError("not a regular file: a folder, a pipe or a device?")
