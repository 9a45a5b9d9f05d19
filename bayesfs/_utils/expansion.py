"""How large a compressed chunk becomes, told without making it that large: `decoded_size`.

The libraries that decode chunks make whatever a chunk asks for. Its headers say how much that is
(Zstandard, Blosc, both held to it by their libraries), or it is decompressed piece by piece and
thrown away (gzip, zlib).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

from bayesfs.errors import DataError

ZSTD_BLOCK = 2**17
"""Bytes that a block of Zstandard becomes at most."""

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

PIECE = 2**20


def decoded_size(codec: str, data: bytes, most: int) -> int:
    """Bytes that a chunk becomes, or more where that is more than `most`.

    Args:
        codec: "zstd", "blosc", "gzip" or "zlib"; "" for none.
        data: the chunk.
        most: bytes beyond which it need not be known.

    Raises:
        DataError: its headers are no such codec's.

    Example:
        >>> decoded_size("zlib", zlib.compress(bytes(1000)), 5000)
        1000
    """
    return READERS[codec](data, most)


def _plain(data: bytes, most: int) -> int:
    return len(data)


def _blosc(data: bytes, most: int) -> int:
    """The second of its header's three sizes is that of the chunk decoded."""
    if len(data) < 16:
        raise DataError("a Blosc chunk without a whole header")
    return int.from_bytes(data[4:8], "little")


def _deflate(data: bytes, most: int) -> int:
    """Of gzip and zlib, with as many members as there are."""
    size = 0
    while data and size <= most:
        stream = zlib.decompressobj(wbits=47)  # tells gzip and zlib apart by their headers
        try:
            while data and not stream.eof and size <= most:
                size += len(stream.decompress(data, PIECE))
                data = stream.unconsumed_tail
        except zlib.error as error:
            raise DataError(f"a damaged chunk ({error})") from error
        data = stream.unused_data if stream.unused_data[:1] == b"\x1f" else b""
    return size


def _zstd(data: bytes, most: int) -> int:
    """Of all frames, from their headers and those of their blocks (RFC 8878, section 3.1)."""
    size = at = 0
    while at < len(data) and size <= most:
        if data[at : at + 4] != ZSTD_MAGIC or at + 5 >= len(data):
            raise DataError("no Zstandard frame where one should begin")
        told, at, checked = _zstd_header(data, at + 4)
        blocks, at = _zstd_blocks(data, at)
        size += min(blocks if told is None else told, most + 1)
        at += 4 * checked
    return size


def _zstd_header(data: bytes, at: int) -> tuple[int | None, int, bool]:
    """Size of the content if it is told, where the blocks begin, whether a checksum follows them.

    A decoder makes room for the size that is told, and refuses a frame that holds more.
    """
    told, single, words = data[at] >> 6, bool(data[at] & 0x20), data[at] & 3
    checked = bool(data[at] & 4)
    at += 1 + (not single) + (0, 1, 2, 4)[words]
    width = (1 if single else 0, 2, 4, 8)[told]
    size = int.from_bytes(data[at : at + width], "little") + (256 if told == 1 else 0)
    return (size if width else None), at + width, checked


def _zstd_blocks(data: bytes, at: int) -> tuple[int, int]:
    """Most bytes that the blocks of a frame become, and where they end."""
    size, last = 0, False
    while not last:
        header = int.from_bytes(data[at : at + 3], "little")
        last, kind, length = bool(header & 1), header >> 1 & 3, header >> 3
        if at + 3 > len(data) or kind == 3:
            raise DataError("a damaged Zstandard block")
        at += 3 + (1 if kind == 1 else length)
        size += ZSTD_BLOCK
    return size, at


READERS: Mapping[str, Callable[[bytes, int], int]] = {
    "": _plain,
    "blosc": _blosc,
    "gzip": _deflate,
    "zlib": _deflate,
    "zstd": _zstd,
}
"""Codec -> how its size is told."""
