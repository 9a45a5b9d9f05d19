"""The safetensors format, beside its own library, and files that ask for what is not there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bayesfs._utils.safetensors_files import read_safetensors, write_safetensors
from bayesfs.errors import DataError

ARRAYS = {
    "half": np.linspace(-1, 1, 6).reshape(2, 3).astype(np.float16),
    "one": np.array(2.5),
    "none": np.zeros((0, 4), np.float32),
    "text": np.frombuffer(b"abc", np.uint8),
    "turned": np.arange(12, dtype=np.float32).reshape(3, 4).T,
}


def test_the_library_reads_what_was_written_and_the_other_way_round(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    safe_open = pytest.importorskip("safetensors").safe_open
    path, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    write_safetensors(path, ARRAYS, {"card": "a, \u00e9"})
    found = library.load_file(path)
    with safe_open(path, "np") as file:
        assert file.metadata() == {"card": "a, \u00e9"}
    whole = {name: np.ascontiguousarray(array) for name, array in ARRAYS.items()}
    library.save_file(whole, theirs, {"card": "b"})
    back, texts = read_safetensors(theirs, 2**20)
    assert texts == {"card": "b"}
    ours, _ = read_safetensors(path, 2**20)
    for name, array in ARRAYS.items():
        for other in (found, back, ours):
            assert other[name].dtype == array.dtype
            np.testing.assert_array_equal(other[name], array)


def written(path: Path, header: Any, data: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def told(start: int, stop: int, shape: tuple[Any, ...] = (2,), dtype: str = "F32") -> Any:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    "header",
    [
        {"x": told(0, 16)},  # longer than its shape
        {"x": told(0, 8, (2**40,))},  # a shape of terabytes
        {"x": told(0, 8, (-1, -2))},
        {"x": told(8, 16)},  # a gap
        {"x": told(0, 8), "y": told(4, 12)},  # overlapping
        {"x": told(0, 8), "y": told(8, 800, (198,))},  # beyond the end
        {"x": told(0, 8)},  # bytes behind
        {"x": told(0, 16, (16,), "BOOL")},
        {"x": 3},
        {"x": {"dtype": "F32"}},
        [],
        b"no JSON",
        b"[" * 100_000,
        {"__metadata__": [], "x": told(0, 16, (4,))},
    ],
)
def test_nothing_is_taken_on_trust(tmp_path: Path, header: Any) -> None:
    with pytest.raises(DataError, match="safetensors"):
        read_safetensors(written(tmp_path / "x.safetensors", header, bytes(16)), 2**20)


@pytest.mark.parametrize("data", [b"", b"1234567", (2**62).to_bytes(8, "little") + b"{}"])
def test_what_is_cut_short_is_told(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(DataError, match="cut short"):
        read_safetensors(tmp_path / "x", 2**20)


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at most 8"):
        read_safetensors(written(tmp_path / "x", {}, b""), 8)
