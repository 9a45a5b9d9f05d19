"""Feature stores: what is written comes back, and nothing else is ever read."""

import json
import os
import random
import shutil
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from bayesfs.data import store as store_module
from bayesfs.data.sources.video import Skipped
from bayesfs.data.store import (
    Thumbnail,
    iter_store,
    open_store,
    read_skipped,
    save_store,
    skipped_attrs,
    store_attrs,
    thumbnails,
    write_store,
)
from bayesfs.errors import DataError
from bayesfs.types import Embeddings

FRAMES = 5000  # more than two chunks


def make(frames: int = FRAMES, seed: int = 0) -> Embeddings:
    rng = np.random.default_rng(seed)
    video = [f"видео <{i // 7}>" for i in range(frames)]
    names = [("mug", "clé", "")[(i // 70) % 3] for i in range(frames)]
    users = [f"U{i // 700}" for i in range(frames)]
    blur = rng.normal(size=frames)
    return Embeddings.from_arrays(
        rng.normal(size=(frames, 6)), object=names, video=video, user=users, quality={"blur": blur}
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "whole.zarr"
    pictures = [Thumbnail(f"видео <{i}>", i, b"\xff\xd8" + bytes([i % 256] * i)) for i in range(9)]
    attrs = {"backbone": "b", **skipped_attrs([Skipped("a/<b>", "why", "frame")])}
    write_store(path, [make().dataset], FRAMES, attrs, pictures)
    return path


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy.zarr"))


@pytest.mark.filterwarnings("error")
def test_round_trip(whole: Path) -> None:
    got, made = open_store(whole).dataset, make().dataset
    xr.testing.assert_equal(got, made)
    assert got["video"].dtype.kind == "U"
    assert got.attrs["backbone"] == "b"
    assert read_skipped(got.attrs) == (Skipped("a/<b>", "why", "frame"),)
    assert got.attrs["skipped_count"] == 1


@pytest.mark.filterwarnings("error")
def test_plain_xarray_opens_it(whole: Path) -> None:
    ds = xr.open_zarr(whole, chunks=None)
    assert {"user", "object", "video", "condition", "split"} <= set(ds.coords)
    assert ds["features"].dims == ("frame", "feature")
    assert str(ds["object"].values[80]) == "clé"


def test_some_users_only(whole: Path) -> None:
    got = open_store(whole, users=["U1", "U3"])
    xr.testing.assert_equal(got.dataset, make().where(user=["U1", "U3"]).dataset)
    with pytest.raises(DataError, match="no frame of the users"):
        open_store(whole, users=["nobody"])


@pytest.mark.parametrize("frames", [1, 100, 2048, 10_000])
def test_pieces_are_whole_videos(tmp_path: Path, frames: int) -> None:
    made = make(300 if frames == 1 else FRAMES)
    save_store(tmp_path / "s", made)
    pieces = list(iter_store(tmp_path / "s", frames))
    np.testing.assert_array_equal(np.concatenate([p.features for p in pieces]), made.features)
    first = [p.coord("video")[0] for p in pieces]
    last = [p.coord("video")[-1] for p in pieces]
    assert all(a != b for a, b in zip(last[:-1], first[1:], strict=True))


def test_thumbnails_come_back(whole: Path, tmp_path: Path) -> None:
    found = thumbnails(whole, ["видео <3>", "no such video"])
    (picture,) = found["видео <3>"]
    assert picture == Thumbnail("видео <3>", 3, b"\xff\xd8\x03\x03\x03")
    assert found["no such video"] == ()
    save_store(tmp_path / "plain", make(10))
    assert thumbnails(tmp_path / "plain", ["видео <0>"]) == {"видео <0>": ()}


def test_many_thumbnails(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [Thumbnail(f"v{i}", i, rng.bytes(1000)) for i in range(3000)]
    write_store(tmp_path / "s", [make(10).dataset], 10, {}, iter(pictures))
    some = (0, 2047, 2048, 2999)
    found = thumbnails(tmp_path / "s", [f"v{i}" for i in some])
    assert found == {f"v{i}": (pictures[i],) for i in some}


def test_thumbnails_of_a_video_stand_together_or_among_those_of_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ["a", "a", "b", "a", "b", "c", "c", "c"]
    pictures = [Thumbnail(name, i, rng.bytes(10 + i)) for i, name in enumerate(names)]
    write_store(tmp_path / "s", [make(10).dataset], 10, {}, iter(pictures))
    found = thumbnails(tmp_path / "s", ["a", "b", "c"])
    assert found == {n: tuple(p for p in pictures if p.video == n) for n in "abc"}


def test_blocks_of_any_size_give_the_same_store(tmp_path: Path) -> None:
    ds = make().dataset
    cuts = [0, 1, 2047, 2048, 2050, 4999, FRAMES]
    blocks = [ds.isel(frame=slice(a, b)) for a, b in pairwise(cuts)]
    write_store(tmp_path / "s", iter(blocks), FRAMES, {})
    xr.testing.assert_equal(open_store(tmp_path / "s").dataset, ds)
    with pytest.raises(DataError, match="expected 7 frames"):
        write_store(tmp_path / "t", [ds.isel(frame=slice(0, 6))], 7, {})


def test_nothing_is_overwritten(whole: Path) -> None:
    with pytest.raises(DataError, match="exists already"):
        save_store(whole, make(5))


def test_too_large_to_load_at_once(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_LOAD", 1000)
    with pytest.raises(DataError, match="iter_store"):
        open_store(whole)
    assert len(list(iter_store(whole, 1000))) == 6


def read_all(path: Path) -> None:
    open_store(path)
    thumbnails(path, ["видео <3>"])


def files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file())


@pytest.mark.parametrize("damage", ["truncate", "empty", "delete", "flip", "link", "pipe"])
def test_every_damaged_file_is_noticed(whole: Path, tmp_path: Path, damage: str) -> None:
    """No damage to any one file of a store goes unnoticed by a full read."""
    for number, file in enumerate(files(whole)):
        name = file.relative_to(whole)
        if name.name == "zarr.json" and damage == "flip":
            continue  # metadata carry no checksum; fuzzed below
        copy = Path(shutil.copytree(whole, tmp_path / f"{number}"))
        hurt(copy / name, damage)
        with pytest.raises(DataError, match=rf"/{number}'"):
            read_all(copy)
        shutil.rmtree(copy)


def hurt(file: Path, damage: str) -> None:
    data = bytearray(file.read_bytes())
    file.unlink()
    if damage == "truncate":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "empty":
        file.touch()
    elif damage == "flip":
        data[len(data) // 3] ^= 0x40
        file.write_bytes(data)
    elif damage == "link":
        file.symlink_to("/etc/hostname")
    elif damage == "pipe":
        os.mkfifo(file)


def edit(path: Path, **changes: Any) -> None:
    file = path / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes), encoding="utf-8")


@pytest.mark.parametrize(
    "changes",
    [
        {"zarr_format": 2},
        {"data_type": "variable_length_bytes"},
        {"data_type": {"name": "numpy.object"}},
        {"codecs": [{"name": "bytes"}, {"name": "pickle"}]},
        {"codecs": [{"name": "bytes"}, {"name": "zstd"}, {"name": "crc32c"}]},
        {"codecs": 3},
        {"shape": [10**15, 6]},
        {"shape": [1e400, 6]},
        {"shape": ["a"]},
        {"shape": []},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10**12, 6]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 6]}}},
        {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": "../"}}},
        {"storage_transformers": [{"name": "x"}]},
        {"node_type": "group"},
    ],
)
def test_hostile_metadata_is_refused(copy: Path, changes: dict[str, Any]) -> None:
    edit(copy / "features", **changes)
    with pytest.raises(DataError, match=r"copy\.zarr"):
        open_store(copy)


