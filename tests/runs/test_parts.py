"""A run in parts, without dask: the same groups, scores and report as in one."""

import shutil
from pathlib import Path

import pytest
import xarray as xr

from bayesfs.cli.main import FAILED, main
from bayesfs.data.store import save_store
from bayesfs.errors import RunError
from bayesfs.recipes.load import recipe_folder
from bayesfs.results.table_scores import as_score_table, summary
from bayesfs.results.tables import join_tables, read_tables
from bayesfs.runs import distributed_run
from bayesfs.runs.directory import RunDirectory
from bayesfs.runs.parts import RunPart, folder_of
from bayesfs.runs.reading import load_scores
from bayesfs.synthetic.tasks import synthetic_embeddings

USERS = 35
"""Test users: three groups of at most sixteen."""


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Everything but where it goes."""
    store = tmp_path_factory.mktemp("many") / "store.zarr"
    size = {"way": 3, "shots": 2, "frames": 2, "query_videos": 1, "dim": 8}
    save_store(store, synthetic_embeddings(users=3, test_users=USERS, seed=1, **size)[0])
    names = ("models/gaussian.py", "inference/exact.py", "evaluation/clutter.py")
    recipes = [str(recipe_folder() / name) for name in names]
    small = (
        "population_engine.steps=5",
        "population_engine.draws=8",
        "reduction.dim=4",
        "engine.draws=8",
    )
    return ["run", *recipes, "--data", str(store), *[x for s in small for x in ("--set", s)]]


@pytest.fixture(scope="module")
def runs(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in one part, not joined, and in two that are, of whom the report shows one person."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed_run, "SHOWN", 1)
        for of, parts in ((1, ("1",)), (2, ("1", "2", "all"))):
            for part in parts:
                out = ["--out", str(root / f"in-{of}"), "--shard", f"{part}/{of}"]
                assert main([*command, *out]) == 0
    return root


def table(folder: Path, shots: int) -> xr.Dataset:
    return join_tables(list(read_tables(folder / distributed_run.RESULTS, shots)))


def test_parts_have_the_numbers_of_one_process(runs: Path) -> None:
    one, two = folder_of(runs / "in-1") / "1-of-1", runs / "in-2"
    for shots in load_scores(RunDirectory(two)):
        assert len(table(one, shots)["task"]) == USERS
        xr.testing.assert_identical(table(one, shots), table(two, shots))
        scores = as_score_table(summary(one / distributed_run.RESULTS, shots))
        found = load_scores(RunDirectory(two))[shots]
        xr.testing.assert_allclose(scores["estimate"], found["estimate"])
    assert "Scores are of all 35 people" in (two / "report.html").read_text()


def test_the_population_is_learnt_once(runs: Path) -> None:
    parts = sorted(folder_of(runs / "in-2").glob("*-of-2"))
    assert [p.name for p in parts] == ["1-of-2", "2-of-2"]
    states = [RunDirectory(p).state() for p in (*parts, runs / "in-2")]
    assert len({s["files"]["population.npz"] for s in states}) == 1
    groups = [len(list((p / "results.zarr" / "shots-05").iterdir())) for p in parts]
    assert groups == [2, 1]


def test_what_is_missing_or_damaged_is_told(
    runs: Path, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder_of(runs / "in-2"), folder_of(tmp_path / "run"))
    joined = [*command, "--out", str(tmp_path / "run"), "--shard"]
    assert main([*joined, "all/3"]) == FAILED
    assert "parts [1, 2, 3] of 3 are missing" in capsys.readouterr().err
    group = folder_of(tmp_path / "run") / "2-of-2" / "results.zarr" / "shots-05" / "batch-000001"
    shutil.rmtree(group)
    assert main([*joined, "all/2"]) == FAILED
    assert "group 1 is gone or damaged" in capsys.readouterr().err
    assert main([*joined, "1/2", "--cluster", "local"]) == FAILED
    assert "--cluster or --shard" in capsys.readouterr().err


def test_parts_of_another_run_are_not_joined(
    runs: Path, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder_of(runs / "in-2"), folder_of(tmp_path / "run"))
    other = [*command, "--seed", "5", "--out", str(tmp_path / "run"), "--shard", "all/2"]
    assert main(other) == FAILED
    assert "differs in episode_seed, seed" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/2", "1/0", "1/2/3", "-1/2", "all", "1/ 2"])
def test_a_part_is_named_by_two_numbers(text: str) -> None:
    with pytest.raises(RunError, match="expected --shard"):
        RunPart.parse(text)


def test_every_batch_is_of_one_part() -> None:
    for of in (1, 3, 8):
        owners = [[s for s in range(1, of + 1) if RunPart(s, of).has(b)] for b in range(20)]
        assert all(len(o) == 1 for o in owners)
