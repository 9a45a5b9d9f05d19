"""`bayesfs compare`: tables and picture of runs, on the videos that all were asked about."""

import json
import shutil
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
    small = (
        "population_engine.steps=10",
        "population_engine.draws=24",
        "reduction.dim=6",
        "engine.draws=24",
        *more,
    )
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
    assert "run 1: model.loading=0.5\nrun 2: model.loading=0.9\n" in said
    assert "Scores, 1 video per object" in said
    assert "not compared at" not in said
    assert "Expected log predictive density" in said
    scores = pd.read_csv(out / "scores.csv")
    assert set(scores["shots"]) == {1, 5}
    assert set(scores["method"]) == {"model.loading=0.9"}
    assert set(scores["reference"]) == {"model.loading=0.5"}
    gap = scores["value"] - scores["reference_value"] - scores["difference"]
    assert gap.abs().max() < 1e-9
    assert set(pd.read_csv(out / "users.csv")["user"]) == {"u3", "u4"}
    assert set(pd.read_csv(out / "elpd.csv")["view"]) == {"query", "support"}
    sheet = pd.read_csv(out / "sheet.csv")
    assert set(sheet["run"]) == {"model.loading=0.5", "model.loading=0.9"}
    assert set(sheet["group"]) == {"all", "user", "object", "video", "worst users"}
    assert (out / "reliability.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((out / "comparison.json").read_text())
    assert list(summary["runs"]) == ["model.loading=0.5", "model.loading=0.9"]
    assert not list(out.glob(f"{PARTIAL}*"))


def test_runs_of_other_seeds_evaluations_and_frames_are_compared_on_what_they_share(
    runs: tuple[Path, Path],
    small_store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reseeded = run(small_store, tmp_path / "reseeded", seed=3)
    clean = ("evaluation.query_conditions=clean,clutter", "evaluation.shots=1,3")
    other = run(small_store, tmp_path / "clean", *clean)
    capsys.readouterr()
    for another, name, shots in ((reseeded, "seeds.fit=3", {1, 5}), (other, "shots=(1,3)", {1})):
        out = tmp_path / another.name / "comparison"
        assert main(["compare", str(runs[0]), str(another), "--out", str(out)]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "the runs have different episodes: compared on 12 videos" in said
        assert "of 2 people (of 2)" in said
        assert ("not compared at 3, 5 videos per object" in said) == (shots == {1})
        table = pd.read_csv(out / "scores.csv")
        assert name in table["method"].iloc[0]
        assert set(table["shots"]) == shots
        assert "query, held out" not in said


def test_runs_that_share_no_frames_or_were_made_tiny_are_told(
    runs: tuple[Path, Path],
    small_store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fewer = run(small_store, tmp_path / "fewer", "evaluation.query_frames=2")
    tiny = Path(shutil.copytree(runs[0], tmp_path / "tiny"))
    state = json.loads((tiny / "run.json").read_text(encoding="utf-8"))
    state["inputs"]["smoke"] = True
    (tiny / "run.json").write_text(json.dumps(state), encoding="utf-8")
    capsys.readouterr()
    for other, reason in (
        (fewer, "expected a video that all runs were asked about, with the same frames"),
        (tiny, "cannot be compared: they differ in choice of --smoke (False, True)"),
    ):
        assert main(["compare", str(runs[0]), str(other), "--out", str(tmp_path / "c")]) == FAILED
        assert reason in capsys.readouterr().err
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
