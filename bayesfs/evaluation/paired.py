"""Two methods on the same frames: `paired_difference`, overall and for every user.

Both methods see the same resampled users, so that what makes a user hard for both cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bayesfs.errors import ShapeError
from bayesfs.evaluation.bootstrap import SCORES, difference_bounds, statistics
from bayesfs.evaluation.items import KEYS
from bayesfs.evaluation.resampling import Interval, bootstrap_interval, difference


@dataclass(frozen=True)
class PairedDifference:
    """Score of a first method minus that of a second one on the same rows.

    Attributes:
        score: one of `SCORES`.
        first: score of all rows of the first method.
        second: score of all rows of the second method.
        overall: first - second, with its interval over units.
        by_unit: one row per unit: `first`, `second`, `difference`, `low`, `high` (over the unit's
            videos), `rows`; sorted from the unit where the first method does best.
    """

    score: str
    first: float
    second: float
    overall: Interval
    by_unit: pd.DataFrame

    @property
    def share_better(self) -> float:
        """Share of units for which the first method is better, ties counting half."""
        sign = 1 if self.score == "accuracy" else -1
        gain = sign * self.by_unit["difference"]
        return float((gain > 0).mean() + (gain == 0).mean() / 2)


def paired_difference(
    first: pd.DataFrame,
    second: pd.DataFrame,
    score: str = "nll",
    *,
    unit: str = "user",
    within: str = "video",
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Compare two methods on the same rows: overall over users, and for every user over videos.

    Args:
        first: rows of the first method.
        second: rows of the second method, in any order.
        score: one of `SCORES`; a difference below 0 favours the first, for accuracy above 0.
        unit: what is resampled for the overall interval.
        within: what is resampled for the interval of one unit.
        draws: number of bootstrap samples.
        level: of the intervals.
        seed: of the bootstrap.

    Raises:
        ShapeError: the methods were not scored on the same frames and labels, or the score is
            unknown.
    """
    if score not in SCORES:
        raise ShapeError(f"expected a score out of {SCORES}, got {score!r}")
    a, b = _aligned(first, second)
    whole = _difference(a, b, score, unit, draws=draws, level=level, seed=seed)
    lines = []
    for name, rows in a.groupby(unit, sort=True).indices.items():
        one, two, gap = _difference(
            a.iloc[rows], b.iloc[rows], score, within, draws=draws, level=level, seed=seed
        )
        lines.append((name, one, two, gap.estimate, gap.low, gap.high, len(rows)))
    columns = [unit, "first", "second", "difference", "low", "high", "rows"]
    table = pd.DataFrame(lines, columns=columns).set_index(unit)
    table = table.sort_values("difference", ascending=score != "accuracy", kind="stable")
    return PairedDifference(score, *whole, table)


def _difference(
    a: pd.DataFrame,
    b: pd.DataFrame,
    score: str,
    unit: str,
    *,
    draws: int,
    level: float,
    seed: int,
) -> tuple[float, float, Interval]:
    one, names = statistics(a, unit)
    two, _ = statistics(b, unit)
    everything = np.ones((1, len(names)))
    gap = bootstrap_interval(
        difference(one[score], two[score]),
        len(names),
        draws=draws,
        level=level,
        seed=seed,
        bounds=difference_bounds(score),
    )
    return float(one[score](everything)[0]), float(two[score](everything)[0]), gap


def _aligned(first: pd.DataFrame, second: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    keys = [*KEYS, "label"]
    a, b = (rows.sort_values(keys, kind="stable", ignore_index=True) for rows in (first, second))
    if len(a) != len(b) or not (a[keys].to_numpy() == b[keys].to_numpy()).all():
        raise ShapeError(
            f"expected two methods scored on the same frames with the same labels, got {len(a)} "
            f"and {len(b)} rows of {a['task'].nunique()} and {b['task'].nunique()} tasks; were "
            "the episodes drawn with different seeds?"
        )
    return a, b


def sums_difference(
    first: Sequence[float],
    second: Sequence[float],
    rows: Sequence[int],
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Paired difference of two means over rows, from their sums per unit.

    Args:
        first: (unit,) sum of a score over the unit's rows, of the first method.
        second: (unit,) the same of the second method, on the same rows.
        rows: (unit,) number of rows.
        draws: number of bootstrap samples of units.
        level: of the interval.
        seed: of the bootstrap.

    Raises:
        ShapeError: the methods have different units.
    """
    if not len(first) == len(second) == len(rows):
        raise ShapeError(
            f"expected sums of the same units, got {len(first)}, {len(second)} and {len(rows)}"
        )
    gap, count = np.subtract(first, second), np.asarray(rows, np.float64)
    return bootstrap_interval(
        lambda weights: (weights @ gap) / (weights @ count),
        len(rows),
        draws=draws,
        level=level,
        seed=seed,
    )
