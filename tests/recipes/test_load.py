"""Recipes: loading, mistakes that are told by line, overriding one number, the shipped ones."""

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from bayesfs.cli.main import main
from bayesfs.data.store import open_store, save_store
from bayesfs.errors import RecipeError
from bayesfs.features.quality import COVARIATES
from bayesfs.recipes.load import copy_recipes, load_recipe, recipe_folder
from bayesfs.recipes.overrides import override
from bayesfs.runs.directory import RunDirectory
from bayesfs.types import Embeddings

STUDIES = [
    ("gaussian", "exact", "clutter"),
    ("gaussian_quality", "exact", "clutter"),
    ("niw", "exact", "clutter"),
    ("robust", "own", "clutter"),
    ("similarity_pool", "own", "clutter"),
    ("pool_with_hierarchy", "own", "clutter"),
    ("learnt_axes", "exact", "clutter"),
    ("shared_classes", "exact", "groups"),
    ("gaussian", "exact", "clean"),
    ("gaussian", "svi", "clutter"),
    ("linear_head", "svi", "clutter"),
    ("linear_head", "laplace", "clean"),
    ("linear_head", "svgd", "clean"),
    ("linear_head", "nuts", "clean"),
    ("linear_head", "gibbs", "clutter"),
    ("deep_kernel_gp", "exact", "clutter"),
    ("deep_kernel_transfer", "exact", "clutter"),
    ("deep_kernel_dirichlet", "exact", "clutter"),
    ("deep_kernel_softmax", "exact", "clutter"),
    ("deep_kernel_logistic_softmax", "exact", "clutter"),
    ("deep_kernel_one_vs_each", "exact", "clutter"),
    ("deep_kernel_laplace", "exact", "clutter"),
]
"""Model, engine and evaluation; every shipped recipe is in one."""

UNROLLED = ("softmax", "logistic_softmax", "one_vs_each", "laplace")
"""Deep-kernel likelihoods whose updates are recorded step by step: some seconds each."""

LONG = (
    ("linear_head", "nuts", "clean"),
    ("deep_kernel_dirichlet", "exact", "clutter"),
    ("gaussian", "exact", "clutter"),
    ("gaussian_quality", "exact", "clutter"),
    ("learnt_axes", "exact", "clutter"),
)
"""Others that take long; by day other tests ask the same model, or make runs of it."""

ENGINE = """
from __future__ import annotations
from dataclasses import dataclass
from bayesfs.protocols import Engine
@dataclass(frozen=True)
class Toy(Engine):
    steps: int = 10
    rate: float | None = None

    def infer(self, model, episodes, *, seed, given=None, progress=None):
        return None

engine = Toy(steps=20)
"""


def write(folder: Path, text: str, name: str = "numbers.py") -> Path:
    path = folder / name
    path.write_text(dedent(text), encoding="utf-8")
    return path


def test_a_recipe_gives_what_it_defines_and_the_text_that_ran(tmp_path: Path) -> None:
    path = write(tmp_path, ENGINE)
    recipe = load_recipe(path, "engine")
    assert set(recipe.values) == {"engine"}
    assert recipe.values["engine"].steps == 20
    assert recipe.source == path.read_text(encoding="utf-8")


