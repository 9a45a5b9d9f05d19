"""Abstention, when to name one class alone: `answer_threshold`; see `bayesfs.decisions.rules`."""

from __future__ import annotations

import numpy as np

from bayesfs.decisions.queries import UNREACHABLE, Judged, user_weights
from bayesfs.metrics.selective import SLACK


def answer_threshold(queries: Judged, risk: float) -> float:
    """Least probability at which the likeliest class is named alone, or `UNREACHABLE`."""
    top = queries.prob.max(-1)
    wrong = queries.prob.argmax(-1) != queries.label
    weight = user_weights(queries.user)
    order = np.argsort(-top, kind="stable")
    ends = np.append(np.diff(top[order]) < 0, True)  # a threshold takes all queries of its value
    answered, errors = weight[order].cumsum(), (weight * wrong)[order].cumsum()
    good = np.flatnonzero(ends & ((errors + 1) / (answered + 1) <= risk + SLACK))
    return float(top[order][good[-1]]) if len(good) else UNREACHABLE
