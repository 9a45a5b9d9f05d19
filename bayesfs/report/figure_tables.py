"""The numbers of figures as short tables: what a line shows, at a dozen places at most."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from bayesfs._utils.spacing import evenly_spaced
from bayesfs.metrics.pav import PavCurve
from bayesfs.metrics.pit import PitCurve

PLACES = np.linspace(0.0, 1.0, 11)
"""Probabilities at which a curve is told."""


def pit_rows(curve: PitCurve) -> pd.DataFrame:
    """How often sets of a stated probability hold the truth, less stated, and the chance range."""
    return _at_places(
        curve.place,
        {
            "held, less stated": curve.difference,
            "if calibrated, from": curve.low,
            "to": curve.high,
        },
    )


def pav_rows(curve: PavCurve) -> pd.DataFrame:
    """How often an object of a stated probability it was, and the chance range."""
    lines = {"it was": curve.found, "if calibrated, from": curve.low, "to": curve.high}
    return _at_places(curve.stated, lines)


def _at_places(x: ArrayLike, lines: Mapping[str, ArrayLike]) -> pd.DataFrame:
    along = np.asarray(x, float)
    table = {n: np.interp(PLACES, along, np.asarray(y, float)) for n, y in lines.items()}
    return pd.DataFrame({"stated": PLACES, **table})


def history_rows(values: ArrayLike) -> pd.DataFrame:
    """Some steps of an optimiser's history, the first and the last among them."""
    history = np.asarray(values, float)
    history = history.reshape(len(history), -1).sum(1)
    steps = evenly_spaced(len(history), len(PLACES))
    return pd.DataFrame({"step": [s + 1 for s in steps], "value": history[steps]})
