"""Prediction sets of calibrated probabilities: `credible_set`, `average_sets`, `open_set`.

`set_threshold` needs no calibration but other people's answers (see `bayesfs.decisions.rules`).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bayesfs._utils.arrays import Floats
from bayesfs.decisions.queries import Judged
from bayesfs.errors import DataError
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


def credible_set(prob: Floats, level: float) -> NDArray[np.bool_]:
    """(..., way) the smallest set of classes with probability of at least `level`."""
    order = np.argsort(-prob, axis=-1, kind="stable")
    ranked = np.take_along_axis(prob, order, -1)
    inside = ranked.cumsum(-1) - ranked < level - SLACK
    found = np.zeros(prob.shape, bool)
    np.put_along_axis(found, order, inside & (ranked > 0), -1)
    return found


def average_sets(prob: Floats, level: float) -> NDArray[np.bool_]:
    """(video, way) the smallest sets of videos asked together that hold `level` on average.

    Of all sets C_v with at least one class each, those that minimise

        sum_v |C_v|    subject to    (1 / V) sum_v sum_{k in C_v} p_vk >= level:

    the likeliest class of every video, then the likeliest of all that are left, until the mean is
    reached. If the probabilities are calibrated, the share of the V videos whose class is in its
    set is `level` or more on average. A credible set promises that of each video by itself, and is
    larger than it says in two ways: its last class carries it past `level`, and a video that is
    well recognised has more than it needs. These sets spend both on the others. The price is that a
    video of which little is known may have a set that holds less than `level` of its probability.
    One video alone has its credible set; which videos are asked together changes the answer.

    Args:
        prob: (video, way) p(y | x, D); 0 for padded classes.
        level: share of the videos whose class should be in their set.

    Source: Sadinle, Lei and Wasserman (2019), JASA 114, theorem 1, for the one threshold of the
    smallest sets; here it follows from the probabilities in place of labelled examples.
    """
    sets = np.zeros(prob.shape, bool)
    sets[np.arange(len(prob)), prob.argmax(1)] = True
    rest = np.where(sets, 0.0, prob).ravel()
    order = np.argsort(-rest, kind="stable")
    before = prob[sets].sum() + rest[order].cumsum() - rest[order]
    wanted = (before < level * len(prob) - SLACK) & (rest[order] > 0)
    sets.ravel()[order[wanted]] = True
    return sets


def open_set(
    prob: Floats, typical: Floats, *, level: float = 0.9, rejected: float = 0.05
) -> NDArray[np.bool_]:
    """(..., way) prediction set that is empty where nothing taught seems to be shown.

    The allowance 1 - level is shared: a share `rejected` of taught queries may be taken for
    something new, and of the others the credible set at level / (1 - rejected) holds the class.
    If the p-values are uniform for taught queries and the probabilities calibrated, the set holds
    the class of a taught query with probability `level`, also where nearly all are recognised and
    a set that is never empty would hold it nearly always.

    Args:
        prob: (..., way) p(y | x, D); 0 for padded classes.
        typical: (...) p-value of being like what was taught.
        level: share of taught queries whose class should be in their set.
        rejected: share of taught queries that may be called new.

    Raises:
        DataError: a share is not between 0 and 1, or they cannot both hold.
    """
    if not 0.0 < rejected < 1.0 - level < 1.0:
        raise DataError(f"expected 0 < rejected < 1 - level < 1, got {rejected} and level {level}")
    sets = credible_set(prob, level / (1.0 - rejected))
    return np.asarray(sets & (typical > rejected)[..., None])
