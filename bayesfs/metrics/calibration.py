"""Does a stated probability come true as often as it says? Start with `ece` and `reliability`.

`ece`, `mce` and `classwise_ece` are the usual binned sums, which are never negative and grow as
data shrink, also for a calibrated forecast. `squared_calibration_error` and
`bayesfs.metrics.kernel_calibration.skce` are unbiased: their mean is 0 for a calibrated
forecast, so that they can turn out slightly negative.

Frames of one video are not independent. Pass `groups` (the video or user of each item) wherever
it is offered: noise is then measured between groups instead of between frames.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy
from numpy.typing import ArrayLike
from scipy.special import erf

from bayesfs._utils.arrays import Floats, Ints
from bayesfs.errors import ShapeError
from bayesfs.metrics.scores import as_array, scored, top_label
from bayesfs.types import UNLABELLED, refuse_missing

BINS = 15


def equal_width_bins(values: Floats, bins: int = BINS) -> Ints:
    """Index of the bin (b/bins, (b+1)/bins] of each value in [0, 1]; 0 falls into the first."""
    inner = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    return np.searchsorted(inner, values, side="left").astype(np.int64)


def equal_mass_bins(values: Floats, bins: int = BINS) -> Ints:
    """Index of the quantile bin of each value; equal values share a bin."""
    inner = np.quantile(values, np.linspace(0.0, 1.0, bins + 1)[1:-1])
    return np.searchsorted(np.unique(inner), values, side="left").astype(np.int64)


def binned_gaps(predicted: Floats, happened: Floats, index: Ints) -> tuple[Floats, Floats]:
    """Share of items and |mean predicted - mean happened| of every bin that is not empty."""
    count = np.bincount(index)
    gap = np.bincount(index, predicted - happened)
    used = count > 0
    return count[used] / len(index), np.abs(gap[used]) / count[used]


def ece(log_prob: ArrayLike, labels: ArrayLike, *, bins: int = BINS) -> float:
    """Top-label expected calibration error sum_b n_b/n |confidence_b - accuracy_b|.

    All items are pooled; bins of max_k p_k are (lo, hi] and equally wide.

    Args:
        log_prob: (item, way) log-probabilities; -inf for padded classes.
        labels: (item,) classes, or `UNLABELLED`.
        bins: number of bins.

    Returns:
        From 0 to 1. Biased upwards: a calibrated forecast of n items has about
        sum_b sqrt(2 v_b n_b / pi) / n with v_b = confidence_b (1 - confidence_b).

    Raises:
        ShapeError: see `bayesfs.metrics.scores.scored`.

    Source: Guo et al. 2017, eq. 3.
    """
    confidence, correct = top_label(log_prob, labels)
    share, gap = binned_gaps(confidence, correct, equal_width_bins(confidence, bins))
    return float(share @ gap)


def ece_if_calibrated(
    log_prob: ArrayLike,
    labels: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    bins: int = BINS,
    draws: int = 1000,
    seed: int = 0,
) -> Floats:
    """What `ece` would be if these very probabilities were true: its draws.

    Whether the top label is right is drawn from its confidence, for every item apart; so an
    observed `ece` inside these draws is no sign of miscalibration, and below most of them no merit.
    Items of one group are right together, as far as their confidences allow: one uniform number is
    held against all of them, the strongest dependence that there may be. Frames of one video, or
    one video asked in several tasks, are such groups.

    Args:
        log_prob: (item, way) log-probabilities; -inf for padded classes.
        labels: (item,) classes, or `UNLABELLED`: those items are left out, nothing else is read.
        groups: (item,) what an item belongs to; each is a group of its own by default.
        bins: number of bins.
        draws: number of simulated data sets.
        seed: of the draws.

    Returns:
        (draw,) errors.

    Raises:
        ShapeError: see `bayesfs.metrics.scores.scored`.

    Source: consistency resampling, Bröcker and Smith 2007, section 3; refs.bib: brocker2007.
    """
    confidence, _ = top_label(log_prob, labels)
    index = equal_width_bins(confidence, bins)
    group = np.arange(len(confidence))
    if groups is not None:
        named = np.asarray(groups)
        if named.shape != np.shape(labels):
            raise ShapeError(f"expected a group for each item, got {named.shape} groups")
        group = np.unique(named[np.asarray(labels) != UNLABELLED], return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    found = np.empty(draws)
    for i in range(draws):
        happened = (rng.random(len(confidence))[group] < confidence).astype(np.float64)
        share, gap = binned_gaps(confidence, happened, index)
        found[i] = share @ gap
    return found


def mce(log_prob: ArrayLike, labels: ArrayLike, *, bins: int = BINS) -> float:
    """Largest |confidence - accuracy| over bins that are not empty; arguments as in `ece`.

    One item alone in its bin decides it, so read it beside the counts of `reliability`.
    """
    confidence, correct = top_label(log_prob, labels)
    return float(binned_gaps(confidence, correct, equal_width_bins(confidence, bins))[1].max())


def classwise_ece(log_prob: ArrayLike, labels: ArrayLike, *, bins: int = BINS) -> float:
    """Mean over classes k of sum_b n_kb/n_k |mean p_k - share of k|; arguments as in `ece`.

    Class k counts over the items that have it (p_k > 0 or label k). It asks for classes that
    mean the same in all items: within a task, not over tasks of different users.

    Source: Kull et al. 2019, eq. 3.
    """
    logp, y = scored(log_prob, labels)
    errors = []
    for k in range(logp.shape[1]):
        has = (logp[:, k] > -np.inf) | (y == k)
        if has.any():
            p = np.exp(logp[has, k])
            hit = np.asarray(y[has] == k, np.float64)
            share, gap = binned_gaps(p, hit, equal_width_bins(p, bins))
            errors.append(float(share @ gap))
    return float(np.mean(errors))


def gap_variance(residual: Floats, index: Ints, groups: Ints) -> tuple[Floats, Floats, Floats]:
    """Mean residual per bin and the variance of that mean between groups.

    With r_gb the sum of residuals and n_gb the number of items of group g in bin b, and G_b
    groups there,

        gap_b = sum_g r_gb / n_b,   var_b = G_b / (G_b - 1) sum_g (r_gb - n_gb gap_b)^2 / n_b^2.

    With every item its own group this is the sample variance over n_b.

    Returns:
        (bin,) counts, gaps and variances, bins without items left out; nan where one group alone
        holds the bin, so that its noise is unknown.
    """
    cells, where = np.unique(np.stack([index, groups]), axis=1, return_inverse=True)
    where = where.ravel()
    n, r = np.bincount(where).astype(np.float64), np.bincount(where, residual)
    _, of_bin = np.unique(cells[0], return_inverse=True)
    count = np.asarray(np.bincount(of_bin, n), np.float64)
    gap: Floats = np.asarray(np.bincount(of_bin, r), np.float64) / count
    members = np.bincount(of_bin).astype(np.float64)
    spread = np.bincount(of_bin, np.square(r - n * gap[of_bin])) / np.square(count)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = spread * members / (members - 1)
    return count, gap, np.where(members > 1, variance, np.nan)


def group_index(groups: ArrayLike | None, labels: ArrayLike) -> Ints:
    """(labelled item,) number of each item's group; every item its own where there are none."""
    keep = as_array(labels) != UNLABELLED
    if groups is None:
        return np.arange(int(keep.sum()))
    refuse_missing(groups, "groups")
    names = as_array(groups)
    if names.shape != keep.shape:
        raise ShapeError(f"expected one group per item {keep.shape}, got {names.shape}")
    return np.unique(names[keep], return_inverse=True)[1].astype(np.int64)


