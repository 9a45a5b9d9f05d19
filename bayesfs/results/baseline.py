"""The simplest classifier and chance, which every score is read against: `baseline_group` first.

The baseline is the cosine of a frame to the mean of each class's frames, in the features that the
model has, at a fixed temperature; a video's probabilities are the mean of its frames'. Nothing of
it is learnt from anybody but the person. Chance is the same probability for every taught class.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesfs._utils.arrays import Ints, numpy_of
from bayesfs.models.baselines.classifiers import Prototypes
from bayesfs.results.axes import task_labels, without_padding
from bayesfs.types import EpisodeBatch

BASELINE = Prototypes(metric="cosine", frame_temperature=0.1)
"""A temperature of .1 is near the best of most worlds at few videos (docs/models/baselines.md)."""

GROUP = "baseline"


def baseline_group(episodes: EpisodeBatch) -> xr.Dataset:
    """`video_prob` (task, video, way) and `frame_prob` (task, video, frame, way)."""
    said = BASELINE.predictive(episodes)
    frame = xr.DataArray(numpy_of(said.frame.prob), dims=("task", "video", "frame", "way"))
    video = xr.DataArray(numpy_of(said.video.prob), dims=("task", "video", "way"))
    ds = xr.Dataset({"video_prob": video, "frame_prob": frame})
    ds = ds.map(without_padding, episodes=episodes)
    return ds.assign_coords(task=task_labels(episodes))


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
