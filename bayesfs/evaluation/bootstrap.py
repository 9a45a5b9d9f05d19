"""Scores of a predictive with user-level bootstrap intervals: start with `score_table`.

The user is the unit: all tasks, videos and frames of a user are resampled together, because they
are dependent. `table_of_rows` does the same for rows collected over many batches,
`group_intervals` gives every user (object, task) its own line, and `paired_difference` compares
two methods on the same frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesfs.errors import ShapeError
from bayesfs.evaluation.items import KEYS, frame_rows, video_rows
from bayesfs.evaluation.resampling import (
    Interval,
    Statistic,
    aurc_statistic,
    bootstrap_interval,
    calibration_statistics,
    difference,
    mean_statistic,
    too_few,
)
from bayesfs.types import EpisodeBatch, Predictive

SCORES = ("accuracy", "nll", "brier", "ece", "mce", "squared_ce", "aurc")
"""Columns of every table; of these only accuracy is better when higher."""

BOUNDS = {
    "accuracy": (0.0, 1.0),
    "nll": (0.0, np.inf),
    "brier": (0.0, 2.0),
    "ece": (0.0, 1.0),
    "mce": (0.0, 1.0),
    "squared_ce": (-1.0, 1.0),
    "aurc": (0.0, 1.0),
}
"""Range of every score."""

ITEM_SCORES = {"accuracy": "correct", "nll": "nll", "brier": "brier"}
"""Scores that are means over rows, and the column that holds them."""


def statistics(rows: pd.DataFrame, unit: str = "user") -> tuple[dict[str, Statistic], list[str]]:
    """Every score of `SCORES` as a function of the weights of the units.

    Args:
        rows: table made by `bayesfs.evaluation.items.frame_rows` or `video_rows`.
        unit: column whose values are resampled, such as "user", "task" or "video".

    Returns:
        Score -> statistic, and the names of the units in the order of the weights.
    """
    index, names = pd.factorize(rows[unit], sort=True)
    index, units = index.astype(np.int64), len(names)
    confidence, correct = rows["confidence"].to_numpy(), rows["correct"].to_numpy()
    found = {
        score: mean_statistic(rows[column].to_numpy(), index, units)
        for score, column in ITEM_SCORES.items()
    }
    found |= calibration_statistics(confidence, correct, index, units)
    found["aurc"] = aurc_statistic(confidence, correct, index, units)
    return found, [str(name) for name in names]


def score_table(
    predictive: Predictive,
    episodes: EpisodeBatch,
    *,
    unit: str = "user",
    draws: int = 2000,
    level: float = 0.95,
    worst: float = 0.1,
    seed: int = 0,
) -> xr.Dataset:
    """Score frames and videos, with an interval over users, the worst users and tables by group.

    Args:
        predictive: predictive of the episodes' queries.
        episodes: T tasks; queries labelled `UNLABELLED` are left out.
        unit: what is resampled: "user"; "video" describes these users only, not new ones.
        draws: number of bootstrap samples.
        level: of the intervals.
        worst: share of users whose mean score is shown as `worst` (at least one user).
        seed: of the bootstrap.

    Returns:
        Dataset over `item` ("frame", "video") and `score` (`SCORES`; nll in nats) with
        `estimate` (all rows pooled), `low`, `high`, `user_mean` (mean of the users' scores),
        `worst` (mean over the worst users by that score) and `worst_users` (their names);
        `by_user` (item, score, user), `by_object` (item, score, object), `by_video` (item,
        mean_score, video) and `rows_of_user` (item, user). Attributes say how many units there
        were, and why intervals are nan where they are.

    Raises:
        ShapeError: no query is labelled, or predictive and episodes disagree.
    """
    rows = {"frame": frame_rows(predictive, episodes), "video": video_rows(predictive, episodes)}
    return table_of_rows(rows, unit=unit, draws=draws, level=level, worst=worst, seed=seed)


def table_of_rows(
    rows: Mapping[str, pd.DataFrame],
    *,
    unit: str = "user",
    draws: int = 2000,
    level: float = 0.95,
    worst: float = 0.1,
    seed: int = 0,
) -> xr.Dataset:
    """`score_table` of rows that were collected batch by batch, as {"frame": ..., "video": ...}."""
    parts = [
        _one_item(table, unit=unit, draws=draws, level=level, worst=worst, seed=seed)
        for table in rows.values()
    ]
    joined: xr.Dataset = xr.concat(parts, dim=pd.Index(list(rows), name="item"))
    units = next(iter(rows.values()))[unit].nunique()
    joined.attrs = {
        "unit": unit,
        "units": units,
        "level": level,
        "draws": draws,
        "seed": seed,
        "worst_share": worst,
        "interval_reason": too_few(units, level),
    }
    return joined


def _one_item(
    rows: pd.DataFrame, *, unit: str, draws: int, level: float, worst: float, seed: int
) -> xr.Dataset:
    found, names = statistics(rows, unit)
    intervals = [
        bootstrap_interval(
            found[s], len(names), draws=draws, level=level, seed=seed, bounds=BOUNDS[s]
        )
        for s in SCORES
    ]
    users, objects = group_scores(rows, "user"), group_scores(rows, "object")
    mean, who = worst_users(users, worst)
    videos = rows.groupby("video", sort=True)[list(ITEM_SCORES.values())].mean()
    return xr.Dataset(
        {
            "estimate": ("score", [i.estimate for i in intervals]),
            "low": ("score", [i.low for i in intervals]),
            "high": ("score", [i.high for i in intervals]),
            "user_mean": ("score", users[list(SCORES)].mean().to_numpy()),
            "worst": ("score", mean),
            "worst_users": (("score", "rank"), who),
            "by_user": (("user", "score"), users[list(SCORES)].to_numpy()),
            "by_object": (("object", "score"), objects[list(SCORES)].to_numpy()),
            "by_video": (("video", "mean_score"), videos.to_numpy()),
            "rows_of_user": ("user", users["rows"].to_numpy()),
        },
        coords={
            "score": list(SCORES),
            "user": users.index.to_numpy(str),
            "object": objects.index.to_numpy(str),
            "video": videos.index.to_numpy(str),
            "mean_score": list(ITEM_SCORES),
        },
    ).transpose("score", "mean_score", ...)


def group_scores(rows: pd.DataFrame, by: str = "user", *, unit: str = "video") -> pd.DataFrame:
    """Scores of each user, object, task or video, one row each.

    Args:
        rows: scored frames or videos.
        by: column that names the groups.
        unit: what counts as independent within a group, for `squared_ce` (nan with one unit).

    Returns:
        Columns `SCORES`, `rows` (scored items) and `units`, indexed by group in sorted order.
    """
    lines = {}
    for name, part in rows.groupby(by, sort=True):
        found, names = statistics(part, unit)
        everything = np.ones((1, len(names)))
        line = {score: float(found[score](everything)[0]) for score in SCORES}
        lines[name] = line | {"rows": len(part), "units": len(names)}
    table = pd.DataFrame.from_dict(lines, orient="index")
    table.index.name = by
    return table


def worst_users(users: pd.DataFrame, share: float = 0.1) -> tuple[list[float], NDArray[Any]]:
    """Mean over the worst ceil(share n) users by each score, and who they are.

    The worst are chosen by the score that is shown, so part of it is bad luck: users with few
    videos are found here more often than they deserve.

    Args:
        users: `group_scores(rows, "user")`.
        share: of the users, in (0, 1].

    Returns:
        Mean of each of `SCORES`, and (score, rank) names, the worst first.

    Raises:
        ShapeError: share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ShapeError(f"expected a share of users in (0, 1], got {share}")
    count = int(np.ceil(round(share * len(users), 6)))
    means, names = [], []
    for score in SCORES:
        chosen = users[score].sort_values(ascending=score == "accuracy", kind="stable")[:count]
        means.append(float(chosen.mean()))
        names.append([str(name) for name in chosen.index])
    return means, np.asarray(names, dtype=str)


def group_intervals(
    rows: pd.DataFrame,
    by: str = "user",
    *,
    unit: str = "video",
    scores: tuple[str, ...] = ("accuracy", "nll", "ece"),
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Scores of each user with intervals over that user's own videos.

    Returns:
        One row per group and score: `by`, `score`, `estimate`, `low`, `high`, `units`, `rows`,
        `reason` (why the interval is nan, or "").
    """
    lines = []
    for name, part in rows.groupby(by, sort=True):
        found, names = statistics(part, unit)
        for score in scores:
            i = bootstrap_interval(
                found[score], len(names), draws=draws, level=level, seed=seed, bounds=BOUNDS[score]
            )
            lines.append((name, score, i.estimate, i.low, i.high, i.units, len(part), i.reason))
    columns = [by, "score", "estimate", "low", "high", "units", "rows", "reason"]
    return pd.DataFrame(lines, columns=columns)


@dataclass(frozen=True)
class PairedDifference:
    """Score of a first method minus that of a second one on the same rows.

    Attributes:
        score: one of `SCORES`.
        overall: difference of the pooled scores, with its interval over units.
        by_unit: one row per unit: `first`, `second`, `difference`, `low`, `high` (over the unit's
            videos), `rows`; sorted from the unit where the first method does best.
    """

    score: str
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
    overall = _difference(a, b, score, unit, draws=draws, level=level, seed=seed)[2]
    lines = []
    for name, rows in a.groupby(unit, sort=True).indices.items():
        one, two, gap = _difference(
            a.iloc[rows], b.iloc[rows], score, within, draws=draws, level=level, seed=seed
        )
        lines.append((name, one, two, gap.estimate, gap.low, gap.high, len(rows)))
    columns = [unit, "first", "second", "difference", "low", "high", "rows"]
    table = pd.DataFrame(lines, columns=columns).set_index(unit)
    table = table.sort_values("difference", ascending=score != "accuracy", kind="stable")
    return PairedDifference(score, overall, table)


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
        difference(one[score], two[score]), len(names), draws=draws, level=level, seed=seed
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
