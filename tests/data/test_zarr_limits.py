"""What a Zarr folder may ask for is on a list; everything else is refused before it is decoded."""

import json
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr

from bayesfs.data.zarr_limits import check_listed
from bayesfs.errors import DataError

TABLE = xr.Dataset(
    {
        "x": (("row", "column"), np.arange(6.0).reshape(3, 2)),
        "n": ("row", np.array(["a", "bc", ""], object)),
        "b": ("row", np.array([True, False, True])),
    }
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("version", [2, 3])
def test_what_xarray_writes_is_read(tmp_path: Path, version: Any) -> None:
    TABLE.to_zarr(tmp_path / "s.zarr", zarr_format=version, consolidated=False)
    assert check_listed(tmp_path / "s.zarr") == version
    xr.DataTree.from_dict({"a": TABLE, "a/deep": TABLE}).to_zarr(
        tmp_path / "t.zarr", zarr_format=version, consolidated=False
    )
    assert check_listed(tmp_path / "t.zarr") == version


def stored(path: Path, version: Any, **options: Any) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=version)
    group.create_array("x", data=np.ones((4, 2)), **options)
    return path / "x" / (".zarray" if version == 2 else "zarr.json")


def changed(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize("codec", [numcodecs.Zstd(), numcodecs.GZip(), numcodecs.Blosc(), None])
def test_the_usual_compressors_are_read(tmp_path: Path, codec: Any) -> None:
    stored(tmp_path / "s", 2, compressors=codec)
    assert check_listed(tmp_path / "s") == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"filters": [{"id": "pickle"}]},
        {"filters": [{"id": "vlen-utf8"}, {"id": "pickle"}], "dtype": "|O"},
        {"filters": [{"id": "json2"}], "dtype": "|O"},
        {"dtype": "|O"},
        {"dtype": "|V8"},
        {"dtype": [["a", "<f8"]]},
        {"dtype": "<U5000000"},
        {"compressor": {"id": "lzma"}},
        {"compressor": {"id": "pickle"}},
        {"compressor": "zstd"},
        {"shape": [4]},
        {"shape": [-4, 2]},
        {"shape": [10**12, 10**12]},
        {"chunks": [0, 2]},
        {"chunks": [2**20, 2**20]},
    ],
)
def test_other_things_are_refused_in_version_2(tmp_path: Path, fields: dict[str, Any]) -> None:
    changed(stored(tmp_path / "s", 2), **fields)
    with pytest.raises(DataError):
        check_listed(tmp_path / "s")


@pytest.mark.parametrize(
    "fields",
    [
        {"codecs": [{"name": "numcodecs.pickle"}]},
        {"codecs": [{"name": "bytes"}, {"name": "numcodecs.pickle"}]},
        {"codecs": [{"name": "bytes"}, {"name": "zstd"}, {"name": "zstd"}]},
        {"codecs": [{"name": "sharding_indexed", "configuration": {}}]},
        {"codecs": [{"name": "vlen-utf8"}]},
        {"codecs": "bytes"},
        {"codecs": []},
        {"data_type": "numpy.object"},
        {"data_type": {"name": "structured", "configuration": {}}},
        {"data_type": {"name": "fixed_length_utf32", "configuration": {"length_bytes": 10**9}}},
        {"storage_transformers": [{"name": "x"}]},
        {"chunk_key_encoding": {"name": "../x"}},
        {"chunk_grid": {"name": "rectilinear", "configuration": {"chunk_shape": [4, 2]}}},
        {"shape": [10**12, 2]},
    ],
)
def test_other_things_are_refused_in_version_3(tmp_path: Path, fields: dict[str, Any]) -> None:
    changed(stored(tmp_path / "s", 3), **fields)
    with pytest.raises(DataError):
        check_listed(tmp_path / "s")


@pytest.mark.parametrize("version", [2, 3])
def test_a_chunk_larger_than_its_array_says_is_refused(tmp_path: Path, version: Any) -> None:
    codec = numcodecs.Zstd()
    file = stored(tmp_path / "s", version)
    chunk = next(p for p in file.parent.rglob("*") if p.is_file() and p != file)
    if version == 2:
        changed(file, compressor={"id": "zstd", "level": 1})
    chunk.write_bytes(codec.encode(bytes(64)))
    assert check_listed(tmp_path / "s") == version
    chunk.write_bytes(codec.encode(bytes(65)))
    with pytest.raises(DataError, match="larger than 64 bytes"):
        check_listed(tmp_path / "s")


def test_chunks_far_larger_than_their_array_count_as_they_are(tmp_path: Path) -> None:
    """Each is decompressed as a whole, though the array has one element of it."""
    group = zarr.open_group(tmp_path / "s", mode="w", zarr_format=2)
    group.create_array("x", shape=(20, 1), chunks=(1, 2**24), dtype="u1")
    with pytest.raises(DataError, match="335544320 bytes of memory"):
        check_listed(tmp_path / "s")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("codec", [numcodecs.Zstd(), None])
def test_a_chunk_of_more_strings_than_its_array_has_is_refused(
    tmp_path: Path, version: Any, codec: Any
) -> None:
    """A count of two thousand million in a chunk of 40 bytes took 15 GB before it was refused."""
    group = zarr.open_group(tmp_path / "s", mode="w", zarr_format=version)
    packed: Any = "auto" if codec and version == 3 else codec
    group.create_array("x", shape=4, dtype="string", compressors=packed)[:] = list("abcd")
    assert check_listed(tmp_path / "s") == version
    chunk = tmp_path / "s" / "x" / ("0" if version == 2 else "c/0")
    plain = bytearray(codec.decode(chunk.read_bytes()) if codec else chunk.read_bytes())
    plain[3] = 0x7F
    chunk.write_bytes(codec.encode(bytes(plain)) if codec else bytes(plain))
    with pytest.raises(DataError, match="more strings than its array has"):
        check_listed(tmp_path / "s")


@pytest.mark.filterwarnings("ignore")
def test_a_chunk_of_strings_that_cannot_be_decoded_is_refused(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "s", mode="w", zarr_format=2)
    group.create_array("x", shape=4, dtype="string", compressors=numcodecs.GZip())[:] = list("abcd")
    chunk = tmp_path / "s" / "x" / "0"
    chunk.write_bytes(chunk.read_bytes()[:12])
    with pytest.raises(DataError):
        check_listed(tmp_path / "s")


def test_links_and_pipes_are_refused(tmp_path: Path) -> None:
    file = stored(tmp_path / "s", 3)
    (tmp_path / "s" / "y").symlink_to(tmp_path / "s" / "x")
    with pytest.raises(DataError, match="link"):
        check_listed(tmp_path / "s")
    (tmp_path / "s" / "y").unlink()
    (file.parent / "c" / "9").symlink_to(file)
    with pytest.raises(DataError, match="link"):
        check_listed(tmp_path / "s")
