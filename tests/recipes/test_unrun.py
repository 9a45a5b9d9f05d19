"""What is told of recipes from their text: before torch is imported, and only if certain."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
from torch import nn

import bayesfs.evaluation
import bayesfs.inference
import bayesfs.models
import bayesfs.training
from bayesfs._utils.ranges import refusal
from bayesfs.data.store import save_store
from bayesfs.errors import BayesfsError, DataError, RecipeError
from bayesfs.recipes.in_data import check_in_data
from bayesfs.recipes.load import load_recipe, recipe_folder
from bayesfs.recipes.unrun import Sources, check_unrun

MODEL = """
from bayesfs.features.reduction import PrincipalAxes
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy

model = GaussianHierarchy()
"""


def recipe(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("y()", "y(loadin=1)", "line 5: GaussianHierarchy has no 'loadin' .did you mean 'loading'"),
        ("import PrincipalAxes", "import PrincipalAxs", "line 2: .*did you mean 'PrincipalAxes'"),
        ("gaussian.hier", "gausian.hier", "line 3: there is no module 'bayesfs.models.gausian"),
        ("reduction", "reducton", "line 2: there is no module .*did you mean 'reduction'"),
        ("model =", "modl =", "expected it to define 'model'; it defines 'modl', was that meant"),
        ("y()", "y()\nobjectve = 3", "line 6: nothing reads 'objectve'; did you mean 'objective'"),
        ("y()", "y(", r"line 5: '\(' was never closed"),
        ("y()", "y(loading=-1)", "line 5: GaussianHierarchy.loading: expected above 0, got -1"),
        ("y()", "y(loading='x')", "line 5: .*loading: expected a value of type float, got 'x'"),
    ],
)
def test_a_mistake_is_told_from_the_text(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = recipe(tmp_path, MODEL.replace(old, new))
    with pytest.raises(RecipeError, match=f"{path}.*{message}"):
        check_unrun({"model": path}, [], None)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.loadin=3", "GaussianHierarchy: there is no 'loadin'; did you mean 'loading'"),
        ("modl.loading=3", "there is no 'modl'; did you mean 'model'"),
        ("reduction.dim=3", "there is no 'reduction'; known are model"),
        ("model=3", "expected NAME.FIELD=VALUE"),
    ],
)
def test_a_setting_is_looked_up_in_the_text(tmp_path: Path, setting: str, message: str) -> None:
    path = recipe(tmp_path, MODEL)
    with pytest.raises(RecipeError, match=message):
        check_unrun({"model": path}, [[setting]], None)
    check_unrun({"model": path}, [["model.family.scale=3"], ["model.loading=1"]], None)


NESTED = MODEL.replace("y()", "y(family=Full(1.0))").replace(
    "from bayesfs.models",
    "from bayesfs.models.gaussian.families import Full\nfrom bayesfs.models",
    1,
)


HEAD = """
from bayesfs.models.heads.linear import HierarchicalHead

model = HierarchicalHead()
"""

KERNEL = """
from bayesfs.models.gp.covariance import VideoCovariance
from bayesfs.models.gp.deep_kernel_gp import DeepKernelGP
from bayesfs.models.gp.kernels import Matern

