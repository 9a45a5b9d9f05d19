"""What HDF5 datasets and attributes become in memory, told before a library reads them.

Use `claimed_bytes` for datasets, `attribute_bytes` for attributes.
"""

from __future__ import annotations

import math
from typing import Any

import h5py
import numpy as np

from bayesfs._utils.expansion import decoded_size
from bayesfs._utils.guarded_files import FREE, WIDEST, check_expansion
from bayesfs.errors import DataError

FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
"""Filters that come with HDF5 itself; another would be looked for among plugins, which are code."""

TYPES = "biufS"
"""Kinds of numpy types, besides strings of variable length."""

MAX_CHUNK = 2**28

MOST_ELEMENTS = 32
"""Elements of variable length in an attribute at most; netCDF has one for each axis of a variable.

All of them may be the same long one, and an attribute is read as a whole.
"""


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
    known = set(filters) <= FILTERS and len(set(filters)) == len(filters)  # each once
    if not known or (text is None and data.dtype.kind not in TYPES):
        raise DataError(
            f"{data.name!r}: type {data.dtype} with filters {filters}, which bayesfs never writes"
        )
    claimed = int(math.prod(data.shape)) * int(data.dtype.itemsize)
    if data.chunks is not None:
        whole = math.prod(data.chunks) * data.dtype.itemsize
        claimed = max(claimed, data.id.get_num_chunks() * whole)  # which may reach beyond the data
        check_expansion(claimed, stored)
        _check_chunks(data, h5py.h5z.FILTER_DEFLATE in filters)
    if text is not None and text.length is None and claimed <= FREE:
        claimed += _text_bytes(data, stored)
    return claimed


def attribute_bytes(item: h5py.Group | h5py.Dataset) -> int:
    """Bytes of all attributes of a group or dataset, read one by one.

    Raises:
        DataError: one of many elements of variable length, or more than `FREE` bytes in all.
    """
    held = 0
    for name in item.attrs:
        attribute = item.attrs.get_id(name)
        count = math.prod(attribute.shape)
        if _is_variable(attribute.dtype):
            if count > MOST_ELEMENTS or attribute.dtype.names:
                raise DataError(f"{item.name!r}: {name!r} of {count} elements of any length")
            held += _length(item.attrs[name])
        else:
            held += count * attribute.dtype.itemsize
        if held > FREE:
            raise DataError(f"{item.name!r}: attributes of more than {FREE} bytes")
    return held


def _is_variable(dtype: np.dtype[Any]) -> bool:
    """Whether elements, or parts of them, are of variable length."""
    if dtype.names:
        return any(_is_variable(dtype[name]) for name in dtype.names)
    if dtype.subdtype is not None:
        return _is_variable(dtype.subdtype[0])
    text = h5py.check_string_dtype(dtype)
    return h5py.check_vlen_dtype(dtype) is not None or (text is not None and text.length is None)


def _length(value: Any) -> int:
    """Bytes, about, of text or of arrays of it."""
    if isinstance(value, np.ndarray):
        inner = value.ravel().tolist() if value.dtype.kind == "O" else ()
        return value.nbytes + sum(map(_length, inner))
    return len(value) if isinstance(value, str | bytes) else 8


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
