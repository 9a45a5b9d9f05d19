"""Every scored frame and video of a run as one small table: `keep_scored`, `load_scored`.

The results hold all draws and take seconds to read; whoever compares many runs reads these rows.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import partial

import pandas as pd
import xarray as xr

from bayesfs._utils.guarded_files import read_text
from bayesfs.errors import RunError
from bayesfs.results.rows import ITEMS, Item, tree_rows
from bayesfs.runs.csv_tables import inert
from bayesfs.runs.directory import RunDirectory

SCORED = "scored.csv"
"""File of a run directory."""

LONGEST = 2**30
"""Bytes of it at most: some ten million rows."""

COLUMNS = ("shots", "item", "user", "task", "object", "video", "frame", "correct", "nll", "brier")


def keep_scored(run: RunDirectory, trees: Mapping[int, xr.DataTree]) -> None:
    """Keep the rows of a run that is being written.

    Args:
        run: the directory.
        trees: number of support videos -> the DataTree at that number.
    """
    parts = [
        rows.assign(shots=shots, item=item)
        for shots, tree in sorted(trees.items())
        for item, rows in tree_rows(tree).items()
    ]
    table = inert(pd.concat(parts, ignore_index=True)[list(COLUMNS)])
    run.keep(SCORED, partial(table.to_csv, index=False))


def load_scored(run: RunDirectory) -> dict[int, dict[Item, pd.DataFrame]]:
    """Number of support videos -> scored frames and videos, with the columns of `COLUMNS`.

    Raises:
        RunError: the run keeps no such rows, or the file holds something else.
    """
    path = run.kept(SCORED)
    if path is None:
        raise RunError(f"{run.path}: keeps no {SCORED}; was it made by an earlier bayesfs?")
    text = dict.fromkeys(("user", "task", "object", "video"), str)
    held = io.StringIO(read_text(path, LONGEST))
    table = pd.read_csv(held, dtype=text, keep_default_na=False, float_precision="round_trip")
    if list(table.columns) != list(COLUMNS):
        raise RunError(f"{path}: expected the columns {COLUMNS}, got {tuple(table.columns)}")
    return {
        int(str(shots)): {item: part[part["item"] == item] for item in ITEMS}
        for shots, part in table.groupby("shots")
    }
