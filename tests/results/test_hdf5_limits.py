"""Small netCDF files that would become large: refused before anything is made of them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from bayesfs.errors import DataError
from bayesfs.results.hdf5_limits import MOST_ELEMENTS, attribute_bytes, claimed_bytes


def chunked(path: Path, *, chunk: int, deflations: int, raw: bytes) -> Path:
    """A file of one dataset of bytes, in one chunk that is stored as it is given."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((chunk,))
    for _ in range(deflations):
        plist.set_deflate(9)
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((chunk,))
        data = h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_UINT8, space, plist)
        data.write_direct_chunk((0,), raw, 0)
    return path


@pytest.mark.parametrize("deflations", [1, 2])
def test_a_chunk_that_is_compressed_twice_is_refused(tmp_path: Path, deflations: int) -> None:
    """Only its first decompression has a bound: 9 kB took 200 GB."""
    raw = bytes(1000)
    for _ in range(deflations):
        raw = zlib.compress(raw)
    path = chunked(tmp_path / "a.nc", chunk=1000, deflations=deflations, raw=raw)
    with h5py.File(path) as file:
        if deflations == 1:
            assert claimed_bytes(file["x"], path.stat().st_size) == 1000
        else:
            with pytest.raises(DataError, match="never writes"):
                claimed_bytes(file["x"], path.stat().st_size)


def test_chunks_that_reach_far_beyond_the_data_count_as_they_are(tmp_path: Path) -> None:
    """Each is decompressed as a whole, however little of it is data."""
    path = tmp_path / "a.nc"
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "x", (20, 1), "u1", chunks=(1, 2**24), maxshape=(20, None), compression="gzip"
        )
        for row in range(20):
            data.id.write_direct_chunk((row, 0), zlib.compress(bytes(10)), 0)
    with h5py.File(path) as file, pytest.raises(DataError, match="335544320 bytes of memory"):
        claimed_bytes(file["x"], path.stat().st_size)


def test_many_elements_of_an_attribute_may_not_be_the_same_long_one(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    texts = np.array(["a" * 5000] + ["b"] * MOST_ELEMENTS, object)
    with h5py.File(path, "w") as file:
        file.attrs.create("few", texts[:MOST_ELEMENTS], dtype=h5py.string_dtype())
        file.create_group("g").attrs.create("many", texts, dtype=h5py.string_dtype())
        file.create_group("ref").attrs["to"] = file["g"].ref
    data = bytearray(path.read_bytes())  # each of the few is the long one, as a heap allows
    at = data.index(struct.pack("<I", 5000))
    for number in range(1, MOST_ELEMENTS):
        data[at + 16 * number : at + 16 * (number + 1)] = data[at : at + 16]
    path.write_bytes(data)
    with h5py.File(path) as file:
        assert attribute_bytes(file["/"]) >= 5000 * MOST_ELEMENTS
        assert attribute_bytes(file["ref"]) < 100
        with pytest.raises(DataError, match="elements of any length"):
            attribute_bytes(file["g"])


def test_attributes_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bayesfs.results.hdf5_limits.FREE", 1000)
    with h5py.File(tmp_path / "a.nc", "w") as file:
        for number in range(3):
            file.attrs[str(number)] = "a" * 400
        with pytest.raises(DataError, match="more than 1000 bytes"):
            attribute_bytes(file["/"])


def test_parts_of_any_length_within_parts_are_refused(tmp_path: Path) -> None:
    kind = np.dtype([("text", h5py.string_dtype()), ("number", "i4")])
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file.attrs.create("pair", np.array(("a", 1), kind), dtype=kind)
        with pytest.raises(DataError, match="of any length"):
            attribute_bytes(file["/"])
