"""Selective prediction, risk against coverage: start with `aurc` and `accuracy_at_coverage`.

A recogniser that may say "not sure" answers the most confident share of items (the coverage) and
errs on part of those (the risk). Items of equal confidence count as in random order, so that no
score depends on how ties were sorted. `auroc`, `interval_coverage` and `set_coverage` are for
other rankings, intervals and prediction sets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesfs._utils.arrays import Floats
from bayesfs.errors import ShapeError
from bayesfs.metrics.scores import as_array, scored, top_label


def aurc(log_prob: ArrayLike, labels: ArrayLike, confidence: ArrayLike | None = None) -> float:
    """Area under the risk-coverage curve, 1/n sum_i (errors among the i most confident) / i.

    Args:
        log_prob: (item, way) log-probabilities; -inf for padded classes.
        labels: (item,) classes, or `UNLABELLED`.
        confidence: (item,) score by which items are ranked, high is sure; None takes max_k p_k.

    Returns:
        From 0 (never wrong) to 1; the error rate for a ranking that knows nothing.

    Raises:
        ShapeError: see `bayesfs.metrics.scores.scored`, or `confidence` has another length.

    Source: Geifman, Uziel and El-Yaniv 2019, eq. 2; ties by their expectation.
    """
    count, errors = tied_blocks(*_ranking(log_prob, labels, confidence))
    return float(area(count, errors))


def e_aurc(log_prob: ArrayLike, labels: ArrayLike, confidence: ArrayLike | None = None) -> float:
    """`aurc` less that of the best ranking of the same answers; arguments as in `aurc`.

    Source: Geifman, Uziel and El-Yaniv 2019, sec. 4 (here exact, where they approximate the best
        area by r + (1 - r) log(1 - r) for error rate r).
    """
    count, errors = tied_blocks(*_ranking(log_prob, labels, confidence))
    wrong = errors.sum()
    best = area(np.array([count.sum() - wrong, wrong]), np.array([0.0, wrong]))
    return float(area(count, errors) - best)


def risk_coverage(
    log_prob: ArrayLike, labels: ArrayLike, confidence: ArrayLike | None = None
) -> tuple[Floats, Floats]:
    """(block,) coverage and risk after each block of equally confident items, surest first."""
    count, errors = tied_blocks(*_ranking(log_prob, labels, confidence))
    answered = count.cumsum()
    return answered / answered[-1], errors.cumsum() / answered


def accuracy_at_coverage(
    log_prob: ArrayLike,
    labels: ArrayLike,
    coverage: float = 0.8,
    confidence: ArrayLike | None = None,
) -> float:
    """Accuracy over the ceil(coverage n) most confident items; other arguments as in `aurc`.

    Raises:
        ShapeError: coverage is not in (0, 1], or see `aurc`.
    """
    if not 0 < coverage <= 1:
        raise ShapeError(f"expected coverage in (0, 1], got {coverage}")
    count, errors = tied_blocks(*_ranking(log_prob, labels, confidence))
    answered = np.ceil(round(coverage * count.sum(), 6))
    at = np.concatenate([[0.0], count.cumsum()])
    wrong = np.interp(answered, at, np.concatenate([[0.0], errors.cumsum()]))
    return float(1 - wrong / answered)


def tied_blocks(confidence: Floats, correct: Floats) -> tuple[Floats, Floats]:
    """(block,) number of items and of errors at each value of confidence, highest first."""
    values, block = np.unique(-confidence, return_inverse=True)
    count = np.bincount(block, minlength=len(values)).astype(np.float64)
    errors = np.bincount(block, 1 - correct, minlength=len(values))
    return count, np.asarray(errors, np.float64)


def area(count: Floats, errors: Floats) -> Floats:
    """Area under the risk-coverage curve of blocks of m items with e errors in random order.

    After N items with E errors, k items of a block carry E + k e/m errors on average, hence

        sum_{k=1}^m (E + k e/m) / (N + k) = e + (E - N e/m) (psi(N + m + 1) - psi(N + 1)).

    Args:
        count: (..., block) numbers of items, surest first; 0 leaves a block out.
        errors: (..., block) numbers of errors.

    Returns:
        (...) areas.
    """
    from scipy.special import digamma

    before, wrong = count.cumsum(-1) - count, errors.cumsum(-1) - errors
    rate = np.divide(errors, count, out=np.zeros_like(errors, float), where=count > 0)
    harmonic = digamma(before + count + 1) - digamma(before + 1)
    total: Floats = (errors + (wrong - before * rate) * harmonic).sum(-1) / count.sum(-1)
    return total


def _ranking(
    log_prob: ArrayLike, labels: ArrayLike, confidence: ArrayLike | None
) -> tuple[Floats, Floats]:
    top, correct = top_label(log_prob, labels)
    if confidence is None:
        return top, correct
    ranked = as_array(confidence).astype(np.float64)
    y = as_array(labels)
    if ranked.shape != y.shape or np.isnan(ranked).any():
        raise ShapeError(f"expected confidence without NaN of shape {y.shape}, got {ranked.shape}")
    return ranked[y >= 0], correct


def auroc(score: ArrayLike, positive: ArrayLike) -> float:
    """Probability that a positive item has the higher score than a negative, ties counting half.

    Args:
        score: (item,) such as epistemic uncertainty.
        positive: (item,) bool, such as "object was never taught".

    Returns:
        From 0 to 1, .5 for a score that knows nothing; nan where all items are of one sort.

    Raises:
        ShapeError: shapes disagree or a score is NaN.

    Source: Mann and Whitney 1947.
    """
    import scipy

    s, is_positive = as_array(score).astype(np.float64), as_array(positive).astype(bool)
    if s.ndim != 1 or s.shape != is_positive.shape or np.isnan(s).any():
        raise ShapeError(
            f"expected scores (item,) without NaN and positive (item,), got {s.shape} and "
            f"{is_positive.shape}"
        )
    n = int(is_positive.sum())
    m = len(s) - n
    if n == 0 or m == 0:
        return float("nan")
    return float((scipy.stats.rankdata(s)[is_positive].sum() - n * (n + 1) / 2) / (n * m))


def set_coverage(log_prob: ArrayLike, labels: ArrayLike, level: float) -> tuple[float, float]:
    """Coverage and mean size of the smallest sets of classes with probability of at least level.

    Args:
        log_prob: (item, way) log-probabilities; -inf for padded classes.
        labels: (item,) classes, or `UNLABELLED`.
        level: probability that a set should hold.

    Returns:
        Share of sets that hold the label (at least `level` for a calibrated forecast, since sets
        overshoot), and mean number of classes in a set.
    """
    logp, y = scored(log_prob, labels)
    sets = plain_sets(np.exp(logp), level)
    return float(sets[np.arange(len(y)), y].mean()), float(sets.sum(1).mean())


def plain_sets(prob: Floats, level: float) -> NDArray[np.bool_]:
    """(..., way) the likeliest classes until their probabilities sum to the level."""
    order = np.argsort(-prob, axis=-1, kind="stable")
    ranked = np.take_along_axis(prob, order, -1)
    inside = ranked.cumsum(-1) - ranked < level - SLACK
    out = np.zeros(prob.shape, bool)
    np.put_along_axis(out, order, inside, -1)
    return out


SLACK = 1e-9
"""By which a probability may miss a threshold that it was itself taken for."""
