"""Labelled queries that rules are learnt from and checked on: `judged`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from bayesfs._utils.arrays import Floats
from bayesfs.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from bayesfs.types import EpisodeBatch, Predictive

Unit = Literal["frame", "video"]

UNREACHABLE = 2.0
"""A threshold that no probability reaches."""


@dataclass(frozen=True, eq=False)
class Judged:
    """Labelled queries with what was said of them; one row a query.

    Attributes:
        user: (query,) whose it is.
        prob: (query, way) p(y | x, D); 0 for padded classes.
        label: (query,) true class.
        absent: (query,) probability that nothing taught is shown; NaN where it is not known.
    """

    user: NDArray[np.str_]
    prob: Floats
    label: NDArray[np.int64]
    absent: Floats

    def of(self, keep: NDArray[np.bool_]) -> Judged:
        """Some of the queries."""
        return Judged(self.user[keep], self.prob[keep], self.label[keep], self.absent[keep])


def judged(
    predictive: Predictive,
    episodes: EpisodeBatch,
    unit: Unit,
    absent: Tensor | None = None,
) -> Judged:
    """The labelled queries of tasks.

    Args:
        predictive: of the query of `episodes`.
        episodes: T tasks.
        unit: which queries; a frame has the label of its video.
        absent: (task, video) probability that a video shows nothing taught; frames take theirs
            from the predictive.

    Raises:
        DataError: no query is labelled.
    """
    mask = episodes.query_mask if unit == "frame" else episodes.video_mask
    label = episodes.query_labels
    if unit == "frame":
        label, absent = label[..., None].expand(mask.shape), predictive.absent
    keep = (mask & (label >= 0)).cpu().numpy()
    if not keep.any():
        raise DataError("expected labelled queries to learn rules from, got none")
    users = np.array(episodes.users).reshape(-1, *[1] * (keep.ndim - 1))
    values = getattr(predictive, unit).prob
    unknown = np.full(keep.shape, math.nan)
    return Judged(
        np.broadcast_to(users, keep.shape)[keep],
        values.detach().cpu().numpy().astype(np.float64)[keep],
        label.cpu().numpy()[keep],
        (unknown if absent is None else absent.detach().cpu().numpy().astype(np.float64))[keep],
    )


def user_weights(user: NDArray[np.str_]) -> Floats:
    """(query,) weights of mean 1 in which every user counts alike."""
    _, place, count = np.unique(user, return_inverse=True, return_counts=True)
    return np.asarray(len(user) / (len(count) * count[place]), np.float64)
