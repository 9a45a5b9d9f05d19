"""What is written appears whole or not at all, file or folder."""

import errno
import os
from pathlib import Path

import pytest

from bayesfs._utils.atomic import PARTIAL, remove, remove_partial, write_whole


def folder(path: Path, text: str) -> None:
    path.mkdir()
    (path / "inside.txt").write_text(text)


def names(path: Path) -> set[str]:
    return {p.name for p in path.iterdir()}


def test_a_file_and_a_folder_are_replaced(tmp_path: Path) -> None:
    for text in ("old", "new"):
        write_whole(tmp_path / "f.txt", lambda p, text=text: p.write_text(text))
        write_whole(tmp_path / "d", lambda p, text=text: folder(p, text))
    assert (tmp_path / "f.txt").read_text() == "new"
    assert (tmp_path / "d" / "inside.txt").read_text() == "new"
    assert names(tmp_path) == {"f.txt", "d"}


@pytest.mark.parametrize("make", [lambda p: p.write_text("half"), lambda p: folder(p, "half")])
def test_a_failure_leaves_what_was_there(tmp_path: Path, make: object) -> None:
    folder(tmp_path / "d", "old")

    def fail(path: Path) -> None:
        make(path)  # type: ignore[operator]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "d", fail)
    assert (tmp_path / "d" / "inside.txt").read_text() == "old"
    assert names(tmp_path) == {"d"}


def test_a_reader_never_sees_the_temporary_under_the_name(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        assert path.suffix == ".nc"
        assert not (tmp_path / "r.nc").exists()
        path.write_text("whole")

    write_whole(tmp_path / "r.nc", write)


def test_a_link_under_the_name_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("mine")
    (tmp_path / "f.txt").symlink_to(tmp_path / "outside.txt")
    write_whole(tmp_path / "f.txt", lambda p: p.write_text("ours"))
    assert not (tmp_path / "f.txt").is_symlink()
    assert (tmp_path / "f.txt").read_text() == "ours"
    assert (tmp_path / "outside.txt").read_text() == "mine"


def test_nobody_can_foresee_or_enter_where_it_is_made(tmp_path: Path) -> None:
    places = []

    def write(path: Path) -> None:
        places.append(path.parent)
        assert path.parent.stat().st_mode & 0o777 == 0o700
        path.write_text("x")

    for _ in range(3):
        write_whole(tmp_path / "f.txt", write)
    assert len({place.name for place in places}) == 3
    assert names(tmp_path) == {"f.txt"}


def test_a_link_between_is_followed_only_where_a_person_named_it(tmp_path: Path) -> None:
    outside, run = tmp_path / "outside", tmp_path / "run"
    outside.mkdir()
    run.mkdir()
    (run / "explained").symlink_to(outside)
    with pytest.raises(OSError, match="symbolic links") as caught:
        write_whole(run / "explained" / "f", lambda p: p.write_text("x"), within=run)
    assert caught.value.errno == errno.ELOOP
    assert names(outside) == set()
    write_whole(run / "explained" / "f", lambda p: p.write_text("x"))
    assert names(outside) == {"f"}


def test_a_folder_that_is_exchanged_meanwhile_gets_nothing(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()

    def write(path: Path) -> None:
        path.write_text("x")
        ours.rename(tmp_path / "moved")
        os.symlink(theirs, ours)

    with pytest.raises(OSError, match=r"No such file"):
        write_whole(ours / "f", lambda p: (write(p), p.stat()))
    assert names(theirs) == set()


def test_sweep_removes_what_a_kill_left_and_follows_no_link(tmp_path: Path) -> None:
    folder(tmp_path / "mine", "kept")
    folder(tmp_path / f"{PARTIAL}1-d", "half")
    (tmp_path / f"{PARTIAL}2-f").write_text("half")
    (tmp_path / f"{PARTIAL}3-link").symlink_to(tmp_path / "mine")
    remove_partial(tmp_path)
    assert names(tmp_path) == {"mine"}
    assert (tmp_path / "mine" / "inside.txt").read_text() == "kept"
    remove(tmp_path / "nothing")