def squared_calibration_error(
    log_prob: ArrayLike, labels: ArrayLike, *, bins: int = BINS, groups: ArrayLike | None = None
) -> float:
    """Debiased squared top-label calibration error sum_b n_b/n (gap_b^2 - var_b).

    Bins hold equal numbers of items. var_b is the variance of the gap (`gap_variance`), so that
    the estimate is unbiased given the bins; a bin held by one group contributes nothing.

    Args:
        log_prob: (item, way) log-probabilities; -inf for padded classes.
        labels: (item,) classes, or `UNLABELLED`.
        bins: number of equal-mass bins.
        groups: (item,) video or user of each item; None takes items as independent.

    Returns:
        Squared probability; about 0, of either sign, for a calibrated forecast.

    Raises:
        ShapeError: see `bayesfs.metrics.scores.scored`.

    Source: Bröcker 2012; Kumar et al. 2019, def. 5.1 (with the variance of the residual
        confidence - correct where they have that of the labels, since confidence varies in a bin).
    """
    confidence, correct = top_label(log_prob, labels)
    count, gap, variance = gap_variance(
        confidence - correct, equal_mass_bins(confidence, bins), group_index(groups, labels)
    )
    terms = np.where(np.isnan(variance), 0.0, np.square(gap) - variance)
    return float(count @ terms / count.sum())


