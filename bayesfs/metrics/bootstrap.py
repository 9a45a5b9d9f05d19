"""Bootstrap over whole units (users), for any score: start with `bootstrap_interval`.

Frames of a video, videos of an object and tasks of a user are dependent; users are what is drawn
at random. A score is therefore written as a `Statistic`, a function of the weights of the units:

    ones        -> the score of all data
    unit vector -> the score of one user
    counts      -> the score of one bootstrap sample (how often each user was drawn)

so that a difference of two methods is `lambda w: a(w) - b(w)`, paired by construction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy

from bayesfs._utils.arrays import Floats, Ints
from bayesfs.errors import ShapeError
from bayesfs.metrics.calibration import BINS, equal_width_bins
from bayesfs.metrics.selective import area
from bayesfs.metrics.studentised import (
    bounded_ends,
    coverage_if_skewed,
    pseudo_values,
    studentised_ends,
)

Statistic = Callable[[Floats], Floats]
"""(draw, unit) weights -> (draw,) values of a score."""

RANKS = 1024
"""Largest number of blocks of confidence in `aurc_statistic`."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval over units; nan ends carry the reason.

    Attributes:
        estimate: score of all data.
        low: lower end.
        high: upper end.
        level: nominal probability that the interval holds the truth.
        units: number of units (users) that were resampled.
        reason: why there is no interval, or "".

    `note` says that it holds the truth less often than `level`, where that is so.
    """

    estimate: float
    low: float
    high: float
    level: float
    units: int
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def note(self) -> str:
        """What is to be known of intervals over so few units; see `interval_note`."""
        return interval_note(self.units, self.level)


def bootstrap_interval(
    statistic: Statistic,
    units: int,
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Interval:
    """Interval of a score over units drawn with replacement.

    The score is taken as the mean of its units' jackknife pseudo-values v_i. The ends are those of
    a bootstrap-t interval of that mean, which reaches further where the units are skewed, cut to
    what bounded values alone allow:

        [max(s - q_{1-a} se, G_low), min(s - q_a se, G_high)],

    see `bayesfs.metrics.studentised`. Percentiles of resamples would hold the truth in 89 % of
    cases with 6 exponential users and in 93 % with 40, where 95 % are asked; these hold 94 % and
    more. The interval describes the spread over units, not the bias of a score such as ECE.

    Args:
        statistic: function of the units' weights.
        units: number of units.
        draws: number of bootstrap samples.
        level: of the interval.
        seed: the same seed resamples the same units, for every statistic.
        bounds: range of the score, to which the ends are cut.

    Returns:
        Interval; its ends are nan, with the reason, when n units are so few that the truth may lie
        beyond all of them with probability 2^(1-n) > 1 - level (n < 6 for 95 %).

    Raises:
        ShapeError: there is no unit, or level is not between 0 and 1.
    """
    if units < 1 or not 0 < level < 1:
        raise ShapeError(f"expected units >= 1 and 0 < level < 1, got {units} and {level}")
    estimate = float(statistic(np.ones((1, units)))[0])
    reason = too_few(units, level)
    if not reason and not np.isfinite(estimate):
        reason = "the estimate is not finite"
    if reason:
        return Interval(estimate, np.nan, np.nan, level, units, reason)
    values = pseudo_values(statistic, units)
    if not np.isfinite(values).all():
        reason = "the score does not exist without one of the units"
        return Interval(estimate, np.nan, np.nan, level, units, reason)
    low, high = _ends(values, level, bounds, draws=draws, seed=seed)
    low, high = np.clip([min(low, estimate), max(high, estimate)], *bounds)
    return Interval(estimate, float(low), float(high), level, units)


def _ends(
    values: Floats, level: float, bounds: tuple[float, float], *, draws: int, seed: int
) -> tuple[float, float]:
    """Ends of the interval of the values' mean; equal values at a bound say no more than it."""
    allowed = bounded_ends(values, level, bounds, draws=draws, seed=seed)
    scale = np.abs(values).max()
    if np.ptp(values) <= 1e-12 * scale:
        at_bound = np.isclose(values[0], bounds, rtol=1e-12, atol=0).any()
        return allowed if at_bound else (float(values[0]), float(values[0]))
    low, high = studentised_ends(values, level, draws=draws, seed=seed)
    return max(low, allowed[0]), min(high, allowed[1])


def too_few(units: int, level: float) -> str:
    """Reason why this many units allow no interval, or ""."""
    miss = 2.0 ** (1 - units)
    if miss <= 1 - level:
        return ""
    return (
        f"{units} users or other units are too few: their whole range misses the median "
        f"with probability {miss:.2f}, above {1 - level:.2f}"
    )


