"""`bayesfs explain RUN --recording`: windows of a query video of a run."""

from pathlib import Path

import pytest

from bayesfs.cli.explain_run import evidence_of, find_video, reopened
from bayesfs.cli.look_closer import look_closer
from bayesfs.cli.main import FAILED, main
from bayesfs.features.windows import PARTS, WINDOWS
from bayesfs.recipes.load import recipe_folder
from bayesfs.runs.directory import RunDirectory
from bayesfs.synthetic.videos.render import render_tree


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered tree, and runs of two models on it that have learnt."""
    root = tmp_path_factory.mktemp("world")
    tree = render_tree(
        root / "tree", train_users=2, test_users=1, objects=2, clean_videos=2, clean_frames=2,
        clutter_videos=1, clutter_frames=3, size=64,
    )  # fmt: skip
    spec = ["--backbone", "efficientnet-lite0,px=64"]
    assert main(["features", str(tree), str(root / "s.zarr"), *spec]) == 0
    for name, model, engine in (("pool", "similarity_pool", "own"), ("other", "gaussian", "exact")):
        recipes = [f"models/{model}.py", f"inference/{engine}.py", "evaluation/clutter.py"]
        places = [str(recipe_folder() / recipe) for recipe in recipes]
        where = ["--data", str(root / "s.zarr"), "--out", str(root / name)]
        assert main(["run", *places, *where, "--smoke"]) == 0
    return root


def videos(world: Path) -> list[Path]:
    return sorted((world / "tree/test").glob("*/*/clutter/*"))


def test_windows_of_the_recording_are_answered_as_the_runs_model_does(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window that is the whole frame says what the run says of these very frames."""
    run, place = RunDirectory(world / "pool"), videos(world)[0]
    study, learnt, embeddings = reopened(run, trust=False, device="cpu")
    tasks = study.tasks(embeddings, learnt, seed=0)
    t, v = find_video(tasks, place.name)
    one = evidence_of(study, learnt, tasks.select([t]), v, seed=0)
    looks = look_closer(run, study, learnt, one.episodes, place, embeddings, seed=0)
    assert {*looks} == {*WINDOWS}
    monkeypatch.setattr("bayesfs.cli.look_closer.WINDOWS", {**WINDOWS, "whole": PARTS["whole"]})
    same = look_closer(run, study, learnt, one.episodes, place, embeddings, seed=0)["whole"]
    prob = one.predictive.video.prob[0, 0].tolist()
    assert [*same.prob.values()] == pytest.approx(prob, abs=1e-4)
    assert one.typical is not None
    assert same.typical == pytest.approx(float(one.typical[0, 0]), abs=1e-4)


def test_the_command_takes_the_recording_of_that_video_only(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = videos(world)[:2]
    argv = ["explain", str(world / "pool"), "--video", first.name, "--recording"]
    assert main([*argv, str(first)]) == 0
    assert "answer: " in capsys.readouterr().out
    assert main([*argv, str(second)]) == FAILED
    assert "is it the recording of another video?" in capsys.readouterr().err


def test_a_model_that_does_not_know_what_is_typical_says_so(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = videos(world)[0]
    argv = ["explain", str(world / "other"), "--video", place.name, "--recording", str(place)]
    assert main(argv) == FAILED
    assert "knows what is typical" in capsys.readouterr().err