model = DeepKernelGP(covariance=VideoCovariance(base=Matern()))
"""


@pytest.mark.parametrize(
    ("text", "setting", "message"),
    [
        (MODEL, "model.loading=x", "expected a value of type float, got 'x'"),
        (MODEL, "model.loading=True", "expected a value of type float, got 'True'"),
        (MODEL, "model.loading=.25,.5", "expected a value of type float, got '.25,.5'"),
        (MODEL, "model.covariates=3", r"expected a value of type tuple\[str, ...\], got '3'"),
        (MODEL, "model.family.scale=two", "expected a value of type float, got 'two'"),
        (MODEL, "model.family.scal=2", "PowerLaw: there is no 'scal'; did you mean 'scale'"),
        (NESTED, "model.family.exponent=2", "Full: there is no 'exponent'"),
        (MODEL, "model.loading=-1", "expected above 0, got -1.0"),
        (MODEL, "model.family.scale=0", "expected above 0, got 0.0"),
        (NESTED, "model.family.concentration=0", "expected above 0, got 0.0"),
        (HEAD, "model.nodes=5", "expected an even number, got 5"),
        (KERNEL, "model.covariance.base.nu=2", "expected one of 0.5, 1.5, 2.5, got 2.0"),
    ],
)
def test_a_value_of_another_type_or_out_of_range_is_told_from_the_text(
    tmp_path: Path, text: str, setting: str, message: str
) -> None:
    """Also where the field is one of what another field holds, by default or in the recipe."""
    with pytest.raises(RecipeError, match=message):
        check_unrun({"model": recipe(tmp_path, text)}, [[setting]], None)


def test_alternatives_are_looked_at_one_by_one(tmp_path: Path) -> None:
    path = recipe(tmp_path, MODEL)
    check_unrun({"model": path}, [["model.loading=.25", "model.loading=.5"]], None)
    with pytest.raises(RecipeError, match=r"--set model.loading=-1: expected above 0, got -1.0"):
        check_unrun({"model": path}, [["model.loading=.25", "model.loading=-1"]], None)
    with pytest.raises(RecipeError, match=r"set before by 'model.loading=1'"):
        check_unrun({"model": path}, [["model.loading=1"], ["model.loading=2"]], None)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("engine.max_depth=11", "expected 1 to 10, got 11"),
        ("engine.target_accept=1", "expected between 0 and 1, got 1.0"),
        ("evaluation.shots=5,1", r"expected increasing numbers, .* got \(5, 1\)"),
        ("evaluation.query_conditions=cleen", "got .'cleen',.; did you mean 'clean'"),
        ("evaluation.train_withheld=1", "expected below 1, got 1.0"),
    ],
)
def test_ranges_of_shipped_recipes_are_told_from_the_text(setting: str, message: str) -> None:
    names = {"engine": "inference/nuts.py", "evaluation": "evaluation/clutter.py"}
    paths = {role: recipe_folder() / name for role, name in names.items()}
    with pytest.raises(RecipeError, match=message):
        check_unrun(paths, [[setting]], None)


def test_words_that_may_be_chosen_are_told(tmp_path: Path) -> None:
    path = recipe_folder() / "inference/laplace.py"
    with pytest.raises(RecipeError, match=r"one of full, kronecker, .*; did you mean 'kronecker'"):
        check_unrun({"engine": path}, [["engine.structure=kroncker"]], None)


def test_nested_fields_are_not_guessed(tmp_path: Path) -> None:
    hidden = MODEL.replace("model =", "extra = {}\nmodel =").replace("y()", "y(**extra)")
    for text in (hidden, MODEL.replace("y()", "y(**{})")):
        path = recipe(tmp_path, text.replace("extra", "_extra"))
        check_unrun({"model": path}, [["model.family.anything=x"]], None)


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    from bayesfs.later import _X\nexcept ImportError:\n    _X = None\n" + MODEL,
        MODEL.replace("model =", "GaussianHierarchy = lambda extra=1: 3\nmodel =").replace(
            "y()", "y(extra=1)"
        ),
        MODEL.replace("model =", "def made(**k):\n    return 3\n\nmodel =").replace(
            "GaussianHierarchy()", "made(x=1)"
        ),
        "from helper import *\n",
        "globals()['model'] = 3\n",
        MODEL + "model = model.fit_to((1.0,))\n",
    ],
)
def test_what_is_not_certain_is_left_to_running_it(tmp_path: Path, text: str) -> None:
    check_unrun({"model": recipe(tmp_path, text)}, [], None)


def test_every_shipped_recipe_passes_and_its_fields_are_known() -> None:
    for room, role in (("models", "model"), ("inference", "engine"), ("evaluation", "evaluation")):
        for path in sorted((recipe_folder() / room).glob("*.py")):
            value = load_recipe(path, role).values[role]
            settings = [
                [f"{role}.{f.name}={getattr(value, f.name)!r}"] for f in fields(value) if f.init
            ]
            check_unrun({role: path}, settings, None)
            with pytest.raises(RecipeError, match="there is no 'nothing'"):
                check_unrun({role: path}, [[f"{role}.nothing=1"]], None)


def test_fields_in_the_text_are_those_of_the_classes() -> None:
    sources, seen, ruled = Sources(), 0, 0
    for room in (bayesfs.models, bayesfs.evaluation, bayesfs.inference, bayesfs.training):
        for found in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            if found.name.endswith("aten_in_jax"):
                continue  # needs jax
            for name, value in vars(importlib.import_module(found.name)).items():
                if isinstance(value, type) and value.__module__ == found.name:
                    read = sources.arguments((found.name, name))
                    if is_dataclass(value) and read is not None:
                        assert sorted(read) == sorted(f.name for f in fields(value) if f.init)
                        seen += 1
                        if not inspect.isabstract(value):
                            ruled += sum(_has_rule(value, n, read[n].type) for n in read)
    assert seen > 50
    assert ruled > 150


def _has_rule(owner: type, field: str, read: object) -> bool:
    """Whether a field has a rule, which its text and its class then have alike, and is refused."""
    held = get_type_hints(owner, include_extras=True)[field]
    broken = [v for v in (-1, 0, 1, 5, 11, (5, 1), ("x",), (-1, -1)) if refusal(held, v)]
    for value in broken:
        assert refusal(read, value) == refusal(held, value), (owner, field)
        with pytest.raises(BayesfsError, match=f"{owner.__name__}.{field}: "):
            owner(**_required(owner), **{field: value})
    return bool(broken)


def _required(owner: type) -> dict[str, object]:
    """Values for fields without a default."""
    known = {"module": nn.Linear(2, 2)}
    return {
        f.name: known[f.name]
        for f in fields(owner)
        if f.init and f.default is MISSING and f.default_factory is MISSING
    }


def test_no_store_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none: expected a feature store"):
        check_unrun({"model": recipe(tmp_path, MODEL)}, [], tmp_path / "none")


@pytest.mark.parametrize("command", ["run", "sweep"])
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("evaluation.shotts=1", "there is no 'shotts'; did you mean 'shots'"),
        ("model.loading=-1", "expected above 0, got -1.0"),
    ],
)
def test_the_command_fails_before_it_imports_what_works(
    tmp_path: Path, command: str, setting: str, message: str
) -> None:
    """Imports of torch and Pyro are what takes seconds."""
    paths = [
        str(recipe_folder() / p)
        for p in ("models/gaussian.py", "inference/exact.py", "evaluation/clutter.py")
    ]
    argv = [command, *paths, "--data", "none", "--out", str(tmp_path / "o")]
    argv += ["--set", setting]
    code = (
        "import sys; from bayesfs.cli.main import main; "
        f"status = main({argv!r}); print(status, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert message in done.stderr
    assert done.stdout.split() == ["2", "False"]


CLUTTER = """
from bayesfs.evaluation.held_out_users import HeldOutUsers

