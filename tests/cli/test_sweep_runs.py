"""`bayesfs sweep`: a grid from recipes to one table; it goes on, it grows, it fails before work."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesfs.cli.main import FAILED, main
from bayesfs.errors import RunError
from bayesfs.recipes.load import recipe_folder
from bayesfs.recipes.overrides import choices_in
from bayesfs.results.rows import tree_rows
from bayesfs.runs.directory import RunDirectory
from bayesfs.runs.reading import load_trees
from bayesfs.runs.scored import load_scored
from bayesfs.runs.seeds import seeds_in
from bayesfs.runs.sweep import grid_of

RECIPES = [
    str(recipe_folder() / name)
    for name in ("models/gaussian.py", "inference/exact.py", "evaluation/clutter.py")
]


def command(store: Path, out: Path, *more: str) -> list[str]:
    small = ("population_engine.steps=9", "population_engine.draws=24")  # a folder's name is short
    settings = [word for setting in small for word in ("--set", setting)]
    return ["sweep", *RECIPES, "--data", str(store), "--out", str(out), *settings, *more]


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("model.loading=.25, .5", ["model.loading=.25", "model.loading=.5"]),
        ("evaluation.shots=(1,5),(3,)", ["evaluation.shots=(1,5)", "evaluation.shots=(3,)"]),
        ("engine.name='a,b',c", ["engine.name='a,b'", "engine.name=c"]),
        ("model.loading=1", ["model.loading=1"]),
        ("model.loading", ["model.loading"]),
        ("model.loading=", ["model.loading="]),
    ],
)
def test_values_between_commas_are_alternatives(setting: str, found: list[str]) -> None:
    assert choices_in(setting) == found


def test_seeds_and_grid() -> None:
    assert seeds_in("0:3") == (0, 1, 2)
    assert seeds_in("4,1:3") == (4, 1, 2)
    for wrong in ("", "a", "3:1", "1,1", "-1"):
        with pytest.raises(RunError, match="expected"):
            seeds_in(wrong)
    cells = grid_of(["a.x=1,2", "a.y=3,4"], [0, 1], [5])
    assert len({cell.name for cell in cells}) == len(cells) == 8
    assert len({cell.told(()) for cell in cells}) == 8
    assert cells[0].told(cells[0].settings[1:]).startswith(f"{cells[0].settings[0]}, episodes ")
    assert len({c.name for c in grid_of([f"a.x={'z' * 300}/.."], [0], [0, 1])}) == 2
    assert all("/" not in c.name for c in grid_of(["a.x=../../b"], [0], [0]))


@pytest.fixture(scope="module")
def sweep(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sweeps") / "loading"
    more = ("--set", "model.loading=.25,1", "--fit-seeds", "0:2")
    assert main(command(small_store, out, *more)) == 0
    return out


def test_a_sweep_has_one_table_and_metrics(sweep: Path) -> None:
    table = pd.read_csv(sweep / "table.csv")
    assert set(table["setting"]) == {"model.loading=.25", "model.loading=1"}
    assert set(table["shots"]) == {1, 5}
    at = (table["setting"] == "model.loading=1") & (table["score"] == "nll") & (table["shots"] == 5)
    row = table[at & (table["item"] == "video")].squeeze()
    runs = sorted(p for p in sweep.iterdir() if p.is_dir() and "loading=1," in p.name)
    means = [tree_rows(load_trees(RunDirectory(p))[5])["video"]["nll"].mean() for p in runs]
    assert row["value"] == pytest.approx(np.mean(means))
    assert row["fit_error"] == pytest.approx(np.std(means, ddof=1) / 2**0.5)
    metrics = json.loads((sweep / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["model.loading=1"]["video_nll_5_shots"] == pytest.approx(np.mean(means))
    own = json.loads((runs[0] / "metrics.json").read_text(encoding="utf-8"))
    assert own["video_nll_5_shots"] == pytest.approx(means[0])
    assert all(isinstance(value, float) for value in own.values())
    assert all((sweep / f"{p.name}.log").is_file() for p in runs)
    learnt = [
        RunDirectory(p).state()["files"]["population.npz"] for p in sweep.iterdir() if p.is_dir()
    ]
    assert len(set(learnt)) == 4, "other loadings or seeds, but the same population"


def test_kept_rows_are_those_of_the_results(sweep: Path) -> None:
    run = RunDirectory(next(p for p in sweep.iterdir() if p.is_dir()))
    kept, trees = load_scored(run), load_trees(run)
    for shots, tree in trees.items():
        for item, rows in tree_rows(tree).items():
            assert kept[shots][item]["nll"].tolist() == rows["nll"].tolist()
            assert kept[shots][item]["user"].tolist() == rows["user"].tolist()


def test_a_sweep_goes_on_and_grows(
    sweep: Path, small_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the run that is missing is made; the others are not touched."""
    before = {p: p.stat().st_mtime_ns for p in sweep.glob("*/results-*.nc")}
    more = ("--set", "model.loading=.25", "--fit-seeds", "0:3")
    assert main(command(small_store, sweep, *more)) == 0
    assert "2 of 3 runs are finished" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert len(list(sweep.glob("*/results-05.nc"))) == 5


def test_what_runs_have_in_common_is_learnt_once(small_store: Path, tmp_path: Path) -> None:
    """Cells that differ in the tasks' engine or in what is asked have one population."""
    out, alone = tmp_path / "sweep", tmp_path / "alone"
    more = ("--set", "engine.population_draws=4,8", "--set", "evaluation.shots=(1,),(3,)")
    assert main(command(small_store, out, *more, "--jobs", "2")) == 0
    runs = [RunDirectory(p) for p in sorted(out.iterdir()) if p.is_dir()]
    assert len(runs) == 4
    assert len({run.state()["files"]["population.npz"] for run in runs}) == 1
    logs = [(run.path / "log.txt").read_text(encoding="utf-8") for run in runs]
    assert sum("population begins" in log for log in logs) == 1
    assert sum("population as in" in log for log in logs) == 3
    assert not list(out.glob(".bayesfs-population*"))
    chosen = ["engine.population_draws=8", "evaluation.shots=(1,)"]
    words = [word for setting in chosen for word in ("--set", setting)]
    assert main(["run", *command(small_store, alone, *words)[1:]]) == 0
    (same,) = [run for run in runs if run.state()["inputs"]["settings"][-2:] == chosen]
    kept, again = (load_scored(r)[1]["video"]["nll"] for r in (same, RunDirectory(alone)))
    assert kept.tolist() == again.tolist()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "model.loading=.5,-1"], "expected above 0, got -1"),
        (["--set", "model.loadin=.5,1"], "did you mean 'loading'"),
        (["--set", "population_engine.steps=4"], "set before by"),
        (["--fit-seeds", "0-3"], "expected seeds such as"),
        (["--jobs", "0"], "expected one job or more"),
    ],
)
def test_a_mistake_in_any_run_is_told_before_the_first(
    small_store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    assert main(command(small_store, tmp_path / "sweep", *more)) == FAILED
    assert message in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_a_folder_of_somebody_else_is_refused(
    small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    assert main(command(small_store, tmp_path)) == FAILED
    assert "was not made by bayesfs for a sweep" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_told_before_work(
    small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(small_store, tmp_path / "sweep", "--device", "nonsense")) == FAILED
    assert "nonsense" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()
