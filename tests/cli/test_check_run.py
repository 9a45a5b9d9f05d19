"""`bayesfs check`: a right engine passes with status 0, a wrong one fails with 1."""

from pathlib import Path

import numpy as np
import pytest

from bayesfs.cli.check_run import reading, show
from bayesfs.cli.main import FAILED, main
from bayesfs.diagnostics.sbc import Calibration

FEW = [
    word
    for setting in ("population_engine.steps=3", "population_engine.draws=24", "reduction.dim=4")
    for word in ("--set", setting)
]
"""Few draws of the population too: a run draws up to as many, whatever its engine is asked for."""


def run(store: Path, out: Path, engine: str, *settings: str) -> Path:
    recipes = ["models/gaussian.py", f"inference/{engine}.py", "evaluation/clutter.py"]
    argv = ["run", *recipes, "--data", str(store), "--out", str(out), *FEW, *settings]
    assert main(argv) == 0
    return out


@pytest.fixture(scope="module")
def exact(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "exact"
    return run(small_store, out, "exact", "--set", "engine.draws=64")


def test_an_exact_engine_passes(exact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    before = {p: p.stat().st_mtime_ns for p in exact.iterdir()}
    assert main(["check", str(exact), "--simulations", "64"]) == 0
    said = capsys.readouterr().out
    assert "Exact near these data, 64 simulations" in said
    assert "width of class_raw" in said
    assert said.splitlines()[-1].startswith("passes: p ")
    assert {p: p.stat().st_mtime_ns for p in exact.iterdir()} == before, "it writes nothing"


def test_a_mean_field_fails(
    small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--set", "engine.steps=150", "--set", "engine.draws=64")
    out = run(small_store, tmp_path / "svi", "svi", *few)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["check", str(out), "--simulations", "64"])
    assert stop.value.code == 1
    said = capsys.readouterr().out
    assert "too narrow" in said
    assert said.splitlines()[-1].startswith("fails: p ")


def test_what_cannot_be_tested_is_an_error(
    exact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(tmp_path)]) == FAILED
    assert main(["check", str(exact), "--shots", "99"]) == FAILED
    assert main(["check", str(exact), "--simulations", "0"]) == FAILED
    assert "simulations" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        (np.repeat([0, 63], 50), "too narrow"),
        (np.full(100, 31), "too wide"),
        (np.arange(100) % 16, "too high"),
        (48 + np.arange(100) % 16, "too low"),
    ],
)
def test_a_table_says_what_is_wrong(ranks, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = Calibration({"one": ranks}, 63)
    assert reading(found.table.loc["one"]) == said
    show(found, "Engine")
    assert said in capsys.readouterr().out
