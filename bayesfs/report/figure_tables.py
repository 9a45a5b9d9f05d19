"""The numbers of figures as short tables: what a line shows, at a dozen places at most."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from bayesfs._utils.spacing import evenly_spaced

PLACES = 11
"""Places at which a line is told."""


def history_rows(values: ArrayLike) -> pd.DataFrame:
    """Some steps of an optimiser's history, the first and the last among them."""
    history = np.asarray(values, float)
    history = history.reshape(len(history), -1).sum(1)
    steps = evenly_spaced(len(history), PLACES)
    return pd.DataFrame({"step": [s + 1 for s in steps], "value": history[steps]})
