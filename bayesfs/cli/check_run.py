"""Posterior simulation-based calibration of a finished run: `check_run`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from bayesfs._utils.progress import bar, table_text
from bayesfs._utils.spacing import evenly_spaced
from bayesfs.cli.explain_run import reopened, usable_shots
from bayesfs.diagnostics.posterior_sbc import calibrate_near
from bayesfs.diagnostics.sbc import Calibration
from bayesfs.runs.directory import RunDirectory
from bayesfs.runs.reading import inputs_of
from bayesfs.runs.run import seeds_of

PASSED = 0.01
"""Least p; of engines that are right one in a hundred falls below it."""

TASKS = 24
"""Tasks that are looked at at most."""

TEXT = ("quantity", "the posterior is")
"""Columns of words."""

EVEN_SD = 12**-0.5
"""Of a scaled rank, where the posterior is as wide as it should be."""


def check_run(
    run: Path,
    *,
    data: Path | None = None,
    shots: int | None = None,
    simulations: int,
    seed: int = 0,
    device: str | None = None,
    trust: bool = False,
) -> bool:
    """Print whether the engine of a run is right near its data, quantity by quantity.

    Args:
        run: finished run.
        data: its feature store; where the run says that it is by default.
        shots: support videos per object; as many as the run has by default.
        simulations: at least so many in all.
        seed: of everything drawn.
        device: where the engine runs; the best there is by default.
        trust: run recipes kept in the run directory even if they are not the shipped ones.

    Returns:
        Whether it passes.

    Raises:
        RunError: the run is not finished, or its data have changed.
        DataError: its model draws no features.
    """
    directory = RunDirectory(run)
    study, learnt, embeddings = reopened(directory, data, trust=trust, device=device)
    seeds = seeds_of(inputs_of(directory))
    tasks = study.tasks(embeddings, learnt, seed=seeds.episodes)
    tasks = tasks.limit_shots(usable_shots(study, shots))
    with bar("check") as progress:
        found = calibrate_near(
            study.model_of(learnt),
            study.engine,
            tasks.select(evenly_spaced(len(tasks), TASKS)),
            learnt.population,
            simulations=simulations,
            seed=seed,
            progress=progress,
        )
    show(found, type(study.engine).__name__)
    return found.p >= PASSED


def show(found: Calibration, engine: str) -> None:
    """A table on the terminal, the worst quantity first, and what it says of all."""
    rows = found.table.sort_values("p")
    limit = PASSED / len(rows)
    table = Table(title=f"{table_text(engine)} near these data, {found.simulations} simulations")
    for column in ("quantity", "p", "mean rank", "sd", "the posterior is"):
        table.add_column(column, justify="left" if column in TEXT else "right")
    for name, row in rows.iterrows():
        mean = "" if np.isnan(row["mean"]) else f"{row['mean']:.3f}"
        said = reading(row) if row["p"] < limit else ""
        table.add_row(table_text(str(name)), f"{row['p']:.4f}", mean, f"{row['sd']:.3f}", said)
    Console().print(table)
    print(f"right: mean rank .500, sd .289, and p of one quantity at least {limit:.2g}")
    verdict = "passes" if found.p >= PASSED else "fails"
    print(
        f"{verdict}: p {found.p:.3g} of all {len(rows)} quantities together (at least {PASSED:g})"
    )


def reading(row: pd.Series[float]) -> str:
    """What is wrong with a quantity whose ranks are not uniform."""
    wide = "too narrow" if row["sd"] > EVEN_SD else "too wide"
    shift = abs(row["mean"] - 0.5) / EVEN_SD
    if np.isnan(shift) or abs(row["sd"] / EVEN_SD - 1) > shift:
        return wide
    return "too low" if row["mean"] > 0.5 else "too high"
