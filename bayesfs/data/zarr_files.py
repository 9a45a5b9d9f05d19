"""Zarr 3 folders that are whole or refused: `write_dataset` makes one, `check_zarr` trusts none.

Chunks are stored uncompressed with a CRC-32C each, and every chunk is written. So a missing or
truncated chunk shows by name and size before anything is read, a changed one when it is read, and
nothing can decompress into a bomb or be unpickled: other types and codecs are refused.
"""

from __future__ import annotations

import math
import os
import stat
import struct
import warnings
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec

from bayesfs.data.zarr_limits import MAX_CHUNK, metadata
from bayesfs.errors import DataError

ROWS = 2048
"""Frames per chunk."""

SIZES = {"int8": 1, "uint8": 1, "int32": 4, "int64": 8, "float32": 4, "float64": 8}
"""Bytes per element of the types that may be stored, besides "string"."""

Layout = tuple[str, list[int], list[int]]
"""Type, number of chunks along each axis, sizes of a chunk."""

CHECKSUM = 4
"""Bytes of CRC-32C at the end of each chunk."""

MOST_STRINGS = 2**22
"""Strings in a chunk at most; each takes far more memory than its place in the chunk."""


def write_dataset(
    path: Path, blocks: Iterable[xr.Dataset], frames: int, attrs: Mapping[str, str | int | float]
) -> Any:
    """Write blocks of consecutive frames as one Zarr group, in memory of about one chunk.

    Args:
        path: a folder that does not exist yet.
        blocks: datasets with the same variables, `frame` the first axis of those that grow.
        frames: number of frames of all blocks together.
        attrs: attributes of the dataset.

    Returns:
        The open zarr group, to which sub-groups can be added before `finish`.

    Raises:
        DataError: the blocks hold another number of frames.
    """
    group = zarr.create_group(path, zarr_format=3)
    arrays: dict[str, Any] = {}
    row = 0
    for block in _in_rows(blocks, ROWS):
        if not arrays:
            arrays = {str(n): _create(group, str(n), v, frames) for n, v in block.variables.items()}
            group.attrs.update({**attrs, "coordinates": " ".join(map(str, block.coords))})
        stop = row + block.sizes["frame"]
        for name, array in arrays.items():
            if block[name].dims[0] == "frame":
                array[row:stop] = block[name].values
        row = stop
    if row != frames or not frames:
        raise DataError(f"expected {frames} frames to write, got {row}")
    return group


