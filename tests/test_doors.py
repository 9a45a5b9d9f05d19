"""No way in for a stranger's files or neighbours: every trial of the benchmark, one by one."""

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TRIALS = (
    "code_from_zarr2",
    "code_from_zarr3",
    "code_from_collected",
    "code_from_hdf5",
    "links_in_a_run",
    "unfinished_of_another",
    "recipes_of_another",
    "pictures_of_two",
    "recipes_on_a_full_disk",
    "report_of_another",
    "neighbours_of_a_cluster",
    "pipes_and_devices",
    "long_string",
    "bomb_of_zarr",
    "bomb_of_npz",
    "bomb_of_pieces",
    "bomb_of_hdf5",
    "bomb_of_two_deflations",
    "bomb_of_attributes",
    "bomb_of_thumbnails",
    "names_in_markdown",
    "places_in_what_is_shared",
)


@pytest.fixture(scope="module")
def doors() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("scale_parts.doors")
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_no_trial_is_forgotten(doors: ModuleType) -> None:
    tried = [trial.__name__ for trials in doors.DOORS.values() for trial in trials]
    assert tried == list(TRIALS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [  # `test_privacy` makes the same search after the same command, and after others
        pytest.param(name, marks=[pytest.mark.slow] * (name == "places_in_what_is_shared"))
        for name in TRIALS
    ],
)
def test_the_door_is_closed(
    doors: ModuleType, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HOME", "USER", "LOGNAME", "USERNAME"):  # some trials have a home of theirs
        monkeypatch.setenv(variable, os.environ.get(variable, "nobody"))
    if name == "neighbours_of_a_cluster":
        pytest.importorskip("distributed")
    trial = next(t for trials in doors.DOORS.values() for t in trials if t.__name__ == name)
    assert trial(tmp_path) == ""
