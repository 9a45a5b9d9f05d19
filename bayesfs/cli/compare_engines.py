"""Engines side by side on the same tasks of a feature store: `run_engine_comparison`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bayesfs._utils.devices import usable_device
from bayesfs._utils.owned_folders import claim
from bayesfs._utils.progress import bar, table_text
from bayesfs.cli.compare_runs import COMPARISON
from bayesfs.data.store import open_store
from bayesfs.diagnostics.posterior_distance import EngineComparison, Inferred
from bayesfs.diagnostics.posterior_distance import compare_engines as compare
from bayesfs.errors import RecipeError
from bayesfs.plots.engines import engine_picture
from bayesfs.protocols import Progress
from bayesfs.recipes.load import load_recipe, recipe_folder
from bayesfs.recipes.overrides import shrink
from bayesfs.runs.compose import tell_store
from bayesfs.runs.csv_tables import write_csv
from bayesfs.runs.directory import explained, write_atomically
from bayesfs.study import Learnt, Study
from bayesfs.types import EpisodeBatch, Posterior

TASKS = 8
"""Tasks compared at most; NUTS takes seconds for each."""


def run_engine_comparison(
    model: Path,
    engines: Sequence[Path],
    data: Path,
    *,
    out: Path | None = None,
    seed: int = 0,
    smoke: bool = False,
    device: str | None = None,
    tasks: int = TASKS,
) -> EngineComparison:
    """Run several engines on one batch of tasks, print a table, and draw a picture.

    The reference is the first recipe whose engine is `NUTS`; the shipped one joins where there is
    none. The population is learnt once, as the first recipe says, and each engine gets the same
    tasks, those of the shipped `evaluation/clutter.py`, at its largest number of videos.

    Args:
        model: recipe of the model.
        engines: recipes of engines; their file names are the names in the table.
        data: feature store.
        out: folder for engines.csv, sites.csv, tasks.csv and engines.png; None writes nothing.
        seed: of episodes and inference.
        smoke: tiny numbers, to see whether everything fits together.
        device: where the engines run; the best there is by default.
        tasks: tasks at most.

    Returns:
        The tables.

    Raises:
        RecipeError: a recipe is wrong, or two engines have the same name.
    """
    if out is not None:
        with explained(out):  # before the work
            out.mkdir(parents=True, exist_ok=True)
    loaded = _load_engines(engines)
    evaluation = recipe_folder() / "evaluation" / "clutter.py"
    values = {
        **load_recipe(model, "model").values,
        **load_recipe(evaluation, "evaluation").values,
    }
    first = next(iter(loaded.values()))
    study = Study(**_numbers({**values, **first}, smoke))
    study = replace(study, device=usable_device(device, study.dtype))
    embeddings = open_store(data)
    tell_store(data)
    with bar("population") as progress:
        learnt = study.learn(embeddings, seed=seed, progress=progress)
    episodes = study.tasks(embeddings, learnt, seed=seed)
    episodes = episodes.select(range(min(tasks, len(episodes))))
    inferred = {
        name: _infer(replace(study, **_numbers(recipe, smoke)), name, episodes, learnt, seed)
        for name, recipe in loaded.items()
    }
    reference = next(n for n, recipe in loaded.items() if recipe["engine"].reference)
    comparison = compare(inferred, reference, episodes.to("cpu"))
    if out is not None:
        _write(comparison, out)
    _show(comparison)
    if out is not None:
        print(f"picture: {out / 'engines.png'}")
    return comparison


def _load_engines(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Name -> what its recipe defines; with the shipped NUTS where no other is."""
    loaded: dict[str, dict[str, Any]] = {}
    for path in paths:
        if path.stem in loaded:
            raise RecipeError(f"{path}: two engines are called {path.stem!r}; rename one file")
        loaded[path.stem] = dict(load_recipe(path, "engine").values)
    if not any(values["engine"].reference for values in loaded.values()):
        name = "nuts" if "nuts" not in loaded else "nuts (reference)"
        shipped = recipe_folder() / "inference" / "nuts.py"
        loaded[name] = dict(load_recipe(shipped, "engine").values)
    return loaded


def _numbers(values: Mapping[str, Any], smoke: bool) -> dict[str, Any]:
    return shrink(values) if smoke else dict(values)


def _infer(study: Study, name: str, episodes: EpisodeBatch, learnt: Learnt, seed: int) -> Inferred:
    shown: AbstractContextManager[Progress | None] = bar(name)
    with shown as progress:
        start = time.perf_counter()
        answer = study.infer(episodes, learnt, seed=seed, progress=progress)
        seconds = time.perf_counter() - start
    return Inferred(_of_tasks(answer.posterior.to("cpu")), answer.predictive.to("cpu"), seconds)


def _of_tasks(posterior: Posterior) -> Posterior:
    """Without the population's draws, which are the same given ones for every engine."""
    draws = {site: v for site, v in posterior.draws.items() if "task" in posterior.dims[site]}
    return posterior.changed(draws=draws)


def _show(comparison: EngineComparison) -> None:
    """Two tables on the terminal."""
    console = Console()
    engines = Table(title=f"Label predictives against {table_text(comparison.reference)}")
    for column in ("engine", "draws", "seconds", "KL, nats", "worst task"):
        engines.add_column(column, justify="left" if column == "engine" else "right")
    for row in comparison.summary.itertuples():
        engines.add_row(
            table_text(row.engine),
            str(row.draws),
            f"{row.seconds:.2f}",
            f"{row.kl:.4f}",
            f"{row.kl_worst:.4f}",
        )
    console.print(engines)
    sites = Table(title="Latents: shift of means in sds, ratio of sds (median, 5 % to 95 %)")
    for column in ("engine", "site", "shift", "sd ratio", "5 % to 95 %"):
        sites.add_column(column, justify="left" if column in ("engine", "site") else "right")
    for row in comparison.by_site.itertuples():
        sites.add_row(
            table_text(row.engine),
            table_text(row.site),
            f"{row.shift:.3f}",
            f"{row.ratio:.3f}",
            f"{row.ratio_low:.3f} to {row.ratio_high:.3f}",
        )
    console.print(sites)


def _write(comparison: EngineComparison, out: Path) -> None:
    with explained(out):
        claim(out, COMPARISON)
    tables = {
        "engines.csv": comparison.summary,
        "tasks.csv": comparison.tasks,
        "sites.csv": comparison.by_site,
    }
    for name, table in tables.items():
        write_csv(table, out / name)
    figure = engine_picture(comparison)
    write_atomically(out / "engines.png", lambda path: figure.savefig(path, dpi=150, format="png"))
