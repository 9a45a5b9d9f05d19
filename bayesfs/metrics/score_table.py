"""Scores of a predictive with user-level bootstrap intervals: start with `score_table`.

The user is the unit: all tasks, videos and frames of a user are resampled together, because they
are dependent. `table_of_rows` does the same for rows collected over many batches, and
`group_intervals` gives every user (object, task) its own line with its own interval.
`bayesfs.metrics.paired` compares two methods on the same frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesfs.errors import ShapeError
from bayesfs.metrics.bootstrap import (
    Statistic,
    aurc_statistic,
    bootstrap_interval,
    calibration_statistics,
    interval_note,
    mean_statistic,
    too_few,
)
from bayesfs.metrics.items import frame_rows, video_rows
from bayesfs.types import LevelNames, refuse_missing

if TYPE_CHECKING:
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


def difference_bounds(score: str) -> tuple[float, float]:
    """Range of the difference of one score between two methods."""
    low, high = BOUNDS[score]
    return low - high, high - low


def statistics(rows: pd.DataFrame, unit: str = "user") -> tuple[dict[str, Statistic], list[str]]:
    """Every score of `SCORES` as a function of the weights of the units.

    Args:
        rows: table made by `bayesfs.metrics.items.frame_rows` or `video_rows`.
        unit: column whose values are resampled, such as "user", "task" or "video".

    Returns:
        Score -> statistic, and the names of the units in the order of the weights.

    Raises:
        DataError: a row has no unit, which would be counted with another's.
    """
    refuse_missing(rows[unit], unit)
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
        were, why intervals are nan where they are, and that they cover less where they may.

    Raises:
        ShapeError: no query is labelled, or predictive and episodes disagree.
    """
    rows = {"frame": frame_rows(predictive, episodes), "video": video_rows(predictive, episodes)}
    return table_of_rows(
        rows,
        unit=unit,
        draws=draws,
        level=level,
        worst=worst,
        seed=seed,
        levels=episodes.levels,
    )


def table_of_rows(
    rows: Mapping[str, pd.DataFrame],
    *,
    unit: str = "user",
    draws: int = 2000,
    level: float = 0.95,
    worst: float = 0.1,
    seed: int = 0,
    levels: LevelNames | None = None,
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
        "interval_note": interval_note(units, level),
        "levels": (levels or LevelNames()).to_json(),
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
    refuse_missing(rows[by], by)
    lines = {}
    for name, part in rows.groupby(by, sort=True):
        found, names = statistics(part, unit)
        everything = np.ones((1, len(names)))
        line = {score: float(found[score](everything)[0]) for score in SCORES}
        lines[name] = line | {"rows": len(part), "units": len(names)}
    table = pd.DataFrame.from_dict(lines, orient="index")
    table.index.name = by
    return table


def worst_users(
    users: pd.DataFrame,
    share: float = 0.1,
    scores: Sequence[str] = SCORES,
    higher_is_better: Sequence[str] = ("accuracy",),
) -> tuple[list[float], NDArray[Any]]:
    """Mean over the worst ceil(share n) users by each score, and who they are.

    The worst are chosen by the score that is shown, so part of it is bad luck: users with few
    videos are found here more often than they deserve. Of equals the one with the larger NLL is
    worse.

    Args:
        users: scores of each user, such as `group_scores(rows, "user")`.
        share: of the users, in (0, 1].
        scores: columns to look at.
        higher_is_better: of these, the worst users have the lowest values.

    Returns:
        Mean of each score over its worst users, and (score, rank) their names, the worst first.

    Raises:
        ShapeError: share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ShapeError(f"expected a share of users in (0, 1], got {share}")
    count = int(np.ceil(round(share * len(users), 6)))
    ranked = users.sort_values("nll", ascending=False, kind="stable") if "nll" in users else users
    means, names = [], []
    for score in scores:
        up = score in higher_is_better
        chosen = ranked[score].sort_values(ascending=up, kind="stable")[:count]
        means.append(float(chosen.mean()))
        names.append([str(name) for name in chosen.index])
    return means, np.asarray(names, dtype=str)
