"""Names that a recipe may define: a misspelt one is refused, never passed over: `check_names`.

A name that nothing reads would leave a default in force without a word, as `objectve = ...` does
for `objective`.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from bayesfs.errors import RecipeError

ROLES: Mapping[str, tuple[str, ...]] = {
    "model": ("objective", "reduction"),
    "engine": ("population_engine",),
    "evaluation": (),
}
"""What a recipe defines, and what else it may define."""

EXAMPLE: Mapping[str, str] = {
    "model": "model = GaussianHierarchy()",
    "engine": "engine = Exact()",
    "evaluation": "evaluation = Clutter()",
}

SIMILAR = 0.75
"""Ratio (`difflib`) from which a function or class may be a misspelt name of a role."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def names_of(role: str) -> tuple[str, ...]:
    """Names that a recipe of this role may define."""
    return (role, *ROLES[role])


def check_names(path: Path, source: str, role: str) -> None:
    """Refuse names that neither bayesfs nor the recipe itself reads.

    Names of the role, names that begin with an underscore, names that the recipe uses, imports,
    functions and classes are legal; a function, a class or a name that an import gives with `as`
    is refused where it is not used and is nearly one of the role. A name of the role is given a
    value once: a second value that takes the place of one that nothing has read, and an annotation
    that gives none, would do nothing.

    Args:
        path: the recipe, for messages.
        source: its text; text that is no Python is left to the compiler.
        role: "model", "engine" or "evaluation".

    Raises:
        RecipeError: a name is not read, or given twice or no value; the message has its line, and
            the nearest legal name.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    legal = names_of(role)
    _check_once(path, tree, legal)
    read = _read_names(tree)
    for name, line, plain in _bound(tree.body):
        near = difflib.get_close_matches(name.lower(), legal, n=1, cutoff=0.6 if plain else SIMILAR)
        if name in legal or name in read or name.startswith("_") or not (plain or near):
            continue
        owner = next((r for r in ROLES if name in names_of(r)), "")
        hint = f"did you mean {near[0]!r}? " if near else ""
        hint = f"it belongs in the recipe of the {owner}; " if owner else hint
        raise RecipeError(
            f"{path}, line {line}: nothing reads {name!r}; {hint}a recipe of the {role} defines "
            f"{', '.join(legal)}, and a name of your own that is not used begins with an underscore"
        )


def _check_once(path: Path, tree: ast.Module, legal: tuple[str, ...]) -> None:
    """Every legal name that the text names at its top level has a value there, and one only."""
    unread: dict[str, int] = {}
    valued = {name for name, _, _ in _bound(tree.body)}
    for node in tree.body:
        for name in _read_names(node):
            unread.pop(name, None)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
            if name in legal and name not in valued:
                raise RecipeError(
                    f"{path}, line {node.lineno}: {name!r} has a type and no value; "
                    f"write `{name} = ...`"
                )
        for name, line, _ in _assigned(node):
            if name in unread:
                raise RecipeError(
                    f"{path}, line {line}: {name!r} is defined a second time, and nothing has "
                    f"read what line {unread[name]} gave it; which is meant?"
                )
            if name in legal:
                unread[name] = line


def _read_names(tree: ast.AST) -> set[str]:
    """Names that are read, or deleted, or exported, anywhere in the text."""
    nodes = list(ast.walk(tree))
    names = {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Store)}
    return names | {name for n in nodes if isinstance(n, ast.Global) for name in n.names}


def _bound(body: list[ast.stmt]) -> Iterator[tuple[str, int, bool]]:
    """(name, line, whether by assignment) of what the top level binds, also in its blocks."""
    for statement in body:
        if isinstance(statement, Definition):
            yield statement.name, statement.lineno, False
            continue
        for node in _outside_functions(statement):
            yield from _assigned(node)
            if isinstance(node, Definition):
                yield node.name, node.lineno, False


def _assigned(node: ast.AST) -> Iterator[tuple[str, int, bool]]:
    """Names that one assignment binds; a bare annotation binds none."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from ((a.asname, node.lineno, False) for a in node.names if a.asname)
        return
    if isinstance(node, ast.Assign):
        targets: list[ast.expr] = node.targets
    elif isinstance(node, ast.AugAssign | ast.NamedExpr | ast.AnnAssign):
        targets = [node.target] if node.value is not None else []
    else:
        return
    for target in targets:
        for found in ast.walk(target):
            if isinstance(found, ast.Name) and isinstance(found.ctx, ast.Store):
                yield found.id, found.lineno, True


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """A statement and what is in it, but not what is inside functions and classes."""
    yield node
    if not isinstance(node, Definition | ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from _outside_functions(child)


def bound_names(tree: ast.Module) -> set[str] | None:
    """All names that the top level of a text may bind; None where the text does not say."""
    found = {name for name, _, _ in _bound(tree.body)}
    for node in (inner for statement in tree.body for inner in _outside_functions(statement)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("globals", "exec", "vars"):
            return None
    return None if "*" in found else found


def missing(path: Path, needs: str, names: Iterable[str]) -> str:
    """What is told of a recipe that does not define what it should; `names` is what it does."""
    defined = [n for n in names if not n.startswith("_")]
    other = next((role for role in ROLES if role in defined), "")
    if other:
        return (
            f"{path}: defines {other!r} and no {needs!r}; it is a recipe of the {other}, and one "
            f"of the {needs} belongs in its place ({', then '.join(ROLES)})"
        )
    close = difflib.get_close_matches(needs, defined, n=1)
    near = f"; it defines {close[0]!r}, was that meant?" if close else ""
    return (
        f"{path}: expected it to define {needs!r}{near} "
        f"(add a line such as `{EXAMPLE.get(needs, f'{needs} = ...')}` at its end)"
    )
