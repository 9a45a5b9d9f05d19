"""`bayesfs teach`, `correct` and `forget`: answers are those of teaching anew from the videos."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from bayesfs.cli.main import main
from bayesfs.data.store import open_store
from bayesfs.recipes.load import recipe_folder
from bayesfs.synthetic.videos.render import render_tree


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, and videos of one of its test users: to teach in two parts, and to name."""
    root = tmp_path_factory.mktemp("taught")
    sizes = {"clean_videos": 2, "clean_frames": 2, "clutter_videos": 2, "clutter_frames": 2}
    tree = render_tree(root / "tree", train_users=3, test_users=1, objects=3, size=64, **sizes)
    features = ["features", str(tree), str(root / "s.zarr"), "--px", "64", "--max-frames", "2"]
    assert main(features) == 0
    names = ("models/gaussian.py", "inference/exact.py", "evaluation/clutter.py")
    recipes = [str(recipe_folder() / name) for name in names]
    argv = ["run", *recipes, "--data", str(root / "s.zarr"), "--out", str(root / "run"), "--smoke"]
    assert main(argv) == 0
    for thing in next((tree / "test").iterdir()).iterdir():
        first, second = sorted((thing / "clean").iterdir())
        shutil.copytree(first, root / "mine" / thing.name / first.name)
        shutil.copytree(second, root / "more" / "mine" / thing.name / second.name)
        for folder in ("mine", "more/mine"):
            shutil.copytree(
                next((root / folder / thing.name).iterdir()),
                root / "all" / "mine" / thing.name / folder.replace("/", "-"),
            )
        asked, other = sorted((thing / "clutter").iterdir())
        shutil.copytree(asked, root / "new" / f"of {thing.name}")
        shutil.copytree(other, root / "other" / f"of {thing.name}")
    return root


def answers(world: Path, taught: Path, tmp_path: Path) -> pd.DataFrame:
    table = tmp_path / "table.csv"
    argv = ["predict", str(taught), str(world / "new"), "--run", str(world / "run")]
    assert main([*argv, "--table", str(table)]) == 0
    return pd.read_csv(table).drop(columns=["sentence"])


def taught(world: Path, tmp_path: Path, folder: str = "mine") -> Path:
    store = tmp_path / "taught.zarr"
    assert main(["teach", str(store), str(world / folder), "--run", str(world / "run")]) == 0
    return store


def things(world: Path) -> list[str]:
    return sorted(p.name for p in (world / "mine").iterdir())


