"""`bayesfs compare`: tables and picture of runs of the same episodes; other runs are refused."""

import json
from pathlib import Path

import pandas as pd
import pytest

from bayesfs._utils.atomic import PARTIAL
from bayesfs.cli.compare_runs import short_names
from bayesfs.cli.main import FAILED, main
from bayesfs.recipes.load import recipe_folder

RECIPES = [
    str(recipe_folder() / name)
    for name in ("models/gaussian.py", "inference/exact.py", "evaluation/clutter.py")
]


def run(store: Path, out: Path, *more: str, seed: int = 0) -> Path:
    small = ("population_engine.steps=10", "reduction.dim=6", "engine.draws=24", *more)
    settings = [word for setting in small for word in ("--set", setting)]
    argv = ["run", *RECIPES, "--data", str(store), "--out", str(out), *settings]
    assert main([*argv, "--seed", str(seed)]) == 0
    return out


@pytest.fixture(scope="module")
def runs(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    first = run(small_store, folder / "first")
    return first, run(small_store, folder / "second", "model.loading=0.9")


def test_tables_and_picture(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "comparison"
    assert main(["compare", *map(str, runs), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "Scores, 1 video per object" in said
    assert "Expected log predictive density" in said
    scores = pd.read_csv(out / "scores.csv")
    assert set(scores["shots"]) == {1, 5}
    assert set(scores["method"]) == {"second"}
    gap = scores["value"] - scores["reference_value"] - scores["difference"]
    assert gap.abs().max() < 1e-9
    assert set(pd.read_csv(out / "users.csv")["user"]) == {"u3", "u4"}
    assert set(pd.read_csv(out / "elpd.csv")["view"]) == {"query", "support"}
    sheet = pd.read_csv(out / "sheet.csv")
    assert set(sheet["run"]) == {"first", "second"}
    assert set(sheet["group"]) == {"all", "user", "object", "video", "worst users"}
    assert (out / "reliability.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((out / "comparison.json").read_text())
    assert list(summary["runs"]) == ["first", "second"]
    assert not list(out.glob(f"{PARTIAL}*"))


def test_runs_of_other_episodes_are_refused(
    runs: tuple[Path, Path],
    small_store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reseeded = run(small_store, tmp_path / "reseeded", seed=3)
    fewer = run(small_store, tmp_path / "fewer", "evaluation.query_frames=2")
    capsys.readouterr()
    for other, reason in ((reseeded, "seed (0, 3)"), (fewer, "evaluation.query_frames=2")):
        assert main(["compare", str(runs[0]), str(other), "--out", str(tmp_path / "c")]) == FAILED
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "not of the same users and episodes" in said
        assert reason in said
    assert not (tmp_path / "c").exists()


def test_fewer_than_two_runs_or_the_same_one_twice(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(runs[0])]) == FAILED
    assert "two runs or more" in capsys.readouterr().err
    assert main(["compare", str(runs[0]), str(runs[0])]) == FAILED
    assert "the same run twice" in capsys.readouterr().err
    assert main(["compare", str(runs[0]), str(tmp_path)]) == FAILED
    assert "holds no run.json" in capsys.readouterr().err


def test_engines_are_compared_on_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", RECIPES[0], RECIPES[1]]) == FAILED
    assert "--data STORE" in capsys.readouterr().err


def test_names_are_the_shortest_that_tell_runs_apart(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "c"]
    assert short_names(paths[:1] + paths[2:]) == ["run", "c"]
    assert short_names(paths)[:2] == ["a/run", "b/run"]
