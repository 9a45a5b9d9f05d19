"""Reading ORBIT-shaped trees, good ones and hostile ones."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bayesfs.data.annotations import annotate
from bayesfs.data.orbit import read_orbit
from bayesfs.data.trees import read_tree
from bayesfs.data.videos import FLAGS
from bayesfs.errors import DataError

CLEAN = {flag: False for flag in FLAGS}


def make_video(root: Path, user: str, thing: str, kind: str, name: str, frames: int = 3) -> Path:
    """Empty frame files: the reader never opens a picture."""
    folder = root / "train" / user / thing / kind / name
    folder.mkdir(parents=True)
    for number in range(1, frames + 1):
        (folder / f"{name}-{number:05d}.jpg").touch()
    return folder


def note(root: Path, name: str, table: object) -> Path:
    path = root / "annotations" / "train" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(table if isinstance(table, str) else json.dumps(table), encoding="utf-8")
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    make_video(tmp_path, "P1", "mug", "clean", "a")
    make_video(tmp_path, "P1", "mug", "clutter", "b")
    return tmp_path


def test_sorted_with_their_labels(tmp_path: Path) -> None:
    for user, thing, name in [("P2", "keys", "z"), ("P1", "mug", "c"), ("P1", "bag", "d")]:
        make_video(tmp_path, user, thing, "clean", name)
    make_video(tmp_path, "P1", "mug", "clutter", "b", frames=12)
    found = read_orbit(tmp_path)
    rows = [(v.split, v.user, v.object, v.kind, v.name) for v in found.videos]
    assert rows == [
        ("train", "P1", "bag", "clean", "d"),
        ("train", "P1", "mug", "clean", "c"),
        ("train", "P1", "mug", "clutter", "b"),
        ("train", "P2", "keys", "clean", "z"),
    ]
    assert not found.skipped
    assert found.videos[2].files[9] == "b-00010.jpg"
    assert found.videos[2].numbers.tolist() == list(range(1, 13))
    assert all(path.is_file() for path in found.videos[2].frames)


def test_annotations_become_columns(tree: Path) -> None:
    absent = dict.fromkeys(FLAGS) | {"object_not_present_issue": True}
    note(tree, "a", {"a-00001.jpg": CLEAN | {"blur_issue": True}, "a-00002.jpg": absent})
    box = {"x": 0, "y": 1079, "w": 1080, "h": 1}
    seen = {"object_bounding_box": box, "object_not_present_issue": False}
    unseen = {"object_bounding_box": None, "object_not_present_issue": True}
    note(tree, "b", {"b-00001.jpg": seen, "b-00002.jpg": unseen})
    clean, clutter = read_orbit(tree).videos
    assert clean.flags["blur_issue"].tolist() == [1, -1, -1]
    assert clean.flags["object_not_present_issue"].tolist() == [0, 1, -1]
    assert clean.flags["blur_issue"].dtype == np.int8
    assert clutter.flags["object_not_present_issue"].tolist() == [0, 1, -1]
    assert clutter.flags["framing_issue"].tolist() == [-1, -1, -1]
    assert clutter.boxes[0].tolist() == [0, 1079, 1080, 1]
    assert np.isnan(clutter.boxes[1:]).all()
    assert np.isnan(clean.boxes).all()


@pytest.mark.parametrize(
    "text",
    ['{"a-00001.jpg": {"blur', "", "[1, 2]", "\x00\x01", "[" * 100_000, '"a"', "9" * 5000],
    ids=["truncated", "empty", "list", "binary", "deep", "string", "digits"],
)
def test_unreadable_annotations_are_minus_one_and_counted(tree: Path, text: str) -> None:
    note(tree, "a", text)
    found = read_orbit(tree)
    assert [(s.path, s.level) for s in found.skipped] == [
        ("annotations/train/a.json", "annotation")
    ]
    assert found.videos[0].flags["blur_issue"].tolist() == [-1, -1, -1]


def test_wrong_values_are_left_out(tree: Path) -> None:
    frames: dict[str, object] = {
        "a-00001.jpg": CLEAN | {"blur_issue": "yes"},
        "a-00002.jpg": CLEAN | {"object_bounding_box": {"x": -5, "y": 0, "w": 10, "h": 10}},
        "a-00003.jpg": [],
    }
    note(tree, "a", frames)
    found = read_orbit(tree)
    assert found.videos[0].flags["blur_issue"].tolist() == [-1, 0, -1]
    assert np.isnan(found.videos[0].boxes).all()
    assert "3 entries" in found.skipped[0].reason


def test_frames_lost_on_the_way(tree: Path) -> None:
    folder = make_video(tree, "P1", "mug", "clean", "gap", frames=6)
    (folder / "gap-00003.jpg").unlink()
    note(tree, "gap", {f"gap-{n:05d}.jpg": CLEAN for n in range(1, 9)})
    found = read_orbit(tree)
    video = next(v for v in found.videos if v.name == "gap")
    assert video.numbers.tolist() == [1, 2, 4, 5, 6]
    reasons = {s.level: s.reason for s in found.skipped}
    assert "1 frames missing, first number 3" in reasons["frame"]
    assert "3 annotated frames are not on disk" in reasons["annotation"]


def test_gap_at_the_beginning(tree: Path) -> None:
    folder = make_video(tree, "P1", "mug", "clean", "late", frames=4)
    (folder / "late-00001.jpg").unlink()
    assert "1 frames missing, first number 1" in read_orbit(tree).skipped[0].reason


def test_unusable_things_are_skipped_and_named(tree: Path) -> None:
    make_video(tree, "P1", "hat", "clutter", "h")  # nothing to learn a hat from
    make_video(tree, "P1", "mug", "clutter-pan", "c")  # not a kind
    make_video(tree, "P1", "mug", "clean", "e", frames=0)
    (tree / "train/P1/mug/clean/a/notes.txt").touch()
    (tree / "train/P1/mug/clean/a/.DS_Store").touch()  # silently ignored
    (tree / "train/P1/mug/clean/a/other-00001.jpg").touch()
    found = read_orbit(tree)
    assert [v.name for v in found.videos] == ["a", "b"]
    assert {(s.path.rsplit("/", 1)[-1], s.level) for s in found.skipped} == {
        ("hat", "object"),
        ("clutter-pan", "video"),
        ("e", "video"),
        ("notes.txt", "file"),
        ("other-00001.jpg", "file"),
    }


def test_whatever_lies_beside_the_splits_is_named(tree: Path) -> None:
    for name in ("Test", "val", "@eaDir", "lost+found", "extra", "train/@eaDir"):
        (tree / name / "P9/mug/clean/z").mkdir(parents=True)
        (tree / name / "P9/mug/clean/z/z-00001.jpg").touch()
    for name in ("README.txt", "train/list.csv", "train/P1/notes.txt", "train/P1/mug/notes.txt"):
        (tree / name).touch()
    found = read_orbit(tree)
    assert [v.name for v in found.videos] == ["a", "b"]
    levels = {s.path: s.level for s in found.skipped}
    assert levels == {
        "Test": "video",
        "val": "video",
        "@eaDir": "file",
        "lost+found": "file",
        "extra": "file",
        "train/@eaDir": "file",
        "README.txt": "file",
        "train/list.csv": "file",
        "train/P1/notes.txt": "file",
        "train/P1/mug/notes.txt": "file",
    }
    assert all("rename it" in s.reason for s in found.skipped if s.level == "video")


def test_people_with_names_alike_are_told_across_splits(tree: Path) -> None:
    video = tree / "test/p1/mug/clean/c"
    video.mkdir(parents=True)
    (video / "c-00001.jpg").touch()
    ((path, level),) = [(s.path, s.level) for s in read_orbit(tree).skipped]
    assert (path, level) == ("test/p1", "name")


def test_two_videos_of_one_name(tree: Path) -> None:
    make_video(tree, "P2", "mug", "clean", "a")
    found = read_orbit(tree)
    assert [(v.user, v.name) for v in found.videos] == [("P1", "a"), ("P1", "b")]
    assert "same name" in found.skipped[0].reason


def test_links_that_leave_the_tree(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    secret = outside / "secret.jpg"
    secret.touch()
    folder = tree / "train/P1/mug/clean/a"
    (folder / "a-00004.jpg").symlink_to(secret)
    (tree / "train/P1/mug/clean/x").symlink_to(outside)
    (tree / "train/P9").symlink_to("/", target_is_directory=True)
    note(tree, "b", {})
    (tree / "annotations/train/a.json").symlink_to(outside / "a.json")
    (outside / "a.json").write_text(json.dumps({"a-00001.jpg": CLEAN}))
    found = read_orbit(tree)
    assert found.videos[0].files == tuple(f"a-0000{n}.jpg" for n in (1, 2, 3))
    assert (found.videos[0].flags["blur_issue"] == -1).all()
    assert len(found.skipped) == 3
    assert all("leaves the tree" in s.reason for s in found.skipped)


def test_links_within_the_tree_are_followed(tree: Path) -> None:
    (tree / "train/P1/mug/clean/a/a-00004.jpg").symlink_to("a-00001.jpg")
    assert len(read_orbit(tree).videos[0].files) == 4


def test_pipes_are_not_opened(tree: Path) -> None:
    os.mkfifo(tree / "train/P1/mug/clean/a/a-00004.jpg")
    note(tree, "b", {})
    os.mkfifo(tree / "annotations/train/a.json")
    (tree / "train/P1/mug/clean/a/a-00005.jpg").symlink_to("a-00099.jpg")
    found = read_orbit(tree)
    assert len(found.videos[0].files) == 3
    assert "a pipe, a device, or a link to nothing" in found.skipped[0].reason
    assert "a pipe, a device, or a link to nothing" in found.skipped[1].reason
    assert "not a regular file" in found.skipped[2].reason


@pytest.mark.parametrize(
    "name", ["Schlüssel 🔑", "<script>alert(1)</script>", "\x1b[31mred", "‮cba"]
)
def test_strange_names_are_labels_like_others(tmp_path: Path, name: str) -> None:
    name = name.replace("/", "∕")
    make_video(tmp_path, "P1", name, "clean", "a")
    assert read_orbit(tmp_path).videos[0].object == name


def test_names_that_are_no_text(tree: Path) -> None:
    try:
        os.makedirs(os.fsencode(tree) + b"/train/P1/\xff\xfe/clean/q")
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    found = read_orbit(tree)
    assert "not UTF-8" in found.skipped[0].reason
    found.skipped[0].path.encode()


@pytest.mark.parametrize("what", ["missing", "file", "empty", "no video"])
def test_one_clear_error(tmp_path: Path, what: str) -> None:
    root = tmp_path / "tree"
    if what == "file":
        root.touch()
    elif what != "missing":
        (root / "train").mkdir(parents=True)
    if what == "no video":
        make_video(root, "P1", "hat", "clutter", "h")
    with pytest.raises(DataError, match=r"tree'") as caught:
        read_orbit(root)
    if what == "no video":
        assert "no clean video" in str(caught.value)
    with pytest.raises(DataError):
        read_tree(root)


@pytest.mark.filterwarnings("error")
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["a-00001.jpg", "x", "y", "w", "h", "object_bounding_box", *FLAGS])
                | st.text(),
                inner,
            )
        ),
    )
)
def test_any_json_gives_columns(tmp_path: Path, table: object) -> None:
    path = tmp_path / "fuzz.json"
    path.write_text(json.dumps(table), encoding="utf-8")
    notes = annotate(path, ["a-00001.jpg", "a-00002.jpg"])
    assert all(set(f.tolist()) <= {-1, 0, 1} and len(f) == 2 for f in notes.flags.values())
    finite = np.isfinite(notes.boxes)
    assert (finite.all(1) == finite.any(1)).all()
    assert (notes.boxes[finite.all(1)] <= 1080).all()


def test_reads_the_real_tree(turntable: Path) -> None:
    found = read_tree(turntable)
    assert len(found) == 336
    assert not found.skipped
    assert sum(len(v.files) for v in found.videos) == 3072
    assert {v.user for v in found.videos if v.split == "test"} == {"P007", "P008"}
    clutter = [v for v in found.videos if v.kind == "clutter"]
    absent = np.concatenate([v.flags["object_not_present_issue"] for v in clutter])
    boxed = np.concatenate([np.isfinite(v.boxes).all(1) for v in clutter])
    assert ((absent == 1) == ~boxed).all()
    assert 0.04 < (absent == 1).mean() < 0.15


def test_a_copy_with_faults_of_the_real_tree(turntable: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for part in ("train/P001", "annotations/train"):
        shutil.copytree(turntable / part, copy / part)
    note(copy, "P001--object-002--clean--CEU7biY7pt2z", '{"trunc')
    shutil.rmtree(copy / "train/P001/object 003/clean")
    found = read_tree(copy)
    assert {s.level for s in found.skipped} == {"annotation", "object"}
    assert "object 003" not in {v.object for v in found.videos}
