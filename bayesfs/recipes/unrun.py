"""What can be told of recipes at once, from their text alone: `check_unrun`.

Running a recipe imports what it names, which takes seconds. A misspelt name, module, class, field
or setting is in the text already, and so are the fields of bayesfs's own classes and the types of
those that hold numbers or words. Whatever is not certain from the text is left to
`bayesfs.recipes.load`.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from bayesfs._utils import ranges
from bayesfs._utils.ranges import bare, refusal
from bayesfs.errors import DataError, RecipeError
from bayesfs.recipes.mistakes import nearest, syntax_failure
from bayesfs.recipes.names import bound_names, check_names, missing, names_of
from bayesfs.recipes.overrides import another_type, is_of, targets, typed
from bayesfs.recipes.scripts import read_recipe

PACKAGE = Path(__file__).resolve().parents[1]

PLAIN = {"int": int, "float": float, "bool": bool, "str": str, "tuple": tuple, "Literal": Literal}
RULES = {name: held for name, held in vars(ranges).items() if not name.startswith("_")}
KNOWN: Mapping[str, Any] = {**RULES, **PLAIN, "math": math}
"""What annotations of numbers and words, and their rules, are made of."""

Place = tuple[str, str]
"""Dotted module, and name in it."""


@dataclass(frozen=True)
class Argument:
    """An argument of a class or function of bayesfs.

    Attributes:
        type: its type, with its rules, where that is of numbers and words; else None.
        default: its default.
        module: where both stand.
    """

    type: Any
    default: ast.expr | None
    module: str


@dataclass(frozen=True)
class Made:
    """What an expression certainly makes.

    Attributes:
        name: the class or function of bayesfs that it calls.
        arguments: what that takes, by name.
        given: what it is given, by name; None where the text does not say.
        names: places of the names in them.
    """

    name: str
    arguments: Mapping[str, Argument]
    given: Mapping[str, ast.expr] | None
    names: Mapping[str, Place]


def check_unrun(
    paths: Mapping[str, Path], settings: Sequence[Sequence[str]], store: Path | None
) -> dict[str, Made | None]:
    """Refuse recipes, settings and a store that cannot be right; nothing is run or imported.

    Args:
        paths: role -> recipe.
        settings: as `--set` has them, each with its alternatives: one of a run, several of a sweep.
        store: feature store; None for none.

    Returns:
        What the names that recipes may define hold, by name; None where that is not certain.

    Raises:
        RecipeError: a recipe is missing, is no Python, does not define its role, or names what is
            not there, as a setting may; or a field gets a value of another type, or out of range.
        DataError: there is no store.
    """
    sources, values = Sources(), dict[str, Made | None]()
    for role, path in paths.items():
        tree = _parsed(path, source := read_recipe(path))
        bound = bound_names(tree)
        if bound is not None and role not in bound:
            raise RecipeError(missing(path, role, bound))
        check_names(path, source, role)
        own = _check_imports(path, tree, sources)
        _check_calls(path, source, tree, own, sources)
        for name in names_of(role):
            if bound is None or name in bound:
                values[name] = _made(_value(tree, name), own, sources)
    _check_settings(settings, values, sources)
    if store is not None and not (store / "zarr.json").is_file():
        raise DataError(f"{store}: expected a feature store, as `bayesfs features` makes one")
    return values


def refuse_in_data(paths: Mapping[str, Path], store: Path) -> None:
    """Refuse recipes that lie in the data.

    Raises:
        RecipeError: one does.
    """
    inside = [p for p in paths.values() if p.resolve().is_relative_to(store.resolve())]
    if inside:
        raise RecipeError(
            f"{inside[0]}: lies in the data; a recipe is code and never comes from it"
        )


def _check_settings(
    settings: Sequence[Sequence[str]], values: Mapping[str, Made | None], sources: Sources
) -> None:
    targets([setting for setting, *_ in settings])  # no two set the same field
    for setting in chain.from_iterable(settings):
        _check_setting(setting, values, sources)


def _check_setting(setting: str, values: Mapping[str, Made | None], sources: Sources) -> None:
    ((_, name, path, text),) = targets([setting])
    if name not in values:
        near = nearest(name, values, "known are")
        raise RecipeError(f"--set {setting}: there is no {name!r}; {near}")
    made, argument = values[name], None
    for field in path:
        if made is None:
            return
        if field not in made.arguments:
            near = nearest(field, made.arguments, "known are")
            raise RecipeError(f"--set {setting}: {made.name}: there is no {field!r}; {near}")
        argument, made = made.arguments[field], _held(made, field, sources)
    if argument is not None and argument.type is not None:
        typed(text, argument.type, setting)


class Sources:
    """The texts of bayesfs's own modules, each parsed once and never imported."""

    def __init__(self) -> None:
        self._trees: dict[str, ast.Module | None] = {}

    def tree(self, module: str) -> ast.Module | None:
        """A module of bayesfs; None where there is none of that name."""
        if module not in self._trees:
            base = PACKAGE.joinpath(*module.split(".")[1:])
            texts = (base.with_suffix(".py"), base / "__init__.py")
            found = next((path for path in texts if path.is_file()), None)
            self._trees[module] = ast.parse(found.read_text(encoding="utf-8")) if found else None
        return self._trees[module]

    def names(self, module: str) -> dict[str, Place]:
        """Places of bayesfs's names in one of its modules."""
        tree = self.tree(module) or ast.Module([], [])
        own = {name: (module, name) for node in tree.body if (name := _name(node))}
        return own | {alias: home for alias, home, _ in _imports(ast.walk(tree))}

    def arguments(self, place: Place) -> dict[str, Argument] | None:
        """Arguments by name of a dataclass or function; None where the text does not say."""
        module, tree = place[0], self.tree(place[0])
        found = next((n for n in tree.body if _name(n) == place[1]), None) if tree else None
        if isinstance(found, ast.FunctionDef) and not found.args.kwarg:
            taken = (*found.args.posonlyargs, *found.args.args, *found.args.kwonlyargs)
            return {one.arg: Argument(None, None, module) for one in taken}
        if tree is None or not isinstance(found, ast.ClassDef) or not _is_dataclass(found):
            return None
        if any(_name(n) == "__init__" for n in found.body):
            return None
        names, taken_over = self.names(module), dict[str, Argument]()
        for base in found.bases:
            inner = base.id if isinstance(base, ast.Name) else ""
            taken_over |= self.arguments(names.get(inner, (module, inner))) or {}
        own = (node for node in found.body if isinstance(node, ast.AnnAssign))
        return taken_over | {
            name: Argument(self.type(node.annotation, module), node.value, module)
            for node in own
            if (name := _field(node))
        }

    def type(self, annotation: ast.expr, module: str) -> Any:
        """A type of numbers and words, with its rules, as a module has it; else None."""
        found = self._value(annotation, module)
        return None if isinstance(found, str) else found

    def _value(self, expression: ast.expr, module: str) -> Any:
        """What an expression of known names and of other modules' constants gives; else None."""
        named = {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}
        constants = {name: self._constant((module, name)) for name in named - KNOWN.keys()}
        try:
            return eval(ast.unparse(expression), {"__builtins__": {}}, {**KNOWN, **constants})
        except (NameError, AttributeError, TypeError):
            return None

    def _constant(self, place: Place) -> Any:
        """The value that a module gives a name at its top level, where `_value` knows it."""
        module, name = place
        tree = self.tree(module)
        for node in tree.body if tree else ():
            if isinstance(node, ast.Assign) and name in map(ast.unparse, node.targets):
                return self._value(node.value, module)
        home = self.names(module).get(name, place)
        return None if home == place else self._constant(home)


