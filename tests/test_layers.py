"""Imports go one way, so that each room can be read and replaced on its own."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bayesfs"

FOUNDATION = {"types", "contracts", "errors", "polya_gamma", "categorical", "spacing"}
MAY_IMPORT = {
    "display": set(),
    "types": {"errors", "display", "types"},
    "contracts": {"types"},
    "errors": set(),
    "polya_gamma": set(),
    "categorical": set(),
    "spacing": set(),
    "data": FOUNDATION | {"data", "features"},
    "features": FOUNDATION | {"features", "data"},
    "models": FOUNDATION | {"models"},
    "inference": FOUNDATION | {"inference"},
    "predict": FOUNDATION | {"models", "inference"},
    "simulate": FOUNDATION | {"inference"},
    "uncertainty": FOUNDATION | {"predict"},
    "levels": FOUNDATION | {"predict"},
    "causes": FOUNDATION | {"predict", "uncertainty"},
    "gain": FOUNDATION | {"predict", "uncertainty"},
    "deciding": FOUNDATION,
    "influence": FOUNDATION | {"predict"},
    "wording": set(),
    "evidence": FOUNDATION | {"uncertainty", "levels", "causes", "gain"},
    "explain": FOUNDATION | {"wording", "deciding", "levels", "evidence"},
    "evaluation": FOUNDATION
    | {"data", "evaluation", "predict", "simulate", "uncertainty", "levels", "evidence", "explain"}
    | {"features", "deciding", "wording", "influence"},
    "testing": FOUNDATION
    | {"testing", "data", "models", "inference", "predict", "simulate", "uncertainty"},
}
"""Room -> rooms it may import. A room that is not here (the commands) may import everything."""


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(path: Path) -> set[str]:
    """Rooms of bayesfs that a module imports, anywhere in its text, also inside functions."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it in full"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("bayesfs.")}
    return rooms


MODULES = sorted(p for p in PACKAGE.rglob("*.py") if room(p) in MAY_IMPORT)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    beyond = imported_rooms(path) - MAY_IMPORT[room(path)]
    assert not beyond, f"{path.relative_to(PACKAGE)} imports {sorted(beyond)}"


def test_every_room_is_ordered_or_a_command() -> None:
    """A new room must be given its place above, not slip through as if it were a command."""
    commands = {
        "__init__",
        "__main__",
        "cli",
        "commands",
        "recipes",
        "recipe_names",
        "overrides",
        "rundir",
        "study",
        "progress",
        "checkpoint",
        "runs",
        "conversion",
        "estimator",
        "single",
        "learnt_axes",
        "recogniser",
        "recogniser_products",
        "told",
        "run_rules",
        "cluster",
        "cluster_runs",
    }
    found = {room(p) for p in PACKAGE.rglob("*.py")} - {"_recipes"}
    assert found <= set(MAY_IMPORT) | commands


def test_models_and_inference_never_import_each_other() -> None:
    assert "inference" not in MAY_IMPORT["models"]
    assert "models" not in MAY_IMPORT["inference"]
