"""Scores of very many people from tables of results, one table at a time: `summary`.

`as_score_table` brings them into the shape of `bayesfs.metrics.score_table.score_table`, which a
report shows. Memory goes with the people's sums of scores, never with their predictions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesfs._utils.arrays import Floats
from bayesfs._utils.json_files import read_json
from bayesfs.errors import DataError
from bayesfs.metrics.bootstrap import Statistic, bootstrap_interval, interval_note, too_few
from bayesfs.metrics.calibration import BINS, equal_width_bins
from bayesfs.metrics.score_table import BOUNDS, worst_users
from bayesfs.results.tables import ADDITIVE_SCORES, read_tables
from bayesfs.types import user_of

Summary = Mapping[str, Mapping[str, float]]
"""Unit -> name of a figure -> its value."""

UNITS = ("video", "frame")

SHOWN = (*ADDITIVE_SCORES, "ece")
"""Scores of a summary; the last one is pooled only, as a person has too few rows for it."""

LEVEL = 0.95

RESAMPLES = 400
"""Weightings of the people behind an interval."""

FEW = 2000
"""People up to whom all sums are kept, for intervals that allow for few and skewed people."""


def summary(results: Path, shots: int, *, seed: int = 0) -> dict[str, dict[str, float]]:
    """Scores over all people at one number of support videos.

    Up to `FEW` people have the intervals of `bootstrap_interval`. Those of more people are
    percentiles of a bootstrap with a Poisson(1) weight for each person, which, unlike drawing
    people with replacement, can be added up table by table; with so many the two are the same.

    Args:
        results: Zarr store of results.
        shots: support videos per object.
        seed: of the bootstrap.

    Returns:
        Unit ("video", "frame") -> {"accuracy", "accuracy_low", "accuracy_high" (all rows pooled,
        and the ends of the 95 % interval), "accuracy_users" (mean over people),
        "accuracy_worst" (mean over the worst tenth of them), ...; "ece", "ece_low", "ece_high";
        "users"}. Ends are nan where there are too few people for an interval.

    Raises:
        DataError: there is no table, one is damaged, or no query is labelled.

    Source:
        Chamandy, Muralidharan, Najmi and Naidu (2012), Estimating uncertainty for massive data
        streams, section 3.
    """
    total, again, each, people_seen = np.zeros(1), np.zeros(1), [], 0
    whole: list[Floats] = []
    for number, table in enumerate(read_tables(results, shots)):
        try:
            sums = user_sums(table)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise DataError(f"{results}: table {number} does not hold results ({error})") from error
        weights = np.random.default_rng((seed, number)).poisson(1.0, (RESAMPLES, len(sums)))
        total = total + sums.sum(0)
        again = again + np.tensordot(weights.astype(float), sums, 1)
        each.append(sums[..., : len(ADDITIVE_SCORES) + 1])
        people_seen += len(sums)
        whole = [*whole, sums] if people_seen <= FEW else []
    if not each:
        raise DataError(f"{results}: holds no results at {shots} support videos")
    people = np.concatenate(each)
    if not people[:, 0, -1].any():
        raise DataError(f"{results}: no query video is labelled, so that nothing can be scored")
    ends = [_percentiles(again[:, k]) for k in range(len(UNITS))]
    if people_seen <= FEW:
        kept = np.concatenate(whole)
        ends = [_few_people(kept[:, k], seed) for k in range(len(UNITS))]
    return {unit: _of_unit(total[k], ends[k], people[:, k]) for k, unit in enumerate(UNITS)}


def user_sums(table: xr.Dataset) -> Floats:
    """What scores are made of, summed over each person's labelled rows.

    Returns:
        (user, unit, column): sums of `ADDITIVE_SCORES`, number of rows, and for each of `BINS` bins
        of the largest probability the sum of (probability - right).
    """
    names = [user_of(str(task)) for task in table["task"].values]
    user = np.unique(names, return_inverse=True)[1]
    first = len(ADDITIVE_SCORES) + 1
    sums = np.zeros((user.max(initial=-1) + 1, len(UNITS), first + BINS))
    np.add.at(sums[..., :first], user, table["scored"].values)
    video = {"task": table["video_task"].values, "label": table["video_label"].values}
    at_frame = table["frame_video"].values
    frame = {name: values[at_frame] for name, values in video.items()}
    for place, rows in enumerate((video, frame)):
        known = rows["label"] >= 0
        prob = table[f"{UNITS[place]}_prob"].values[known].astype(float)
        confidence = prob.max(1)
        gap = confidence - (prob.argmax(1) == rows["label"][known])
        columns = first + equal_width_bins(confidence)
        np.add.at(sums[:, place], (user[rows["task"][known]], columns), gap)
    return sums


def as_score_table(found: Summary) -> xr.Dataset:
    """A summary over (item, score), as `bayesfs.metrics.score_table.score_table` has it.

    Args:
        found: from `summary`.
    """
    suffixes = {"estimate": "", "low": "_low", "high": "_high"}
    suffixes |= {"user_mean": "_users", "worst": "_worst"}
    data = {
        name: [[found[unit].get(f"{s}{suffix}", math.nan) for s in SHOWN] for unit in UNITS]
        for name, suffix in suffixes.items()
    }
    people = int(found["video"]["users"])
    attrs = {"unit": "user", "units": people, "level": LEVEL, "draws": RESAMPLES}
    return xr.Dataset(
        {name: (("item", "score"), values) for name, values in data.items()},
        {"item": list(UNITS), "score": list(SHOWN)},
        {
            **attrs,
            "interval_reason": too_few(people, LEVEL),
            "interval_note": interval_note(people, LEVEL),
        },
    )


def save_summary(found: Mapping[int, Summary], path: Path) -> None:
    """Write summaries, by number of support videos, as JSON; null for what is not known."""
    plain = {
        str(shots): {unit: {k: _none(v) for k, v in values.items()} for unit, values in one.items()}
        for shots, one in found.items()
    }
    path.write_text(json.dumps(plain, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def load_summary(path: Path) -> dict[int, dict[str, dict[str, float]]]:
    """Number of support videos -> summary, as `save_summary` wrote it.

    Raises:
        DataError: the file is not that.
    """
    with read_json(path) as found:
        return {
            int(shots): {
                unit: {str(k): math.nan if v is None else float(v) for k, v in one[unit].items()}
                for unit in UNITS
            }
            for shots, one in found.items()
        }


def _none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _percentiles(again: Floats) -> Floats:
    """(2, score) ends of intervals from sums (weighting, column)."""
    some = again[again[:, len(ADDITIVE_SCORES)] > 0]
    if not len(some):
        return np.full((2, len(SHOWN)), math.nan)
    return np.quantile(_scores(some), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)


def _few_people(sums: Floats, seed: int) -> Floats:
    """(2, score) ends of intervals from sums (person, column) of few people."""
    sums = sums[sums[:, len(ADDITIVE_SCORES)] > 0]
    intervals = [
        bootstrap_interval(
            _score_of(sums, place), len(sums), level=LEVEL, seed=seed, bounds=BOUNDS[score]
        )
        for place, score in enumerate(SHOWN)
        if len(sums)
    ]
    ends = [[i.low for i in intervals], [i.high for i in intervals]]
    return np.asarray(ends) if intervals else np.full((2, len(SHOWN)), math.nan)


def _score_of(sums: Floats, place: int) -> Statistic:
    """One of `SHOWN` as a function of the people's weights."""
    return lambda weights: _scores(weights @ sums)[..., place]