def test_a_recipe_shadows_no_module_and_leaves_no_bytecode(tmp_path: Path) -> None:
    import numbers

    load_recipe(write(tmp_path, ENGINE), "engine")
    assert sys.modules["numbers"] is numbers
    assert [p.name for p in tmp_path.iterdir()] == ["numbers.py"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("engine = (\n", "line 1"),
        ("x = 1\nengine = undefined(3)\n", "line 2.*'undefined' is not defined"),
        ("motor = 3\n", r"expected it to define 'engine'.*add a line such as `engine = Exact\(\)`"),
        ("engin = 3\n", "it defines 'engin', was that meant"),
        ("x = 1\n\nengine = 3\n", "line 3: 'engine' is a int, which lacks infer"),
        ("class E:\n    infer = None\nengine = E\n", r"line 3.*is the class E.*write E\(\.\.\.\)"),
        ("from bayesfs.errors import DataErorr\n", "did you mean 'DataError'"),
        ("from bayesfs.eror import DataError\n", "did you mean 'errors'"),
        ("import bayesfs.errors as e\nengine = e.DataErorr()\n", "2.*did you mean 'DataError'"),
        ("from bayesfs.errors import DataError\nengine = DataErorr()\n", "mean 'DataError'"),
        (
            "import bayesfs.inference.exact as e\nengine = e.Exact(draw=2)\n",
            "line 2.*did you mean 'draws'",
        ),
        (
            "import bayesfs.nothing\n",
            "line 1: ModuleNotFoundError: No module named 'bayesfs.nothing'",
        ),
        (ENGINE.replace("steps=20", "step=20"), "line 13.*did you mean 'steps'"),
        ("raise SystemExit(3)\n", "line 1.*SystemExit"),
        ("raise KeyError\n", "line 1.*KeyError"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_fix(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(RecipeError, match=f"{path}.*{message}"):
        load_recipe(path, "engine")


@pytest.mark.parametrize(
    ("room", "name", "right", "wrong", "message"),
    [
        ("models", "gaussian", "loading=0.5", "loadin=0.5", "line 10: .*did you mean 'loading'"),
        (
            "models",
            "gaussian",
            "dim=256",
            "dim='big'",
            "line 19: .*dim: expected a .* type int, got 'big'",
        ),
        (
            "evaluation",
            "clutter",
            "frames_per_video=8",
            "frames_per_video=8.5",
            r"line 17: HeldOutUsers.frames_per_video: expected .* int \| None, got 8.5",
        ),
        (
            "models",
            "gaussian",
            "loading_sd=0.5",
            "loading_sd='wide'",
            "line 11: GaussianHierarchy.loading_sd: expected a value of type float, got 'wide'",
        ),
    ],
)
def test_a_wrong_field_of_a_shipped_recipe_is_told_by_its_line(
    tmp_path: Path, room: str, name: str, right: str, wrong: str, message: str
) -> None:
    text = (recipe_folder() / room / f"{name}.py").read_text(encoding="utf-8")
    assert right in text
    path = write(tmp_path, text.replace(right, wrong))
    with pytest.raises(RecipeError, match=message):
        load_recipe(path, room.removesuffix("s"))


@pytest.mark.slow
def test_mypy_catches_a_wrong_field_in_a_study_folder(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is of the extra dev")
    copy_recipes(tmp_path)
    path = tmp_path / "models" / "gaussian.py"
    text = path.read_text(encoding="utf-8").replace("loading=0.5", "loadin=0.5")
    path.write_text(text.replace("dim=256", "dim='big'"), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert 'Unexpected keyword argument "loadin"' in done.stdout, done.stdout + done.stderr
    assert 'expected "int"' in done.stdout


MODEL = """
from bayesfs.features.reduction import PrincipalAxes
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.objectives import PredictiveScore

model = GaussianHierarchy()
"""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "objectve = PredictiveScore",
            "line 7: nothing reads 'objectve'; did you mean 'objective'",
        ),
        ("reducton = PrincipalAxes(8)", "line 7: .*did you mean 'reduction'"),
        ("reducton: PrincipalAxes = PrincipalAxes(8)", "line 7: .*did you mean 'reduction'"),
        ("_a, objectiv = 1, PredictiveScore", "line 7: .*did you mean 'objective'"),
        ("if True:\n    Objective = PredictiveScore", "line 8: .*did you mean 'objective'"),
        ("def objectve(m):\n    return m", "line 7: .*did you mean 'objective'"),
        ("width = 64", "line 7: nothing reads 'width'; a recipe of the model defines model, obj"),
        ("engine = 3", "line 7: nothing reads 'engine'; it belongs in the recipe of the engine"),
        ("from math import pi as objectve", "line 7: .*did you mean 'objective'"),
        ("objective: type[PredictiveScore]", "line 7: 'objective' has a type and no value"),
        (
            "reduction = PrincipalAxes(8)\nreduction = PrincipalAxes(16)",
            "line 8: 'reduction' is defined a second time, and nothing has read what line 7 gave",
        ),
    ],
)
def test_a_name_that_nothing_reads_is_refused(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path, MODEL + line + "\n")
    with pytest.raises(RecipeError, match=f"{path}, {message}"):
        load_recipe(path, "model")


def test_a_name_may_be_defined_anew_from_its_value_or_by_a_condition(tmp_path: Path) -> None:
    text = f"{MODEL}reduction = PrincipalAxes(8)\nreduction = PrincipalAxes(reduction.dim + 1)\n"
    assert load_recipe(write(tmp_path, text), "model").values["reduction"].dim == 9
    text = f"{MODEL}reduction = PrincipalAxes(8)\nif True:\n    reduction = PrincipalAxes(4)\n"
    assert load_recipe(write(tmp_path, text), "model").values["reduction"].dim == 4


def test_a_recipe_in_the_place_of_another_is_told() -> None:
    exact = recipe_folder() / "inference" / "exact.py"
    with pytest.raises(RecipeError, match="it is a recipe of the engine, and one of the model bel"):
        load_recipe(exact, "model")


def test_names_that_are_read_private_or_imported_are_legal(tmp_path: Path) -> None:
    text = """
        from __future__ import annotations
        import math
        from bayesfs.protocols import Model
        from bayesfs.features.reduction import PrincipalAxes
        from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
        from bayesfs.models.objectives import PredictiveScore

        WIDTH = 32
        RATE = 0.5
        Kind = PredictiveScore
        _unused = 1
        __author__ = "me"
        count: int

        class Mine(GaussianHierarchy):
            loose = 3

        def scaled(x: float) -> float:
            y = RATE * x
            return y

        def objective(model: Model) -> Kind:
            return PredictiveScore(model)

        objective.needs_query = PredictiveScore.needs_query

        for size in (1, 2):
            pass
        model = Mine(loading=scaled(1.0))
        reduction = PrincipalAxes(dim=WIDTH)
    """
    assert set(load_recipe(write(tmp_path, text), "model").values) == {
        "model",
        "objective",
        "reduction",
    }


def test_a_missing_recipe_names_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, ENGINE, "svi.py")
    with pytest.raises(RecipeError, match=r"svj.py: expected a recipe.*holds svi.py.*bayesfs init"):
        load_recipe(tmp_path / "svj.py", "engine")
    with pytest.raises(RecipeError, match="expected a recipe"):
        load_recipe(tmp_path, "engine")


def test_a_recipe_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="UTF-8"):
        load_recipe(path, "engine")


