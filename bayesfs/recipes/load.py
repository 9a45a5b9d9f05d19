"""Recipes: short Python scripts that choose a model, an engine or an evaluation.

Use `load_recipe` first: it runs one script and returns what it defines. `override` changes one
number from the command line and `copy_recipes` gives a person the shipped ones to edit.

**A recipe is code**: loading one runs it. A recipe is loaded only from a path that the person
names, never found in a data folder, and never to report on a run.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from bayesfs._utils.atomic import write_whole
from bayesfs._utils.guarded_files import read_bytes
from bayesfs._utils.ranges import bare
from bayesfs.errors import DataError, RecipeError
from bayesfs.protocols import Engine, Evaluation, Model, Objective, Reduction, missing_members
from bayesfs.recipes.names import check_names, missing, names_of
from bayesfs.recipes.overrides import another_type, is_of, override
from bayesfs.recipes.scripts import LONGEST, Scripts, read_recipe

CONTRACTS: Mapping[str, type] = {
    "model": Model,
    "objective": Objective,
    "reduction": Reduction,
    "engine": Engine,
    "population_engine": Engine,
    "evaluation": Evaluation,
}
"""Name that a recipe may define -> the class that the value's inherits from, or fulfils."""


@dataclass(frozen=True)
class Recipe:
    """A loaded recipe: what it defines, and the exact text that was run.

    Attributes:
        path: file it came from.
        source: its text; the run directory keeps this copy.
        values: name -> value, for the names of `CONTRACTS` that it defines.
        names: everything that it defines or imports.
    """

    path: Path
    source: str
    values: Mapping[str, Any]
    names: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Recipes:
    """The recipes of one study.

    Attributes:
        roles: role -> recipe.
        helpers: file name -> text of the modules beside them.
    """

    roles: Mapping[str, Recipe]
    helpers: Mapping[str, str]


def load_recipe(path: Path, role: str, scripts: Scripts | None = None) -> Recipe:
    """Read one recipe, run it and return what it defines.

    Args:
        path: the recipe, a `.py` file.
        role: what it must define: "model", "engine" or "evaluation"; names that go with it
            (`bayesfs.recipes.names.ROLES`) are taken where they are defined.
        scripts: of the command, where recipes share modules that stand beside them.

    Returns:
        The recipe with `values[role]`.

    Raises:
        RecipeError: there is no such file, it has a mistake, does not define what is needed, or
            defines a name that nothing reads; the message names the file, the line and the fix.

    Example:
        >>> load_recipe(recipe_folder() / "models/gaussian.py", "model").values["model"]
        GaussianHierarchy(...)
    """
    return run_recipe(path, read_recipe(path), role, scripts)


def load_recipes(paths: Mapping[str, Path], settings: Iterable[str]) -> Recipes:
    """The recipes of a study, once each setting has a field and a value, and the engine the model.

    Nothing but what the recipes name is imported before a mistake is told.

    Args:
        paths: role -> recipe.
        settings: as `--set` has them, each looked at by itself.

    Raises:
        RecipeError: as `load_recipe` and `bayesfs.recipes.overrides.override`.
        InferenceError: the engine is not for the model.
    """
    scripts = Scripts()
    recipes = {role: load_recipe(path, role, scripts) for role, path in paths.items()}
    values = {name: v for recipe in recipes.values() for name, v in recipe.values.items()}
    for setting in settings:
        override(values, [setting])
    if "engine" in values and "model" in values:
        values["engine"].check_model(values["model"])
    return Recipes(recipes, scripts.helpers)


def run_recipe(path: Path, source: str, role: str, scripts: Scripts | None = None) -> Recipe:
    """Run the text of a recipe, which was read once, and return what it defines.

    Args:
        path: where the text came from, for messages; it is not read again.
        source: from `read_recipe`.
        role: see `load_recipe`.
        scripts: see `load_recipe`.

    Raises:
        RecipeError: as `load_recipe`.
    """
    names = vars((Scripts() if scripts is None else scripts).run(path, source))
    values = {n: names[n] for n in names_of(role) if n in names}
    if role not in values:
        raise RecipeError(missing(path, role, names))
    for name, value in values.items():
        _check_verbs(path, source, name, value)
        _check_fields(path, source, name, value)
    check_names(path, source, role)
    return Recipe(path, source, values, names)


