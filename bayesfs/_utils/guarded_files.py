"""Read a file that nobody vouches for: of the right type, and no larger than it may be.

A pipe would be waited for without end, a device read without end, a huge file read into memory.
So each reader says what it takes at most, and nothing but a regular file is read: `read_bytes`,
`read_text` for small files, `opened` for others, `opened_npz` for archives of arrays. Where a file
that cannot be read is one of many and only its reason is noted, `read_bounded` and `open_regular`
raise nothing but `DataError`, without the path. Arrays that claim to become much larger than what
is stored of them are refused by `check_expansion`, strings that would pad all others by
`fixed_width`.
"""

from __future__ import annotations

import errno
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bayesfs.errors import DataError

SMALL = 2**24
"""Largest file of JSON or text that is read, in bytes; JSON may become twenty times as large."""

ARRAYS = 2**32
"""Most bytes of memory that the arrays of one file take."""

FREE = 2**28
"""Bytes that arrays may take whatever is stored of them."""

EXPANSION = 100
"""Beyond `FREE`, how many times larger than stored arrays may become: less is compression."""

COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""How entries of an archive may be compressed: others are decompressed in pieces of any size."""

WIDEST = 4096
"""Longest string in an array, in characters: a whole path on most systems."""

PADDING = 16
"""How many times larger strings of one width may be than they are by themselves."""

NOT_REGULAR = "not a regular file: a folder, a pipe or a device?"


@contextmanager
def opened(path: Path, most: int = ARRAYS) -> Iterator[BinaryIO]:
    """A regular file of at most so many bytes, open for reading.

    Args:
        path: of the file.
        most: bytes.

    Raises:
        DataError: a pipe, device, socket or folder, or a larger file.
        OSError: there is none, or it may not be read.
    """
    try:
        file = _regular(path)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    with file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise DataError(f"{path}: {size} bytes; expected at most {most}")
        yield file


def open_regular(path: Path) -> BinaryIO:
    """A regular file, open for reading, of whatever size.

    Raises:
        DataError: no regular file, or the operating system refuses.
    """
    try:
        return _regular(path)
    except DataError:
        raise
    except IsADirectoryError as error:
        raise DataError(NOT_REGULAR) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"cannot be read: {reason}") from error


def _regular(path: Path) -> BinaryIO:
    """A regular file, open for reading; looked at before and after, so that nothing else is."""
    flags = os.O_RDONLY  # elsewhere than on Windows, neither wait for a pipe nor take a terminal
    for name in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY"):
        flags |= getattr(os, name, 0)
    _expect_regular(os.stat(path), path)
    descriptor = os.open(path, flags)
    try:
        _expect_regular(os.fstat(descriptor), path)
        return os.fdopen(descriptor, "rb")
    except (DataError, OSError):
        os.close(descriptor)
        raise


def _expect_regular(status: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise DataError(NOT_REGULAR)


def read_bytes(path: Path, most: int = SMALL) -> bytes:
    """A whole regular file.

    Raises:
        DataError: as `opened`; also where it holds more than it says.
        OSError: there is none, or it may not be read.
    """
    with opened(path, most) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise DataError(f"{path}: expected at most {most} bytes")
    return data


def read_bounded(path: Path, most: int) -> bytes:
    """A whole regular file that is not empty.

    Raises:
        DataError: no regular file, empty, too large, or the operating system refuses.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise DataError("an empty file (0 bytes); an interrupted copy?")
        if size > most:
            raise DataError(f"a file of {size} bytes; expected at most {most}")
        try:
            return file.read(most)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}") from error


def read_text(path: Path, most: int = SMALL) -> str:
    """A whole regular file of UTF-8 text; line ends become newlines.

    Raises:
        DataError: as `read_bytes`.
        UnicodeDecodeError: it is no UTF-8.
        OSError: there is none, or it may not be read.
    """
    return read_bytes(path, most).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


@contextmanager
def opened_npz(path: Path, most: int = ARRAYS) -> Iterator[Any]:
    """The arrays of an npz archive, none of them of Python objects.

    Args:
        path: of the archive.
        most: bytes that all arrays together take at most.

    Raises:
        DataError: no archive, or one that would become too large.
        Exception: of many kinds, of zipfile, zlib and NumPy, where it is damaged.
    """
    with opened(path, most) as file:
        if file.read(4) not in (b"PK\x03\x04", b"PK\x05\x06"):
            raise DataError(f"{path}: no npz archive")
        stored = file.seek(0, os.SEEK_END)
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            if any(e.compress_type not in COMPRESSIONS for e in archive.zip.infolist()):
                raise DataError(f"{path}: compressed otherwise than bayesfs and NumPy do")
            check_expansion(sum(e.file_size for e in archive.zip.infolist()), stored, most)
            yield archive


@contextmanager
def kept_npz(path: Path, what: str, most: int = ARRAYS) -> Iterator[Any]:
    """The arrays of an archive that bayesfs wrote; whatever fails while they are read names it.

    Args:
        path: of the archive.
        what: it is not, where it cannot be read, such as "no population that bayesfs wrote".
        most: bytes that all arrays together take at most.

    Raises:
        DataError: no such file, a large or damaged one, or one of something else.
    """
    with naming_file(path, what), opened_npz(path, most) as archive:
        yield archive


@contextmanager
def naming_file(path: Path, what: str) -> Iterator[None]:
    """Whatever fails inside, while a file is read, names it.

    Args:
        path: of the file.
        what: it is not, where it cannot be read.

    Raises:
        DataError: no such file, a large or damaged one, or one of something else.
    """
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as e:  # a damaged archive fails in zipfile, zlib, NumPy and json in many ways
        raise DataError(f"{path}: {what}, or cut short ({e})") from e


def check_expansion(claimed: int, stored: int, most: int = ARRAYS) -> None:
    """Refuse arrays that would take far more memory than what is stored of them.

    Args:
        claimed: bytes that they take.
        stored: bytes of the files that they are in.
        most: bytes that they may take at most.

    Raises:
        DataError: they would.
    """
    if claimed > most or claimed > max(FREE, EXPANSION * stored):
        raise DataError(
            f"{stored} bytes would become {claimed} bytes of memory; expected at most {most}, and "
            f"no more than {EXPANSION} times what is stored"
        )


def fixed_width(values: NDArray[Any]) -> NDArray[np.str_]:
    """Strings of variable length in numpy's fixed width.

    Raises:
        DataError: one is so long that the others would be padded without bound.
    """
    texts = [str(v) for v in values.ravel().tolist()]
    sizes = [len(t) for t in texts]
    longest = max(sizes, default=0)
    if longest > WIDEST or 4 * len(texts) * longest > max(FREE, 4 * PADDING * sum(sizes)):
        raise DataError(
            f"a string of {longest} characters among {len(texts)}; expected names of at most "
            f"{WIDEST}, of similar length"
        )
    return np.array(texts, np.str_).reshape(values.shape)
