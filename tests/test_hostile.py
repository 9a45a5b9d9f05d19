"""A small share of `benchmarks/scale.py --only hostile`: every reader, a few inputs each."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from bayesfs.cli.main import FAILED, main

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TARGETS = (
    "annotations",
    "terminal",
    "state",
    "notes",
    "tables",
    "posterior",
    "projection",
    "shard",
    "image",
    "tree",
    "video",
    "store",
    "netcdf",
    "zarr",
    "report",
    "stills",
    "chunks",
    "markup",
    "places",
    "plants",
    "thumbnails",
    "odd pictures",
    "odd videos",
)
INPUTS = {"netcdf": 4, "tables": 6, "zarr": 4, "report": 2, "store": 10}


@pytest.fixture(scope="module")
def hostile() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from scale_parts import hostile

        yield hostile
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_no_target_is_forgotten(hostile: ModuleType) -> None:
    assert set(hostile.TARGETS) == set(TARGETS)
    assert sum(share for _, share in hostile.TARGETS.values()) == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", TARGETS)
def test_hostile_inputs_give_a_result_or_a_bayesfs_error(
    hostile: ModuleType, tmp_path: Path, target: str
) -> None:
    read, here = hostile.TARGETS[target][0](tmp_path), tmp_path / "here"
    here.mkdir()
    watch = hostile.Watch(tmp_path)
    try:
        for number in range(INPUTS.get(target, 40)):
            rng = random.Random(f"test {target} {number}")
            assert hostile.one_input(read, here, rng, alarm=False) == ""
    finally:
        watch.active = False
    assert watch.events == []


def test_the_watch_sees_a_stray_write_and_an_unpickling(
    hostile: ModuleType, tmp_path: Path
) -> None:
    import collections
    import pickle

    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    watch = hostile.Watch(inside)
    try:
        (inside / "fine").write_text("x")
        assert watch.events == []
        outside.write_text("x")
        pickle.loads(pickle.dumps(collections.OrderedDict()))
    finally:
        watch.active = False
    assert any("open outside" in event for event in watch.events)
    assert any("unpickled" in event for event in watch.events)


def test_no_reader_unpickles() -> None:
    """No call that could: numpy without allow_pickle=False, torch.load of all, pickle itself."""
    package = BENCHMARKS.parent / "bayesfs"
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for line in text.splitlines():
            assert "pickle.load" not in line.replace("cloudpickle", ""), f"{path}: {line}"
            assert "allow_pickle=True" not in line, f"{path}: {line}"
            if "np.load(" in line:
                assert "allow_pickle=False" in line, f"{path}: {line}"
            if "torch.load(" in line:
                assert "weights_only=True" in line, f"{path}: {line}"


def test_a_report_runs_no_recipe_of_its_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does looking at a folder of data that holds scripts."""
    trap = "import pathlib; pathlib.Path(__file__).with_name('ran').touch()"
    for folder in (tmp_path / "run" / "recipes", tmp_path / "data" / "mug" / "v1"):
        folder.mkdir(parents=True)
        for name in ("model.py", "engine.py", "evaluation.py", "conftest.py", "__init__.py"):
            (folder / name).write_text(trap)
    (tmp_path / "run" / "run.json").write_text(
        '{"format": 2, "status": "done", "inputs": {}, "files": {"../../x": "0"}}'
    )
    assert main(["report", str(tmp_path / "run")]) == FAILED
    assert main(["features", str(tmp_path / "data"), str(tmp_path / "s.zarr")]) == FAILED
    capsys.readouterr()
    assert not list(tmp_path.rglob("ran"))