def interval_note(units: int, level: float) -> str:
    """What is to be known of intervals over so many units: that they cover less, or ""."""
    covered = coverage_if_skewed(units, level)
    if too_few(units, level) or covered >= level - 0.01:
        return ""
    return (
        f"over {units} people or other units, a {100 * level:.0f} % interval holds the truth in "
        f"about {100 * covered:.0f} % of cases where a few of them are far worse than the rest "
        "(lognormal)"
    )


def mean_statistic(values: Floats, unit: Ints, units: int) -> Statistic:
    """Mean of one value per item, pooled over items; an inf makes every sample that has it inf."""
    total = np.bincount(unit, values, minlength=units).astype(np.float64)
    count = np.bincount(unit, minlength=units).astype(np.float64)

    def statistic(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            sums = np.where(weights > 0, weights * total, 0.0).sum(-1)
        return _ratio(sums, weights @ count)

    return statistic


def calibration_statistics(
    confidence: Floats, correct: Floats, unit: Ints, units: int, *, bins: int = BINS
) -> dict[str, Statistic]:
    """Statistics `ece`, `mce` and `squared_ce` of top-label calibration, from sums per unit.

    `ece` and `mce` as in `bayesfs.metrics.calibration`. `squared_ce` is the debiased squared
    calibration error with the variance of every gap between units, over the same equally wide
    bins: 0 on average for a calibrated forecast, however dependent the items of a unit are.
    """
    cell = unit * bins + equal_width_bins(confidence, bins)
    shape = (units, bins)
    count = np.bincount(cell, minlength=units * bins).reshape(shape).astype(np.float64)
    gap = np.bincount(cell, confidence - correct, minlength=units * bins).reshape(shape)
    present = np.asarray(count > 0, np.float64)

    def gaps(weights: Floats) -> tuple[Floats, Floats]:
        n = weights @ count
        return n, _ratio(weights @ gap, n, empty=0.0)

    def ece(weights: Floats) -> Floats:
        n, g = gaps(weights)
        return _ratio((n * np.abs(g)).sum(-1), n.sum(-1))

    def mce(weights: Floats) -> Floats:
        largest: Floats = np.abs(gaps(weights)[1]).max(-1)
        return np.where(weights.sum(-1) > 0, largest, np.nan)

    def squared_ce(weights: Floats) -> Floats:
        n, g = gaps(weights)
        members = weights @ present
        # sum_u w_u (r_u - n_u g)^2, expanded into sums that do not depend on g.
        spread = weights @ gap**2 - 2 * g * (weights @ (gap * count)) + g**2 * (weights @ count**2)
        variance = _ratio(spread, n**2, empty=0.0) * _ratio(members, members - 1, empty=0.0)
        terms = np.where(members > 1, g**2 - variance, 0.0)
        return _ratio((n * terms).sum(-1), np.where(members > 1, n, 0.0).sum(-1))

    return {"ece": ece, "mce": mce, "squared_ce": squared_ce}


def aurc_statistic(confidence: Floats, correct: Floats, unit: Ints, units: int) -> Statistic:
    """Area under the risk-coverage curve, of items pooled over units.

    Exact with up to `RANKS` values of confidence; beyond, items in the same quantile of
    confidence count as ties, which moves the area by less than 1 / RANKS.
    """
    values, block = np.unique(-confidence, return_inverse=True)
    if len(values) > RANKS:
        rank = scipy.stats.rankdata(-confidence)
        block = ((rank - 0.5) * RANKS // len(confidence)).astype(np.int64)
    blocks = int(block.max()) + 1
    cell, shape = unit * blocks + block, (units, blocks)
    count = np.bincount(cell, minlength=units * blocks).reshape(shape).astype(np.float64)
    errors = np.bincount(cell, 1 - correct, minlength=units * blocks).reshape(shape)

    def statistic(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            return area(weights @ count, weights @ errors)

    return statistic


def rows_statistic(score: Callable[[Ints], float], unit: Ints) -> Statistic:
    """Any score of a set of items, given as a function of the rows to use (with repetition).

    Slow but general: rows of a unit are repeated as often as the unit was drawn.

    Args:
        score: function of (row,) indices, such as `lambda i: auroc(s[i], positive[i])`.
        unit: (item,) index of each item's unit.
    """

    def one(weights: Floats) -> float:
        rows = np.repeat(np.arange(len(unit)), weights[unit].astype(np.int64))
        return score(rows) if len(rows) else float("nan")

    return lambda weights: np.array([one(w) for w in weights])


def difference(first: Statistic, second: Statistic) -> Statistic:
    """Paired difference first - second: both see the same resampled units."""
    return lambda weights: first(weights) - second(weights)


def _ratio(top: Floats, bottom: Floats, empty: float = np.nan) -> Floats:
    """Elementwise top / bottom; `empty` where bottom is 0 or less."""
    out = np.full(np.broadcast(top, bottom).shape, empty)
    np.divide(top, bottom, out=out, where=bottom > 0)
    return out
