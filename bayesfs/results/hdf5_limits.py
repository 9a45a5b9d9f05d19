"""What HDF5 datasets become in memory, told before they are read: `claimed_bytes`."""

from __future__ import annotations

import math

import h5py
import numpy as np

from bayesfs._utils.expansion import decoded_size
from bayesfs._utils.guarded_files import FREE, WIDEST
from bayesfs.errors import DataError

FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
"""Filters that come with HDF5 itself; another would be looked for among plugins, which are code."""

TYPES = "biufS"
"""Kinds of numpy types, besides strings of variable length."""

MAX_CHUNK = 2**28


def claimed_bytes(data: h5py.Dataset, stored: int) -> int:
    """Bytes that a dataset becomes, once it is sure that reading it takes no more.

    Args:
        data: the dataset.
        stored: bytes of its file.

    Raises:
        DataError: a type or filter that bayesfs does not write, a chunk that becomes larger than it
            may, or a string longer than any name.
    """
    plist = data.id.get_create_plist()
    filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    text = h5py.check_string_dtype(data.dtype)
    if not set(filters) <= FILTERS or (text is None and data.dtype.kind not in TYPES):
        raise DataError(
            f"{data.name!r}: type {data.dtype} with filters {filters}, which bayesfs never writes"
        )
    claimed = int(math.prod(data.shape)) * int(data.dtype.itemsize)
    if data.chunks is not None:
        _check_chunks(data, h5py.h5z.FILTER_DEFLATE in filters)
    if text is not None and text.length is None and claimed <= FREE:
        claimed += _text_bytes(data, stored)
    return claimed


def _check_chunks(data: h5py.Dataset, deflated: bool) -> None:
    most = math.prod(data.chunks) * data.dtype.itemsize + 4  # and a checksum
    if most > MAX_CHUNK:
        raise DataError(f"{data.name!r}: chunks of {most} bytes; expected at most {MAX_CHUNK}")
    for index in range(data.id.get_num_chunks() if deflated else 0):
        chunk = data.id.get_chunk_info(index)
        _, raw = data.id.read_direct_chunk(chunk.chunk_offset)
        if decoded_size("zlib", raw, most) > most:
            raise DataError(f"{data.name!r}: a chunk that becomes larger than {most} bytes")


def _text_bytes(data: h5py.Dataset, stored: int) -> int:
    """Bytes of all strings, read a few at a time: many may stand for the same long one."""
    held, step = 0, max(1, FREE // max(stored, 1))
    rows = data.shape[-1] if data.shape else 1
    for at in np.ndindex(data.shape[:-1]):
        for start in range(0, rows, step):
            part = np.ravel(data[(*at, slice(start, start + step))] if data.shape else data[()])
            sizes = [len(text) for text in part.tolist()]
            held += sum(sizes)
            if held > FREE or max(sizes, default=0) > 4 * WIDEST:
                raise DataError(f"{data.name!r}: strings of {held} bytes, longer than any name")
    return held
