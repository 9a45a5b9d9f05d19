"""What is told of a recipe that fails: the file, the line and the likely fix: `failure`."""

from __future__ import annotations

import ast
import difflib
import inspect
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")


def failure(path: Path, source: str, error: BaseException, names: Mapping[str, Any]) -> str:
    """Where in a recipe an exception came from, what it was, and the likely fix.

    Args:
        path: the recipe.
        source: its text.
        error: what running it raised.
        names: what it had defined by then.
    """
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    line = lines[-1] if lines and lines[-1] else 1
    argument = _wrong_argument(source, line, error)
    line = argument[1].value.lineno if argument else line
    text = source.splitlines()[line - 1].strip() if source else ""
    near = _of_call(argument, names) if argument else _hint(path, error, names)
    kind = type(error).__name__
    return f"{path}, line {line}: {kind}: {error}{f' ({near})' if near else ''}, in {text!r}"


def syntax_failure(path: Path, error: SyntaxError) -> str:
    """The same of a text that is no Python."""
    return f"{path}, line {error.lineno}: {error.msg}: {(error.text or '').strip()!r}"


def nearest(wrong: str, known: Iterable[str], what: str = "") -> str:
    """The nearest known name as a question; without one all of them after `what`, if that is given.

    Example:
        >>> nearest("objectve", ["model", "objective"])
        "did you mean 'objective'?"
    """
    names = sorted(known)
    close = difflib.get_close_matches(wrong, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"{what} {', '.join(names) or 'none'}" if what else ""


def _wrong_argument(
    source: str, line: int, error: BaseException
) -> tuple[ast.Call, ast.keyword] | None:
    """The call around `line` and the argument that it does not take, where that is the error."""
    wrong = UNEXPECTED.search(str(error))
    if not wrong:
        return None
    found = [
        (node, argument)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and node.lineno <= line <= (node.end_lineno or line)
        for argument in node.keywords
        if argument.arg == wrong[1]
    ]
    return found[0] if found else None


def _of_call(argument: tuple[ast.Call, ast.keyword], names: Mapping[str, Any]) -> str:
    call, wrong = argument
    try:
        known = inspect.signature(_value(call.func, names)).parameters
    except (LookupError, AttributeError, TypeError, ValueError):
        return ""
    return nearest(str(wrong.arg), known, "fields:")


def _value(expression: ast.expr, names: Mapping[str, Any]) -> Callable[..., Any]:
    """What a dotted name stands for."""
    if isinstance(expression, ast.Attribute):
        found = getattr(_value(expression.value, names), expression.attr)
    else:
        found = names[expression.id if isinstance(expression, ast.Name) else ""]
    return cast(Callable[..., Any], found)


def _hint(path: Path, error: BaseException, names: Mapping[str, Any]) -> str:
    """The name that was meant, among those that there are where it was looked for."""
    match error:
        case ModuleNotFoundError(name=str(name)):
            return _of_module(path, name)
        case ImportError(name=str(name)) if absent := re.match(
            r"cannot import name '(\w+)'", str(error)
        ):
            offered = [n for n in vars(sys.modules.get(name, error)) if not n.startswith("_")]
            return nearest(absent[1], offered, "it offers:")
        case NameError(name=str(name)):
            return nearest(name, (n for n in names if not n.startswith("_")))
        case AttributeError(name=str(name)):
            return nearest(name, (n for n in dir(error.obj) if not n.startswith("_")))
    return ""


def _of_module(path: Path, name: str) -> str:
    """The nearest module: in the package that was reached, or beside the recipe."""
    package, _, wrong = name.rpartition(".")
    if not package:
        return nearest(wrong, (p.stem for p in path.parent.glob("*.py") if p != path))
    reached = sys.modules.get(package)
    places = vars(reached).get("__path__", ()) if reached else ()
    return nearest(wrong, (found.name for found in pkgutil.iter_modules(places)))
