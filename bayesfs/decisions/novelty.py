"""Novelty, when to say that nothing taught is shown: `absent_threshold`.

See `bayesfs.decisions.rules`.
"""

from __future__ import annotations

import numpy as np

from bayesfs.decisions.queries import UNREACHABLE, Judged, user_weights
from bayesfs.metrics.selective import SLACK


def absent_threshold(queries: Judged, rejected: float) -> float:
    """Probability of nothing taught above which that is said, or `UNREACHABLE`."""
    known = np.isfinite(queries.absent)
    if not known.any():
        return UNREACHABLE
    value, weight = queries.absent[known], user_weights(queries.user[known])
    order = np.argsort(-value, kind="stable")
    above = weight[order].cumsum() - weight[order]  # turned away by a threshold at this value
    good = np.flatnonzero(above + 1 <= rejected * (weight.sum() + 1) + SLACK)
    return float(value[order][good[-1]]) if len(good) else UNREACHABLE