def test_a_store_answers_as_the_videos_do(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = taught(world, tmp_path)
    said = capsys.readouterr().out
    assert all(f"{thing}: " in said for thing in things(world))
    pd.testing.assert_frame_equal(
        answers(world, store, tmp_path), answers(world, world / "mine", tmp_path)
    )


def test_what_is_taught_later_counts_as_if_from_the_start(world: Path, tmp_path: Path) -> None:
    store = taught(world, tmp_path)
    more = ["teach", str(store), str(world / "more" / "mine"), "--run", str(world / "run")]
    assert main(more) == 0
    found, anew = (
        answers(world, path, tmp_path).select_dtypes("number")
        for path in (store, world / "all" / "mine")
    )
    pd.testing.assert_frame_equal(found, anew, atol=1e-8, rtol=0)
    before = open_store(tmp_path / "taught.zarr.before")
    assert len(before) < len(open_store(store))


def test_a_corrected_video_is_of_the_other_object(world: Path, tmp_path: Path) -> None:
    store = taught(world, tmp_path, "all/mine")
    first, second, _ = things(world)
    video = f"mine--{first}--more-mine"
    run = ["--run", str(world / "run")]
    assert main(["correct", str(store), video, second, *run]) == 0
    folder = tmp_path / "anew" / "mine"
    shutil.copytree(world / "all" / "mine", folder)
    (folder / first / "more-mine").rename(folder / second / "another")
    found, anew = (
        answers(world, path, tmp_path).select_dtypes("number") for path in (store, folder)
    )
    pd.testing.assert_frame_equal(found, anew, atol=1e-8, rtol=0)
    assert main(["correct", str(store), video, first, *run]) == 0
    again = answers(world, store, tmp_path).select_dtypes("number")
    whole = answers(world, world / "all" / "mine", tmp_path).select_dtypes("number")
    pd.testing.assert_frame_equal(again, whole, atol=1e-8, rtol=0)


def test_a_recording_that_was_named_wrongly_teaches(world: Path, tmp_path: Path) -> None:
    store = taught(world, tmp_path)
    thing, count = things(world)[0], len(open_store(tmp_path / "taught.zarr"))
    before = answers(world, store, tmp_path).set_index("video")
    asked = world / "new" / f"of {thing}"
    assert main(["correct", str(store), str(asked), thing, "--run", str(world / "run")]) == 0
    embeddings = open_store(store)
    assert len(embeddings) > count
    assert {"clean", "clutter"} == {*embeddings.coord("condition").tolist()}
    after = answers(world, store, tmp_path).set_index("video")
    own = f"p({thing})"
    assert after.loc[f"of {thing}", own] > before.loc[f"of {thing}", own]


def test_what_is_forgotten_was_never_taught(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = taught(world, tmp_path, "all/mine")
    gone, short = things(world)[:2]
    assert main(["forget", str(store), gone]) == 0
    assert main(["forget", str(store), f"mine--{short}--more-mine"]) == 0
    folder = tmp_path / "anew" / "mine"
    shutil.copytree(world / "all" / "mine", folder)
    shutil.rmtree(folder / gone)
    shutil.rmtree(folder / short / "more-mine")
    found, anew = (answers(world, path, tmp_path) for path in (store, folder))
    pd.testing.assert_frame_equal(found, anew)
    assert f"p({gone})" not in found
    capsys.readouterr()
    assert main(["forget", str(store), things(world)[2][:-1] + "x"]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_merged_stores_answer_as_all_of_their_videos_do(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, phone = taught(world, tmp_path), tmp_path / "phone.zarr"
    run = ["--run", str(world / "run")]
    assert main(["teach", str(phone), str(world / "all" / "mine"), *run]) == 0
    assert main(["merge", str(store), str(phone)]) == 0
    found, anew = (
        answers(world, path, tmp_path).select_dtypes("number")
        for path in (store, world / "all" / "mine")
    )
    pd.testing.assert_frame_equal(found, anew, atol=1e-8, rtol=0)
    capsys.readouterr()
    assert main(["merge", str(store), str(phone)]) == 2
    assert "teaches nothing that" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["merge", "{store}", "{world}/s.zarr"], "one person"),
        (["correct", "{store}", "no such video", "keys", "--run", "{run}"], "no video that was"),
        (["correct", "{store}", "mine", "", "--run", "{run}"], "name of an object"),
        (["correct", "{store}", "mine--x", "keys"], "taught for"),
        (["teach", "{store}", "{mine}", "--run", "{run}"], "were taught before"),
        (["teach", "{mine}", "{mine}", "--run", "{run}"], "no feature store"),
        (["teach", "{mine}", "{world}/new.zarr", "--run", "{run}"], "comes first, then the videos"),
        (["forget", "{mine}", "keys"], "no feature store"),
        (["forget", "{world}/s.zarr", "keys"], "one person"),
    ],
)
def test_what_cannot_be_done_is_told_and_changes_nothing(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], said: str
) -> None:
    store = taught(world, tmp_path)
    kept = open_store(store).dataset.load()
    places = {"store": store, "run": world / "run", "mine": world / "mine", "world": world}
    capsys.readouterr()
    assert main([word.format(**places) for word in argv]) == 2
    assert said in capsys.readouterr().err
    assert open_store(store).dataset.identical(kept)
    assert len(list((world / "mine").iterdir())) == 3
