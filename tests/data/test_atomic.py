"""What is written appears whole or not at all, file or folder."""

from pathlib import Path

import pytest

from bayesfs.data.atomic import PARTIAL, remove, sweep, write_whole


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


def test_sweep_removes_what_a_kill_left_and_follows_no_link(tmp_path: Path) -> None:
    folder(tmp_path / "mine", "kept")
    folder(tmp_path / f"{PARTIAL}1-d", "half")
    (tmp_path / f"{PARTIAL}2-f").write_text("half")
    (tmp_path / f"{PARTIAL}3-link").symlink_to(tmp_path / "mine")
    sweep(tmp_path)
    assert names(tmp_path) == {"mine"}
    assert (tmp_path / "mine" / "inside.txt").read_text() == "kept"
    remove(tmp_path / "nothing")
