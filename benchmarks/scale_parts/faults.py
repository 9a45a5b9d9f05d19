"""Kill -9 at random moments of features, run and report: does a rerun give the undisturbed result?

Children are forked from a server that has imported everything, so that a kill falls into the work
itself and not into ten seconds of imports.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import random
import shutil
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import xarray as xr
from PIL import Image

from bayesfs.cli.main import main
from bayesfs.features.extraction import shards
from bayesfs.recipes.load import recipe_folder
from bayesfs.results.store import load_datatree

RECIPES = ("models/gaussian.py", "inference/exact.py", "evaluation/clutter.py")
SETTINGS = (
    "population_engine.steps=20",
    "population_engine.draws=20",
    "reduction.dim=6",
    "engine.draws=16",
)
PRELOAD = ["bayesfs.cli.explain_run", "bayesfs.runs.run", "bayesfs.synthetic.tasks"]


def make_tree(root: Path, users: int = 5, frames: int = 2) -> Path:
    """A tree of noise pictures: users with two objects, three clean and two cluttered videos."""
    rng = np.random.default_rng(0)
    for u in range(users):
        split = "train" if u < users - 2 else "test"
        for thing in ("cup", "keys"):
            for condition, videos in (("clean", 3), ("clutter", 2)):
                for v in range(videos):
                    name = f"P{u}--{thing}--{condition}--{v}"
                    folder = root / split / f"P{u}" / thing / condition / name
                    folder.mkdir(parents=True)
                    for k in range(1, frames + 1):
                        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                        image = Image.fromarray(pixels).resize((48, 48))
                        image.save(folder / f"{name}-{k:05d}.jpg")
    return root


def work(tree: str, place: str) -> None:
    """Features, run and report of a tree, by the commands that a person gives."""
    shards.SHARD_FRAMES = 20  # several shards even of this little
    out, store = Path(place) / "run", Path(place) / "features.zarr"
    recipes = [str(recipe_folder() / name) for name in RECIPES]
    sets = [part for setting in SETTINGS for part in ("--set", setting)]
    commands = (
        ["features", tree, str(store), "--px", "32"],
        ["run", *recipes, "--data", str(store), "--out", str(out), *sets],
        ["report", str(out), "--format", "md"],
    )
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stderr(nowhere),
        contextlib.redirect_stdout(nowhere),
    ):
        if any(main(command) for command in commands):
            raise SystemExit(1)


def kills(folder: Path, count: int = 20, seed: int = 0) -> int:
    """Number of kills out of `count` after which a rerun gave the undisturbed result.

    Args:
        folder: scratch folder.
        count: kills, each at a uniformly random moment of the whole work.
        seed: of the moments.
    """
    rng, survived = random.Random(seed), 0
    tree, whole = make_tree(folder / "tree"), folder / "whole"
    seconds = [_undisturbed(tree, whole) for _ in range(2)][-1]  # the second finds a warm disk
    wanted = content(whole)
    for number in range(count):
        place = folder / f"kill-{number:02d}"
        child = _start(tree, place)
        time.sleep(rng.uniform(0.0, seconds))
        child.kill()  # SIGKILL
        child.join()
        again = _start(tree, place)
        again.join()
        same = again.exitcode == 0 and content(place).equals(wanted) and not leftovers(place)
        survived += same
        told = "the undisturbed result" if same else "ANOTHER RESULT"
        print(f"  kill {number + 1}: {told}", flush=True)
        shutil.rmtree(place, ignore_errors=True)
    return survived


def content(place: Path) -> xr.DataTree:
    """Everything that a person gets: every number of the results, the store and the reports."""
    groups: dict[str, xr.Dataset | xr.DataTree] = {}
    for file in sorted(place.glob("run/results-*.nc")):
        groups[file.stem] = load_datatree(file)
    files = [p for p in place.rglob("*") if p.is_file() and p.name != ".bayesfs-lock"]
    sums = {
        p.relative_to(place).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(files)
        if p.suffix not in (".nc", ".json") and "report" not in p.name
    }
    groups["files"] = xr.Dataset({"sum": ("name", list(sums.values()))}, {"name": list(sums)})
    return xr.DataTree.from_dict(groups)


def leftovers(place: Path) -> list[str]:
    """Names of what is half-written or unfinished."""
    return [p.name for p in place.rglob("*") if "partial" in p.name]


def _undisturbed(tree: Path, place: Path) -> float:
    shutil.rmtree(place, ignore_errors=True)
    child = _start(tree, place)
    began = time.perf_counter()
    child.join()
    if child.exitcode:
        raise SystemExit("the undisturbed run fails; nothing to compare with")
    return time.perf_counter() - began


def _start(tree: Path, place: Path) -> BaseProcess:
    place.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    child = context.Process(target=work, args=(str(tree), str(place)))
    child.start()
    return child
