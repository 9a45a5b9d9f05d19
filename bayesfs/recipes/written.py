"""What ran, written down in full: as recipes that run again, as JSON, and what was chosen.

Start with `full_recipe`: every field has its value, also those that nobody chose. `as_json` gives
the same values for other programs, `differences` those that are not the defaults.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from bayesfs.recipes.load import Recipe
from bayesfs.recipes.names import names_of
from bayesfs.recipes.scripts import PRIVATE

PLAIN = (type(None), bool, int, str)

SHORT = 60
"""Characters of arguments that stand on one line, at most."""

LONG = 80
"""Characters of a value, at most, where it is shown beside its default."""

UNSAID: Mapping[str, str] = {
    "objective": "# No objective: the population is learnt with the model itself.",
    "population_engine": "population_engine = engine",
}
"""Name that a recipe may leave out -> what is then done, as a line of it."""


def full_recipe(recipe: Recipe, role: str, values: Mapping[str, Any], about: str) -> str:
    """The text of a recipe that says everything, and runs to the same values.

    Classes that bayesfs or another package offers are imported. Where a value is of the recipe's
    own making (a class or a function that it defines, an object that no expression gives), the
    recipe's text comes first, and what follows replaces the fields in it.

    Args:
        recipe: that ran.
        role: "model", "engine" or "evaluation".
        values: name -> value of what ran, overridden fields included; None where there is none.
        about: sentences for the docstring.
    """
    held = {name: values[name] for name in names_of(role)}
    try:
        terms = Terms({})
        lines = [f"{name} = {terms.of(v, name)}" for name, v in held.items() if v is not None]
        head = f'"""The {role} of a run, in full.\n\n{about}\n"""\n\n{terms.imports}'
    except NeedsRecipe:
        terms = Terms(recipe.names)
        lines = [
            f"{name} = {terms.replaced(v, name)}"
            for name, v in held.items()
            if is_dataclass(v) and not isinstance(v, type)
        ]
        comment = "\n".join(f"# {line}".rstrip() for line in f"In full. {about}".splitlines())
        head = f"{recipe.source.rstrip()}\n\n\n{comment}\n{terms.imports}"
    lines += [UNSAID[name] for name, v in held.items() if v is None]
    return "\n".join([head, *lines, ""])


class NeedsRecipe(Exception):
    """A value is one that only the recipe's own text gives."""


