"""A person's own videos: taught by folders of frames, unlabelled ones named in a sentence."""

import csv
import errno
import io
import json
import re
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bayesfs.cli import name_videos
from bayesfs.cli.main import CLOSED_PIPE, FAILED, main
from bayesfs.data.sampling import sample_episodes
from bayesfs.data.sources.video import UNKNOWN_OBJECT
from bayesfs.errors import DataError
from bayesfs.explanation.record import ExplanationRecord
from bayesfs.features.decoding.sampling import Sampling, Spread
from bayesfs.features.quality import COVARIATES, quality
from bayesfs.features.windows import WINDOWS, Window
from bayesfs.recipes.load import recipe_folder
from bayesfs.recipes.scripts import read_recipe
from bayesfs.runs import reuse
from bayesfs.runs.directory import RunDirectory
from bayesfs.runs.reading import EXPLANATIONS
from bayesfs.runs.run import recipe_digest
from bayesfs.synthetic.videos.render import render_tree
from bayesfs.types import CONDITIONS, Embeddings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered tree, a finished run on it, and one of its users' videos as plain folders."""
    root = tmp_path_factory.mktemp("world")
    tree = render_tree(
        root / "tree",
        train_users=6,
        test_users=1,
        objects=2,
        clean_videos=2,
        clean_frames=3,
        clutter_videos=1,
        clutter_frames=3,
        size=64,
    )
    spec = ["--backbone", "efficientnet-lite0,px=64"]
    assert main(["features", str(tree), str(root / "s.zarr"), "--max-frames", "2", *spec]) == 0
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
    shown = capsys.readouterr()
    assert re.search(r"of \d+ are recognised: of 10 more like them, expect \d+ to 10", shown.err)
    said = shown.out.splitlines()
    assert sorted(line.partition(": ")[0] for line in said) == [f"of {thing}" for thing in things]
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(things)
    for row in rows:
        assert row["object"] in things
        assert 1 / len(things) <= float(row["probability"]) <= 1
        parts = float(row["aleatoric"]) + float(row["epistemic"])
        assert parts == pytest.approx(float(row["total"]), abs=1e-6)


