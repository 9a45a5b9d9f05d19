"""What a Zarr folder asks for, held against lists before anything is decoded: `check_listed`.

A Zarr array names the codecs that decode it, and any installed library can offer some: one of them
unpickles, which runs code. So every `zarr.json` or `.zarray` is read as plain JSON first, and what
is not on the lists below is refused by its name, and so are links and chunks that would become
larger than they may. The folder is opened afterwards, without the collected metadata of its group,
which nobody has checked.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numcodecs
import numpy as np
import zarr

from bayesfs._utils.expansion import decoded_size
from bayesfs._utils.guarded_files import SMALL, check_expansion, opened, read_bytes
from bayesfs.errors import DataError

NUMBERS = {
    "bool": 1,
    **{f"{sign}int{8 * n}": n for sign in ("", "u") for n in (1, 2, 4, 8)},
    **{f"float{8 * n}": n for n in (2, 4, 8)},
}
"""Zarr 3 type -> bytes of an element."""

NUMBERS_V2 = re.compile(r"[<>|](b1|[iu][1248]|f[248])")
TEXT_V2 = re.compile(r"[<>]U([1-9]\d{0,3})")

COMPRESSORS = ("zstd", "blosc", "gzip", "zlib")

MAX_CHUNK = 2**28
"""Bytes of a chunk at most, as it is stored and as it is decoded."""

DEEPEST = 8
"""Groups within groups."""

POINTER = 16
"""Bytes that are counted for a string of variable length, besides its text."""


@dataclass(frozen=True)
class Layout:
    """What an array's metadata ask for, all of it on the lists.

    Attributes:
        shape: sizes of its axes.
        chunk: sizes of a chunk.
        element: bytes of an element; None for strings of variable length.
        codec: its compressor, "" for none.
        checksum: bytes of checksum at the end of a chunk.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    element: int | None
    codec: str
    checksum: int


def open_listed(path: Path) -> zarr.Group:
    """A group whose arrays are all checked before anything is decoded: a codec is code.

    Raises:
        DataError: as `check_listed`.
        Exception: of many kinds, where the folder is damaged.
    """
    version = check_listed(path)
    return zarr.open_group(path, mode="r", zarr_format=version, use_consolidated=False)


def bytes_of(arrays: Iterable[Any]) -> int:
    """Memory that arrays take when they are read."""
    return sum(int(np.prod(a.shape)) * a.dtype.itemsize for a in arrays)