def _parsed(path: Path, source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as e:
        raise RecipeError(syntax_failure(path, e)) from e
    except (ValueError, RecursionError) as e:
        raise RecipeError(f"{path}: {e}") from e


def _imports(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, Place, int]]:
    """(name, its place, line) of what nodes import from modules of bayesfs."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("bayesfs."):
            for alias in node.names:
                yield alias.asname or alias.name, (str(node.module), alias.name), node.lineno


def _check_imports(path: Path, tree: ast.Module, sources: Sources) -> dict[str, Place]:
    found = {}
    for alias, (module, name), line in _imports(tree.body):
        home = sources.tree(module)
        if home is None:
            parent, _, last = module.rpartition(".")
            folder = PACKAGE.joinpath(*parent.split(".")[1:])
            near = nearest(last, [p.stem for p in folder.glob("*") if p.suffix in ("", ".py")])
            raise RecipeError(f"{path}, line {line}: there is no module {module!r}; {near}")
        there = bound_names(home)
        if there is not None and name not in there and sources.tree(f"{module}.{name}") is None:
            near = nearest(name, [n for n in there if not n.startswith("_")], "it offers:")
            raise RecipeError(f"{path}, line {line}: {module} has no {name!r}; {near}")
        found[alias] = (module, name)
    return found


def _check_calls(
    path: Path, source: str, tree: ast.Module, imported: Mapping[str, Place], sources: Sources
) -> None:
    nodes = [*ast.walk(tree)]
    own = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    own |= {n.arg for n in nodes if isinstance(n, ast.arg)}
    for call in (node for node in nodes if isinstance(node, ast.Call)):
        made = None if _callee(call) in own else _made(call, imported, sources)
        if made is None:
            continue
        for argument in call.keywords:
            if argument.arg and argument.arg not in made.arguments:
                line, wrong = argument.value.lineno, argument.arg
                near = nearest(wrong, made.arguments, "fields:")
                text = source.splitlines()[line - 1].strip()
                raise RecipeError(
                    f"{path}, line {line}: {made.name} has no {wrong!r} ({near}), in {text!r}"
                )
        for name, given in (made.given or {}).items():
            if told := _against(given, made.arguments[name].type):
                raise RecipeError(f"{path}, line {given.lineno}: {made.name}.{name}: {told}")


def _against(given: ast.expr, wanted: Any) -> str:
    """What a type says against a number or word that the text spells; empty for nothing."""
    try:
        value = ast.literal_eval(given)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ""
    if wanted is None:
        return ""
    return refusal(wanted, value) if is_of(value, bare(wanted)) else another_type(wanted, value)


def _made(value: ast.expr | None, names: Mapping[str, Place], sources: Sources) -> Made | None:
    """What an expression makes, where that is certain."""
    name = _callee(value)
    arguments = sources.arguments(names[name]) if name in names else None
    if not isinstance(value, ast.Call) or arguments is None:
        return None
    given = dict(zip(arguments, value.args, strict=False))
    given |= {one.arg: one.value for one in value.keywords if one.arg}
    hidden = any(isinstance(one, ast.Starred) for one in value.args)
    hidden |= any(one.arg is None for one in value.keywords)
    return Made(names[name][1], arguments, None if hidden else given, names)


def _held(made: Made, field: str, sources: Sources) -> Made | None:
    """What an argument holds: what it is given, or its default."""
    argument = made.arguments[field]
    if made.given is None:
        return None
    if field in made.given:
        return _made(made.given[field], made.names, sources)
    default, names = argument.default, sources.names(argument.module)
    if _callee(default) == "field" and isinstance(default, ast.Call):
        factory = next((k.value for k in default.keywords if k.arg == "default_factory"), None)
        default = None if factory is None else ast.Call(factory, [], [])
    return _made(default, names, sources)


def _callee(value: ast.expr | None) -> str:
    called = value.func if isinstance(value, ast.Call) else None
    return called.id if isinstance(called, ast.Name) else ""


def _value(tree: ast.Module, name: str) -> ast.expr | None:
    """The expression that a name is assigned, where it is assigned once, at the top level."""
    found = [
        (node, target)
        for node in ast.walk(tree)
        for target in ast.walk(node)
        if isinstance(node, ast.stmt) and isinstance(target, ast.Name)
        if target.id == name and isinstance(target.ctx, ast.Store)
    ]
    if len(found) != 1 or not isinstance(found[0][0], ast.Assign | ast.AnnAssign):
        return None
    return found[0][0].value


def _name(node: ast.stmt) -> str:
    return node.name if isinstance(node, ast.FunctionDef | ast.ClassDef) else ""


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def _field(node: ast.AnnAssign) -> str:
    """Name of the field that a statement in a dataclass's body makes; empty for none."""
    if not isinstance(node.target, ast.Name):
        return ""
    hidden = ast.unparse(node.annotation).startswith("ClassVar")
    return "" if hidden or "init=False" in ast.unparse(node) else node.target.id
