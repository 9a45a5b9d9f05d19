"""What is shared names nobody's machine: every file of every command is searched for its places."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from bayesfs.cli.main import main
from bayesfs.recipes.load import recipe_folder
from bayesfs.synthetic.videos.render import render_tree

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
OWNER = "anna-secret"


@pytest.fixture
def doors() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from scale_parts import doors

        yield doors
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_the_search_finds_what_is_there(doors: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"of {OWNER}")
    assert list(doors.told_of(tmp_path, (OWNER, "nowhere"))) == [f"{OWNER!r} in a.txt"]


def test_no_command_leaves_a_place_of_the_machine_in_its_files(
    doors: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home" / OWNER
    home.mkdir(parents=True)
    for variable in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, str(home) if variable == "HOME" else OWNER)
    sizes = {"train_users": 3, "test_users": 1, "objects": 2, "size": 64}
    few = {"clean_videos": 2, "clean_frames": 3, "clutter_videos": 1, "clutter_frames": 3}
    tree = render_tree(home / "my videos", **sizes, **few)
    next(tree.glob("train/*/*/clean/*/*.jpg")).write_bytes(b"damaged")
    test = next((tree / "test").iterdir())
    for thing in test.iterdir():
        shutil.copytree(thing / "clean", home / "teach" / thing.name)
        for video in (thing / "clutter").iterdir():
            shutil.copytree(video, home / "new" / f"of {thing.name}")
    asked = next(test.glob("*/clutter/*")).name
    shared = home / "shared"
    shared.mkdir()
    recipes = [
        str(recipe_folder() / name)
        for name in ("models/gaussian.py", "inference/exact.py", "evaluation/clutter.py")
    ]
    store, runs = shared / "s.zarr", [tmp_path / "far" / "run", shared / "run"]
    commands = [["features", str(tree), str(store), "--backbone", "efficientnet-lite0,px=64"]]
    for out in runs:
        commands += [
            ["run", *recipes, "--data", str(store), "--out", str(out), "--smoke"],
            ["report", str(out), "--format", "md", "--data", str(store)],
            ["explain", str(out), "--video", asked, "--data", str(store)],
        ]
    said = [str(home / "teach"), str(home / "new")]
    commands += [
        ["predict", *said, "--run", str(runs[1]), "--table", str(shared / "table.csv")],
        ["compare", *map(str, runs), "--out", str(shared / "comparison")],
        ["init", str(shared / "study")],
    ]
    for command in commands:
        assert main(command) == 0, command[0]
    for folder in (shared, runs[0]):
        assert list(doors.told_of(folder, (str(tmp_path), OWNER))) == []
    assert (shared / "table.csv").is_file()
    assert main(["explain", str(runs[1]), "--video", asked]) == 0  # its store is nearby
