"""Importance weights in logs, smoothed by a Pareto tail that is fitted safely: `smoothed`.

The largest M = min(S / 5, 3 sqrt(S / r_eff)) of S weights are fitted by a generalised Pareto
distribution, whose shape k says how far the average of the weights can be trusted. The fit itself
is arviz_stats's. It works on the weights themselves, which underflow where their logs spread by
hundreds of nats, and then finds a k near zero. There k is Hill's estimate in logs,

    k = mean over the tail of (log w - log w of its start),

which is the shape of a Pareto tail, too, and far above any threshold.

Source: Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance sampling,
section 3; Hill (1975), Annals of Statistics 3, for the estimate in logs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

TAIL_NEEDS = 25
"""Draws that a tail is fitted to at least."""

WIDE = 50.0
"""Nats that a tail spans at most for its weights to be fitted as they are."""

Array = NDArray[np.float64]


def smoothed(log_weight: NDArray[Any], efficiency: float = 1.0) -> tuple[Array, float]:
    """Log weights whose logsumexp is 0, the largest smoothed, and the shape k of their tail.

    Args:
        log_weight: (draw,) up to a constant; -inf is a draw of weight zero.
        efficiency: relative efficiency r_eff of the draws.

    Returns:
        (draw,) and k: -inf where the largest weights are all alike, NaN with fewer draws than a
        tail needs, and inf where a weight is NaN or infinite, or too few are above zero.
    """
    raw = np.asarray(log_weight, np.float64)
    if np.isnan(raw).any() or not np.isfinite(raw.max(initial=-np.inf)):
        return raw, math.inf
    raw = raw - raw.max()
    raw = raw - math.log(np.exp(raw).sum())
    size = len(raw)
    if size < TAIL_NEEDS:
        return raw, math.nan
    tail = math.ceil(min(0.2 * size, 3.0 * math.sqrt(size / efficiency)))
    largest = np.sort(raw)[-tail - 1 :]
    if np.ptp(largest) < 1e-6 or largest[1] == largest[-1]:
        return raw, -math.inf
    if not np.isfinite(largest[0]):
        return raw, math.inf
    if np.ptp(largest) > WIDE:
        return raw, float((largest[1:] - largest[0]).mean())
    from arviz_stats.base import array_stats  # seconds, which a classifier at its defaults saves

    least = np.where(np.isfinite(raw), raw, largest[0] - 2.0 * WIDE)
    with np.errstate(all="ignore"):
        smooth, k = array_stats.psislw(-least, r_eff=efficiency)  # it takes log-likelihoods
    if not np.isfinite(smooth).all():
        return raw, float(k)
    return np.where(np.isfinite(raw), smooth, raw), float(k)
