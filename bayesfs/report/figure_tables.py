"""The numbers of figures as short tables, to be read, heard and stepped through.

What a line shows is told at `PLACES` places at most; clouds of points by their middles.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayesfs._utils.arrays import Floats, Ints
from bayesfs._utils.spacing import evenly_spaced

PLACES = 11
"""Places at which a line is told."""


def history_rows(values: ArrayLike) -> pd.DataFrame:
    """Some steps of an optimiser's history, the first and the last among them."""
    history = np.asarray(values, float)
    history = history.reshape(len(history), -1).sum(1)
    steps = evenly_spaced(len(history), PLACES)
    return pd.DataFrame({"step": [s + 1 for s in steps], "value": history[steps]})


def shots_rows(cells: Mapping[int, tuple[float, float, float]]) -> pd.DataFrame:
    """A score at every number of support videos, with its interval."""
    rows = [(shots, *cells[shots]) for shots in sorted(cells)]
    return pd.DataFrame(rows, columns=["support videos", "score", "95 % from", "to"])


def coverage_rows(curves: Mapping[str, tuple[Floats, Floats]]) -> pd.DataFrame:
    """Share named right of the surest, at tenths, by each ranking."""
    at = np.linspace(0.1, 1.0, PLACES - 1)
    found = {f"by {name}": np.interp(at, *curve) for name, curve in curves.items()}
    return pd.DataFrame({"share answered": at, **found})


def scatter_rows(aleatoric: Floats, epistemic: Floats, right: NDArray[np.bool_]) -> pd.DataFrame:
    """By tenths of the total: mean uncertainty of each kind, and how many were named right."""
    total = aleatoric + epistemic
    parts = _tenths(np.argsort(total, kind="stable"))
    rows = [
        (total[i].max(), aleatoric[i].mean(), epistemic[i].mean(), int(right[i].sum()), len(i))
        for i in parts
    ]
    names = ["total up to", "aleatoric, mean", "epistemic, mean", "named right", "of videos"]
    return pd.DataFrame(rows, columns=names)


def trace_rows(draws: Floats) -> pd.DataFrame:
    """The mean of each chain over tenths of its length."""
    parts = _tenths(np.arange(draws.shape[1]))
    found = {f"chain {c + 1}": [chain[i].mean() for i in parts] for c, chain in enumerate(draws)}
    return pd.DataFrame({"draws up to": [int(i[-1]) + 1 for i in parts], **found})


def marginal_rows(draws: Floats, prior: Floats | None) -> pd.DataFrame:
    """Quantiles of a scalar, and of its prior where that is known."""
    at = np.array([0.025, 0.25, 0.5, 0.75, 0.975])
    found = {"share below": at, "draws": np.quantile(draws, at)}
    if prior is not None:
        found["prior"] = np.quantile(prior, at)
    return pd.DataFrame(found)


def pair_rows(x: Floats, y: Floats, x_name: str, y_name: str) -> pd.DataFrame:
    """By tenths of one scalar: its mean, and that of the other, with its sd."""
    a, b = x.ravel(), y.ravel()
    parts = _tenths(np.argsort(a, kind="stable"))
    rows = [(a[i].mean(), b[i].mean(), b[i].std()) for i in parts]
    return pd.DataFrame(rows, columns=[x_name, y_name, "sd"])


def _tenths(order: Ints) -> list[Ints]:
    """Indices in ten parts of about one size, fewer where there are fewer indices."""
    return [part for part in np.array_split(order, PLACES - 1) if len(part)]
