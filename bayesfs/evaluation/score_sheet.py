"""Every score of a run, for everything together and for each user, object and video: `score_sheet`.

The tables elsewhere show a few scores with intervals; this one shows all of them, as plain numbers,
so that a person can look up any. Whatever asks for many items is nan where a group has one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesfs.evaluation.calibration import (
    classwise_ece,
    debiased_ece,
    ece,
    mce,
    squared_calibration_error,
)
from bayesfs.evaluation.kernel_calibration import skce
from bayesfs.evaluation.scores import Floats, Ints, accuracy, brier, nll
from bayesfs.evaluation.selective import accuracy_at_coverage, aurc, e_aurc, set_coverage
from bayesfs.evaluation.tree_rows import ITEMS, labelled_items

SET_LEVEL = 0.9
"""Probability that a set of classes should hold."""

GROUPS = ("all", "user", "object", "video")

HIGHER_IS_BETTER = ("accuracy", "accuracy_at_80", "set_coverage_90")
"""Of the other scores, the worst users are those with the highest values."""

_Score = Callable[[Floats, Ints, NDArray[np.str_]], float]

SHEET: Mapping[str, _Score] = {
    "accuracy": lambda p, y, g: accuracy(p, y),
    "nll": lambda p, y, g: nll(p, y),
    "brier": lambda p, y, g: brier(p, y),
    "ece": lambda p, y, g: ece(p, y),
    "debiased_ece": lambda p, y, g: debiased_ece(p, y, groups=g),
    "squared_ce": lambda p, y, g: squared_calibration_error(p, y, groups=g),
    "mce": lambda p, y, g: mce(p, y),
    "skce": lambda p, y, g: skce(p, y, groups=g),
    "aurc": lambda p, y, g: aurc(p, y),
    "e_aurc": lambda p, y, g: e_aurc(p, y),
    "accuracy_at_80": lambda p, y, g: accuracy_at_coverage(p, y, 0.8),
    "set_coverage_90": lambda p, y, g: set_coverage(p, y, SET_LEVEL)[0],
    "set_size_90": lambda p, y, g: set_coverage(p, y, SET_LEVEL)[1],
}
"""Score -> function of log-probabilities, labels and the video of each item."""


def score_sheet(tree: xr.DataTree, *, worst: float = 0.1) -> pd.DataFrame:
    """All scores of a run's frames and videos, by group.

    Args:
        tree: a run's.
        worst: share of the users (at least one) that the group "worst users" is the mean over,
            chosen score by score.

    Returns:
        One row per item ("frame", "video") and group: `item`, `group` (out of `GROUPS`, or "worst
        users"), `name`, `rows`, the scores of `SHEET` and `classwise_ece` (within each task, as a
        class means something there only; the mean over tasks). Frames of a video count as
        dependent in the scores that allow for it.

    Raises:
        DataError: no query video is labelled.
    """
    parts = []
    for item in ITEMS:
        log_prob, rows = labelled_items(tree, item)
        tables = [_by_group(log_prob, rows, group) for group in GROUPS]
        tables.append(_worst(tables[GROUPS.index("user")], worst))
        table = pd.concat(tables, ignore_index=True)
        table.insert(0, "item", item)
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def _by_group(log_prob: Floats, rows: pd.DataFrame, group: str) -> pd.DataFrame:
    key = np.zeros(len(rows), dtype=int) if group == "all" else rows[group]
    lines = []
    for name, places in rows.groupby(key, sort=True).indices.items():
        line = group_scores(log_prob[places], rows.iloc[places])
        shown = "" if group == "all" else str(name)
        lines.append({"group": group, "name": shown, "rows": len(places), **line})
    return pd.DataFrame(lines)


def group_scores(log_prob: Floats, rows: pd.DataFrame) -> dict[str, float]:
    """Every score of some items.

    Args:
        log_prob: (item, way).
        rows: their rows, with `label`, `task` and `video`.
    """
    labels, videos = rows["label"].to_numpy(), rows["video"].to_numpy(str)
    found = {name: score(log_prob, labels, videos) for name, score in SHEET.items()}
    by_task = rows.groupby("task", sort=False).indices.values()
    found["classwise_ece"] = float(
        np.mean([classwise_ece(log_prob[i], labels[i]) for i in by_task])
    )
    return found


def _worst(users: pd.DataFrame, share: float) -> pd.DataFrame:
    """Mean over the worst users by each score, and the names of those by NLL."""
    count = int(np.ceil(round(share * len(users), 6)))
    scores: Sequence[str] = [*SHEET, "classwise_ece"]

    def worst(score: str) -> pd.DataFrame:
        up = score in HIGHER_IS_BETTER
        return users.sort_values(score, ascending=up, kind="stable").head(count)

    line = {score: float(worst(score)[score].mean()) for score in scores}
    chosen = worst("nll")
    names = {"group": "worst users", "name": ", ".join(chosen["name"])}
    return pd.DataFrame([{**names, "rows": int(chosen["rows"].sum()), **line}])
