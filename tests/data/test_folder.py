"""Reading a person's own videos, and telling the two layouts apart."""

from pathlib import Path

import numpy as np
import pytest

from bayesfs.data.folder import read_folder
from bayesfs.data.trees import read_tree
from bayesfs.data.videos import UNKNOWN_OBJECT
from bayesfs.errors import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_files_and_folders_of_frames(tmp_path: Path) -> None:
    root = tmp_path / "anna"
    touch(root, "keys/1.MOV", "keys/2.mp4", "mug/first/f10.jpg", "mug/first/f2.jpg")
    touch(root, "unlabelled/q.mp4", "unlabelled/r/a.png")
    found = read_folder(root)
    rows = [(v.user, v.object, v.kind, v.path, v.is_file) for v in found.videos]
    assert rows == [
        ("anna", "keys", "clean", "keys/1.MOV", True),
        ("anna", "keys", "clean", "keys/2.mp4", True),
        ("anna", "mug", "clean", "mug/first", False),
        ("anna", UNKNOWN_OBJECT, "clutter", "unlabelled/q.mp4", True),
        ("anna", UNKNOWN_OBJECT, "clutter", "unlabelled/r", False),
    ]
    assert found.videos[2].files == ("f2.jpg", "f10.jpg")
    assert found.videos[2].numbers.tolist() == [1, 2]
    assert np.isnan(found.videos[2].boxes).all()
    assert len({v.name for v in found.videos}) == 5
    assert not found.skipped


def test_settings_and_another_folder_of_queries(tmp_path: Path) -> None:
    touch(tmp_path / "own", "keys/1.mp4", "unlabelled/old.mp4")
    touch(tmp_path / "new", "q.mp4")
    found = read_folder(
        tmp_path / "own",
        unlabelled=tmp_path / "new",
        user="U",
        split="train",
        kind="clutter",
        unlabelled_kind="clean",
    )
    teach, query = found.videos
    assert (teach.user, teach.split, teach.kind) == ("U", "train", "clutter")
    assert (query.object, query.kind, query.location) == ("", "clean", tmp_path / "new" / "q.mp4")


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "keys/1.mp4", "keys/notes.txt", "keys/loose.jpg", "mug/empty/x.txt")
    found = read_folder(tmp_path)
    assert len(found) == 1
    assert {(s.path, s.level) for s in found.skipped} == {
        ("keys/notes.txt", "file"),
        ("keys/loose.jpg", "file"),
        ("mug/empty", "video"),
        ("mug", "object"),
    }


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["a.mp4"], "Videos lie directly"),
        (["a.jpg"], "Images lie directly"),
        (["notes.txt"], "neither layout"),
        (["unlabelled/a.mp4"], "holds no folder"),
        (["zarr.json"], "feature store already"),
        (["train/P1/mug/other/a/a-00001.jpg"], "neither layout"),
    ],
)
def test_neither_layout_says_what_to_do(tmp_path: Path, names: list[str], match: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(DataError, match=match):
        read_tree(tmp_path)


def test_layouts_are_told_apart(tmp_path: Path) -> None:
    touch(tmp_path / "orbit", "test/P1/mug/clean/a/a-00001.jpg")
    touch(tmp_path / "own", "test/1.mp4", "train/1.mp4")  # toys of those names
    assert read_tree(tmp_path / "orbit").videos[0].object == "mug"
    assert [v.object for v in read_tree(tmp_path / "own").videos] == ["test", "train"]


def test_unknown_kind_and_missing_folder(tmp_path: Path) -> None:
    touch(tmp_path, "keys/1.mp4")
    with pytest.raises(DataError, match="kind"):
        read_folder(tmp_path, kind="messy")
    with pytest.raises(DataError, match="not there"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="not there"):
        read_folder(tmp_path, unlabelled=tmp_path / "nowhere")