def debiased_ece(
    log_prob: ArrayLike, labels: ArrayLike, *, bins: int = BINS, groups: ArrayLike | None = None
) -> float:
    """`ece` less its bias, estimated under normal noise of every bin's gap.

    sum_b n_b/n (2 |gap_b| - E|gap_b + s_b e|), e ~ N(0, 1), with the folded normal's mean
    E|g + s e| = s sqrt(2/pi) exp(-g^2 / 2s^2) + g erf(g / (s sqrt 2)). It takes away part of the
    bias (41 % for a calibrated forecast); `squared_calibration_error` takes away all.

    Args:
        log_prob: (item, way) log-probabilities; -inf for padded classes.
        labels: (item,) classes, or `UNLABELLED`.
        bins: number of equally wide bins.
        groups: (item,) video or user of each item; None takes items as independent.

    Returns:
        Probability; can be slightly negative.

    Source: Kumar et al. 2019, sec. 5.2, with the expectation in closed form instead of by
        simulation.
    """
    confidence, correct = top_label(log_prob, labels)
    count, gap, variance = gap_variance(
        confidence - correct, equal_width_bins(confidence, bins), group_index(groups, labels)
    )
    plain = np.abs(gap)
    expected = np.where(np.isnan(variance), plain, folded_normal_mean(plain, np.sqrt(variance)))
    return float(count @ (2 * plain - expected) / count.sum())


def folded_normal_mean(mean: Floats, sd: Floats) -> Floats:
    """E|X| of X ~ N(mean, sd^2)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(sd > 0, mean / sd, np.inf)
    value: Floats = sd * np.sqrt(2 / np.pi) * np.exp(-np.square(z) / 2) + mean * erf(z / np.sqrt(2))
    return value


def wilson(share: Floats, count: Floats, level: float = 0.95) -> tuple[Floats, Floats]:
    """Wilson score interval of a share of `count` independent items (count need not be whole).

    Source: Wilson 1927; Brown, Cai and DasGupta 2001.
    """
    z2 = float(scipy.stats.norm.ppf((1 + level) / 2)) ** 2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = np.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return centre - half, centre + half


def reliability(
    log_prob: ArrayLike,
    labels: ArrayLike,
    *,
    bins: int = BINS,
    groups: ArrayLike | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Confidence against accuracy, one row per bin that is not empty, with intervals.

    Args:
        log_prob: (item, way) log-probabilities; -inf for padded classes.
        labels: (item,) classes, or `UNLABELLED`.
        bins: number of equally wide bins (lo, hi] of max_k p_k.
        groups: (item,) video or user; intervals then use n_b over the design effect, the ratio of
            the variance between groups to that of independent items.
        level: of the intervals.

    Returns:
        Columns `lo`, `hi`, `count`, `effective_count`, `confidence`, `accuracy`, `accuracy_low`,
        `accuracy_high` (Wilson), and `consistent_low`, `consistent_high`: where accuracy would
        lie with probability `level` if the forecast were calibrated.

    Raises:
        ShapeError: see `bayesfs.metrics.scores.scored`.

    Source: Bröcker and Smith 2007 (consistency bands; here from the binomial at the bin's mean
        confidence); Kish 1965 (design effect).
    """
    confidence, correct = top_label(log_prob, labels)
    index = equal_width_bins(confidence, bins)
    group = group_index(groups, labels)
    count, gap, between = gap_variance(confidence - correct, index, group)
    used = np.unique(index)
    mean_confidence = np.bincount(index, confidence)[used] / count
    share = np.clip(mean_confidence - gap, 0.0, 1.0)
    _, _, independent = gap_variance(confidence - correct, index, np.arange(len(index)))
    effective = _effective_count(count, between, independent, grouped=groups is not None)
    low, high = wilson(share, effective, level)
    whole = np.maximum(np.round(effective), 1)
    tail = (1 - level) / 2
    return pd.DataFrame(
        {
            "lo": used / bins,
            "hi": (used + 1) / bins,
            "count": count.astype(int),
            "effective_count": effective,
            "confidence": mean_confidence,
            "accuracy": share,
            "accuracy_low": low,
            "accuracy_high": high,
            "consistent_low": scipy.stats.binom.ppf(tail, whole, mean_confidence) / whole,
            "consistent_high": scipy.stats.binom.ppf(1 - tail, whole, mean_confidence) / whole,
        }
    )


def _effective_count(
    count: Floats, between: Floats, independent: Floats, *, grouped: bool
) -> Floats:
    """n_b over the design effect (at least 1); one item where a single group holds the bin."""
    if not grouped:
        return count
    with np.errstate(divide="ignore", invalid="ignore"):
        design = np.where(independent > 0, np.maximum(between / independent, 1.0), 1.0)
    effective: Floats = np.where(np.isnan(between), 1.0, count / np.where(design > 0, design, 1.0))
    return effective
