"""Settings of a grid, each run at several seeds, in one table: `grid_table`.

What differs between two settings may be chance of three kinds, and each has its own error:

- people: others would have been better or worse off. The interval is over people, resampled.
- episodes: other videos would have taught and been asked. The error is over their seeds.
- inference: another run of the same engine draws otherwise. This Monte Carlo error is over its
  seeds, and more draws or steps make it smaller.

Runs of two settings with the same seeds are pairs: what an episode makes hard for both cancels.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bayesfs._utils.arrays import Floats
from bayesfs.metrics.paired import sums_difference
from bayesfs.metrics.score_table import ITEM_SCORES
from bayesfs.results.rows import ITEMS, Item

COLUMNS = ("value", "episode_error", "fit_error")
"""What is told of a score, and of a difference."""


@dataclass(frozen=True)
class GridRun:
    """One run of a grid.

    Attributes:
        setting: what was chosen, as a person calls it.
        episode_seed: seed of its episodes.
        fit_seed: seed of its inference.
        rows: its scored frames and videos, from `bayesfs.results.rows.tree_rows`.
    """

    setting: str
    episode_seed: int
    fit_seed: int
    rows: Mapping[Item, pd.DataFrame]


def grid_table(runs: list[GridRun], *, level: float = 0.95) -> pd.DataFrame:
    """Every score of every setting, and its difference from the first setting.

    Args:
        runs: of the grid; the setting of the first one is the reference.
        level: of the intervals over people.

    Returns:
        One row per item, score and setting: `value` with `episode_error` and `fit_error`
        (standard errors of the mean over seeds; nan with one seed), the same of `difference` from
        the reference, over the seeds that both have, `low` and `high` of the difference (over
        people), `runs`, `users` and `reason` (why there is no interval, or "").
    """
    lines = []
    for item in ITEMS:
        for score, column in ITEM_SCORES.items():
            means = _means(runs, item, column)
            for setting in means:
                about = {"item": item, "score": score, "setting": setting}
                count = {"runs": int(means[setting].notna().to_numpy().sum())}
                own = _with_errors("", means[setting])
                gap = _difference(runs, item, column, means, setting, level)
                lines.append({**about, **own, **count, **gap})
    return pd.DataFrame(lines)


def _means(runs: list[GridRun], item: Item, column: str) -> dict[str, pd.DataFrame]:
    """Setting -> table of a score by episode seed (rows) and fit seed (columns)."""
    cells = pd.DataFrame(
        [(r.setting, r.episode_seed, r.fit_seed, r.rows[item][column].mean()) for r in runs],
        columns=["setting", "episode_seed", "fit_seed", "value"],
    )
    return {
        str(setting): part.pivot(index="episode_seed", columns="fit_seed", values="value")
        for setting, part in cells.groupby("setting", sort=False)
    }


def _with_errors(prefix: str, table: pd.DataFrame) -> dict[str, float]:
    """Mean of a table of seeds, and its standard errors by each of the two kinds of seed."""
    held = table.to_numpy(float)
    values = (float(np.nanmean(held)), _error(np.nanmean(held, 1)), _error(np.nanmean(held, 0)))
    names = (prefix or "value", *(f"{prefix}_{c}".lstrip("_") for c in COLUMNS[1:]))
    return dict(zip(names, values, strict=True))


def _error(means: Floats) -> float:
    """Standard error of the mean of independent values; nan of one."""
    return float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else float("nan")


def _difference(
    runs: list[GridRun],
    item: Item,
    column: str,
    means: Mapping[str, pd.DataFrame],
    setting: str,
    level: float,
) -> dict[str, float | int | str]:
    reference = next(iter(means))
    gap = (means[setting] - means[reference]).dropna(how="all").dropna(axis=1, how="all")
    if setting == reference or gap.empty:
        return {}
    shared = {seeds for seeds, value in gap.stack().items() if pd.notna(value)}
    first, second = (_sums(runs, name, shared, item, column) for name in (setting, reference))
    rows = first["count"].to_numpy(float).tolist()
    one, two = (part["sum"].to_numpy(float).tolist() for part in (first, second))
    whole = sums_difference(one, two, rows, level=level)
    return {
        **_with_errors("difference", gap),
        "low": whole.low,
        "high": whole.high,
        "users": whole.units,
        "reason": whole.reason,
    }


def _sums(
    runs: list[GridRun], setting: str, seeds: Collection[Hashable], item: Item, column: str
) -> pd.DataFrame:
    """Sum of a score and number of rows of each user, over the runs of a setting at these seeds."""
    parts = [
        r.rows[item][["user", column]]
        for r in runs
        if r.setting == setting and (r.episode_seed, r.fit_seed) in seeds
    ]
    return pd.concat(parts).groupby("user", sort=True)[column].agg(["sum", "count"])
