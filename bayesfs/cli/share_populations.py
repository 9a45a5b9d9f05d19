"""Save, show and merge populations that others may use: `bayesfs population`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bayesfs._utils.progress import terminal_safe
from bayesfs.cli.answers import check_writable
from bayesfs.data.store import open_store
from bayesfs.errors import RunError
from bayesfs.runs.compose import compose
from bayesfs.runs.directory import RunDirectory, write_atomically
from bayesfs.runs.reading import inputs_of, store_of
from bayesfs.runs.reuse import kept_recipes
from bayesfs.runs.run import load_learnt
from bayesfs.training.shared_population import BACKBONES, SharedPopulation, default_path, merged


def save_population(run: Path, out: Path, *, trust: bool) -> None:
    """Write the population of a finished run of `models/similarity_pool.py` to one file.

    Raises:
        RunError: the run is of another model, its store is gone, or the file cannot be written.
    """
    check_writable(out)
    directory = RunDirectory(run)
    learnt, inputs = load_learnt(directory), inputs_of(directory)
    recipes = kept_recipes(directory, trust=trust)
    model: Any = compose(recipes, inputs["settings"], smoke=inputs["smoke"]).model
    if learnt.scatter is None:
        raise RunError(
            f"{run}: the population of {type(model).__name__} is of a projection that was fitted "
            "to its people; only one of models/similarity_pool.py suits other objects"
        )
    state = directory.state()
    store = store_of(directory, state)
    if store is None or not (store / "zarr.json").is_file():
        raise RunError(f"{run}: its feature store is gone, so that nobody knows how many people")
    frames = open_store(store).where(split="train")
    people = len(np.unique(frames.coord("user")))
    objects = len({*zip(frames.coord("user"), frames.coord("object"), strict=True)})
    card = {
        "backbone": str(state.get("facts", {}).get("Backbone", "unknown")),
        "people": people,
        "objects": objects,
        "worlds": [f"a run: {people} people, {objects} objects"],
    }
    model = replace(model, scatter=learnt.scatter)
    write_population(SharedPopulation(learnt.population, model, card), out)


def show_population(path: Path | None = None) -> None:
    """Print the card of a population, and its numbers; the one in the box by default.

    Args:
        path: a file, or the name of a backbone whose population comes along.
    """
    inside = path is None or (str(path) in BACKBONES and not path.exists())
    name = BACKBONES[0] if path is None else str(path)
    shared = SharedPopulation.load(default_path(name) if inside else Path(name))
    for name, value in shared.card.items():
        _print(name, value)
    sites = shared.population.draws
    scale, weight = sites["scale_mean"], sites["head_mean"].softmax(-1).mean(0)
    _print("log scale", f"{float(scale.mean()):.2f} (sd {float(scale.std()):.2f})")
    _print("weight of each similarity", ", ".join(f"{float(w):.2f}" for w in weight))
    _print("axes of the scatter", shared.scatter.axes.shape[1])


def merge_populations(paths: Sequence[Path], out: Path) -> None:
    """Write one population of everybody that the given ones are of."""
    check_writable(out)
    write_population(merged([SharedPopulation.load(path) for path in paths]), out)


def write_population(shared: SharedPopulation, out: Path) -> None:
    """Write it whole or not at all, and say so."""
    write_atomically(out, shared.save)
    print(f"{out}: {shared.card['people']} people, {shared.card['objects']} objects")


def _print(name: str, value: object) -> None:
    values = value if isinstance(value, list) else [value]
    for one in values:
        print(f"{terminal_safe(name)}: {terminal_safe(str(one))}")
