"""Modules beside a recipe: found, run once, kept apart from libraries, told by their own line."""

import json
import sys
from pathlib import Path

import pytest

from bayesfs.cli.main import FAILED, main
from bayesfs.errors import RecipeError
from bayesfs.recipes.load import load_recipe, recipe_folder
from bayesfs.recipes.scripts import Scripts
from bayesfs.runs.directory import RunDirectory
from bayesfs.runs.reuse import kept_recipes

MODEL = """
from bayesfs.features.reduction import PrincipalAxes
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from priors import DIM, wide

model = GaussianHierarchy(loading=wide(0.1))
reduction = PrincipalAxes(dim=DIM)
"""

PRIORS = """
from dataclasses import dataclass
from sizes import DIM

@dataclass(frozen=True)
class Factor:
    by: float

def wide(x):
    return Factor(3.0).by * x
"""


def write(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder / "mine.py"


def test_a_recipe_imports_modules_beside_it_and_only_it_does(tmp_path: Path) -> None:
    path = write(tmp_path, mine=MODEL, priors=PRIORS, sizes="DIM = 7\n")
    scripts = Scripts()
    found = load_recipe(path, "model", scripts).values
    assert found["model"].loading == pytest.approx(0.3)
    assert found["reduction"].dim == 7
    assert scripts.helpers == {"priors.py": PRIORS, "sizes.py": "DIM = 7\n"}
    assert "priors" not in sys.modules
    assert str(tmp_path) not in sys.path
    assert {p.suffix for p in tmp_path.iterdir()} == {".py"}


def test_an_edited_helper_is_run_anew(tmp_path: Path) -> None:
    path = write(tmp_path, mine=MODEL, priors=PRIORS, sizes="DIM = 7\n")
    load_recipe(path, "model")
    write(tmp_path, sizes="DIM = 9\n")
    assert load_recipe(path, "model").values["reduction"].dim == 9


def test_recipes_of_one_command_share_their_helpers(tmp_path: Path) -> None:
    """So that a class of a helper is one class."""
    text = (
        "from priors import Factor\nfrom bayesfs.inference.exact import Exact\nengine = Exact()\n"
    )
    path = write(tmp_path, mine=MODEL, priors=PRIORS, sizes="DIM = 7\n", own=text)
    scripts = Scripts()
    one = load_recipe(path, "model", scripts).names["wide"].__globals__["Factor"]
    assert load_recipe(tmp_path / "own.py", "engine", scripts).names["Factor"] is one


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"priors": "DIM = 3\nwide = undefined\n"}, r"priors.py, line 2: NameError"),
        ({"priors": "DIM = (\n"}, r"priors.py, line 1: '\(' was never closed"),
        ({"priors": "DIM, wid = 3, 1\n"}, r"mine.py, line 4: ImportError.*did you mean 'wid'"),
        ({"prior": ""}, "mine.py, line 4: ModuleNotFoundError.*did you mean 'prior'"),
    ],
)
def test_a_mistake_in_a_helper_is_told(tmp_path: Path, texts: dict[str, str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(tmp_path, mine=MODEL, **texts), "model")


def test_a_helper_takes_the_place_of_no_library(tmp_path: Path) -> None:
    text = MODEL.replace("from priors import DIM, wide", "import numbers\nimport torch\nDIM = 2")
    text = text.replace("wide(0.1)", "0.1")
    path = write(tmp_path, mine=text, numbers="raise SystemExit\n")
    assert load_recipe(path, "model").names["numbers"] is sys.modules["numbers"]
    write(tmp_path, torch="")
    with pytest.raises(RecipeError, match=r"'torch', which is torch.py beside it and an installed"):
        load_recipe(path, "model")


def test_two_helpers_of_one_name_are_refused(tmp_path: Path) -> None:
    scripts = Scripts()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, mine=MODEL, priors=f"DIM = 2\nwide = float  # {name}\n")
    load_recipe(tmp_path / "a" / "mine.py", "model", scripts)
    with pytest.raises(RecipeError, match=r"another priors.py was imported by a recipe in another"):
        load_recipe(tmp_path / "b" / "mine.py", "model", scripts)


def test_helpers_are_kept_with_the_run_and_count_in_its_identity(
    small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, mine=MODEL, priors=PRIORS, sizes="DIM = 4\n")
    others = [str(recipe_folder() / p) for p in ("inference/exact.py", "evaluation/clutter.py")]
    out = tmp_path / "run"
    argv = ["run", str(path), *others, "--data", str(small_store), "--out", str(out), "--smoke"]
    assert main(argv) == 0
    assert (out / "recipes" / "sizes.py").read_text(encoding="utf-8") == "DIM = 4\n"
    kept = kept_recipes(RunDirectory(out), trust=True)
    assert kept["model"].values["reduction"].dim == 4
    with pytest.raises(RecipeError, match="--trust"):
        kept_recipes(RunDirectory(out), trust=False)
    write(tmp_path, sizes="DIM = 5\n")
    assert main(argv) == FAILED
    assert "holds a run that differs in recipes" in capsys.readouterr().err
    (out / "recipes" / "sizes.py").write_text("DIM = 5\n", encoding="utf-8")
    assert main(["explain", str(out), "--trust"]) == FAILED
    assert "has changed since the run was made with it" in capsys.readouterr().err
    state = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert {"model.py", "priors.py", "sizes.py"} <= set(state["inputs"]["recipes"])


def test_a_helper_with_the_name_of_a_kept_recipe_is_refused(
    small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = MODEL.replace("priors", "engine")
    path = write(tmp_path, mine=text, engine="DIM = 4\nwide = float\n")
    others = [str(recipe_folder() / p) for p in ("inference/exact.py", "evaluation/clutter.py")]
    out = tmp_path / "run"
    argv = ["run", str(path), *others, "--data", str(small_store), "--out", str(out)]
    assert main(argv) == FAILED
    assert "engine.py: a recipe imports this module, and a run keeps" in capsys.readouterr().err
    assert not out.exists()