def test_conditions_of_a_setting_are_checked_at_once() -> None:
    held = load_recipe(recipe_folder() / "evaluation/clutter.py", "evaluation").values
    found = override(held, ["evaluation.query_conditions=clean,clutter"])["evaluation"]
    assert found.query_conditions == ("clean", "clutter")
    with pytest.raises(RecipeError, match=r"expected one or more of .* got .'cleen',.; did you m"):
        override(held, ["evaluation.query_conditions=cleen"])


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1


@dataclass(frozen=True)
class Outer:
    steps: int = 10
    scale: float = 1.0
    name: str = "a"
    shots: tuple[int, ...] = (1, 5)
    words: tuple[str, ...] = ()
    cap: int | None = None
    rich: bool = False
    inner: Inner = Inner()

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"expected steps >= 1, got {self.steps}")


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("engine.steps=500", "steps", 500),
        ("engine.scale=2", "scale", 2.0),
        ("engine.scale=1e-3", "scale", 1e-3),
        ("engine.name=b", "name", "b"),
        ("engine.name=12", "name", "12"),
        ("engine.shots=(1, 2)", "shots", (1, 2)),
        ("engine.shots=[3]", "shots", (3,)),
        ("engine.shots=1,3,5", "shots", (1, 3, 5)),
        ("engine.shots=3", "shots", (3,)),
        ("engine.words=clean,clutter", "words", ("clean", "clutter")),
        ("engine.words=clean", "words", ("clean",)),
        ("engine.cap=4", "cap", 4),
        ("engine.cap=None", "cap", None),
        ("engine.rich=True", "rich", True),
        ("engine.inner.rate=0.5", "inner", Inner(0.5)),
    ],
)
def test_one_number_is_overridden(setting: str, field: str, value: object) -> None:
    before = Outer()
    after = override({"engine": before}, [setting])["engine"]
    assert getattr(after, field) == value
    assert type(getattr(after, field)) is type(value)
    assert before == Outer()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("engine.steps", "expected NAME.FIELD=VALUE"),
        ("steps=3", "expected NAME.FIELD=VALUE"),
        ("engin.steps=3", "did you mean 'engine'"),
        ("engine.step=3", "Outer: there is no 'step'; did you mean 'steps'"),
        ("engine.steps=ten", "expected a value of type int, got 'ten'"),
        ("engine.steps=1.5", "expected a value of type int"),
        ("engine.steps=True", "expected a value of type int"),
        ("engine.steps=0", "expected steps >= 1, got 0"),
        ("engine.steps.x=0", "int: there is no 'x'"),
        ("engine.shots=('a',)", "expected a value of type tuple"),
        ("engine.shots=1,x", "expected a value of type tuple"),
    ],
)
def test_a_wrong_override_is_told(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        override({"engine": Outer()}, [setting])


def test_a_field_that_is_set_twice_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"engine.steps=4: set before by 'engine.steps=3'"):
        override({"engine": Outer()}, ["engine.steps=3", "engine.scale=2", "engine.steps=4"])


