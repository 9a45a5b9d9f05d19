"""Predictions as tables with one row per scored frame or video: start with `frame_rows`.

Everything in `bayesfs.metrics.score_table` is a function of such tables. They are small beside
the predictions, so many batches can be scored one by one and joined with `pandas.concat`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesfs._utils.arrays import numpy_of
from bayesfs.errors import ShapeError
from bayesfs.metrics.scores import brier_items, nll_items, top_label
from bayesfs.types import UNLABELLED

if TYPE_CHECKING:
    from bayesfs.types import EpisodeBatch, Predictive

KEYS = ("task", "video", "frame")
"""Columns that name a row, so that two methods can be compared on the same frames."""


def frame_rows(predictive: Predictive, episodes: EpisodeBatch) -> pd.DataFrame:
    """One row per query frame of a labelled video; a frame has the label of its video.

    Args:
        predictive: predictive of the episodes' queries.
        episodes: T tasks.

    Returns:
        Columns `user`, `task`, `object` ("user/class"), `video`, `frame` (place of the frame in
        its video), `label`, `prediction`, `confidence`, `correct`, `nll` (nats), `brier`, `way`.

    Raises:
        ShapeError: predictive and episodes have different axes, no query is labelled, or a
            prediction is not normalised.
    """
    log_prob = numpy_of(predictive.frame.log_prob)
    mask = numpy_of(episodes.query_mask)
    if log_prob.shape != (*mask.shape, episodes.way):
        raise ShapeError(
            f"expected predictions (task, video, frame, way) {(*mask.shape, episodes.way)}, got "
            f"{log_prob.shape}; is this the predictive of these episodes?"
        )
    known = numpy_of(episodes.query_labels) != UNLABELLED
    task, video, frame = np.nonzero(mask & known[:, :, None])
    return _rows(log_prob[task, video, frame], episodes, task, video, frame)


def video_rows(predictive: Predictive, episodes: EpisodeBatch) -> pd.DataFrame:
    """One row per labelled query video, from the joint predictive of its frames.

    Columns and errors as in `frame_rows`; `frame` is 0.
    """
    log_prob = numpy_of(predictive.video.log_prob)
    mask = numpy_of(episodes.video_mask)
    if log_prob.shape != (*mask.shape, episodes.way):
        raise ShapeError(
            f"expected predictions (task, video, way) {(*mask.shape, episodes.way)}, got "
            f"{log_prob.shape}; is this the predictive of these episodes?"
        )
    task, video = np.nonzero(mask & (numpy_of(episodes.query_labels) != UNLABELLED))
    return _rows(log_prob[task, video], episodes, task, video, np.zeros_like(task))


def _rows(
    log_prob: NDArray[Any],  # (row, way)
    episodes: EpisodeBatch,
    task: NDArray[np.int64],
    video: NDArray[np.int64],
    frame: NDArray[np.int64],
) -> pd.DataFrame:
    labels = numpy_of(episodes.query_labels)[task, video]
    tasks = [episodes.task_name(t) for t in range(len(episodes))]
    users = list(episodes.users)
    names = pd.DataFrame(
        {
            "user": _named(users, task),
            "task": _named(tasks, task),
            "object": _object_names(episodes, users, task, labels),
            "video": _video_names(episodes, tasks, task, video),
            "frame": frame,
        }
    )
    return scored_rows(names, log_prob, labels, numpy_of(episodes.way_mask.sum(-1))[task])


def scored_rows(
    names: pd.DataFrame, log_prob: NDArray[Any], labels: NDArray[Any], way: NDArray[Any]
) -> pd.DataFrame:
    """Rows that are named already, with what every score is made of.

    Args:
        names: one row per item, columns `user`, `task`, `object`, `video`, `frame`.
        log_prob: (item, way) log-probabilities, -inf for padded classes.
        labels: (item,) classes; every item has one.
        way: (item,) number of classes.

    Returns:
        The names, and the further columns of `frame_rows`.

    Raises:
        ShapeError: a prediction is not normalised, or a label is no class.
    """
    confidence, correct = top_label(log_prob, labels)
    return names.assign(
        label=labels,
        prediction=log_prob.argmax(1),
        confidence=confidence,
        correct=correct,
        nll=nll_items(log_prob, labels),
        brier=brier_items(log_prob, labels),
        way=way,
    )


def _named(names: Sequence[str], index: NDArray[np.int64]) -> NDArray[Any]:
    return np.asarray(names, dtype=object)[index]


def _object_names(
    episodes: EpisodeBatch, users: Sequence[str], task: NDArray[np.int64], label: NDArray[np.int64]
) -> NDArray[Any]:
    """("user/class") of each row; the class's number within its task where classes are unnamed."""
    table = np.empty((len(episodes), episodes.way), dtype=object)
    for t, user in enumerate(users):
        names = episodes.classes[t] if episodes.classes else ()
        for k in range(episodes.way):
            table[t, k] = f"{user}/{names[k] if k < len(names) else k}"
    return np.asarray(table[task, label])


def _video_names(
    episodes: EpisodeBatch, tasks: Sequence[str], task: NDArray[np.int64], video: NDArray[np.int64]
) -> NDArray[Any]:
    """Name of each row's video; "task/number" where videos are unnamed."""
    table = np.empty(episodes.query_labels.shape, dtype=object)
    for t, name in enumerate(tasks):
        names = episodes.videos[t] if episodes.videos else ()
        for v in range(table.shape[1]):
            table[t, v] = names[v] if v < len(names) else f"{name}/{v}"
    return np.asarray(table[task, video])
