"""A run directory survives kill -9, a full disk and a second run; it never takes half for whole."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bayesfs._utils.atomic import PARTIAL
from bayesfs.errors import RunError
from bayesfs.runs.directory import FIELDS, LOCK, STATE, RunDirectory, explained, write_atomically

INPUTS = {"seed": 0, "data": "abc"}


def fresh(path: Path) -> RunDirectory:
    run = RunDirectory(path / "run")
    with run.begin(INPUTS, {"model.py": "model = 1\n"}):
        pass
    return run


def test_a_run_keeps_recipes_inputs_and_finished_files(tmp_path: Path) -> None:
    run = fresh(tmp_path)
    with run.begin(INPUTS, {}):
        run.keep("note.txt", lambda p: p.write_text("whole"))
        run.finish(versions={"bayesfs": "0"})
    assert (run.path / "recipes" / "model.py").read_text() == "model = 1\n"
    assert run.kept("note.txt") == run.path / "note.txt"
    assert run.kept("other.txt") is None
    assert run.is_done
    assert run.state()["inputs"] == INPUTS
    assert run.state()["versions"] == {"bayesfs": "0"}


def test_a_first_try_that_finished_nothing_may_be_corrected(tmp_path: Path) -> None:
    run = fresh(tmp_path)
    with run.begin({"seed": 1, "data": "a"}, {"model.py": "model = 2\n"}):
        run.keep("note.txt", lambda p: p.write_text("whole"))
    assert run.state()["inputs"]["seed"] == 1
    assert (run.path / "recipes" / "model.py").read_text() == "model = 2\n"


def test_another_run_s_inputs_are_refused_by_name(tmp_path: Path) -> None:
    run = fresh(tmp_path)
    with run.begin(INPUTS, {}):
        run.keep("note.txt", lambda p: p.write_text("whole"))
    with (
        pytest.raises(RunError, match="holds a run that differs in data, seed"),
        run.begin({"seed": 1, "data": "b"}, {}),
    ):
        pass


def test_a_folder_with_other_files_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    (tmp_path / ".profile.txt").write_text("mine")
    with (
        pytest.raises(RunError, match="choose another --out"),
        RunDirectory(tmp_path).begin({}, {}),
    ):
        pass
    assert {p.name for p in tmp_path.iterdir()} == {"letters.txt", ".profile.txt", LOCK}


def test_two_runs_at_once_one_is_refused(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with (
        run.begin(INPUTS, {}),
        pytest.raises(RunError, match="another bayesfs run is writing here"),
        RunDirectory(tmp_path).begin(INPUTS, {}),
    ):
        pass
    with run.begin(INPUTS, {}):
        pass


HOLD = """
import sys
from pathlib import Path
from bayesfs.runs.directory import RunDirectory, write_atomically
run = RunDirectory(Path(sys.argv[1]))
def stall(path):
    path.write_text("half")
    print("ready", flush=True)
    sys.stdin.read()
with run.begin({"seed": 0, "data": "abc"}, {}):
    run.keep("first.txt", lambda p: p.write_text("whole"))
    run.keep("second.txt", stall)
"""


def test_a_killed_run_gives_back_the_lock_and_leaves_no_half_file(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    run = RunDirectory(tmp_path)
    with pytest.raises(RunError, match="another bayesfs run"), run.begin(INPUTS, {}):
        pass
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert list(tmp_path.glob(f"{PARTIAL}*"))
    with run.begin(INPUTS, {}):
        assert run.kept("first.txt") is not None
        assert run.kept("second.txt") is None
        assert not (tmp_path / "second.txt").exists()
        assert not list(tmp_path.glob(f"{PARTIAL}*"))


def test_a_changed_or_lost_file_is_told(tmp_path: Path) -> None:
    run = fresh(tmp_path)
    path = run.keep("note.txt", lambda p: p.write_text("whole"))
    path.write_text("other")
    with pytest.raises(RunError, match="has changed since the run wrote it"):
        run.kept("note.txt")
    path.unlink()
    with pytest.raises(RunError, match="is missing since"):
        run.kept("note.txt")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"format": 99}', '{"format": 2, "status": 1}', "[" * 100_000]
)
def test_a_broken_state_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / STATE).write_text(text)
    with pytest.raises(RunError, match=STATE):
        RunDirectory(tmp_path).state()


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_another_kind_is_told(tmp_path: Path, field: str) -> None:
    run = fresh(tmp_path)
    state = json.loads((run.path / STATE).read_text()) | {field: 3}
    (run.path / STATE).write_text(json.dumps(state))
    with pytest.raises(RunError, match=f"expected {field} to be"):
        run.state()


@pytest.mark.parametrize("name", ["../note.txt", "/etc/hostname", "a/b"])
def test_files_outside_the_directory_are_never_read(tmp_path: Path, name: str) -> None:
    run = fresh(tmp_path)
    state = json.loads((run.path / STATE).read_text()) | {"files": {name: "0"}}
    (run.path / STATE).write_text(json.dumps(state))
    with pytest.raises(RunError, match="which is no file of a run"):
        run.kept(name)


def test_no_run_here_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected the --out folder of `bayesfs run`"):
        RunDirectory(tmp_path).state()


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_the_system_s_refusals_are_explained(tmp_path: Path, number: int, message: str) -> None:
    path = tmp_path / "x.txt"
    path.write_text("before")

    def refuse(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number), str(temporary))

    with pytest.raises(RunError, match=message):
        write_atomically(path, refuse)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_really_full_disk_is_explained() -> None:
    full = Path("/dev/full")
    with pytest.raises(RunError, match="the disk is full"), explained(full):
        full.write_text("x")


def test_a_path_through_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with (
        pytest.raises(RunError, match="part of the path is a file"),
        RunDirectory(tmp_path / "f" / "run").begin({}, {}),
    ):
        pass


def test_state_is_plain_json(tmp_path: Path) -> None:
    assert json.loads((fresh(tmp_path).path / STATE).read_text())["status"] == "running"