def test_copied_recipes_are_the_shipped_ones_and_overwrite_nothing(tmp_path: Path) -> None:
    copies = copy_recipes(tmp_path)
    assert copies
    for copy in copies:
        shipped = recipe_folder() / copy.relative_to(tmp_path)
        assert copy.read_text(encoding="utf-8") == shipped.read_text(encoding="utf-8")
    copies[3].write_text("model = mine", encoding="utf-8")
    with pytest.raises(RecipeError, match="exists already"):
        copy_recipes(tmp_path)
    assert copies[3].read_text(encoding="utf-8") == "model = mine"


def test_copying_goes_on_after_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, done = shutil.copyfile, []

    def fill(origin: Path, target: Path) -> None:
        if len(done) == 3:
            target.write_text("half", encoding="utf-8")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        done.append(whole(origin, target))

    monkeypatch.setattr(shutil, "copyfile", fill)
    with pytest.raises(OSError, match="No space left"):
        copy_recipes(tmp_path)
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 3
    monkeypatch.undo()
    copies = copy_recipes(tmp_path)
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(copies)
    assert "half" not in {copy.read_text(encoding="utf-8") for copy in copies}


@pytest.fixture(scope="session")
def measured_store(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small store with measured quality, as `bayesfs features` writes it."""
    frames = open_store(small_store).dataset.load()
    table = np.random.default_rng(0).normal(size=(frames.sizes["frame"], len(COVARIATES)))
    measured = frames.assign(quality=(("frame", "covariate"), table.astype(np.float32)))
    path = tmp_path_factory.mktemp("measured") / "store.zarr"
    save_store(path, Embeddings(measured.assign_coords(covariate=list(COVARIATES))))
    return path


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(n, marks=[pytest.mark.slow] * (n[0].endswith(UNROLLED) or n in LONG))
        for n in STUDIES
    ],
    ids="-".join,
)
def test_every_study_runs(
    names: tuple[str, str, str], measured_store: Path, tmp_path: Path
) -> None:
    rooms = ("models", "inference", "evaluation")
    paths = [
        str(recipe_folder() / room / f"{name}.py") for room, name in zip(rooms, names, strict=True)
    ]
    out = tmp_path / "run"
    argv = ["run", *paths, "--data", str(measured_store), "--out", str(out), "--smoke", "--debug"]
    assert main(argv) == 0
    assert RunDirectory(out).is_done
    assert (out / "report.html").stat().st_size > 10_000


def test_every_shipped_recipe_is_in_a_study() -> None:
    for place, room in enumerate(("models", "inference", "evaluation")):
        shipped = {path.stem for path in (recipe_folder() / room).glob("*.py")}
        assert shipped == {names[place] for names in STUDIES}
