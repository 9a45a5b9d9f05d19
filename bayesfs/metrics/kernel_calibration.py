"""Kernel calibration error: is the whole probability vector calibrated, without bins? `skce`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from bayesfs.metrics.calibration import group_index
from bayesfs.metrics.scores import scored


def skce(
    log_prob: ArrayLike,
    labels: ArrayLike,
    *,
    bandwidth: float | None = None,
    groups: ArrayLike | None = None,
    max_items: int = 4000,
    seed: int = 0,
) -> float:
    """Squared kernel calibration error of the whole probability vector, unbiased.

    Mean over pairs i < j of exp(-TV(p_i, p_j) / bandwidth) (e_{y_i} - p_i)'(e_{y_j} - p_j), with
    TV the total variation distance. Pairs within a group are left out, since dependent labels
    would pass for miscalibration.

    Args:
        log_prob: (item, way) log-probabilities; -inf for padded classes.
        labels: (item,) classes, or `UNLABELLED`.
        bandwidth: of the Laplacian kernel; None takes the median distance of the predictions.
        groups: (item,) video or user of each item; None takes items as independent.
        max_items: a random subset of this size is scored where there are more, as cost is
            quadratic.
        seed: of the subset.

    Returns:
        About 0, of either sign, for a calibrated forecast; nan with fewer than two groups.

    Source: Widmann et al. 2019, SKCE_uq with kernel exp(-TV/nu) I.
    """
    logp, y = scored(log_prob, labels)
    group = group_index(groups, labels)
    if len(y) > max_items:
        chosen = np.random.default_rng(seed).choice(len(y), max_items, replace=False)
        logp, y, group = logp[chosen], y[chosen], group[chosen]
    p = np.exp(logp)
    distance = sum(np.abs(np.subtract.outer(one, one)) for one in p.T) / 2
    pair = np.triu(group[:, None] != group[None, :], k=1)
    if not pair.any():
        return float("nan")
    nu = float(np.median(distance[pair])) if bandwidth is None else bandwidth
    residual = np.eye(p.shape[1])[y] - p
    kernel = np.exp(-distance / nu) if nu > 0 else np.asarray(distance == 0, np.float64)
    return float((kernel * (residual @ residual.T))[pair].mean())
