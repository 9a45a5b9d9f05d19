"""The picture of several methods' reliability curves: `plot_reliability`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bayesfs.results.rows import ITEMS

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Okabe and Ito's colours, told apart by colour-blind readers."""

MARKERS = "osD^vPX"


def plot_reliability(tables: Mapping[int, pd.DataFrame], path: Path) -> None:
    """Draw accuracy against confidence, one panel for each number of shots and kind of item.

    Bars are intervals of the accuracy that allow for a user's items being alike. Points below the
    diagonal are overconfident. Methods stand slightly apart, so that bars do not hide each other.

    Args:
        tables: number of support videos -> `bayesfs.evaluation.comparison.reliability_table`.
        path: picture to write; its suffix decides the format (png, svg, pdf).
    """
    figure = Figure(figsize=(4.2 * len(ITEMS), 4.0 * len(tables)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(tables), len(ITEMS), squeeze=False)
    for line, (shots, table) in zip(panels, sorted(tables.items()), strict=True):
        for axes, item in zip(line, ITEMS, strict=True):
            videos = f"{shots} video{'s' if shots > 1 else ''} per object"
            _panel(axes, table[table["item"] == item], f"{item}s, {videos}")
    panels[0][0].legend(loc="upper left", fontsize="small")
    figure.savefig(path, dpi=150, metadata={"Creator": "bayesfs"} if path.suffix == ".svg" else {})


def _panel(axes: Axes, table: pd.DataFrame, title: str) -> None:
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
    methods = list(dict.fromkeys(table["method"]))
    for i, (name, rows) in enumerate((n, table[table["method"] == n]) for n in methods):
        x = rows["confidence"] + 0.006 * (i - (len(methods) - 1) / 2)
        below, above = (
            rows["accuracy"] - rows["accuracy_low"],
            rows["accuracy_high"] - rows["accuracy"],
        )
        axes.errorbar(
            x,
            rows["accuracy"],
            yerr=[below.clip(lower=0), above.clip(lower=0)],
            label=str(name).replace("$", r"\$"),
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            linewidth=1,
            markersize=4,
            capsize=2,
        )
    axes.set(title=title, xlabel="confidence", ylabel="share named right", xlim=(0, 1), ylim=(0, 1))