def _check_verbs(path: Path, source: str, name: str, value: Any) -> None:
    contract = CONTRACTS[name]
    lacking = missing_members(value, contract)
    if isinstance(value, type) and name != "objective":
        reason = f"is the class {value.__name__}, not an object: write {value.__name__}(...)"
    elif lacking:
        reason = (
            f"is a {type(value).__name__}, which lacks {', '.join(lacking)}; "
            f"does its class inherit from {contract.__module__}.{contract.__name__}?"
        )
    else:
        return
    raise RecipeError(f"{path}, line {_line_of(source, name)}: {name!r} {reason}")


def _check_fields(path: Path, source: str, name: str, value: Any) -> None:
    """Fields that hold numbers or text hold those of their type, also in nested dataclasses."""
    if not is_dataclass(value) or isinstance(value, type):
        return
    for inner, wanted in plain_fields(type(value)).items():
        held = getattr(value, inner)
        if not is_of(held, wanted):
            line = _argument_line(source, inner) or _line_of(source, name)
            told = another_type(wanted, held)
            raise RecipeError(f"{path}, line {line}: {type(value).__name__}.{inner}: {told}")
    for one in fields(value):
        _check_fields(path, source, name, getattr(value, one.name))


def plain_fields(owner: type) -> dict[str, Any]:
    """Field -> its type, for the fields of a dataclass whose types are numbers, text and tuples."""
    try:
        hints = get_type_hints(owner, include_extras=True)
    except NameError:  # a type that is imported for type checkers only
        return {}
    types = {f.name: bare(hints[f.name]) for f in fields(owner) if f.init}
    return {name: wanted for name, wanted in types.items() if _is_plain(wanted)}


def _is_plain(wanted: Any) -> bool:
    if get_origin(wanted) is Literal:
        return True
    parts = get_args(wanted)
    if parts:
        return all(_is_plain(part) for part in parts)
    return wanted in (int, float, bool, str, type(None), Ellipsis)


def _argument_line(source: str, field: str) -> int | None:
    """Line of the first keyword argument of that name in a recipe."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    lines = [k.value.lineno for call in calls for k in call.keywords if k.arg == field]
    return min(lines) if lines else None


def _line_of(source: str, name: str) -> int:
    """Line of the last statement that binds `name` at the top level of a recipe."""
    bound = {
        target.id: node.lineno
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    return bound.get(name, 1)


def recipe_folder() -> Path:
    """Folder with the shipped recipes: inside an installed wheel, or the checkout's root."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "_recipes"
    return shipped if shipped.is_dir() else package.parent


def _is_copy(origin: Path, target: Path) -> bool:
    """Whether a file is there that is the same."""
    try:
        return read_bytes(target, LONGEST) == origin.read_bytes()
    except (OSError, DataError):
        return False


def copy_recipes(folder: Path) -> list[Path]:
    """Copy the shipped recipes to `folder`/{models,inference,evaluation}; the copies' paths.

    Raises:
        RecipeError: one of the files exists already and is another: nothing of a person's own is
            overwritten. What is the same already, such as after a full disk, stays.
        OSError: the operating system refuses; no file is left half-written.
    """
    shipped = recipe_folder()
    found = [
        p for room in ("models", "inference", "evaluation") for p in (shipped / room).glob("*.py")
    ]
    copies = {p: folder / p.parent.name / p.name for p in sorted(found)}
    missing = {p: target for p, target in copies.items() if not _is_copy(p, target)}
    taken = [str(t) for t in missing.values() if t.exists() or t.is_symlink()]
    if taken:
        raise RecipeError(f"{taken[0]} exists already; choose a new folder, nothing was copied")
    for origin, target in missing.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, partial(shutil.copyfile, origin))
    return list(copies.values())
