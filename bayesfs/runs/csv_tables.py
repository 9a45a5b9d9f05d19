"""Tables as CSV files that a spreadsheet opens without computing anything: `write_csv`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from bayesfs.runs.directory import write_atomically

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How text begins that spreadsheets take for a formula (OWASP, CSV injection)."""


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table, whole or not at all; names that would be formulas begin with an apostrophe.

    Names of videos and objects come from folders that others may have made. Text that reads as a
    number stays as it is, and so do numbers.

    Args:
        table: its index is not written.
        path: file to write.

    Raises:
        RunError: the operating system refuses.
    """
    write_atomically(path, partial(inert(table).to_csv, index=False))


def inert(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before what a spreadsheet would take for a formula."""
    return table.map(_inert).rename(columns=_inert)


def _inert(cell: Any) -> Any:
    if not isinstance(cell, str) or not cell.startswith(FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell
