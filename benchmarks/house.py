"""What the house itself costs: modules, lines, imports, and time beside an older checkout.

    python benchmarks/house.py
    python benchmarks/house.py --before ../older-checkout --rounds 3 --demo --tests
    python benchmarks/house.py --smoke

Processor time is that of a command and all its processes, the least of `--rounds` runs that take
turns. No number of threads is set: processes take as many as they do when a person starts them,
and waiting in busy loops counts. Every checkout writes its own store of the same tiny features and
makes a `bayesfs run --smoke` on it. Of the tests, the functions that both have are compared: all of
the older checkout, and here those of every day (the long ones are left to the night), once each.
Prints a line for each figure, and all as one line of JSON at the end; null is a figure that was not
measured.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parents[1]

RECIPES = ("models/gaussian.py", "inference/exact.py", "evaluation/clutter.py")

STORE = """
import inspect, sys
import numpy as np
from bayesfs.data.store import save_store
from bayesfs.types import Embeddings
rng, rows, labels = np.random.default_rng(0), [], []
for u in range(5):
    for o in range(3):
        centre = 5 + rng.normal(size=12)
        for condition, videos in (("clean", 5), ("clutter", 2)):
            for v in range(videos):
                video = centre + (condition == "clutter") + 0.3 * rng.normal(size=12)
                rows.append(video + 0.2 * rng.normal(size=(3, 12)))
                name = f"u{u}-{o}-{condition}-{v}"
                labels += [(f"u{u}", f"o{o}", name, condition, "train" if u < 3 else "test")] * 3
user, thing, video, condition, split = zip(*labels)
known = inspect.signature(Embeddings.from_arrays).parameters
word = {"condition" if "condition" in known else "kind": condition}
save_store(sys.argv[1], Embeddings.from_arrays(
    np.concatenate(rows), object=thing, video=video, user=user, split=split, **word))
"""
"""Writes a store; the recording condition had another name in older checkouts."""


TEST_SECONDS = """
import json, os
import pytest
spent = {}
def pytest_deselected(items):
    for item in items:
        spent.setdefault(item.name.partition("[")[0], 0.0)
@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    start = sum(os.times()[:4])
    done = yield
    name = item.name.partition("[")[0]
    spent[name] = spent.get(name, 0.0) + sum(os.times()[:4]) - start
    return done
def pytest_sessionfinish():
    with open(os.environ["TEST_SECONDS"], "w") as file:
        json.dump(spent, file)
"""
"""A plugin of pytest: writes how many processor seconds each test function took, 0 if left out."""


def processor_seconds(checkout: Path, *arguments: str, **variables: str) -> float:
    """Of one Python command with the package of that checkout, its own processes included.

    Args:
        checkout: of which the command is.
        arguments: of Python.
        variables: of the environment besides.

    Raises:
        RuntimeError: the command fails.
    """
    kept = {name: text for name, text in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment = {**kept, "PYTHONPATH": str(checkout), **variables}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=checkout, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{arguments} in {checkout}: {done.stdout[-500:]}{done.stderr[-1500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def run_seconds(checkout: Path, folder: Path) -> float:
    """Of a `bayesfs run --smoke` on a tiny store of the checkout's own version."""
    store, out = folder / "store.zarr", folder / "run"
    processor_seconds(checkout, "-c", STORE, str(store))
    places = ("--data", str(store), "--out", str(out), "--smoke")
    return processor_seconds(checkout, "-m", "bayesfs", "run", *RECIPES, *places)


def demo_seconds(checkout: Path, folder: Path) -> float:
    """Of `bayesfs demo`."""
    return processor_seconds(checkout, "-m", "bayesfs", "demo", str(folder / "demo"))


