"""What ran, written down: recipes that run to the same values, and what differs from defaults."""

import json
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from bayesfs.cli.main import main
from bayesfs.recipes.load import Recipe, load_recipe, recipe_folder
from bayesfs.recipes.names import ROLES, names_of
from bayesfs.recipes.overrides import override
from bayesfs.recipes.written import as_json, differences, full_recipe
from bayesfs.results.store import load_datatree

ROOMS = {"models": "model", "inference": "engine", "evaluation": "evaluation"}
SHIPPED = [p for room in ROOMS for p in sorted((recipe_folder() / room).glob("*.py"))]


def all_of(recipe: Recipe, role: str) -> dict[str, Any]:
    return {name: recipe.values.get(name) for name in names_of(role)}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_the_full_text_of_every_shipped_recipe_runs_to_the_same_values(
    path: Path, tmp_path: Path
) -> None:
    role = ROOMS[path.parent.name]
    recipe = load_recipe(path, role)
    text = full_recipe(recipe, role, all_of(recipe, role), "Versions.")
    (tmp_path / "full.py").write_text(text, encoding="utf-8")
    again = load_recipe(tmp_path / "full.py", role)
    assert again.values.items() >= recipe.values.items()
    assert recipe.source not in text


OWN = """
from dataclasses import dataclass, field
from bayesfs.features.reduction import PrincipalAxes
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.objectives import PredictiveScore
from beside import Base

replace = 1.0 / 4

@dataclass(frozen=True)
class Mine(GaussianHierarchy):
    of: object = field(default_factory=object)
    bound: float = float("inf")
    base: Base = Base()

def objective(model):
    return PredictiveScore(model)

objective.needs_query = True
model = Mine(loading=replace, of=object())
reduction = PrincipalAxes(dim=8)
"""


BESIDE = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Base:
    n: int = 3
"""


def test_what_a_recipe_defines_itself_is_taken_from_its_text(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text(BESIDE, encoding="utf-8")
    path = tmp_path / "mine.py"
    path.write_text(OWN, encoding="utf-8")
    recipe = load_recipe(path, "model")
    values = override(all_of(recipe, "model"), ["model.loading=0.7", "model.base.n=5"])
    path.write_text(full_recipe(recipe, "model", values, "Versions.\n\nMore."), encoding="utf-8")
    again = load_recipe(path, "model").values
    assert as_json(again["model"]) == as_json(values["model"])
    assert (again["model"].loading, again["model"].base.n) == (0.7, 5)
    assert again["objective"].__name__ == "objective"


def test_differences_are_those_from_the_defaults() -> None:
    values = load_recipe(recipe_folder() / "models/deep_kernel_dirichlet.py", "model").values
    found = list(differences(values))
    assert "model.covariance.base.signal = 3.0 (default 0.15)" in found
    assert "objective = PredictiveScore" in found
    assert not any("concentration =" in line for line in found)


@pytest.fixture(scope="module")
def run(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    out = tmp_path_factory.mktemp("runs") / "first"
    paths = [str(recipe_folder() / p) for p in ("models/gaussian.py", "inference/exact.py")]
    argv = ["run", *paths, str(recipe_folder() / "evaluation/clutter.py")]
    settings = [
        "population_engine.steps=15",
        "population_engine.draws=24",
        "reduction.dim=6",
        "engine.draws=24",
    ]
    argv += [a for s in settings for a in ("--set", s)]
    argv += [
        "--episode-seed",
        "2",
        "--fit-seed",
        "3",
        "--data",
        str(small_store),
        "--out",
        str(out),
    ]
    assert main(argv) == 0
    return out, argv


def test_a_run_runs_again_from_what_it_wrote_down(
    run: tuple[Path, list[str]], small_store: Path, tmp_path: Path
) -> None:
    out, _ = run
    full = [str(out / "recipes" / f"full_{role}.py") for role in ROLES]
    said = (out / "recipes" / "full_model.py").read_text(encoding="utf-8")
    assert "--episode-seed 2 --fit-seed 3" in said
    seeds = ["--episode-seed", "2", "--fit-seed", "3"]
    again = tmp_path / "again"
    assert main(["run", *full, "--data", str(small_store), "--out", str(again), *seeds]) == 0
    for name in ("results-01.nc", "results-05.nc"):
        one, other = load_datatree(out / name), load_datatree(again / name)
        for group in one.subtree:
            xr.testing.assert_equal(group.to_dataset(), other[group.path].to_dataset())
    config = json.loads((out / "recipes" / "full.json").read_text(encoding="utf-8"))
    assert config["values"]["model"]["family"]["exponent"] == 0.6
    assert config["values"]["objective"] == "bayesfs.models.objectives.PredictiveScore"
    assert config["seeds"] == {"episodes": 2, "fit": 3}
    assert "torch" in config["versions"]


def test_the_report_says_what_differs_from_the_defaults(run: tuple[Path, list[str]]) -> None:
    page = (run[0] / "report.html").read_text(encoding="utf-8")
    assert "engine.draws = 24 (default" in page
    assert "objective = PredictiveScore" in page


def test_the_seeds_of_episodes_and_of_inference_are_separate(
    run: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """Another seed of the inference leaves the episodes as they are, and changes the draws."""
    first, argv = run
    argv = [*argv[: argv.index("--episode-seed")], *argv[argv.index("--data") : -1]]
    other = ["--episode-seed", "2", "--fit-seed", "4"]
    assert main([*argv, str(tmp_path / "fit"), *other]) == 0
    one, two = (load_datatree(p / "results-05.nc") for p in (first, tmp_path / "fit"))
    xr.testing.assert_equal(one["constant_data"].to_dataset(), two["constant_data"].to_dataset())
    assert not one["population"].to_dataset().equals(two["population"].to_dataset())


def test_print_config_prints_every_field_and_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = ("models/gaussian.py", "inference/exact.py", "evaluation/clutter.py")
    paths = [str(recipe_folder() / p) for p in recipes]
    out = tmp_path / "run"
    argv = ["run", *paths, "--data", str(tmp_path / "none"), "--out", str(out), "--print-config"]
    assert main([*argv, "--set", "model.loading=.75"]) == 0
    said = capsys.readouterr().out
    assert "    loading=0.75,\n" in said
    assert "drop_flags=()," in said
    assert "objective = PredictiveScore\n" in said
    assert not out.exists()
