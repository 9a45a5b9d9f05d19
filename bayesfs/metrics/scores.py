"""Proper scores and accuracy of predicted log-probabilities: start with `nll`.

Every function takes `log_prob` (item, way), log p(y | x) of each class, and `labels` (item,). An
item is a frame or a video. Padded classes hold -inf, items labelled `UNLABELLED` are left out.
The `*_items` functions give one number per remaining item, from which user-level tables and
bootstrap intervals are made; the plain names are their means.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesfs._utils.arrays import Floats, Ints
from bayesfs.errors import ShapeError
from bayesfs.types import UNLABELLED

NORMALISATION_TOLERANCE = 1e-3
"""Largest |log sum_k p_k| accepted: room for float32, not for logits."""


def scored(log_prob: ArrayLike, labels: ArrayLike) -> tuple[Floats, Ints]:
    """Check predictions against labels and leave out items without a label.

    Args:
        log_prob: (item, way) normalised log-probabilities; -inf for padded classes.
        labels: (item,) class of each item, or `UNLABELLED`.

    Returns:
        (labelled item, way) float64 log-probabilities and (labelled item,) labels.

    Raises:
        ShapeError: shapes disagree, no item has a label, a label is no class, or a row is not a
            log-probability vector.
    """
    logp = as_array(log_prob).astype(np.float64)
    y = as_array(labels)
    if logp.ndim != 2 or y.shape != logp.shape[:1]:
        raise ShapeError(
            f"expected log_prob (item, way) and labels (item,), got {logp.shape} and {y.shape}"
        )
    if y.dtype.kind not in "iu":
        raise ShapeError(f"expected integer labels, got {y.dtype}; were probabilities passed?")
    keep = y != UNLABELLED
    if not keep.any():
        raise ShapeError(f"expected at least one labelled item, got {len(y)} without a label")
    logp, y = logp[keep], y[keep].astype(np.int64)
    if (y < 0).any() or (y >= logp.shape[1]).any():
        raise ShapeError(f"expected labels 0..{logp.shape[1] - 1}, got {np.unique(y).tolist()}")
    _check_normalised(logp)
    return logp, y


def as_array(values: ArrayLike) -> NDArray[Any]:
    """NumPy array of an array-like or of a tensor on any device, with or without gradient."""
    detach = getattr(values, "detach", None)
    return np.asarray(values if detach is None else detach().cpu().numpy())


def _check_normalised(logp: Floats) -> None:
    total = np.logaddexp.reduce(logp, axis=1)
    bad = ~(np.abs(total) <= NORMALISATION_TOLERANCE)
    if bad.any():
        raise ShapeError(
            f"expected log-probabilities with logsumexp 0 over way, got {total[bad][0]:.4g} in "
            f"{int(bad.sum())} of {len(logp)} rows; were logits or probabilities passed, or NaN?"
        )


def nll_items(log_prob: ArrayLike, labels: ArrayLike) -> Floats:
    """(item,) negative log-likelihood -log p(y_i | x_i), in nats; inf where p is 0."""
    logp, y = scored(log_prob, labels)
    loss: Floats = -logp[np.arange(len(y)), y]
    return loss


def brier_items(log_prob: ArrayLike, labels: ArrayLike) -> Floats:
    """(item,) sum_k (p_k - 1[y = k])^2, from 0 to 2.

    Source: Brier 1950 (the original sum over classes, not half of it).
    """
    logp, y = scored(log_prob, labels)
    residual = np.exp(logp)
    residual[np.arange(len(y)), y] -= 1.0
    loss: Floats = np.square(residual).sum(1)
    return loss


def correct_items(log_prob: ArrayLike, labels: ArrayLike) -> Floats:
    """(item,) 1 where the most probable class (lowest index among ties) is the label, else 0."""
    logp, y = scored(log_prob, labels)
    return np.asarray(logp.argmax(1) == y, np.float64)


def nll(log_prob: ArrayLike, labels: ArrayLike) -> float:
    """Mean negative log-likelihood -1/n sum_i log p(y_i | x_i).

    Args:
        log_prob: (item, way) log-probabilities.
        labels: (item,) classes, or `UNLABELLED`.

    Returns:
        Nats per item; log(way) for a uniform prediction, inf if a label had probability 0.

    Raises:
        ShapeError: see `scored`.

    Example:
        >>> round(nll(np.log([[0.5, 0.5], [0.25, 0.75]]), [0, 1]), 4)
        0.4904
    """
    return float(nll_items(log_prob, labels).mean())


def brier(log_prob: ArrayLike, labels: ArrayLike) -> float:
    """Mean Brier score 1/n sum_i sum_k (p_ik - 1[y_i = k])^2, from 0 to 2; see `nll` for axes."""
    return float(brier_items(log_prob, labels).mean())


def accuracy(log_prob: ArrayLike, labels: ArrayLike) -> float:
    """Share of items whose most probable class is the label; see `nll` for axes."""
    return float(correct_items(log_prob, labels).mean())


def top_label(log_prob: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    """Confidence max_k p_k and correctness 0/1 of each labelled item.

    All top-label calibration and selective scores are functions of these two.

    Returns:
        (item,) confidence in [0, 1] and (item,) correctness.
    """
    logp, y = scored(log_prob, labels)
    confidence: Floats = np.minimum(np.exp(logp.max(1)), 1.0)
    return confidence, np.asarray(logp.argmax(1) == y, np.float64)
