"""`bayesfs run` on a store of a data frame: its recipes, 0 taught clusters, the data's words."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesfs.cli.main import main
from bayesfs.data.store import save_store
from bayesfs.recipes.load import recipe_folder
from bayesfs.results.store import load_datatree
from bayesfs.runs.directory import RunDirectory
from bayesfs.runs.run import load_learnt
from bayesfs.types import Embeddings

RECIPES = [
    str(recipe_folder() / name)
    for name in ("models/shared_classes.py", "inference/exact.py", "evaluation/groups.py")
]


def schools() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    means = 5 * rng.normal(size=(3, 2))
    rows = []
    for school in range(8):
        effect = rng.normal(size=2)
        for name, mean in zip("abc", means, strict=True):
            for visit in range(5):
                x = mean + effect + 0.5 * rng.normal(size=2) + 0.5 * rng.normal(size=(3, 2))
                split = "train" if school < 5 else "test"
                rows += [(f"s{school}", name, visit, split, *row) for row in x.tolist()]
    return pd.DataFrame(rows, columns=["school", "class", "visit", "split", "x", "y"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    columns = {"label": "class", "group": "school", "cluster": "visit", "split": "split"}
    save_store(folder / "store.zarr", Embeddings.from_dataframe(schools(), **columns))
    argv = ["run", *RECIPES, "--data", str(folder / "store.zarr"), "--out", str(folder / "run")]
    small = (
        "population_engine.steps=120",
        "population_engine.draws=24",
        "engine.draws=24",
        "evaluation.shots=(0, 2)",
    )
    assert main([*argv, *(word for s in small for word in ("--set", s))]) == 0
    return folder / "run"


def test_other_schools_alone_name_most_visits(finished: Path) -> None:
    none, two = (load_datatree(finished / f"results-{n:02d}.nc") for n in (0, 2))
    right = []
    for tree in (none, two):
        prob = tree["uncertainty"]["video_prob"].to_numpy()
        label = tree["observed_data"]["label"].to_numpy()
        right.append(float((prob.argmax(-1) == label).mean()))
    assert right[0] > 0.6
    assert right[1] > 0.8


def test_the_population_keeps_the_names_that_it_knows(finished: Path) -> None:
    learnt = load_learnt(RunDirectory(finished))
    assert learnt.labels == ("a", "b", "c")
    assert learnt.population.draws["shared_raw"].shape[1:] == (3, 2)


def test_its_report_speaks_of_schools(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(finished), "--format", "md"]) == 0
    text = (finished / "report.md").read_text(encoding="utf-8")
    assert "Worst school" in text
    assert "query visits of 3 tasks" in text
    assert main(["explain", str(finished), "--video", "s7 / a / 0"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert any("Probably" in line or "May be wrong" in line for line in said)
    assert not any("hold steadier" in line or "none of your" in line for line in said)


def test_what_a_class_is_in_general_is_a_level_of_report_and_explanation(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(finished), "--format", "md"]) == 0
    text = (finished / "report.md").read_text(encoding="utf-8")
    assert "At the level of the class in general: " in text
    assert main(["explain", str(finished), "--video", "s7 / a / 0"]) == 0
    assert "too few schools have classes of that name" in capsys.readouterr().out