@pytest.mark.parametrize("seed", range(4))
def test_fuzzed_metadata(whole: Path, tmp_path: Path, seed: int) -> None:
    """A random byte of a random metadata file: the same labels and features, or a DataError."""
    rng = random.Random(seed)
    made = make().dataset
    copy = Path(shutil.copytree(whole, tmp_path / "fuzz.zarr"))
    for _ in range(25):
        file = rng.choice([f for f in files(copy) if f.name == "zarr.json"])
        kept = file.read_bytes()
        data = bytearray(kept)
        data[rng.randrange(len(data))] = rng.randrange(256)
        file.write_bytes(data)
        try:
            got = open_store(copy).dataset
        except DataError:
            got = made
        file.write_bytes(kept)
        np.testing.assert_array_equal(got["features"].values, made["features"].values)


def test_a_huge_count_of_strings_is_not_believed(copy: Path) -> None:
    file = copy / "video" / "c" / "0"
    file.write_bytes(b"\xff\xff\xff\xff" + file.read_bytes()[4:])
    with pytest.raises(DataError, match="wrong number of strings"):
        open_store(copy)


def test_other_zarr_folders_are_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make(10).dataset.to_zarr(tmp_path / "foreign.zarr", zarr_format=3)
        zarr.create_group(tmp_path / "group.zarr", zarr_format=3)
        zarr.create_group(tmp_path / "old.zarr", zarr_format=2)
    for name in ("foreign", "group", "old", "nothing"):
        with pytest.raises(DataError, match=rf"{name}\.zarr"):
            open_store(tmp_path / f"{name}.zarr")
    (tmp_path / "file.zarr").touch()
    with pytest.raises(DataError, match="a file"):
        open_store(tmp_path / "file.zarr")


