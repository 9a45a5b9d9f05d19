"""A public name exists once: one class, one function, one place to look for it."""

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "bayesfs"

SUBCOMMANDS = "bayesfs.cli.subcommands"
DEFENDED = {
    "explain": "the subcommand is called as the function that it runs",
    "predict": "the subcommand is called as the function that it runs",
    "sweep": "experimenters and Gibbs samplers both call theirs so",
}
"""Name that stands in two modules -> why."""


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def bound(node: ast.stmt) -> list[str]:
    """Names that a statement at the top level of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


TREES = {
    module_of(path): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
    if "_recipes" not in path.parts
}


def imported_elsewhere() -> set[tuple[str, str]]:
    """(module, name) of whatever another module imports by name."""
    return {
        (str(node.module), alias.name)
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def homes() -> dict[str, set[str]]:
    """Public name -> modules that define it: every class and function, constants that are shared.

    A constant or type alias that no other module imports is its module's own affair.
    """
    shared, found = imported_elsewhere(), defaultdict(set)
    for module, tree in TREES.items():
        for node in tree.body:
            own = isinstance(node, ast.Assign | ast.AnnAssign)
            for name in bound(node):
                if not name.startswith("_") and (not own or (module, name) in shared):
                    found[name].add(module)
    return found


def test_a_public_name_exists_once() -> None:
    twice = {name: sorted(modules) for name, modules in homes().items() if len(modules) > 1}
    assert {n: m for n, m in twice.items() if n not in DEFENDED} == {}
    for name, modules in twice.items():
        assert SUBCOMMANDS in modules, name
        assert len(modules) == 2, name


def test_what_is_defended_is_there() -> None:
    found = homes()
    assert all(len(found[name]) > 1 for name in DEFENDED)
