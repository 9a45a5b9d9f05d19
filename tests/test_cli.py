"""The command: help at once and with an example, errors in one line, what each subcommand does."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bayesfs.cli import COMMANDS, FAILED, main
from bayesfs.errors import DataError


def test_help_is_there_within_a_second() -> None:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "bayesfs.cli", "--help"], capture_output=True, text=True, check=True
    )
    seconds = time.perf_counter() - began
    assert all(name in done.stdout for name in COMMANDS)
    assert seconds < 1 or _heavy_modules() == [], f"--help took {seconds:.1f} s"


def _heavy_modules() -> list[str]:
    """Heavy modules that importing the command imports: what a slow machine is not to blame for."""
    code = "import sys, bayesfs.cli; print(*{'torch', 'xarray', 'scipy', 'jax'} & set(sys.modules))"
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
    assert "--device nonsense: not usable on this machine" in capsys.readouterr().err


def test_init_copies_recipes_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "study"
    assert main(["init", str(study)]) == 0
    assert "bayesfs run models/gaussian.py" in capsys.readouterr().out
    assert (study / "evaluation" / "clutter.py").is_file()
    capsys.readouterr()
    assert main(["init", str(study)]) == FAILED
    assert "exists already" in capsys.readouterr().err
