"""A grid of runs, made and put into one table: `sweep_runs`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayesfs._utils.owned_folders import claim
from bayesfs._utils.progress import bar, terminal_safe
from bayesfs.errors import RunError
from bayesfs.evaluation.grid import GridRun, grid_table
from bayesfs.recipes.load import Recipes
from bayesfs.recipes.overrides import choices_in
from bayesfs.runs.csv_tables import write_csv
from bayesfs.runs.directory import RunDirectory, explained, write_atomically
from bayesfs.runs.run import METRICS
from bayesfs.runs.scored import load_scored
from bayesfs.runs.sweep import Cell, Sweep, grid_of, run_sweep, unfinished

PRINTED = (("video", "accuracy"), ("video", "nll"), ("frame", "nll"))
"""Scores that the command prints."""

HEADINGS = ("score", "setting", "mean", "± fit", "difference", "± episodes", "± fit", "95 %")

NOTE = (
    "The number after a score is that of support videos per object. ± is a standard error: over "
    "seeds of the\nepisodes, or of the inference (fit, the Monte Carlo error). Differences are "
    "from the first setting,\nin pairs of equal seeds; the interval is over people."
)

SWEEP = "a sweep"
"""What its folder says that it is for."""


def sweep_runs(
    recipes: Recipes,
    store: Path,
    out: Path,
    *,
    settings: Sequence[str],
    episode_seeds: Sequence[int],
    fit_seeds: Sequence[int],
    jobs: int,
    smoke: bool,
    device: str | None = None,
) -> pd.DataFrame:
    """Make every run of a grid, print one table and write it.

    Args:
        recipes: of the study.
        store: feature store.
        out: folder for table.csv, metrics.json and the directories of the runs.
        settings: fields to override, with several values between commas.
        episode_seeds: of the episodes.
        fit_seeds: of the inference.
        jobs: runs at a time.
        smoke: make everything tiny.
        device: where engines run; the best there is by default.

    Returns:
        The table, from `bayesfs.evaluation.grid.grid_table`, with a column `shots`.

    Raises:
        BayesfsError: a recipe, a setting or the data are at fault; nothing was run.
        RunError: runs failed; the others are in the table.
    """
    cells = grid_of(settings, episode_seeds, fit_seeds)
    texts = {role: (recipe.path, recipe.source) for role, recipe in recipes.roles.items()}
    sweep = Sweep(texts, recipes.helpers, store, smoke, device)
    open_ = unfinished(sweep, cells, recipes.roles, out)
    with explained(out):
        claim(out, SWEEP)
    if before := len(cells) - len(open_):
        print(f"{before} of {len(cells)} runs are finished")
    failed: dict[Cell, str] = {}
    if open_:
        with bar("runs") as progress:
            failed = run_sweep(sweep, open_, out, jobs=jobs, progress=progress)
    names = {cell: _label(cell, settings) for cell in cells}
    whole = [cell for cell in cells if cell not in failed]
    table = tables_of({cell: out / cell.name for cell in whole}, names)
    if not table.empty:
        write_csv(table, out / "table.csv")
        text = json.dumps(_metrics(table), indent=2, allow_nan=False) + "\n"
        write_atomically(out / METRICS, lambda p: p.write_text(text, encoding="utf-8"))
        _print(table)
        print(f"table: {out / 'table.csv'}")
    if failed:
        cell, reason = next(iter(failed.items()))
        raise RunError(f"{len(failed)} of {len(cells)} runs failed; {cell.name}: {reason}")
    return table


def _label(cell: Cell, settings: Sequence[str]) -> str:
    """The settings that the grid varies, as a person tells its runs apart."""
    varied = [s for s in settings if len(choices_in(s)) > 1]
    chosen = [c for c, s in zip(cell.settings, settings, strict=True) if s in varied]
    return ", ".join(chosen) or "as given"


def tables_of(folders: Mapping[Cell, Path], names: Mapping[Cell, str]) -> pd.DataFrame:
    """`grid_table` at every number of support videos.

    Args:
        folders: run -> its directory.
        names: run -> what its setting is called.
    """
    runs: dict[int, list[GridRun]] = {}
    for cell, folder in folders.items():
        for shots, rows in load_scored(RunDirectory(folder)).items():
            one = GridRun(names[cell], cell.seeds.episodes, cell.seeds.fit, rows)
            runs.setdefault(shots, []).append(one)
    tables = [grid_table(found).assign(shots=shots) for shots, found in sorted(runs.items())]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _metrics(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Setting -> name of a number -> the number, as DVC reads metrics; what is not known is not in.

    MLflow takes the numbers of one setting.
    """
    found: dict[str, dict[str, float]] = {}
    numbers = ("value", "episode_error", "fit_error", "difference", "low", "high")
    for row in table.to_dict("records"):
        name = f"{row['item']}_{row['score']}_{row['shots']}_shots"
        at = found.setdefault(str(row["setting"]), {})
        for number in numbers:
            if np.isfinite(value := float(row.get(number, np.nan))):
                at[name if number == "value" else f"{name}_{number}"] = value
    return found


def _print(table: pd.DataFrame) -> None:
    """The scores that are read first; the file has all."""
    lines = []
    for item, score in PRINTED:
        rows = table[(table["item"] == item) & (table["score"] == score)]
        for row in rows.to_dict("records"):
            lines.append(
                (
                    f"{item} {score}, {row['shots']}",
                    terminal_safe(str(row["setting"])),
                    *(_number(row, name) for name in ("value", "fit_error", "difference")),
                    *(_number(row, f"difference_{kind}_error") for kind in ("episode", "fit")),
                    _interval(row),
                )
            )
    print(pd.DataFrame(lines, columns=HEADINGS).to_string(index=False))
    for reason in sorted({str(r) for r in table.get("reason", ()) if isinstance(r, str) and r}):
        print(f"No intervals over people: {terminal_safe(reason)}.")
    print(NOTE)


def _number(row: Mapping[Any, Any], name: str) -> str:
    value = float(row.get(name, np.nan))
    sign = "+" if name == "difference" else ""
    return f"{value:{sign}.3f}" if np.isfinite(value) else ""


def _interval(row: Mapping[Any, Any]) -> str:
    low, high = (float(row.get(end, np.nan)) for end in ("low", "high"))
    return f"{low:+.3f} to {high:+.3f}" if np.isfinite(low) else ""