def tests_seconds(checkout: Path, marks: str) -> dict[str, float]:
    """Of each test function, over its parameters and with what is set up for it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_seconds.py").write_text(TEST_SECONDS, encoding="utf-8")
        processor_seconds(
            checkout,
            *("-m", "pytest", "-q", "-p", "test_seconds", "-m", marks),
            *("-o", f"cache_dir={folder / 'cache'}"),
            PYTHONPATH=os.pathsep.join([str(checkout), name]),
            TEST_SECONDS=str(folder / "seconds.json"),
        )
        found: dict[str, float] = json.loads((folder / "seconds.json").read_text(encoding="utf-8"))
    return found


def compared_tests(before: Path) -> float:
    """Processor time of the test functions that both checkouts have, now over before."""
    old, new = tests_seconds(before, ""), tests_seconds(HERE, "not slow")
    both = old.keys() & new.keys()
    was, now = (sum(each[name] for name in both) for each in (old, new))
    print(f"tests: {len(both)} functions of both, {now:.0f}, {was:.0f} s of processor time")
    print(f"all tests: {len(new)} and {len(old)} functions, {sum(new.values()):.0f}, ", end="")
    print(f"{sum(old.values()):.0f} s")
    return now / was


MEASURES = {"run": run_seconds, "demo": demo_seconds}


def least(name: str, checkouts: list[Path], rounds: int) -> list[float]:
    """Least processor seconds of each checkout, over rounds in which they take turns."""
    for checkout in checkouts:  # as where it is installed, whatever PYTHONDONTWRITEBYTECODE says
        compileall.compile_dir(checkout / "bayesfs", quiet=2)
    found: list[list[float]] = [[] for _ in checkouts]
    for _ in range(rounds):
        for seconds, checkout in zip(found, checkouts, strict=True):
            with tempfile.TemporaryDirectory() as folder:
                seconds.append(MEASURES[name](checkout, Path(folder)))
    return [min(seconds) for seconds in found]


def library_files() -> list[Path]:
    """The package without what it draws itself and without copies of the recipes."""
    package = HERE / "bayesfs"
    return [
        path
        for path in sorted(package.rglob("*.py"))
        if not {"synthetic", "_recipes"} & set(path.relative_to(package).parts)
    ]


def names_twice() -> int:
    """Public classes and functions at the top of two modules; subcommands have the verbs' names."""
    names: Counter[str] = Counter()
    for path in library_files():
        if path.name == "subcommands.py":
            continue
        body = ast.parse(path.read_text(encoding="utf-8")).body
        names.update(
            node.name
            for node in body
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
        )
    return sum(count > 1 for count in names.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="older checkout to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--demo", action="store_true", help="compare demos too: minutes each")
    parser.add_argument("--tests", action="store_true", help="compare all tests too: an hour")
    parser.add_argument("--smoke", action="store_true", help="one round, and no demo and no tests")
    args = parser.parse_args()
    rounds = 1 if args.smoke else args.rounds
    files = library_files()
    figures: dict[str, float | None] = {
        "root_modules": len([*(HERE / "bayesfs").glob("*.py")]),
        "library_lines": sum(len(p.read_text(encoding="utf-8").splitlines()) for p in files),
        "import_s": min(processor_seconds(HERE, "-c", "import bayesfs") for _ in range(rounds)),
        "help_s": min(processor_seconds(HERE, "-m", "bayesfs", "--help") for _ in range(rounds)),
        **dict.fromkeys([f"{name}_cpu_vs_before" for name in (*MEASURES, "tests")]),
        "names_twice": names_twice(),
    }
    wanted = {"run": True, "demo": args.demo}
    for name in MEASURES:
        if not wanted[name] or (args.smoke and name != "run"):
            continue
        checkouts = [HERE] if args.before is None else [HERE, args.before.resolve()]
        seconds = least(name, checkouts, rounds)
        print(f"{name}: {', '.join(f'{s:.2f}' for s in seconds)} s of processor time")
        if len(seconds) == 2:
            figures[f"{name}_cpu_vs_before"] = seconds[0] / seconds[1]
    if args.tests and args.before is not None and not args.smoke:
        figures["tests_cpu_vs_before"] = compared_tests(args.before.resolve())
    for name, value in figures.items():
        print(f"{name}: {'not measured' if value is None else f'{value:.4g}'}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