evaluation = HeldOutUsers(test_split="test")
"""


@pytest.mark.parametrize(
    ("old", "new", "settings", "message"),
    [
        ('"test"', '"tset"', [], r"split 'tset', found only \['test', 'train'\]"),
        ('test_split="test"', "train_split='all'", [], "split 'all'"),
        ("", "", [["evaluation.test_split=nope"]], "split 'nope'"),
        ("", "", [["evaluation.test_split=test", "evaluation.test_split=nope"]], "split 'nope'"),
        ("", "", [["evaluation.drop_flags=flag_x"]], "drop_flags out of .*, got 'flag_x'"),
        ('test_split="test"', "drop_flags=('flag_x',)", [], "drop_flags out of .*, got 'flag_x'"),
    ],
)
def test_words_that_the_data_do_not_hold_are_told(
    tmp_path: Path, make_embeddings, old: str, new: str, settings: list[list[str]], message: str
) -> None:
    store = tmp_path / "data.zarr"
    save_store(store, make_embeddings())
    path = recipe(tmp_path, CLUTTER.replace(old, new) if old else CLUTTER)
    with pytest.raises(DataError, match=message):
        check_in_data(check_unrun({"evaluation": path}, settings, store), settings, store)
    check_in_data(check_unrun({"evaluation": recipe(tmp_path, CLUTTER)}, [], store), [], store)


def test_words_that_a_recipe_makes_are_left_to_it(tmp_path: Path, make_embeddings) -> None:
    store = tmp_path / "data.zarr"
    save_store(store, make_embeddings())
    text = CLUTTER.replace('"test"', '"no" + "pe"')
    for each in (text, "evaluation = None"):
        check_in_data(check_unrun({"evaluation": recipe(tmp_path, each)}, [], store), [], store)


def test_data_are_looked_into_without_torch() -> None:
    code = "import sys, bayesfs.recipes.in_data; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
