"""A finished run's DataTree as tables with one row per scored frame or video: `tree_rows`.

The same tables as `bayesfs.metrics.items` makes of a predictive, so that everything that scores
or compares predictions works on runs that were saved, too.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesfs._utils.arrays import Floats
from bayesfs.errors import DataError
from bayesfs.metrics.items import scored_rows
from bayesfs.types import user_of

Item = Literal["frame", "video"]
ITEMS: tuple[Item, ...] = ("frame", "video")


def tree_rows(tree: xr.DataTree) -> dict[Item, pd.DataFrame]:
    """Rows of the labelled query frames and videos of a run.

    Args:
        tree: from `bayesfs.results.assemble.assemble_tree`.

    Returns:
        {"frame": ..., "video": ...} with the columns of `bayesfs.metrics.items.frame_rows`.

    Raises:
        DataError: no query video is labelled.
    """
    return {item: labelled_items(tree, item)[1] for item in ITEMS}


def labelled_items(
    tree: xr.DataTree, item: Item, group: str = "uncertainty"
) -> tuple[Floats, pd.DataFrame]:
    """Log-probabilities (item, way) of the labelled items of a run, and their rows.

    Args:
        tree: a run's.
        item: "frame" or "video".
        group: whose probabilities: the model's, or those of "baseline".

    Raises:
        DataError: no query video is labelled.
    """
    label = tree["observed_data"].to_dataset()["label"].to_numpy()
    prob = tree[group].to_dataset()[f"{item}_prob"].to_numpy().astype(np.float64)
    prob = prob if item == "frame" else prob[:, :, None]
    known = ~np.isnan(label)[:, :, None] & ~np.isnan(prob).all(-1)
    if not known.any():
        raise DataError("expected labelled query videos to score, got none")
    task, video, frame = np.nonzero(known)
    with np.errstate(divide="ignore"):
        log_prob = np.log(np.nan_to_num(prob[known]))
    labels = label[task, video].astype(np.int64)
    names, way = _names(tree, task, video, labels)
    return log_prob, scored_rows(names.assign(frame=frame), log_prob, labels, way)


def _names(
    tree: xr.DataTree,
    task: NDArray[np.int64],
    video: NDArray[np.int64],
    labels: NDArray[np.int64],
) -> tuple[pd.DataFrame, NDArray[Any]]:
    """Names of each row, and the number of classes of its task."""
    constant = tree["constant_data"].to_dataset()
    tasks, classes = constant["task"].to_numpy(), constant["class_name"].to_numpy()
    users = np.array([user_of(str(name)) for name in tasks], dtype=object)
    named = users + "/" + classes.astype(object).T
    columns = {
        "user": users[task],
        "task": tasks.astype(object)[task],
        "object": named.T[task, labels],
        "video": constant["video_name"].to_numpy().astype(object)[task, video],
    }
    return pd.DataFrame(columns), (classes != "").sum(-1)[task]
