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

from bayesfs._utils.arrays import Floats, Ints
from bayesfs.metrics.calibration import (
    classwise_ece,
    debiased_ece,
    ece,
    mce,
    squared_calibration_error,
)
from bayesfs.metrics.kernel_calibration import skce
from bayesfs.metrics.score_table import worst_users
from bayesfs.metrics.scores import accuracy, brier, nll
from bayesfs.metrics.selective import accuracy_at_coverage, aurc, e_aurc, set_coverage
from bayesfs.results.rows import ITEMS, Item, labelled_items

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
    "squared_ace": lambda p, y, g: squared_calibration_error(p, y, groups=g),
    "mce": lambda p, y, g: mce(p, y),
    "skce": lambda p, y, g: skce(p, y, groups=g),
    "aurc": lambda p, y, g: aurc(p, y),
    "e_aurc": lambda p, y, g: e_aurc(p, y),
    "accuracy_at_80": lambda p, y, g: accuracy_at_coverage(p, y, 0.8),
    "set_coverage_90": lambda p, y, g: set_coverage(p, y, SET_LEVEL)[0],
    "set_size_90": lambda p, y, g: set_coverage(p, y, SET_LEVEL)[1],
}
"""Score -> function of log-probabilities, labels and the video of each item."""

WORDS: Mapping[str, str] = {
    "accuracy": "share named right",
    "nll": "−log probability of the truth, nats",
    "brier": "squared error of the probabilities, 0 to 2",
    "ece": "mean gap of confidence and accuracy, 15 equal bins",
    "debiased_ece": "the same, less a part of what chance adds",
    "squared_ace": "squared gap in bins of equal mass, less chance between videos; can be below 0",
    "mce": "largest gap of a bin",
    "classwise_ece": "mean gap of each object's probability, within tasks",
    "skce": "squared kernel calibration error, no bins; can be below 0",
    "aurc": "mean share of errors among the surest, over all shares",
    "e_aurc": "the same, less that of a perfect ranking",
    "accuracy_at_80": "share named right of the surest 80 %",
    "set_coverage_90": "share of 90 % sets that hold the truth",
    "set_size_90": "mean number of objects in such a set",
}
"""Every score of a sheet, in order -> what it is."""


def score_sheet(
    tree: xr.DataTree,
    *,
    worst: float = 0.1,
    groups: Sequence[str] = GROUPS,
    items: Sequence[Item] = ITEMS,
) -> pd.DataFrame:
    """All scores of a run's frames and videos, by group.

    Args:
        tree: a run's.
        worst: share of the users (at least one) that the group "worst users" is the mean over,
            chosen score by score.
        groups: out of `GROUPS`, with "user" among them.
        items: "frame", "video" or both.

    Returns:
        One row per item ("frame", "video") and group: `item`, `group` (out of `GROUPS`, or "worst
        users"), `name`, `rows`, the scores of `SHEET` and `classwise_ece` (within each task, as a
        class means something there only; the mean over tasks). Frames of a video count as
        dependent in the scores that allow for it.

    Raises:
        DataError: no query video is labelled.
    """
    parts = []
    for item in items:
        log_prob, rows = labelled_items(tree, item)
        tables = [_by_group(log_prob, rows, group) for group in groups]
        tables.append(_worst(tables[groups.index("user")], worst))
        table = pd.concat(tables, ignore_index=True)
        table.insert(0, "item", item)
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def _by_group(log_prob: Floats, rows: pd.DataFrame, group: str) -> pd.DataFrame:
    key = np.zeros(len(rows), dtype=int) if group == "all" else rows[group]
    lines = []
    for name, places in rows.groupby(key, sort=True).indices.items():
        line = all_scores(log_prob[places], rows.iloc[places])
        shown = "" if group == "all" else str(name)
        lines.append({"group": group, "name": shown, "rows": len(places), **line})
    return pd.DataFrame(lines)


def all_scores(log_prob: Floats, rows: pd.DataFrame) -> dict[str, float]:
    """Every score of some items.

    Args:
        log_prob: (item, way).
        rows: their rows, with `label`, `task` and `video`.
    """
    labels, videos = rows["label"].to_numpy(), rows["video"].to_numpy(str)
    found = {name: score(log_prob, labels, videos) for name, score in SHEET.items()}
    tasks = rows["task"].to_numpy()
    by_task = [tasks == name for name in dict.fromkeys(tasks.tolist())]
    found["classwise_ece"] = float(
        np.mean([classwise_ece(log_prob[i], labels[i]) for i in by_task])
    )
    return found


def _worst(users: pd.DataFrame, share: float) -> pd.DataFrame:
    """Mean over the worst users by each score, and the names of those by NLL."""
    named = users.set_index("name")
    means, who = worst_users(named, share, tuple(WORDS), HIGHER_IS_BETTER)
    chosen = who[tuple(WORDS).index("nll")].tolist()
    about = {"group": "worst users", "name": ", ".join(chosen)}
    rows = int(named["rows"][chosen].sum())
    return pd.DataFrame([{**about, "rows": rows, **dict(zip(WORDS, means, strict=True))}])