def check_listed(path: Path) -> Literal[2, 3]:
    """Check every array below a folder.

    Returns:
        The version of Zarr, with which the folder is to be opened.

    Raises:
        DataError: a type, codec or layout that is not on the lists, a link, or a chunk or array
            that becomes too large.
    """
    version: Literal[2, 3] = 3 if (path / "zarr.json").exists() else 2
    claimed = stored = 0
    for place, meta in _arrays(path, version, DEEPEST):
        layout = _layout_v3(meta) if version == 3 else _layout_v2(meta)
        if layout is None or not _is_plausible(layout):
            asked = {k: meta.get(k) for k in ("data_type", "codecs", "dtype", "filters")}
            raise DataError(
                f"{place.name!r}: a type, codec or layout that is never read, since a codec can "
                "unpickle: "
                f"{str({k: v for k, v in asked.items() if v is not None})[:200]}"
            )
        cells = (-(-n // c) * c for n, c in zip(layout.shape, layout.chunk, strict=True))
        claimed += math.prod(cells) * (
            layout.element or POINTER
        )  # of chunks: they are decoded whole
        stored += _check_chunks(place, layout)
    check_expansion(claimed, stored)
    return version


def _arrays(path: Path, version: int, depth: int) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folders of arrays with their metadata, as they stand in their own files."""
    own = path / ("zarr.json" if version == 3 else ".zarray")
    if version == 3 or own.exists():
        meta = metadata(own)
        if version == 2 or meta.get("node_type") == "array":
            yield path, meta
            return
    if depth == 0:
        raise DataError(f"{path.name!r}: groups within groups, more than {DEEPEST} deep")
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.is_symlink():
                raise DataError(f"{entry.name!r}: a link to another place, which is never followed")
            if entry.is_dir(follow_symlinks=False):
                yield from _arrays(Path(entry.path), version, depth - 1)
            else:
                with opened(Path(entry.path), SMALL):
                    pass  # attributes, which are read by name: no pipe, and not too large


def metadata(file: Path) -> dict[str, Any]:
    """The table in a file of metadata.

    Raises:
        DataError: it is missing, a link, too large, or no table of JSON.
    """
    name = f"{file.parent.name}/{file.name}"
    if file.is_symlink():
        raise DataError(f"{name}: a link to another place, which is never followed")
    try:
        meta = json.loads(read_bytes(file))
    except OSError as error:
        raise DataError(f"{name} is missing or cannot be read; half-copied?") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is no JSON; truncated?") from error
    if not isinstance(meta, dict):
        raise DataError(f"{name}: expected a table")
    return meta


def _layout_v3(meta: dict[str, Any]) -> Layout | None:
    """Layout of a Zarr 3 array, None for what is not listed."""
    try:
        kind, names = meta["data_type"], [codec["name"] for codec in meta["codecs"]]
        grid, key = meta["chunk_grid"], meta["chunk_key_encoding"]
        shape, chunk = _sizes(meta["shape"]), _sizes(grid["configuration"]["chunk_shape"])
        plain = grid["name"] == "regular" and key["name"] in ("default", "v2")
        if isinstance(kind, dict) and kind["name"] == "fixed_length_utf32":
            element: int | None = int(kind["configuration"]["length_bytes"])
        else:
            element = None if kind == "string" else NUMBERS[kind]
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    first, rest = names[:1], [n for n in names[1:] if n != "crc32c"]
    rightly = first == (["vlen-utf8"] if element is None else ["bytes"]) and len(rest) <= 1
    if not plain or not rightly or not set(rest) <= set(COMPRESSORS):
        return None
    if meta.get("storage_transformers"):
        return None
    return Layout(shape, chunk, element, "".join(rest), 4 * names.count("crc32c"))


def _layout_v2(meta: dict[str, Any]) -> Layout | None:
    """Layout of a Zarr 2 array, None for what is not listed."""
    try:
        kind, shape, chunk = str(meta["dtype"]), _sizes(meta["shape"]), _sizes(meta["chunks"])
        filters, compressor = meta.get("filters") or [], meta.get("compressor")
        names = [f["id"] for f in filters]
        codec = "" if compressor is None else str(compressor["id"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    text = TEXT_V2.fullmatch(kind)
    number = NUMBERS_V2.fullmatch(kind)
    element = 4 * int(text[1]) if text else int(number[1][1:]) if number else None
    if element is None and (kind != "|O" or names != ["vlen-utf8"]):
        return None
    if (element is not None and names) or codec not in ("", *COMPRESSORS):
        return None
    return Layout(shape, chunk, element, codec, 0)


def _sizes(values: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in values)


def _is_plausible(layout: Layout) -> bool:
    """Whether the sizes are some, and none of them beyond all bounds."""
    sizes = (*layout.shape, *layout.chunk)
    return (
        len(layout.shape) == len(layout.chunk)
        and min(layout.shape, default=0) >= 0
        and min(layout.chunk, default=1) >= 1
        and max(sizes, default=0) < 2**63
        and 0 < (layout.element or 1) <= MAX_CHUNK
        and math.prod(layout.chunk) * (layout.element or 1) <= MAX_CHUNK
    )


def _check_chunks(path: Path, layout: Layout) -> int:
    """Bytes of all chunks of an array, each of which becomes no larger than it may."""
    whole = math.prod(layout.chunk) * layout.element if layout.element else MAX_CHUNK
    most = whole + layout.checksum
    stored = 0
    for folder, folders, names in os.walk(path):
        for name in (*folders, *names):
            if os.path.islink(os.path.join(folder, name)):
                raise DataError(f"{name!r}: a link to another place, which is never followed")
        for name in names:
            data = read_bytes(Path(folder, name), MAX_CHUNK)
            if name in ("zarr.json", ".zarray", ".zattrs"):
                continue
            bare = data[: len(data) - layout.checksum] if layout.codec else data
            if decoded_size(layout.codec, bare, most) > most:
                raise DataError(f"{path.name!r}: a chunk that becomes larger than {most} bytes")
            if layout.element is None and _strings(layout.codec, bare) > math.prod(layout.chunk):
                raise DataError(f"{path.name!r}: a chunk of more strings than its array has")
            stored += len(data)
    return stored


def _strings(codec: str, chunk: bytes) -> int:
    """How many strings a chunk of variable length says it holds: room is made for all of them.

    Raises:
        DataError: it cannot be decoded.
    """
    try:
        plain = numcodecs.get_codec({"id": codec}).decode(chunk) if codec else chunk
    except Exception as error:  # each codec raises kinds of its own on damaged bytes
        raise DataError(f"a chunk cannot be decoded as {codec}: {error}") from error
    return int.from_bytes(bytes(plain[:4]), "little")
