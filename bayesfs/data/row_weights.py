"""Weights of rows, where they mean something: how many recordings like this one. `repeated`.

A posterior learns from how much was observed, so that a row of weight 2 is two rows and one of
weight 0 is none. Rows of one recording depend on one another: the same row twice in a recording
tells nothing new, and two recordings that look alike tell twice as much. So it is recordings that
are repeated, whole; weights that differ within one, or are no whole numbers, are refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesfs.errors import DataError

Array = NDArray[Any]

MOST_ROWS = 100_000
"""Rows that weights may add up to."""


def repeated(weight: Array, groups: Array | None) -> tuple[Array, Array | None]:
    """Rows in place of weights.

    Args:
        weight: (row,) whole numbers from 0.
        groups: (row,) recording of each row; None makes each one of its own.

    Returns:
        The number of each row, as often as it counts, and the recordings of these rows.

    Raises:
        DataError: weights are no such numbers, leave nothing, add up to too many rows, or differ
            within a recording.
    """
    odd = np.flatnonzero(~(weight >= 0) | (weight != np.floor(weight)))
    if len(odd):
        raise DataError(
            f"sample_weight {weight[odd[0]]:g} of row {odd[0]}: expected whole numbers from 0, "
            "each the number of recordings like that row's; a posterior learns from how much was "
            "observed, so that weights of importance have no meaning here"
        )
    if not 0 < weight.sum() <= MOST_ROWS:
        raise DataError(
            f"expected sample_weight to add up to 1 to {MOST_ROWS} rows, got {weight.sum():g}; "
            "a weight is the number of recordings like that row's"
        )
    times = weight.astype(np.int64)
    rows = np.repeat(np.arange(len(times)), times)
    if groups is None:
        return rows, None
    names, number = np.unique(groups, return_inverse=True)
    most, least = np.zeros(len(names), np.int64), np.full(len(names), times.max())
    np.maximum.at(most, number, times)
    np.minimum.at(least, number[times > 0], times[times > 0])
    uneven = np.flatnonzero(most > least)
    if len(uneven):
        raise DataError(
            f"rows of recording {names.tolist()[uneven[0]]!r} have sample_weight from "
            f"{least[uneven[0]]} to {most[uneven[0]]}: expected one weight a recording, and 0 for "
            "rows to leave out; a row that counts twice within a recording tells nothing new"
        )
    copy = np.arange(len(rows)) - np.repeat(np.cumsum(times) - times, times)
    return rows, copy * len(names) + number[rows]