@dataclass
class Terms:
    """Python expressions of values, and the imports that they need.

    Attributes:
        known: name -> value, of what a recipe defines before them; empty for a text by itself.
        imported: name in the expressions -> (module, name there).
    """

    known: Mapping[str, Any]
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def imports(self) -> str:
        """The lines that import what the expressions name."""
        lines = [
            f"from {module} import {name}" + (f" as {alias}" if alias != name else "")
            for alias, (module, name) in self.imported.items()
        ]
        return "".join(f"{line}\n" for line in sorted(lines))

    def of(self, value: Any, place: str, indent: str = "") -> str:
        """An expression of a value.

        Args:
            value: any value.
            place: an expression of it in the recipe that made it, for what has no other.
            indent: of the line that it begins on.

        Raises:
            NeedsRecipe: only the recipe's text gives the value, and it does not come first.
        """
        if type(value) in PLAIN:
            return repr(value)
        if type(value) is float:
            return repr(value) if math.isfinite(value) else f"float('{value}')"
        if type(value) in (tuple, list):
            inner = [self.of(v, f"{place}[{i}]", indent) for i, v in enumerate(value)]
            whole = ", ".join(inner) + ("," if len(inner) == 1 and type(value) is tuple else "")
            return f"({whole})" if type(value) is tuple else f"[{whole}]"
        if isinstance(value, type) or inspect.isfunction(value):
            return self._named(value) or self._given(place)
        if is_dataclass(value) and (name := self._named(type(value))):
            return f"{name}{self._fields(value, place, indent)}"
        return self._given(place)

    def replaced(self, value: Any, place: str) -> str:
        """An expression of a dataclass that the recipe defines, every field replaced."""
        name = self._import("dataclasses", "replace")
        return f"{name}{self._fields(value, place, '', first=place)}"

    def _fields(self, value: Any, place: str, indent: str, first: str = "") -> str:
        """Every field as an argument, a line each."""
        deep = f"{indent}    "
        held = [(f.name, getattr(value, f.name)) for f in fields(value) if f.init]
        lines = [f"{n}={self.of(v, f'{place}.{n}', deep)}" for n, v in held]
        lines = [line for line in (first, *lines) if line]
        short = f"({', '.join(lines)})"
        if len(short) <= SHORT and "\n" not in short:
            return short
        return "\n".join(["(", *(f"{deep}{line}," for line in lines), f"{indent})"])

    def _given(self, place: str) -> str:
        if not self.known:
            raise NeedsRecipe
        return place

    def _named(self, value: Any) -> str | None:
        """The name of a class or function, imported where the recipe has not; None without one."""
        name, module = value.__qualname__, sys.modules.get(value.__module__)
        if self.known.get(name) is value:
            return str(name)
        if module is None or vars(module).get(name) is not value:
            return None
        if not module.__name__.startswith(PRIVATE):
            return self._import(module.__name__, name)
        if not self.known:
            raise NeedsRecipe
        return self._import(Path(str(module.__file__)).stem, name)

    def _import(self, module: str, name: str) -> str:
        """The name, or another one where it is taken."""
        alias = name
        while self.imported.get(alias, (module, name)) != (module, name) or alias in self.known:
            alias += "_"
        self.imported[alias] = (module, name)
        return alias


def as_json(value: Any) -> Any:
    """A value as JSON has it: dataclasses as objects with their class, classes by their names."""
    if type(value) in PLAIN:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else str(value)
    if type(value) in (tuple, list):
        return [as_json(v) for v in value]
    if isinstance(value, Mapping):
        return {str(name): as_json(v) for name, v in value.items()}
    if isinstance(value, type) or inspect.isfunction(value):
        return _dotted(value)
    held = fields(value) if is_dataclass(value) else ()
    inner = {f.name: as_json(getattr(value, f.name)) for f in held if f.init}
    return {"class": _dotted(type(value)), **inner}


def differences(values: Mapping[str, Any]) -> Iterator[str]:
    """Every field that has another value than its default, with both.

    Args:
        values: name -> what a recipe defines.

    Example:
        >>> from bayesfs.inference.exact import Exact
        >>> list(differences({"engine": Exact(draws=8)}))
        ['engine.draws = 8 (default 128)']
    """
    for name, value in values.items():
        if is_dataclass(value) and not isinstance(value, type):
            yield from _between(name, value, None)
        elif value is not None:
            yield f"{name} = {_short(value)}"


def _between(place: str, value: Any, usual: Any) -> Iterator[str]:
    """Differences of a dataclass from another one, or from the defaults of its fields."""
    for one in fields(value):
        if not one.init:
            continue
        held, at = getattr(value, one.name), f"{place}.{one.name}"
        default = _default(one) if usual is None else getattr(usual, one.name)
        if is_dataclass(held) and type(held) is type(default):
            yield from _between(at, held, default)
        elif default is MISSING:
            yield f"{at} = {_short(held)}"
        elif as_json(held) != as_json(default):
            yield f"{at} = {_short(held)} (default {_short(default)})"


def _default(one: Field[Any]) -> Any:
    return one.default if one.default_factory is MISSING else one.default_factory()


def _short(value: Any) -> str:
    text = value.__name__ if isinstance(value, type) or inspect.isfunction(value) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= LONG else f"{text[: LONG - 1]}…"


def _dotted(value: Any) -> str:
    """Module and name; of what a recipe defines the name, since its module's is made up."""
    own = value.__module__.startswith(PRIVATE)
    return str(value.__qualname__ if own else f"{value.__module__}.{value.__qualname__}")
