"""The command: help at once and with an example, errors in one line, what each subcommand does."""

import ast
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tyro
from PIL import Image

import bayesfs
from bayesfs.cli.main import CLOSED_PIPE, FAILED, INTERRUPTED, main
from bayesfs.cli.subcommands import COMMANDS
from bayesfs.data.store import open_store
from bayesfs.errors import DataError


def test_help_is_there_within_a_second() -> None:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "bayesfs.cli.main", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - began
    lines = done.stdout.splitlines()
    assert all(any(line.startswith(f"  {name} ") for line in lines) for name in COMMANDS)
    assert len(lines) < 30
    assert seconds < 1 or _heavy_modules() == [], f"--help took {seconds:.1f} s"


def _heavy_modules() -> list[str]:
    """Heavy modules that importing the command imports: what a slow machine is not to blame for."""
    code = (
        "import sys, bayesfs.cli.main; "
        "print(*{'torch', 'xarray', 'scipy', 'jax'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_help_imports_nothing_heavy() -> None:
    assert _heavy_modules() == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_s_help_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    assert f"    bayesfs {name}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("bayesfs 0.")


@pytest.mark.parametrize("argv", [["nonsense"], ["features"], []])
def test_wrong_usage_has_status_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2


def test_a_name_that_the_shell_took_apart_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my own things").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["predict", "my", "own", "things", "new"])
    assert "'my own things' is there: write it in quotes" in capsys.readouterr().err


def test_a_warning_is_said_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice() -> None:
        for text in ("one", "one", "another"):
            warnings.warn(text, stacklevel=1)

    monkeypatch.setitem(COMMANDS, "init", twice)
    assert main(["init"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said == ["bayesfs: warning: one", "bayesfs: warning: another"]


def test_an_error_is_one_line_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["features", str(tmp_path / "no\x1b[2Jwhere\nat all"), str(tmp_path / "s.zarr")]
    assert main(argv) == FAILED
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("bayesfs: error: expected a folder of videos, but '")
    assert said.err.count("\n") == 1
    assert "\x1b" not in said.err


def test_debug_raises_the_error_itself(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        main(["features", str(tmp_path / "none"), str(tmp_path / "s.zarr"), "--debug"])


def test_a_device_that_is_not_there_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mug").mkdir()
    (tmp_path / "mug" / "a.mp4").write_bytes(b"")
    argv = ["features", str(tmp_path), str(tmp_path / "s.zarr"), "--device", "nonsense"]
    assert main(argv) == FAILED
    assert "device nonsense: not usable on this machine" in capsys.readouterr().err


def test_init_copies_recipes_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "study"
    assert main(["init", str(study)]) == 0
    assert "bayesfs run models/gaussian.py" in capsys.readouterr().out
    assert (study / "evaluation" / "clutter.py").is_file()
    assert main(["init", str(study)]) == 0, "what a full disk has cut short goes on"
    own = study / "models" / "gaussian.py"
    own.write_text("model = 'of my own'\n", encoding="utf-8")
    capsys.readouterr()
    assert main(["init", str(study)]) == FAILED
    assert "exists already" in capsys.readouterr().err
    assert own.read_text(encoding="utf-8") == "model = 'of my own'\n"


def run_command(*argv: str, **settings: Any) -> "subprocess.CompletedProcess[str]":
    """The command in a process of its own, with its own standard streams."""
    command = [sys.executable, "-m", "bayesfs", *argv]
    return subprocess.run(command, text=True, **{"stderr": subprocess.PIPE, **settings})


def one_video(root: Path) -> list[str]:
    """A tree of two frames of "schlüssel" and what makes features of it."""
    folder = root / "tree" / "schlüssel" / "one"
    folder.mkdir(parents=True)
    for number in (1, 2):
        Image.new("RGB", (40, 40), (90 * number, 20, 30)).save(folder / f"{number}.jpg")
    (folder / "ä.jpg").write_bytes(b"no picture")
    return ["features", str(root / "tree"), str(root / "s.zarr"), "--px", "64"]


@pytest.mark.parametrize("way", ["closed", "full", "nobody reads it"])
def test_work_is_done_though_standard_error_cannot_be_written(way: str, tmp_path: Path) -> None:
    argv = one_video(tmp_path)
    if way == "closed":
        done = run_command(*argv, stderr=None, stdout=subprocess.PIPE, preexec_fn=close_error)
    elif way == "full":
        with open("/dev/full", "w") as full:
            done = run_command(*argv, stderr=full, stdout=subprocess.PIPE)
    else:
        with without_reader() as end:
            done = run_command(*argv, stderr=end, stdout=subprocess.PIPE)
    assert done.returncode == 0
    assert "2 frames of 1 videos" in done.stdout
    assert len(open_store(tmp_path / "s.zarr")) == 2


def close_error() -> None:
    os.close(2)


@contextmanager
def without_reader() -> Iterator[int]:
    """The end of a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("argv", [["--version"], ["--help"], ["init"]])
def test_standard_output_that_cannot_be_written_is_told_without_a_traceback(
    argv: list[str], unbuffered: str, tmp_path: Path
) -> None:
    asked = [*argv, str(tmp_path / "study")] if argv == ["init"] else argv
    settings: dict[str, Any] = {"env": {**os.environ, "PYTHONUNBUFFERED": unbuffered}}
    with open("/dev/full", "w") as full:
        done = run_command(*asked, stdout=full, **settings)
    assert (done.returncode, done.stderr.count("\n")) == (FAILED, 1)
    assert "cannot write to standard output: the disk is full" in done.stderr
    if argv == ["init"]:
        asked[1] += "-again"
    with without_reader() as end:
        done = run_command(*asked, stdout=end, **settings)
    assert (done.returncode, done.stderr) == (CLOSED_PIPE, "")


def test_standard_output_of_few_characters_escapes_the_others(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = run_command(*one_video(tmp_path), stdout=subprocess.PIPE, env=env)
    assert done.returncode == 0, done.stderr
    assert "left out: schl\\xfcssel/one/\\xe4.jpg" in done.stdout


def test_a_closed_standard_output_gives_no_file_its_place(tmp_path: Path) -> None:
    done = run_command(*one_video(tmp_path), preexec_fn=close_output)
    assert done.returncode == 0, done.stderr
    assert len(open_store(tmp_path / "s.zarr")) == 2


def close_output() -> None:
    os.close(1)


@pytest.mark.parametrize(
    ("command", "goes_on"), [("run", True), ("features", True), ("predict", False)]
)
def test_only_what_goes_on_promises_to_go_on(
    command: str,
    goes_on: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*args: object, **rest: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tyro.extras, "subcommand_cli_from_dict", interrupted)
    assert main([command, "anything"]) == INTERRUPTED
    said = capsys.readouterr().err
    assert said.startswith("bayesfs: interrupted")
    assert ("the same command goes on" in said) == goes_on


def test_without_docstrings_it_says_so_in_one_line() -> None:
    code = "import bayesfs"
    done = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True)
    assert "ImportError: bayesfs does not run with python -OO" in done.stderr.splitlines()[-1]
    command = [sys.executable, "-OO", "-m", "bayesfs", "report", "runs/first"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == FAILED
    assert done.stderr.startswith("bayesfs: error: bayesfs does not run with python -OO")
    assert done.stderr.count("\n") == 1


def test_no_assertion_carries_logic() -> None:
    """`python -O` removes assertions, so that the package has none."""
    for path in Path(bayesfs.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
        assert not lines, f"{path}, lines {lines}"