def _of_unit(total: Floats, ends: Floats, people: Floats) -> dict[str, float]:
    """Figures of one unit from sums over everybody, ends of intervals, and sums of each person."""
    people = people[people[:, -1] > 0]
    each = people[:, :-1] / people[:, -1:]
    if too_few(len(people), LEVEL):
        ends = np.full((2, len(SHOWN)), math.nan)
    found = {"users": float(len(people))}
    pooled = _scores(total)
    for place, score in enumerate(SHOWN):
        found[score] = float(pooled[place])
        found |= {f"{score}_low": float(ends[0, place]), f"{score}_high": float(ends[1, place])}
    worst, _ = worst_users(
        pd.DataFrame(each, columns=list(ADDITIVE_SCORES)), scores=ADDITIVE_SCORES
    )
    for place, score in enumerate(ADDITIVE_SCORES):
        found[f"{score}_users"] = float(each[:, place].mean())
        found[f"{score}_worst"] = worst[place]
    return found


def _scores(sums: Any) -> Floats:
    """(..., score) `SHOWN` from (..., column) sums; nan where there is no labelled row."""
    count = len(ADDITIVE_SCORES)
    gaps = np.abs(sums[..., count + 1 :]).sum(-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.asarray(
            np.concatenate([sums[..., :count], gaps], -1) / sums[..., count : count + 1]
        )