def test_the_table_holds_every_class_and_the_set(world: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    things = sorted(p.name for p in (world / "teach").iterdir())
    for more in ([], ["--condition", "clean"]):
        places = [str(world / name) for name in ("teach", "new")]
        assert main(["predict", *places, "--table", str(table), *more]) == 0  # the one in the box
        with table.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            prob = {thing: float(row[f"p({thing})"]) for thing in things}
            assert sum(prob.values()) == pytest.approx(1.0, abs=1e-6)
            assert row["object"] == max(prob, key=lambda thing: prob[thing])
            assert {*row["set"].split(" | ")} <= {*things, ""}
            assert (row["set"] == "") == row["sentence"].startswith("This may be none of")
            assert 0.0 <= float(row["typical"]) <= 1.0


def test_windows_of_every_video_are_looked_at_where_the_model_knows_what_is_typical(
    world: Path,
) -> None:
    """A window of the whole frame says what the frames themselves do."""
    teacher = name_videos.boxed("cpu")
    found = name_videos.read_personal(world / "teach", world / "new", teacher)
    looks = name_videos.looked_at(teacher, found, "clutter")
    tasks = name_videos.asked_tasks(teacher, found.embeddings, "clutter")
    assert {*looks} == {*tasks.videos[0]}
    whole = {"whole": Window(0.5, 0.5, 1.0)}
    same = name_videos.looked_at(teacher, found, "clutter", windows=whole)
    answer = teacher.study.infer(tasks, teacher.learnt, seed=teacher.seed)
    for video, prob in zip(tasks.videos[0], answer.predictive.video.prob[0], strict=True):
        assert {*looks[video]} == {*WINDOWS}
        for look in looks[video].values():
            assert sum(look.prob.values()) == pytest.approx(1.0)
        assert [*same[video]["whole"].prob.values()] == pytest.approx(prob.tolist(), abs=1e-6)
    run = name_videos.of_run(world / "run", None, trust=False)
    found = name_videos.read_personal(world / "teach", world / "new", run)
    assert name_videos.looked_at(run, found, "clutter") == {}


def test_a_dark_video_among_those_to_name_is_told_from_the_others() -> None:
    """Beside what was taught, of all things together; taught videos are not told of."""
    rng = np.random.default_rng(0)
    images = rng.integers(60, 200, (6, 16, 16, 3)).astype(np.uint8)
    images[5] //= 4
    measured = quality(images)
    frames = Embeddings.from_arrays(
        rng.normal(size=(6, 4)),
        object=["a", "a", "b", "b", UNKNOWN_OBJECT, UNKNOWN_OBJECT],
        video=["a1", "a2", "b1", "b2", "as usual", "by night"],
        quality={name: measured[:, i] for i, name in enumerate(COVARIATES)},
    )
    assert name_videos.defects_in(frames) == {"by night": "dark"}


def test_the_condition_of_a_video_is_inferred(world: Path) -> None:
    """By which condition it is likelier in, though not without error; what is told is taken."""
    teacher = name_videos.of_run(world / "run", None, trust=False)
    found = name_videos.read_personal(world / "teach", world / "new", teacher)
    tasks = name_videos.asked_tasks(teacher, found.embeddings, "unknown")
    told = name_videos.asked_tasks(teacher, found.embeddings, "clutter")
    assert (told.query_condition == 1).all()
    assert (tasks.query_condition == 1).any()
    alike = name_videos.read_personal(
        world / "teach", world / "teach" / things_of(world)[0], teacher
    )
    tasks = name_videos.asked_tasks(teacher, alike.embeddings, "unknown")
    assert (tasks.query_condition == 0).all()


def test_an_edited_recipe_of_a_run_is_not_run_unless_trusted(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(world / "run", run)
    recipe = run / "recipes" / "model.py"
    recipe.write_text("raise SystemExit('ran')", encoding="utf-8")
    argv = ["predict", str(world / "teach"), str(world / "new"), "--run", str(run)]
    for more in ([], ["--trust"]):
        assert main([*argv, *more]) == FAILED
        assert "has changed since the run was made with it" in capsys.readouterr().err
    state = json.loads((run / "run.json").read_text(encoding="utf-8"))
    state["inputs"]["recipes"]["model.py"] = recipe_digest(recipe.read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps(state), encoding="utf-8")
    assert main(argv) == FAILED
    assert "is not a recipe that bayesfs ships" in capsys.readouterr().err
    assert main([*argv, "--trust"]) == FAILED
    assert "line 1: SystemExit: ran" in capsys.readouterr().err


def test_the_text_of_a_recipe_that_was_checked_is_what_runs(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the file is another one as soon as it has been read."""
    run = tmp_path / "run"
    shutil.copytree(world / "run", run)

    def read_then_swapped(path: Path) -> str:
        text = read_recipe(path)
        path.write_text("raise SystemExit('ran')", encoding="utf-8")
        return text

    monkeypatch.setattr(reuse, "read_recipe", read_then_swapped)
    found = reuse.kept_recipes(RunDirectory(run), trust=False)
    assert type(found["model"].values["model"]).__name__ == "GaussianHierarchy"
    assert "ran" not in found["model"].source


def damaged(world: Path, tmp_path: Path, *places: str) -> Path:
    """The videos of the world, some of which cannot be decoded; an empty place is emptied."""
    copy = tmp_path / "mine"
    for part in ("teach", "new"):
        shutil.copytree(world / part, copy / part)
    for place in places:
        for frame in (copy / place).rglob("*.jpg"):
            frame.write_bytes(b"no picture")
    return copy


def things_of(world: Path) -> list[str]:
    return sorted(p.name for p in (world / "teach").iterdir())


def test_an_object_of_which_no_video_can_be_read_is_an_error_unless_allowed(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost, other = things_of(world)
    mine = damaged(world, tmp_path, f"teach/{lost}")
    argv = ["predict", str(mine / "teach"), str(mine / "new"), "--run", str(world / "run")]
    assert main(argv) == FAILED
    said = capsys.readouterr()
    assert f"no video of {lost!r} could be read (" in said.err
    assert "--allow-missing" in said.err
    assert said.out == ""
    assert main([*argv, "--allow-missing"]) == 0
    said = capsys.readouterr()
    assert f"not taught: {lost!r}" in said.err
    assert len(said.out.splitlines()) == 2
    assert lost not in said.out.replace(f"of {lost}", "")
    assert other in said.out


def test_an_empty_folder_of_an_object_is_an_object_that_is_not_taught(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = damaged(world, tmp_path)
    (mine / "teach" / "wallet").mkdir()
    argv = ["predict", str(mine / "teach"), str(mine / "new"), "--run", str(world / "run")]
    assert main(argv) == FAILED
    said = capsys.readouterr().err
    assert "no video of 'wallet' could be read (an object without a video" in said


def test_each_asked_video_has_a_row_though_it_cannot_be_read(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost, other = things_of(world)
    mine = damaged(world, tmp_path, f"new/of {lost}")
    (mine / "new" / "empty").mkdir()
    (mine / "new" / "notes.txt").write_text("x", encoding="utf-8")
    (mine / "new" / "cut.mp4").write_bytes(b"")
    frames = sorted((mine / "teach" / other).rglob("*.jpg"))
    frames[0].write_bytes(b"no picture")
    table = tmp_path / "table.csv"
    argv = ["predict", str(mine / "teach"), str(mine / "new"), "--run", str(world / "run")]
    assert main([*argv, "--table", str(table)]) == 0
    said = capsys.readouterr()
    with table.open(encoding="utf-8") as file:
        rows = {row["video"]: row for row in csv.DictReader(file)}
    assert sorted(rows) == sorted(["cut.mp4", "empty", *(f"of {thing}" for thing in (lost, other))])
    assert [line.partition(":")[0] for line in said.out.splitlines()] == list(rows)
    assert rows[f"of {other}"]["object"] in (lost, other)
    for video in ("cut.mp4", "empty", f"of {lost}"):
        assert rows[video]["sentence"].startswith("Not read: ")
        assert rows[video]["object"] == rows[video]["probability"] == ""
    for left_out in ("notes.txt", frames[0].name):
        assert left_out in said.err


def test_where_no_asked_video_can_be_read_the_rows_say_so(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, table = damaged(world, tmp_path, "new"), tmp_path / "table.csv"
    argv = ["predict", str(mine / "teach"), str(mine / "new"), "--run", str(world / "run")]
    assert main([*argv, "--table", str(table)]) == FAILED
    assert "none of the 2 videos to name could be read" in capsys.readouterr().err
    assert table.read_text(encoding="utf-8").count("Not read: ") == 2


def test_a_table_that_cannot_be_written_is_refused_before_the_work(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    for place in (tmp_path / "none" / "t.csv", tmp_path, world / "run" / "run.json" / "t.csv"):
        assert main(arguments(world, "--table", str(place))) == FAILED
        said = capsys.readouterr()
        assert f"cannot write {place}: " in said.err
        assert " ..." not in said.err  # no bar: nothing was embedded


def test_the_table_is_written_before_anything_is_said(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody reads standard output: as with `| head`, or on a full disk."""
    table = tmp_path / "table.csv"
    for number, status in ((errno.EPIPE, CLOSED_PIPE), (errno.ENOSPC, FAILED)):
        monkeypatch.setattr(sys, "stdout", Unwritable(number))
        assert main(arguments(world, "--table", str(table))) == status
        assert table.read_text(encoding="utf-8").count("\n") == 3
        table.unlink()


class Unwritable(io.StringIO):
    """A standard output that cannot be written."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, "refused")


def test_predict_uses_the_sampling_of_the_run(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's, through the run; a run that does not keep it is asked for its store."""
    state = json.loads((world / "run" / "run.json").read_text(encoding="utf-8"))
    assert state["facts"]["Sampling"] == "every frame, at most 2 of a video"
    used: list[Sampling] = []
    plain = name_videos.embed

    def embed(videos: Any, backbone: Any, *, sampling: Sampling, **rest: Any) -> Any:
        used.append(sampling)
        found = plain(videos, backbone, sampling=sampling, **rest)
        assert max(Counter(found.coord("video").tolist()).values()) == 2
        return found

    monkeypatch.setattr(name_videos, "embed", embed)
    run = world / "copy"  # beside the store, which is found from there
    shutil.copytree(world / "run", run)
    argv = ["predict", str(world / "teach"), str(world / "new"), "--run", str(run)]
    assert main(argv) == 0
    del state["sampling"]
    (run / "run.json").write_text(json.dumps(state), encoding="utf-8")
    assert main(argv) == 0
    taught, asked = Spread(max_frames=2, count=2), Spread(max_frames=2)
    assert used == [taught, asked] * 2


def test_a_run_that_does_not_say_its_sampling_is_told(world: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(world / "run", run)
    state = json.loads((run / "run.json").read_text(encoding="utf-8"))
    del state["sampling"]
    gone = {**state, "store": str(tmp_path / "gone.zarr")}
    (run / "run.json").write_text(json.dumps(gone), encoding="utf-8")
    with pytest.warns(UserWarning, match="does not say which frames of each video"):
        assert reuse.same_sampling(RunDirectory(run)) == Sampling()
    for bad in ("[", "[1]", '{"every": "2"}', '{"every": 0}', '{"evry": 2}'):
        (run / "run.json").write_text(json.dumps({**gone, "sampling": bad}), encoding="utf-8")
        with pytest.raises(DataError, match="sampling"):
            reuse.same_sampling(RunDirectory(run))


def test_a_run_without_a_population_is_told(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["predict", str(world / "teach"), str(world / "new"), "--run", str(tmp_path)]
    assert main(argv) == FAILED
    assert "run.json" in capsys.readouterr().err


def test_one_video_by_itself_is_named_as_among_others(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A photograph in place of a folder; teaching from folders and from a store."""
    picture = sorted((world / "new").rglob("*.jpg"))[0]
    (tmp_path / "asked").mkdir()
    shutil.copy(picture, tmp_path / "asked")
    spec = ["--run", str(world / "run")]
    said = []
    for asked in (tmp_path / "asked", tmp_path / "asked" / picture.name):
        assert main(["predict", str(world / "teach"), str(asked), *spec]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert said[0].startswith(picture.name)
    (tmp_path / "note.txt").write_text("no picture")
    assert main(["predict", str(world / "teach"), str(tmp_path / "note.txt"), *spec]) == FAILED
    assert "expected a video file, a photograph" in capsys.readouterr().err


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
    told = ExplanationRecord.load(world / "run" / EXPLANATIONS)
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


NET = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 24, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


def test_predict_follows_a_run_of_a_network_of_ones_own(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its code is run when it is named again, and only then; another network is refused."""
    monkeypatch.chdir(tmp_path)
    Path("net_of_mine.py").write_text(NET, encoding="utf-8")
    Path("net_of_others.py").write_text(NET.replace("24", "25"), encoding="utf-8")
    spec = ["--backbone", "torch:net_of_mine:make,px=32"]
    assert main(["features", str(world / "tree"), "s.zarr", *spec]) == 0
    recipes = [
        str(recipe_folder() / name)
        for name in ("models/gaussian.py", "inference/exact.py", "evaluation/clutter.py")
    ]
    assert main(["run", *recipes, "--data", "s.zarr", "--out", "run", "--smoke"]) == 0
    argv = ["predict", str(world / "teach"), str(world / "new"), "--run", "run"]
    monkeypatch.delitem(sys.modules, "net_of_mine")
    assert main(argv) == FAILED
    assert "--backbone torch:net_of_mine:make" in capsys.readouterr().err
    assert "net_of_mine" not in sys.modules
    assert main([*argv, "--backbone", "torch:net_of_mine:make"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main([*argv, "--backbone", "torch:net_of_others:make"]) == FAILED
    assert "another network" in capsys.readouterr().err
    assert main([*argv[:3], *spec]) == FAILED
    told = capsys.readouterr().err
    assert "expected a backbone whose population comes along" in told
    assert "efficientnet-lite2" in told


def test_only_frames_that_an_answer_uses_are_embedded(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a long video the very frames that would have been taken of all of them."""
    teach = tmp_path / "teach"
    for thing in things_of(world):
        frames = sorted((world / "teach" / thing).rglob("*.jpg"))
        (teach / thing / "v").mkdir(parents=True)
        for number in range(40):
            shutil.copy(frames[number % len(frames)], teach / thing / "v" / f"{number:03d}.jpg")
    teacher = name_videos.boxed(None)
    evaluation = teacher.study.evaluation
    study = replace(teacher.study, evaluation=replace(evaluation, frames_per_video=None))
    whole = replace(teacher, study=study)
    few, many = (name_videos.read_personal(teach, world / "new", t) for t in (teacher, whole))
    episodes = sample_episodes(
        many.embeddings, shots=None, query_conditions=CONDITIONS, frames_per_video=8, seed=0
    )
    taken = episodes.support_frame
    assert taken is not None
    paths = many.embeddings.coord("path")[taken[taken >= 0].numpy()]
    taught = few.embeddings.coord("object") != ""
    assert taught.sum() == 8 * len(things_of(world)) < (many.embeddings.coord("object") != "").sum()
    assert sorted(few.embeddings.coord("path")[taught].tolist()) == sorted(paths.tolist())


@pytest.mark.parametrize(("alike", "said"), [(0.5, True), (1.2, False), (1.0, False)])
def test_taught_things_that_look_alike_are_told(world: Path, alike: float, said: bool) -> None:
    teacher = name_videos.boxed("cpu")
    found = name_videos.read_personal(world / "teach", world / "new", teacher)
    tasks = name_videos.asked_tasks(teacher, found.embeddings, "clutter")
    answer = teacher.study.infer(tasks, teacher.learnt, seed=0)
    posterior = replace(answer.posterior, sample_stats={"alike_factor": torch.tensor([alike])})
    told = name_videos.remarks(answer.model, teacher.learnt.population, posterior, tasks)
    text = "look more alike than those of the people"
    assert any(text in each for each in told) == said
