"""Populations saved, shown and merged by the command, and `predict` with the one in the box."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from bayesfs.cli.main import FAILED, main
from bayesfs.data.store import save_store
from bayesfs.recipes.load import recipe_folder
from bayesfs.synthetic.tasks import synthetic_embeddings
from bayesfs.synthetic.videos.render import render_tree
from bayesfs.training.shared_population import SharedPopulation, default_population
from bayesfs.types import Embeddings


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a backbone's name, and finished smoke runs of the pool and of another model."""
    root = tmp_path_factory.mktemp("runs")
    frames, _ = synthetic_embeddings(users=2, test_users=1, way=3, shots=2, dim=9, seed=0)
    save_store(root / "s.zarr", Embeddings(frames.dataset.assign_attrs(backbone="net@32px")))
    for name, model, engine in (("pool", "similarity_pool", "own"), ("other", "gaussian", "exact")):
        recipes = [f"models/{model}.py", f"inference/{engine}.py", "evaluation/clutter.py"]
        places = [str(recipe_folder() / recipe) for recipe in recipes]
        argv = ["run", *places, "--data", str(root / "s.zarr"), "--out", str(root / name)]
        assert main([*argv, "--smoke"]) == 0
    return root


def test_a_run_s_population_is_saved_shown_and_merged(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    assert main(["population", "save", str(runs / "pool"), str(one)]) == 0
    assert capsys.readouterr().out == f"{one}: 2 people, 6 objects\n"
    saved = SharedPopulation.load(one)
    assert saved.backbone == "net@32px"
    assert saved.scatter.objects == 6
    assert main(["population", "show", str(one)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "backbone: net@32px" in shown
    assert "people: 2" in shown
    assert main(["population", "merge", str(one), str(one), "--out", str(two)]) == 0
    assert SharedPopulation.load(two).card["people"] == 4


def test_a_population_of_a_projection_is_not_shared(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["population", "save", str(runs / "other"), str(tmp_path / "x.npz")]) == FAILED
    assert "of GaussianHierarchy is of a projection" in capsys.readouterr().err
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.parametrize(
    "argv", [["save", "a"], ["merge", "a", "b"], ["show", "a", "b"], ["save", "a", "b", "c"]]
)
def test_wrong_numbers_of_files_are_told_with_the_right_ones(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["population", *argv]) == FAILED
    assert "bayesfs population save RUN OUT.npz" in capsys.readouterr().err


def test_a_file_that_is_no_population_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones(3))
    assert main(["population", "show", str(tmp_path / "x.npz")]) == FAILED
    assert "no population that bayesfs wrote" in capsys.readouterr().err


def test_the_card_of_the_population_in_the_box_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["population", "show"]) == 0
    shown = capsys.readouterr().out
    for text in (default_population().backbone, "rendered people", "fails: "):
        assert text in shown


def test_videos_are_named_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each rendered object's other clean video is named after it, and the table has the numbers."""
    tree = render_tree(
        tmp_path / "tree",
        train_users=1,
        test_users=1,
        objects=2,
        clean_videos=3,
        clean_frames=2,
        clutter_videos=1,
        clutter_frames=1,
        size=160,
        seed=2,
    )
    things = sorted(p for p in next((tree / "train").iterdir()).iterdir())
    for thing in things:
        *taught, asked = sorted((thing / "clean").iterdir())
        for video in taught:
            shutil.copytree(video, tmp_path / "teach" / thing.name / video.name)
        shutil.copytree(asked, tmp_path / "new" / f"of {thing.name}")
    table = tmp_path / "table.csv"
    argv = ["predict", str(tmp_path / "teach"), str(tmp_path / "new"), "--table", str(table)]
    assert main(argv) == 0
    said = capsys.readouterr().out.splitlines()
    assert sorted(line.partition(": ")[0] for line in said) == [f"of {t.name}" for t in things]
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["video"] for row in rows] == [f"of {row['object']}" for row in rows]
    for row in rows:
        parts = float(row["aleatoric"]) + float(row["epistemic"])
        assert parts == pytest.approx(float(row["total"]), abs=1e-6)