def test_other_version_or_strange_attributes(copy: Path) -> None:
    edit(copy, attributes={"bayesfs_store": 99})
    with pytest.raises(DataError, match="version"):
        store_attrs(copy)
    edit(copy, attributes={"bayesfs_store": 2, "skipped": [1]})
    with pytest.raises(DataError, match="text and numbers"):
        open_store(copy)
    with pytest.raises(DataError, match="damaged"):
        read_skipped({"skipped": '[{"no": 1}]'})


def test_stray_files_are_refused(copy: Path) -> None:
    (copy / "features.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(DataError, match=r"features\.pkl"):
        open_store(copy)


def test_features_that_are_not_finite(tmp_path: Path) -> None:
    ds = make(10).dataset.copy(deep=True)
    ds["features"][3] = np.nan
    write_store(tmp_path / "nan.zarr", [ds], 10, {})
    with pytest.raises(DataError, match=r"nan\.zarr.*NaN"):
        open_store(tmp_path / "nan.zarr")


def test_videos_in_pieces_are_refused(tmp_path: Path) -> None:
    ds = make(21).dataset.isel(frame=[0, 7, 1])
    write_store(tmp_path / "mixed.zarr", [ds], 3, {})
    with pytest.raises(DataError, match="contiguous"):
        open_store(tmp_path / "mixed.zarr")


def test_numbers_among_the_attributes_come_back(tmp_path: Path) -> None:
    attrs = {"fps": 29.97, "n": 3, "who": "P1", "share": np.float32(0.5)}
    save_store(tmp_path / "s.zarr", Embeddings(make().dataset.assign_attrs(attrs)))
    found = open_store(tmp_path / "s.zarr").dataset.attrs
    assert {k: found[k] for k in attrs} == attrs


@pytest.mark.parametrize("users", [["nobody"], "P1", []])
def test_users_that_are_not_there_are_told(whole: Path, users: Any) -> None:
    some = list(np.unique(open_store(whole).coord("user")))[:1]
    with pytest.raises(DataError, match="users"):
        open_store(whole, users=[*some, *users] if "nobody" in users else users)
