"""What a value can do is declared in protocols.py, and asked there: never by a name in a string.

No `hasattr`, no `getattr` with a default, no `isinstance` on a class of another room that is no
contract. What is left is listed here, each with its reason.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from test_layers import FILES, MODULES, module_of

ASKS = {
    ("_utils.guarded_files", "os"): "flags that an operating system may lack",
    ("_utils.process_settings", "ctypes.CDLL(None)"): "functions that a C library may lack",
    ("_utils.threads", "os"): "cores that an operating system may not tell",
    ("features.backbones.efficientnet_lite", "module"): "layers of torch",
    ("features.decoding.pictures", "error"): "an error of the operating system",
    ("data.from_arrays", "values"): "arrays of any library",
    ("inference.nuts.translate", "jax"): "versions of JAX",
    ("inference.program.units", "model"): "the program inside a conditioned one, of Pyro",
    ("metrics.scores", "values"): "arrays of any library",
    ("protocols", "contract"): "the one place that looks at members",
    ("protocols", "value"): "the one place that looks at members",
    ("sklearn", "values"): "arrays of any library",
    ("types.missing", "values"): "arrays of any library",
}
"""(module, what is asked) -> why."""

CLASSES = {
    ("benchmark.corrupted_frames", "Frame"): "an item of a stream is a frame or a reason",
    ("cli.name_exported", "Skipped"): "an item of a stream is a frame or a reason",
    ("cli.watch_video", "Skipped"): "an item of a stream is a frame or a reason",
    ("deploy.recogniser", "GaussianHierarchy"): "what is kept on a device is its own algebra",
    ("features.decoding.video", "Skipped"): "an item of a stream is a frame or a reason",
    ("features.extraction.batches", "Skipped"): "an item of a stream is a frame or a reason",
    ("inference.program.sites", "PairedHalfNormal"): "a law: which of its numbers belong together",
    ("sklearn", "Learnt"): "a value: a population with or without its projection",
    ("sklearn", "SharedPopulation"): "a value: the third form that a population comes in",
    ("training.shared_population", "WithinScatter"): "a value: learnt besides the sites",
}
"""(module, class of another room) -> why."""

NOUNS = ("types", "errors", "protocols")
"""Rooms whose classes everybody knows: values, errors and contracts."""


def calls(path: Path, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def asked(path: Path) -> set[str]:
    """What a module asks for members by name."""
    found = [*calls(path, "hasattr"), *(c for c in calls(path, "getattr") if len(c.args) > 2)]
    return {ast.unparse(call.args[0]) for call in found}


def homes(path: Path) -> dict[str, str]:
    """Name -> module of bayesfs that a file imports it from."""
    return {
        alias.asname or alias.name: str(node.module).removeprefix("bayesfs.")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("bayesfs.")
        for alias in node.names
    }


def concrete(path: Path) -> set[str]:
    """Classes of another room, values aside, that a module asks for by isinstance."""
    room, home = module_of(path).split(".")[0], homes(path)
    used = {
        name.id
        for call in [*calls(path, "isinstance"), *calls(path, "issubclass")]
        for name in ast.walk(call.args[1])
        if isinstance(name, ast.Name)
    }
    return {n for n in used if n in home and home[n].split(".")[0] not in (room, *NOUNS)}


def test_no_ability_is_asked_by_name() -> None:
    found = {(module_of(path), what) for path in FILES for what in asked(path)}
    assert found == set(ASKS), found ^ set(ASKS)


def test_no_room_asks_for_a_class_of_another() -> None:
    found = {(module_of(path), name) for path in FILES for name in concrete(path)}
    assert found == set(CLASSES), found ^ set(CLASSES)


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from bayesfs.inference.exact import Exact\n"
        "def f(model):\n"
        "    return hasattr(model, 'x') or getattr(model, 'y', None) or isinstance(model, Exact)\n"
    )
    assert asked(path) == {"model"}
    assert homes(path)["Exact"] in MODULES
