"""A person's own videos: taught by folders of frames, unlabelled ones named in a sentence."""

import csv
import re
import shutil
from pathlib import Path

import pytest

from bayesfs.cli import FAILED, main
from bayesfs.data.render import render_tree
from bayesfs.recipes import recipe_folder
from bayesfs.runs import TOLD
from bayesfs.told import Told


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered tree, a finished run on it, and one of its users' videos as plain folders."""
    root = tmp_path_factory.mktemp("world")
    tree = render_tree(
        root / "tree",
        train_users=3,
        test_users=1,
        objects=2,
        clean_videos=2,
        clean_frames=3,
        clutter_videos=1,
        clutter_frames=3,
        size=64,
    )
    assert main(["features", str(tree), str(root / "s.zarr"), "--px", "64"]) == 0
    recipes = [
        str(recipe_folder() / name)
        for name in ("models/gaussian.py", "inference/exact.py", "evaluation/clutter.py")
    ]
    argv = ["run", *recipes, "--data", str(root / "s.zarr"), "--out", str(root / "run"), "--smoke"]
    assert main(argv) == 0
    for thing in next((tree / "test").iterdir()).iterdir():
        for video in (thing / "clean").iterdir():
            shutil.copytree(video, root / "teach" / thing.name / video.name)
        for video in (thing / "clutter").iterdir():
            shutil.copytree(video, root / "new" / f"of {thing.name}")
    return root


def arguments(world: Path, *more: str) -> list[str]:
    places = [str(world / name) for name in ("teach", "new")]
    return ["predict", *places, "--run", str(world / "run"), *more]


def test_every_unlabelled_video_gets_a_sentence_and_a_row(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    assert main(arguments(world, "--table", str(table))) == 0
    things = sorted(p.name for p in (world / "teach").iterdir())
    said = capsys.readouterr().out.splitlines()
    assert sorted(line.partition(": ")[0] for line in said) == [f"of {thing}" for thing in things]
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(things)
    for row in rows:
        assert row["object"] in things
        assert 1 / len(things) <= float(row["probability"]) <= 1
        parts = float(row["aleatoric"]) + float(row["epistemic"])
        assert parts == pytest.approx(float(row["total"]), abs=1e-6)


def test_an_edited_recipe_of_a_run_is_not_run_unless_trusted(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(world / "run", run)
    (run / "recipes" / "model.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    argv = ["predict", str(world / "teach"), str(world / "new"), "--run", str(run)]
    assert main(argv) == FAILED
    assert "is not a recipe that bayesfs ships" in capsys.readouterr().err
    assert main([*argv, "--trust"]) == FAILED
    assert "line 1: SystemExit: ran" in capsys.readouterr().err


def test_a_run_without_a_population_is_told(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["predict", str(world / "teach"), str(world / "new"), "--run", str(tmp_path)]
    assert main(argv) == FAILED
    assert "run.json" in capsys.readouterr().err


def test_folders_given_the_wrong_way_round_are_told(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    argv = ["predict", str(world / "teach"), str(tmp_path / "empty"), "--run", str(world / "run")]
    assert main(argv) == FAILED
    assert "expected videos to name" in capsys.readouterr().err


def test_it_says_of_a_video_what_the_report_of_its_run_says(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answers, taught by the same videos, with the run's rules; advice rests on draws."""
    told = Told.load(world / "run" / TOLD)
    capsys.readouterr()
    assert main(arguments(world)) == 0
    said = {k: v for k, _, v in (s.partition(": ") for s in capsys.readouterr().out.splitlines())}
    assert len(said) == len(told.said) == 2
    for thing in sorted(p.name for p in (world / "teach").iterdir()):
        (mine,) = (text for video, text in said.items() if video == f"of {thing}")
        name = f"--{thing.replace(' ', '-')}--"
        (reported,) = (one.text for (_, video), one in told.said.items() if name in video)
        assert named(mine) == named(reported)


def named(sentence: str) -> set[str]:
    """The first sentence's words and objects, in any order."""
    return set(re.split(r", | or |: |\.", sentence.partition(". ")[0]))
