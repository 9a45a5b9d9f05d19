"""What a score is read against: `chance_scores` of guessing, `paired_gain` over a baseline."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesfs._utils.arrays import Ints


def chance_scores(ways: Ints) -> dict[str, float]:
    """Scores of the same probability 1/K for each of K classes, the answer being any of them.

        accuracy E 1/K,   NLL E log K,   Brier E (1 - 1/K),   AURC 1 - E 1/K;

    it is calibrated.

    Args:
        ways: (item,) number of classes.
    """
    right = float((1 / ways).mean())
    return {
        "accuracy": right,
        "nll": float(np.log(ways).mean()),
        "brier": 1 - right,
        "ece": 0.0,
        "mce": 0.0,
        "aurc": 1 - right,
        "accuracy_at_80": right,
    }


def paired_gain(rows: pd.DataFrame, baseline: pd.DataFrame) -> tuple[float, float]:
    """Mean fall of the NLL from the baseline, in nats, and its standard error over people.

    With d_u the sum of the differences of person u's items, n_u their number and m the mean over
    all items, the error is that of a ratio of means over the people,
    sqrt(U / (U - 1) sum_u (d_u - m n_u)^2) / sum_u n_u; nan of one person.

    Args:
        rows: items with `user` and `nll`.
        baseline: the same items.
    """
    difference = baseline["nll"].to_numpy() - rows["nll"].to_numpy()
    mean = float(difference.mean())
    people = pd.DataFrame({"off": difference - mean, "user": rows["user"].to_numpy()})
    off: NDArray[np.float64] = people.groupby("user")["off"].sum().to_numpy()
    if len(off) < 2:
        return mean, math.nan
    return mean, math.sqrt(len(off) / (len(off) - 1) * float((off**2).sum())) / len(difference)
