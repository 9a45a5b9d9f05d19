"""Several methods on the same queries, against the first of them: start with `compare_scores`.

Three views that answer different questions:

- `compare_scores`: by how much do the scores differ, for people as a whole (users are resampled,
  the same ones for both methods) and for each of them? `overall_table` and `user_table` lay it out.
- `compare_elpd`: ArviZ's `compare` of expected log predictive densities, the video being the unit:
  of the query videos, and of the support videos, each left out.
- `reliability_table`: confidence against accuracy of all methods, for one picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats import compare

from bayesfs.diagnostics.loo import can_leave_one_out, heldout_elpd, support_elpd
from bayesfs.errors import DataError
from bayesfs.inference.program.limits import KHAT_MAX
from bayesfs.metrics.calibration import reliability
from bayesfs.metrics.paired import PairedDifference, paired_difference
from bayesfs.results.rows import ITEMS, Item, labelled_items

MAIN = ("accuracy", "nll", "brier", "ece", "aurc")
"""Scores that are compared by default."""


@dataclass(frozen=True)
class Pair:
    """A method beside the reference, by one score of one kind of item.

    Attributes:
        item: "frame" or "video".
        method: name of the method.
        reference: name of the first method.
        gap: score of the method minus that of the reference.
    """

    item: Item
    method: str
    reference: str
    gap: PairedDifference


def compare_scores(
    rows: Mapping[str, Mapping[Item, pd.DataFrame]],
    scores: Sequence[str] = MAIN,
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Pair]:
    """Paired differences of every method from the first one.

    Args:
        rows: name of a method -> its scored frames and videos; two methods or more.
        scores: out of `bayesfs.metrics.score_table.SCORES`.
        draws: number of bootstrap samples.
        level: of the intervals.
        seed: of the bootstrap.

    Returns:
        One pair for each kind of item, score and later method.

    Raises:
        DataError: there is only one method.
        ShapeError: the methods were not scored on the same queries.
    """
    if len(rows) < 2:
        raise DataError(f"expected two methods or more to compare, got {list(rows)}")
    reference, *others = rows
    return [
        Pair(
            item,
            name,
            reference,
            paired_difference(
                rows[name][item], rows[reference][item], score, draws=draws, level=level, seed=seed
            ),
        )
        for item in ITEMS
        for score in scores
        for name in others
    ]


def overall_table(pairs: Sequence[Pair]) -> pd.DataFrame:
    """One row a pair: both scores, their difference with its interval over users.

    Columns `item`, `score`, `method`, `reference`, `value`, `reference_value`, `difference`
    (value - reference_value), `low`, `high`, `share_better` (of users for whom the method is
    better), `users`, `reason` (why there is no interval, or "").
    """
    lines = []
    for pair in pairs:
        gap, whole = pair.gap, pair.gap.overall
        both = (gap.first, gap.second, whole.estimate, whole.low, whole.high, gap.share_better)
        lines.append(
            (pair.item, gap.score, pair.method, pair.reference, *both, whole.units, whole.reason)
        )
    names = ["item", "score", "method", "reference", "value", "reference_value", "difference"]
    return pd.DataFrame(lines, columns=[*names, "low", "high", "share_better", "users", "reason"])


def user_table(pairs: Sequence[Pair]) -> pd.DataFrame:
    """One row a pair and user, with the interval over that user's own videos.

    Columns `item`, `score`, `method`, `reference`, `user`, `value`, `reference_value`,
    `difference`, `low`, `high`, `rows`; within a pair sorted from the user who gains most.
    """
    parts = []
    for pair in pairs:
        names = {"first": "value", "second": "reference_value"}
        table = pair.gap.by_unit.rename(columns=names).reset_index()
        for place, column in enumerate(("item", "score", "method", "reference")):
            value = pair.gap.score if column == "score" else getattr(pair, column)
            table.insert(place, column, value)
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def compare_elpd(trees: Mapping[str, xr.DataTree]) -> pd.DataFrame:
    """ArviZ's `compare` of query videos held out, and of support videos left out one by one.

    Args:
        trees: name of a method -> its DataTree, all of the same tasks.

    Returns:
        One row per view and method, the best first: `view` ("query" or "support"), `method`,
        `elpd` and `se` (nats, summed over videos), `elpd_diff` (from the best, 0 or below) and
        `dse`, `weight` (stacking), `high_k` (videos with a Pareto k above `KHAT_MAX`,
        or not known), `videos`.
        The view "support" is left out where an object has one support video only: without it
        there is nothing to learn the object from; and where some methods left videos out exactly
        and others by weights, which flatter. `se` and `dse` take videos as independent;
        `overall_table` does not.

    Source: Vehtari, Gelman and Gabry 2017 (PSIS-LOO); Yao et al. 2018 (stacking).
    """
    views: dict[str, Callable[[xr.DataTree], Any]] = {"query": heldout_elpd}
    exact = {"support_left_out" in tree.children for tree in trees.values()}
    if len(exact) == 1 and all(can_leave_one_out(tree) for tree in trees.values()):
        views["support"] = support_elpd
    return pd.concat([_compared(view, of, trees) for view, of in views.items()], ignore_index=True)


def _compared(
    view: str, elpd: Callable[[xr.DataTree], Any], trees: Mapping[str, xr.DataTree]
) -> pd.DataFrame:
    found = {name: elpd(tree) for name, tree in trees.items()}
    whole = {"round_to": "none"} if "round_to" in signature(compare).parameters else {}
    table = compare(found, **whole)  # ArviZ 1 rounds for reading
    high = {name: int((~(np.asarray(e.pareto_k) <= KHAT_MAX)).sum()) for name, e in found.items()}
    return pd.DataFrame(
        {
            "view": view,
            "method": [str(name) for name in table.index],
            "elpd": table["elpd"].to_numpy(float),
            "se": table["se"].to_numpy(float),
            "elpd_diff": table["elpd"].to_numpy(float) - float(table["elpd"].max()),
            "dse": table["dse"].to_numpy(float),
            "weight": table["weight"].to_numpy(float),
            "high_k": [high[str(name)] for name in table.index],
            "videos": [int(found[str(name)].n_data_points) for name in table.index],
        }
    )


def reliability_table(
    trees: Mapping[str, xr.DataTree], *, bins: int = 10, level: float = 0.95
) -> pd.DataFrame:
    """Confidence against accuracy of every method, with users as groups.

    Returns:
        Columns `item`, `method` and those of `bayesfs.metrics.calibration.reliability`.
    """
    parts = []
    for item in ITEMS:
        for name, tree in trees.items():
            log_prob, rows = labelled_items(tree, item)
            table = reliability(
                log_prob, rows["label"], groups=rows["user"], bins=bins, level=level
            )
            table.insert(0, "item", item)
            table.insert(1, "method", name)
            parts.append(table)
    return pd.concat(parts, ignore_index=True)
