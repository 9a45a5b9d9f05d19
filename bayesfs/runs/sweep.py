"""A grid of runs, each in a directory of its own: `Sweep`, `grid_of`, `run_sweep`."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from bayesfs._utils.processes import fresh_processes
from bayesfs._utils.threads import share_cores
from bayesfs.data.store import open_store
from bayesfs.errors import BayesfsError
from bayesfs.protocols import Progress
from bayesfs.recipes.load import Recipe, run_recipe
from bayesfs.recipes.overrides import choices_in
from bayesfs.recipes.scripts import Scripts
from bayesfs.runs.compose import compose
from bayesfs.runs.directory import RunDirectory
from bayesfs.runs.lending import forget_waiting
from bayesfs.runs.record import sources_of, written_in_full
from bayesfs.runs.run import Order, completed, identity_with, store_fingerprint
from bayesfs.study import Seeds

PLAIN = re.compile(r"[A-Za-z0-9_.=+,() -]{1,80}")
"""Settings that may name a folder as they are."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        settings: fields that are overridden, as `--set` has them.
        seeds: of the run.
    """

    settings: tuple[str, ...]
    seeds: Seeds

    @property
    def name(self) -> str:
        """Of its folder; it does not depend on the rest of the grid, which may grow."""
        text = ", ".join(self.settings) or "as given"
        if not PLAIN.fullmatch(text):
            text = hashlib.sha256("\0".join(self.settings).encode()).hexdigest()[:12]
        return f"{text}, {self._seeded}"

    def told(self, alike: Collection[str]) -> str:
        """What tells it apart from the others: settings that are not alike in all, and seeds."""
        return ", ".join([*(s for s in self.settings if s not in alike), self._seeded])

    @property
    def _seeded(self) -> str:
        return f"episodes {self.seeds.episodes}, fit {self.seeds.fit}"


def grid_of(
    settings: Sequence[str], episode_seeds: Sequence[int], fit_seeds: Sequence[int]
) -> list[Cell]:
    """Every combination of the values and seeds, the first setting's values changing last.

    Args:
        settings: "NAME.FIELD=VALUE,VALUE" each; a tuple is written with parentheses.
        episode_seeds: seeds of the episodes.
        fit_seeds: seeds of the inference.

    Example:
        >>> [cell.settings for cell in grid_of(["model.loading=.25,.5"], [0], [0])]
        [('model.loading=.25',), ('model.loading=.5',)]
    """
    choices = product(*(choices_in(setting) for setting in settings))
    return [
        Cell(chosen, Seeds(episodes, fit))
        for chosen, episodes, fit in product(choices, episode_seeds, fit_seeds)
    ]


@dataclass(frozen=True)
class Sweep:
    """What the runs of a grid have in common, as another process can be told.

    Attributes:
        scripts: role -> (path, text) of the recipes.
        helpers: file name -> text of the modules beside them.
        store: feature store.
        smoke: whether everything is made tiny.
        device: where engines run; the best there is by default.
    """

    scripts: Mapping[str, tuple[Path, str]]
    helpers: Mapping[str, str]
    store: Path
    smoke: bool = False
    device: str | None = None

    def load(self) -> dict[str, Recipe]:
        """The recipes, run in this process."""
        scripts = Scripts(given=self.helpers)
        return {
            role: run_recipe(path, text, role, scripts)
            for role, (path, text) in self.scripts.items()
        }

    def order(self, cell: Cell, recipes: Mapping[str, Recipe]) -> Order:
        """One run of the grid.

        Args:
            cell: which.
            recipes: from `load`.

        Raises:
            RecipeError: a setting names no field, or one of another type.
        """
        study = compose(recipes, cell.settings, smoke=self.smoke, device=self.device)
        given = (cell.seeds, cell.settings)
        return Order(
            study,
            self.store,
            sources_of(recipes, self.helpers),
            cell.settings,
            self.smoke,
            cell.seeds,
            full=written_in_full(recipes, study, *given, smoke=self.smoke),
        )


def unfinished(
    sweep: Sweep, cells: Sequence[Cell], recipes: Mapping[str, Recipe], out: Path
) -> list[Cell]:
    """The runs of a grid that are still to be made; all settings and the data are checked.

    Args:
        sweep: what the runs have in common.
        cells: the runs.
        recipes: of the sweep.
        out: folder of their directories.

    Raises:
        BayesfsError: a setting or the data are at fault.
    """
    orders = {cell: sweep.order(cell, recipes) for cell in cells}
    data = store_fingerprint(open_store(sweep.store))
    return [
        cell
        for cell, order in orders.items()
        if not is_finished(RunDirectory(out / cell.name), identity_with(order, data))
    ]


def run_sweep(
    sweep: Sweep, cells: Sequence[Cell], out: Path, *, jobs: int, progress: Progress
) -> dict[Cell, str]:
    """Make runs, `jobs` at a time, each in a process. One that fails leaves the others be.

    Args:
        sweep: what the runs have in common.
        cells: the runs, from `unfinished`.
        out: folder of their directories.
        jobs: runs at a time.
        progress: told after each run.

    Returns:
        The runs that failed -> why.

    Raises:
        RunError: a process was killed; the same call goes on.
    """
    failed: dict[Cell, str] = {}
    alike = set(cells[0].settings).intersection(*(cell.settings for cell in cells))
    with fresh_processes(min(jobs, len(cells))) as pool:
        futures: dict[Future[str], Cell] = {
            pool.submit(run_cell, sweep, cell, out, jobs): cell for cell in cells
        }
        for done, future in enumerate(as_completed(futures), 1):
            if reason := future.result():
                failed[futures[future]] = reason
            progress(done, len(cells), futures[future].told(alike))
        forget_waiting(out)
    return failed


def is_finished(run: RunDirectory, inputs: Mapping[str, object]) -> bool:
    """Whether a directory holds this run, finished."""
    if not run.is_done:
        return False
    return bool(run.state()["inputs"] == inputs)


def run_cell(sweep: Sweep, cell: Cell, out: Path, jobs: int) -> str:
    """Make one run in this process, what it prints going to a file beside it; why it failed."""
    share_cores(jobs)
    out.mkdir(parents=True, exist_ok=True)
    with (
        (out / f"{cell.name}.log").open("a", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            with completed(sweep.order(cell, sweep.load()), out / cell.name, beside=out):
                return ""
        except BayesfsError as error:
            print(error, file=log)
            return str(error)
