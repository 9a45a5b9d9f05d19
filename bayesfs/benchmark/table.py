"""The cells of a benchmark as a table: printed, and written as CSV and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from bayesfs._utils.progress import table_text
from bayesfs.benchmark.conditions import UNCORRUPTED
from bayesfs.metrics.bootstrap import Interval
from bayesfs.metrics.paired import sums_difference
from bayesfs.runs.csv_tables import write_csv
from bayesfs.runs.directory import write_atomically

Cell = Mapping[str, Any]

PRINTED = ("accuracy", "nll", "ece")
"""Scores that are printed; the files have all."""

PLAIN = ("shots", "way", "noise")

KEYS = (*PLAIN, "corruption", "severity")

OF_SEVERITY = (*PRINTED, "aleatoric", "epistemic", "out_auroc")
"""Scores that are printed by severity."""


def tidy(cells: Sequence[Cell]) -> pd.DataFrame:
    """One row per method, condition, item and score.

    Columns `method`, `shots`, `way` (0: all of a user's), `noise`, `corruption` ("" outside such a
    sweep), `severity`, `item`, `score`, `estimate`, `low`, `high` and further intervals where
    there are any, `unit` (what was resampled), `nll_minus_first` with `nll_minus_first_low` and
    `_high` (paired difference of the NLL from the first method, in rows of score "nll"),
    `seconds_to_learn`, `seconds_per_task`, `failed`.
    """
    parts = []
    for _, group in groupby(sorted(cells, key=_condition), key=_condition):
        members = list(group)
        for cell in members:
            rows = pd.DataFrame(cell.get("scores", [{"item": "", "score": ""}]))
            for place, key in enumerate(("method", *KEYS)):
                rows.insert(place, key, cell[key])
            for key in ("unit", "seconds_to_learn", "seconds_per_task", "failed"):
                rows[key] = cell.get(key)
            parts.append(_with_differences(rows, cell, members[0]))
    return pd.concat(parts, ignore_index=True)


def _condition(cell: Cell) -> tuple[Any, ...]:
    return tuple(cell[key] for key in reversed(KEYS))


def _with_differences(rows: pd.DataFrame, cell: Cell, first: Cell) -> pd.DataFrame:
    names = ["nll_minus_first", "nll_minus_first_low", "nll_minus_first_high"]
    rows[names] = np.nan
    for item in cell.get("units", {}):
        if cell["method"] != first["method"] and not first["failed"]:
            gap = nll_difference(cell, first, item)
            at = (rows["item"] == item) & (rows["score"] == "nll")
            rows.loc[at, names] = [gap.estimate, gap.low, gap.high]
    return rows


def nll_difference(cell: Cell, first: Cell, item: str) -> Interval:
    """Paired difference of the mean NLL of two cells of the same condition, over their units."""
    one, two = cell["units"][item], first["units"][item]
    return sums_difference(one["nll"], two["nll"], one["rows"])


def write_tables(cells: Sequence[Cell], out: Path) -> pd.DataFrame:
    """Write table.csv and table.json; the table."""
    table = tidy(cells)
    write_csv(table, out / "table.csv")
    text = json.dumps(json.loads(table.to_json(orient="records")), indent=1, allow_nan=False)
    write_atomically(out / "table.json", lambda path: path.write_text(text, encoding="utf-8"))
    return table


def print_table(cells: Sequence[Cell], console: Console | None = None) -> None:
    """One grid per condition and item: scores with intervals, seconds, and what failed.

    Of corruptions, one grid per item: means over them by severity.
    """
    console = console or Console()
    whole = tidy(cells)
    table = whole[whole["corruption"] == ""]
    for _, rows in table.groupby(list(PLAIN), sort=False):
        shots, way, noise = (float(rows[key].iloc[0]) for key in PLAIN)
        title = f"{shots:.0f} shot{'s' if shots > 1 else ''}"
        title += f", {way:.0f} classes" if way else ""
        title += f", query noise {noise:g}" if noise else ""
        for item in filter(None, dict.fromkeys(map(str, rows["item"]))):
            console.print(_grid(rows, item, f"{item}s, {title}"))
        for failure in rows[rows["failed"] != ""].to_dict("records"):
            console.print(f"  {table_text(failure['method'])}: {table_text(failure['failed'])}")
    swept = whole[(whole["corruption"] != "") & (whole["failed"] == "")]
    for item in dict.fromkeys(swept["item"]):
        console.print(_severity_grid(swept[swept["item"] == item], f"{item}s"))


def _grid(rows: pd.DataFrame, item: str, title: str) -> Table:
    chosen = rows[rows["item"] == item]
    scores = [s for s in (*PRINTED, "out_auroc") if s in set(chosen["score"])]
    unit = "/".join(dict.fromkeys(chosen["unit"]))
    whom = "; too few users to say anything of other users" if unit == "video" else ""
    grid = Table(title=title, caption=f"95 % over {unit}s{whom}", pad_edge=False)
    worst = "worst" in chosen and bool(chosen["worst"].notna().any())
    grid.add_column("method", no_wrap=True)
    for name in (*scores, "nll - first", *(["worst tenth's nll"] * worst), "s/task"):
        grid.add_column(name, overflow="fold")
    for method, of in chosen.groupby("method", sort=False):
        grid.add_row(table_text(method), *_cells(of, scores, worst=worst))
    return grid


def _severity_grid(rows: pd.DataFrame, title: str) -> Table:
    """Each method's scores at each severity, averaged over the corruptions."""
    names = ", ".join(c for c in dict.fromkeys(rows["corruption"]) if c != UNCORRUPTED)
    scores = [s for s in OF_SEVERITY if s in set(rows["score"])]
    grid = Table(title=f"{title}, corrupted: mean of {names}", pad_edge=False)
    for name in ("method", "severity", *scores):
        grid.add_column(name, no_wrap=name == "method")
    means = rows.pivot_table("estimate", ["method", "severity"], "score", sort=False)
    for method, of in means.groupby("method", sort=False):
        for i, (severity, line) in enumerate(of.droplevel("method").sort_index().iterrows()):
            values = [_number(line.get(score)) for score in scores]
            grid.add_row(table_text(method) if not i else "", str(severity), *values)
    return grid


def _cells(rows: pd.DataFrame, scores: Sequence[str], *, worst: bool) -> list[str]:
    lines = {str(line["score"]): line for line in rows.to_dict("records")}
    nll = lines["nll"]
    names = {"estimate": "", "low": "_low", "high": "_high"}
    gap = {name: nll[f"nll_minus_first{end}"] for name, end in names.items()}
    return [
        *(_interval(lines[score]) for score in scores),
        _interval(gap, sign="+"),
        *([_number(nll.get("worst"))] * worst),
        f"{nll['seconds_per_task']:.2g}",
    ]


def _interval(line: Mapping[Any, Any], sign: str = "") -> str:
    """Estimate, with its interval on a second line where there is one."""
    value = _number(line["estimate"], sign)
    low, high = _number(line["low"], sign), _number(line["high"], sign)
    return f"{value}\n{low}, {high}" if low and high else value


def _number(value: Any, sign: str = "") -> str:
    missing = value is None or math.isnan(value)
    return "" if missing else f"{value:{sign}.3f}"
