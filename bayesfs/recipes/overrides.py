"""Change one number of a recipe from the command line: `--set engine.steps=500`.

Use `override` first: it returns a changed copy; recipes hold frozen dataclasses, which are never
changed in place.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from bayesfs._utils.ranges import bare, refusal
from bayesfs.errors import RecipeError
from bayesfs.recipes.mistakes import nearest

ALL = CollectionCheckStrategy.ALL_ITEMS

TINY: Mapping[str, int] = {
    "steps": 20,
    "draws": 20,
    "warmup": 20,
    "particles": 8,
    "khat_draws": 20,
    "rounds": 2,
    "proposals": 64,
    "population_draws": 2,
    "dim": 16,
    "frames_per_video": 2,
    "query_frames": 2,
}
"""Field -> the largest number that a smoke run leaves it."""


def override(values: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The values of the recipes with single fields replaced.

    Args:
        values: name -> dataclass, such as {"engine": SVI(...)}.
        settings: "NAME.FIELD=VALUE" each, FIELD dotted where dataclasses are nested; VALUE is a
            Python literal (`500`, `1e-2`, `None`, `True`) or plain text; several, with commas
            between them, for a tuple (`1,3,5`, `clean,clutter`), which may have one.

    Returns:
        A new dict; values that no setting names are the same objects.

    Raises:
        RecipeError: the setting cannot be read, names no field or one that another setting names
            too, or its value has another type than the field, or one that the dataclass itself
            refuses.

    Example:
        >>> from bayesfs.inference.svi.svi import SVI
        >>> override({"engine": SVI()}, ["engine.steps=500"])["engine"].steps
        500
    """
    changed = dict(values)
    for setting, name, path, text in targets(settings):
        if name not in changed:
            near = nearest(name, changed, "known are")
            raise RecipeError(f"--set {setting}: there is no {name!r}; {near}")
        changed[name] = _replace(changed[name], path, text, setting)
    return changed


def targets(settings: Sequence[str]) -> list[tuple[str, str, list[str], str]]:
    """(setting, name, path of fields, text of the value) of each setting.

    Raises:
        RecipeError: one cannot be read, or names a field that another one names.
    """
    given: dict[str, str] = {}
    found = []
    for setting in settings:
        target, equals, text = setting.partition("=")
        name, *path = target.strip().split(".")
        if not equals or not path:
            raise RecipeError(f"--set {setting}: expected NAME.FIELD=VALUE, as in engine.steps=500")
        if (place := target.strip()) in given:
            raise RecipeError(f"--set {setting}: set before by {given[place]!r}; which is meant?")
        given[place] = setting
        found.append((setting, name, path, text.strip()))
    return found


def choices_in(setting: str) -> list[str]:
    """One setting for each of the values between commas; brackets and quotes hold values together.

    Example:
        >>> choices_in("evaluation.shots=(1,5),(1,3)")
        ['evaluation.shots=(1,5)', 'evaluation.shots=(1,3)']
    """
    name, equals, text = setting.partition("=")
    values = re.findall(r"""(?:[^,(\[{'"]|\([^)]*\)|\[[^\]]*\]|\{[^}]*\}|'[^']*'|"[^"]*")+""", text)
    return [f"{name}={value.strip()}" for value in values] if equals and values else [setting]


def shrink(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the recipes made tiny: to see within seconds whether they fit together.

    Counts in `TINY` are lowered to the number there, and of several shots the first is left.
    The numbers that such a run gives mean nothing.
    """
    return {name: _tiny(value) for name, value in values.items()}


def _tiny(value: Any) -> Any:
    if not is_dataclass(value) or isinstance(value, type):
        return value
    held = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
    lower: dict[str, Any] = {
        n: TINY[n] for n, v in held.items() if type(v) is int and v > TINY.get(n, v)
    }
    shots = held.get("shots")
    if isinstance(shots, tuple):
        lower["shots"] = shots[:1]
    return replace(value, **lower)


def _replace(value: Any, path: Sequence[str], text: str, setting: str) -> Any:
    known = [f.name for f in fields(value) if f.init] if is_dataclass(value) else []
    name, *rest = path
    if name not in known:
        near = nearest(name, known, "known are")
        raise RecipeError(f"--set {setting}: {type(value).__name__}: there is no {name!r}; {near}")
    if rest:
        new = _replace(getattr(value, name), rest, text, setting)
    else:
        new = typed(text, get_type_hints(type(value), include_extras=True)[name], setting)
    try:
        return replace(value, **{name: new})
    except (ValueError, TypeError) as e:
        raise RecipeError(f"--set {setting}: {e}") from e


def typed(text: str, wanted: Any, setting: str) -> Any:
    """The value of `text` if it has the type of the field, an int counting as a float.

    Raises:
        RecipeError: it has another, or breaks a rule of the type.
    """
    plain, value = bare(wanted), _literal(text)
    if plain is float and type(value) is int:
        value = float(value)
    found = [v for v in (value, text, tuple(map(_literal, text.split(",")))) if is_of(v, plain)]
    if not found:
        raise RecipeError(f"--set {setting}: {another_type(wanted, text)}")
    if told := refusal(wanted, found[0]):
        raise RecipeError(f"--set {setting}: {told}")
    return found[0]


def is_of(value: Any, plain: Any) -> bool:
    """Whether a value has a type without rules, an int counting as a float."""
    if isinstance(value, bool) and plain in (int, float):
        return False  # True is an int to Python, but not a number that anyone means
    try:
        check_type(value, plain, collection_check_strategy=ALL)
    except TypeCheckError:
        return False
    return True


def another_type(wanted: Any, given: object) -> str:
    """What was expected of a value that is of another type, and what came."""
    plain = bare(wanted)
    if get_origin(plain) is Literal:
        known = [str(one) for one in get_args(plain)]
        near = nearest(str(given), known) if isinstance(given, str) else ""
        return f"expected one of {', '.join(known)}, got {given!r}" + (f"; {near}" if near else "")
    name = plain.__name__ if isinstance(plain, type) else str(plain)
    return f"expected a value of type {name}, got {given!r}"


def _literal(text: str) -> Any:
    """The Python literal that `text` spells (lists as tuples), or the text itself."""
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text.strip()
    return tuple(value) if isinstance(value, list) else value
