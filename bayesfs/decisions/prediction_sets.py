"""Prediction sets that hold for new users: `set_threshold`; see `bayesfs.decisions.rules`."""

from __future__ import annotations

import math

import numpy as np

from bayesfs.decisions.queries import Judged
from bayesfs.metrics.selective import SLACK


def rank_of(users: int, share: float) -> int:
    """Which of the users' thresholds, most lenient last, holds for such a share of new users."""
    return min(math.ceil((users + 1) * share - SLACK), users)


def set_threshold(queries: Judged, level: float, share: float) -> float:
    """Least probability of a class in the set; see the module."""
    true = queries.prob[np.arange(len(queries.label)), queries.label]
    own = []
    for user in np.unique(queries.user):
        p = np.sort(true[queries.user == user])[::-1]
        own.append(p[math.ceil(level * len(p) - SLACK) - 1])
    return float(np.sort(own)[::-1][rank_of(len(own), share) - 1])