def finish(path: Path) -> None:
    """Collect the metadata, so that `xarray.open_zarr` opens the store in one read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr: the Zarr 3 text does not have it yet
        zarr.consolidate_metadata(path, zarr_format=3)


def create_array(
    group: Any, name: str, dtype: Any, shape: tuple[int, ...], dims: tuple[str, ...], rows: int
) -> Any:
    """An empty array of the one layout that `check_zarr` accepts."""
    kind = np.dtype(dtype).kind
    return group.create_array(
        name,
        shape=shape,
        chunks=(rows, *shape[1:]),
        dtype="string" if kind == "U" else dtype,
        dimension_names=dims,
        compressors=[Crc32cCodec()],
        fill_value={"f": np.nan, "U": "", "u": 255}.get(kind, -1),
        config={"write_empty_chunks": True},
    )


def check_zarr(path: Path) -> dict[str, Any]:
    """Attributes of a Zarr folder whose every chunk is there, of the right type and size.

    Raises:
        DataError: something is missing, truncated, a link, or of a type or codec that bayesfs
            does not write.
    """
    if not path.is_dir():
        raise DataError("no such folder" if not path.exists() else "a file; expected a folder")
    meta = _metadata(path)
    if meta.get("node_type") != "group":
        raise DataError("expected a Zarr group")
    for place, layout in _members(path, depth=2):
        _check_chunks(place, *layout)
    attrs = meta.get("attributes", {})
    if not isinstance(attrs, dict):
        raise DataError("its attributes are not a table")
    return attrs


def check_layout(path: Path) -> None:
    """Check the types and codecs of a Zarr folder, as `check_zarr`, but not its chunks.

    Raises:
        DataError: as `check_zarr`.
    """
    for _ in _members(path, depth=2):
        pass


def _members(path: Path, depth: int) -> Iterator[tuple[Path, Layout]]:
    for entry in sorted(os.scandir(path), key=lambda e: e.name):
        if entry.name == "zarr.json":
            continue
        if depth == 0 or not entry.is_dir(follow_symlinks=False):
            raise DataError(f"{entry.name!r} does not belong into a feature store")
        meta = _metadata(Path(entry.path))
        if meta.get("node_type") == "group":
            yield from _members(Path(entry.path), depth - 1)
        else:
            yield Path(entry.path), _layout(Path(entry.path), meta)


def _metadata(path: Path) -> dict[str, Any]:
    meta = metadata(path / "zarr.json")
    if meta.get("zarr_format") != 3:
        raise DataError(f"{path.name}/zarr.json: expected zarr_format 3")
    return meta


def _layout(path: Path, meta: dict[str, Any]) -> Layout:
    try:
        dtype, shape = meta["data_type"], [int(n) for n in meta["shape"]]
        grid, codecs = meta["chunk_grid"], [c["name"] for c in meta["codecs"]]
        chunk = [int(n) for n in grid["configuration"]["chunk_shape"]]
        key = meta["chunk_key_encoding"]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path.name!r}: unreadable array metadata ({error})") from error
    first = "vlen-utf8" if dtype == "string" else "bytes"
    if not isinstance(dtype, str) or dtype not in {*SIZES, "string"} or codecs != [first, "crc32c"]:
        raise DataError(f"{path.name!r}: type {dtype!r} with codecs {codecs} is never read")
    plain = grid["name"] == "regular" and key == {
        "name": "default",
        "configuration": {"separator": "/"},
    }
    if not plain or meta.get("storage_transformers") or len(chunk) != len(shape) or not shape:
        raise DataError(f"{path.name!r}: a chunk layout that bayesfs does not write")
    most = MOST_STRINGS if dtype == "string" else MAX_CHUNK
    if min(chunk) < 1 or min(shape) < 0 or math.prod(chunk) > most:
        raise DataError(f"{path.name!r}: impossible shape {shape} in chunks of {chunk}")
    return dtype, [math.ceil(n / c) for n, c in zip(shape, chunk, strict=True)], chunk


def _check_chunks(path: Path, dtype: str, grid: list[int], chunk: list[int]) -> None:
    """Every chunk is a file, of exactly the right size where its type has one."""
    held = sum(len(files) for _, _, files in os.walk(path)) - 1
    if held != math.prod(grid):
        raise DataError(f"{path.name!r}: {math.prod(grid)} chunks expected, {held} there; lost?")
    items = math.prod(chunk)
    exact = items * SIZES.get(dtype, 0) + CHECKSUM
    sizes = range(exact, exact + 1) if dtype in SIZES else range(4 + CHECKSUM, MAX_CHUNK)
    for index in product(*(range(n) for n in grid)):
        file = path.joinpath("c", *map(str, index))
        _check_regular(file, sizes)
        if dtype == "string":
            with file.open("rb") as opened:
                if struct.unpack("<I", opened.read(4)) != (items,):
                    raise DataError(f"{path.name!r}: a chunk with a wrong number of strings")


def _check_regular(file: Path, sizes: range) -> None:
    name = f"{file.parent.name}/{file.name}"
    try:
        status = file.lstat()
    except OSError as error:
        raise DataError(f"{name} is missing; half-copied?") from error
    if not stat.S_ISREG(status.st_mode) or status.st_size not in sizes:
        raise DataError(f"{name} has {status.st_size} bytes or is a link; truncated?")


def _create(group: Any, name: str, value: xr.Variable, frames: int) -> Any:
    """The array of one variable; whole at once where it does not grow with the frames."""
    dims = tuple(str(d) for d in value.dims)
    grows = dims[0] == "frame"
    shape = (frames, *value.shape[1:]) if grows else value.shape
    rows = ROWS if grows else max(1, value.shape[0])
    array = create_array(group, name, value.dtype, shape, dims, rows)
    if not grows:
        array[:] = value.values
    return array


def _in_rows(blocks: Iterable[xr.Dataset], rows: int) -> Iterator[xr.Dataset]:
    """The same frames in blocks of exactly `rows`, but for the last."""
    held: list[xr.Dataset] = []
    for block in blocks:
        held.append(block)
        while sum(b.sizes["frame"] for b in held) >= rows:
            whole = concat(held)
            yield whole.isel(frame=slice(0, rows))
            held = [whole.isel(frame=slice(rows, None))]
    if sum(b.sizes["frame"] for b in held):
        yield concat(held)


def concat(blocks: list[xr.Dataset]) -> xr.Dataset:
    """Blocks of frames one after the other."""
    if len(blocks) == 1:
        return blocks[0]
    how: dict[str, Any] = {"compat": "override", "join": "override", "combine_attrs": "override"}
    return xr.concat(blocks, dim="frame", data_vars="minimal", coords="minimal", **how)
