"""Reading a person's own videos, and telling the two layouts apart."""

from pathlib import Path

import numpy as np
import pytest

from bayesfs.data.sources.folder import read_folder
from bayesfs.data.sources.open import read_tree
from bayesfs.data.sources.video import UNKNOWN_OBJECT
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
    rows = [(v.user, v.object, v.condition, v.path, v.is_file) for v in found.videos]
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
        condition="clutter",
        unlabelled_condition="clean",
    )
    teach, query = found.videos
    assert (teach.user, teach.split, teach.condition) == ("U", "train", "clutter")
    assert (query.object, query.condition, query.location) == (
        "",
        "clean",
        tmp_path / "new" / "q.mp4",
    )
    assert [(s.path, s.level) for s in found.skipped] == [("unlabelled", "file")]


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "keys/1.mp4", "keys/notes.txt", "keys/loose.bmp", "mug/empty/x.txt")
    found = read_folder(tmp_path)
    assert len(found) == 1
    assert {(s.path, s.level) for s in found.skipped} == {
        ("keys/notes.txt", "file"),
        ("keys/loose.bmp", "file"),
        ("mug/empty", "video"),
        ("mug", "object"),
    }


def test_whatever_lies_beside_videos_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "keys/1.mp4", "keys/frames/1.jpg", "keys/frames/2.webp")
    touch(tmp_path, "keys/frames/inner/3.jpg", "loose.mov", "notes.txt")
    (tmp_path / "hat").mkdir()
    found = read_folder(tmp_path)
    assert [v.path for v in found.videos] == ["keys/1.mp4", "keys/frames"]
    assert {(s.path, s.level) for s in found.skipped} == {
        ("keys/frames/2.webp", "file"),
        ("keys/frames/inner", "file"),
        ("loose.mov", "video"),
        ("notes.txt", "file"),
        ("hat", "object"),
    }


@pytest.mark.parametrize("name", ["@eaDir", "lost+found", "__MACOSX", "$RECYCLE.BIN", "@EADIR"])
def test_folders_of_the_system_are_no_objects(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "keys/1.mp4", f"{name}/1.mp4", f"keys/{name}/1.jpg")
    found = read_folder(tmp_path)
    assert [v.object for v in found.videos] == ["keys"]
    assert {s.path for s in found.skipped} == {name, f"keys/{name}"}
    assert all("of the system" in s.reason for s in found.skipped)


@pytest.mark.parametrize("suffix", ["mpeg", "MTS", "m2ts", "Mpg", "3g2"])
def test_suffixes_of_video_files(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path, f"keys/1.{suffix}")
    found = read_tree(tmp_path)
    assert [v.path for v in found.videos] == [f"keys/1.{suffix}"]
    assert not found.skipped


@pytest.mark.parametrize("name", ["unlabeled", "Unlabelled", "UNLABELED"])
def test_another_spelling_of_unlabelled_is_no_object(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "keys/1.mp4", f"{name}/q.mp4")
    found = read_folder(tmp_path)
    assert [v.object for v in found.videos] == ["keys"]
    ((path, reason),) = [(s.path, s.reason) for s in found.skipped]
    assert path == name
    assert "expected the name 'unlabelled'" in reason


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Mug", "mug"),
        ("Schl\u00fcssel", "Schlu\u0308ssel"),
        ("my mug", "my  mug"),
        ("stra\u00dfe", "STRASSE"),
    ],
)
def test_names_that_are_alike_are_told_and_kept(tmp_path: Path, one: str, other: str) -> None:
    touch(tmp_path, f"{one}/1.mp4", f"{other}/2.mp4", "keys/3.mp4")
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip("this file system takes the two names for one")
    found = read_folder(tmp_path)
    assert {v.object for v in found.videos} == {one, other, "keys"}
    ((level, reason),) = [(s.level, s.reason) for s in found.skipped]
    assert level == "name"
    assert ascii(one) in reason
    assert ascii(other) in reason


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["a.mp4"], "Videos lie directly"),
        (["a.jpg"], "Images lie directly"),
        (["notes.txt"], "neither layout"),
        (["unlabelled/a.mp4"], "holds no folder"),
        (["zarr.json"], "feature store already"),
        (["train/P1/mug/other/a/a-00001.jpg"], "neither layout"),
        (["Train/P1/mug/clean/a/a-00001.jpg", "val/x"], "expected the names .*in lower case"),
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
    with pytest.raises(DataError, match="condition"):
        read_folder(tmp_path, condition="messy")
    with pytest.raises(DataError, match="not there"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="not there"):
        read_folder(tmp_path, unlabelled=tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"did you mean '.*keys'"):
        read_folder(tmp_path / "kyes")


def test_videos_of_other_kinds_are_told_as_what_they_are(tmp_path: Path) -> None:
    """They were called no video files, which a .rm is."""
    touch(tmp_path, "keys/1.mp4", "keys/2.rm")
    (told,) = read_folder(tmp_path).skipped
    assert told.path == "keys/2.rm"
    assert told.reason.startswith("not read; expected a video file (.3g2, ")


def test_a_phone_s_pictures_are_told_with_what_to_do(tmp_path: Path) -> None:
    touch(tmp_path, "keys/1.mp4", "keys/IMG_2.HEIC")
    (told,) = read_folder(tmp_path).skipped
    assert "Most Compatible" in told.reason


@pytest.mark.parametrize("name", ["test", "Train", "val"])
def test_an_object_named_as_a_split_is_told(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "keys/1.mp4", f"{name}/2.mp4")
    found = read_folder(tmp_path)
    (told,) = found.skipped
    assert (told.path, told.level) == (name, "name")
    assert {v.object for v in found.videos} == {"keys", name}


def test_a_photograph_is_a_recording_of_one_frame(tmp_path: Path) -> None:
    touch(
        tmp_path, "keys/IMG_1.JPG", "keys/v/1.jpg", "keys/v/2.jpg", "mug/a.png", "unlabelled/b.jpg"
    )
    tree = read_tree(tmp_path)
    kinds = {v.path: (v.object, v.is_photograph, v.is_file, len(v.files)) for v in tree.videos}
    assert kinds == {
        "keys/IMG_1.JPG": ("keys", True, True, 0),
        "keys/v": ("keys", False, False, 2),
        "mug/a.png": ("mug", True, True, 0),
        "unlabelled/b.jpg": ("", True, True, 0),
    }
    assert not tree.skipped


def test_pictures_that_look_like_the_frames_of_a_video_are_told(tmp_path: Path) -> None:
    touch(tmp_path, *(f"keys/frame-{n:03d}.jpg" for n in range(9)), "mug/a.jpg", "mug/b2.jpg")
    (told,) = read_tree(tmp_path).skipped
    assert (told.path, told.level) == ("keys", "name")
    assert "give it a folder" in told.reason
