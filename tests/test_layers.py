"""Imports go one way: a room imports only rooms that stand before it in `ROOMS`."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bayesfs"

ROOMS = (
    "errors",
    "_utils",
    "_linalg",
    "types",
    "_distributions",
    "protocols",
    "_utils.progress",
    "synthetic",
    "data",
    "features",
    "models.population_draws",
    "models.per_batch",
    "models.gaussian",
    "models.niw",
    "models.heads",
    "models.gp",
    "models.baselines",
    "models",
    "inference.program",
    "inference.laplace",
    "inference.svi",
    "inference.svgd",
    "inference.nuts",
    "inference.gibbs",
    "inference",
    "prediction",
    "uncertainty",
    "metrics",
    "decisions",
    "explanation",
    "results",
    "diagnostics",
    "evaluation",
    "plots",
    "study",
    "explanation.recording",
    "report",
    "training",
    "sklearn",
    "deploy",
    "recipes",
    "runs",
    "benchmark",
    "cli",
    "testing",
    "__main__",
    "__init__",
)
"""Ground floor first. A module belongs to the longest name here that it starts with."""


def module_of(path: Path) -> str:
    """Dotted name below the package; a package's own file has the package's name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def room_of(module: str) -> str:
    """The room of a module, "" for none."""
    found = [room for room in ROOMS if module == room or module.startswith(f"{room}.")]
    return max(found, key=len, default="")


FILES = sorted(p for p in PACKAGE.rglob("*.py") if "_recipes" not in p.parts)
MODULES = {module_of(path) for path in FILES}


def imported(path: Path) -> set[str]:
    """Modules of bayesfs that a file imports, anywhere in its text, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    inside = {name.removeprefix("bayesfs.") for name in names if name.startswith("bayesfs.")}
    return {name if name in MODULES else name.rpartition(".")[0] for name in inside}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_go_one_way(path: Path) -> None:
    place = ROOMS.index(room_of(module_of(path)))
    beyond = {name for name in imported(path) if ROOMS.index(room_of(name)) > place}
    assert not beyond, f"{module_of(path)} imports {sorted(beyond)}, which stand after it"


def test_every_module_has_a_room_and_every_room_a_module() -> None:
    assert {room_of(module) for module in MODULES} == set(ROOMS)


def test_models_and_inference_never_import_each_other() -> None:
    for path in FILES:
        room = module_of(path).split(".")[0]
        other = {"models": "inference", "inference": "models"}.get(room)
        assert other not in {name.split(".")[0] for name in imported(path)}, path


def test_the_root_holds_what_a_newcomer_looks_for() -> None:
    root = {path.stem for path in PACKAGE.glob("*.py")}
    expected = {"__init__", "__main__", "errors", "prediction", "protocols", "sklearn", "study"}
    assert root == expected
