"""Ends of intervals for a mean over few, skewed units: `studentised_ends`, `bounded_ends`.

Both take one value per unit, with the score as their mean. `pseudo_values` gives these for any
score that is a function of the units' weights; for a plain mean they are the units' own values.
How often such intervals hold the truth has been measured: `coverage_if_skewed`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import scipy

from bayesfs._utils.arrays import Floats

FLOOR = 0.1
"""Smallest standard error of a resample, as a share of the sample's; equal values have none."""

SKEWED_MISS = {
    6: (0.09, 0.12),
    8: (0.09, 0.12),
    12: (0.085, 0.12),
    20: (0.07, 0.115),
    40: (0.06, 0.10),
    400: (0.05, 0.10),
}
"""Units -> share of 95 % and of 90 % intervals that miss the mean of lognormal units (sd 1)."""

_PIECE = 200  # weightings looked at together


def pseudo_values(statistic: Callable[[Floats], Floats], units: int) -> Floats:
    """(unit,) jackknife pseudo-values, moved so that their mean is the score.

        v_i = s + (n - 1) (mean_j s_(j) - s_(i)),    s_(i) the score without unit i.

    For a mean of one value per unit they are these values; their spread is the jackknife's.

    Source: Tukey 1958; Efron and Tibshirani 1993, ch. 11.
    """
    rows = np.arange(units)
    parts = []
    for piece in np.array_split(rows, -(-units // _PIECE)):
        weights = np.ones((len(piece), units))
        weights[np.arange(len(piece)), piece] = 0.0
        parts.append(statistic(weights))
    without = np.concatenate(parts)
    score = statistic(np.ones((1, units)))[0]
    return np.asarray(score + (units - 1) * (without.mean() - without), np.float64)


def studentised_ends(values: Floats, level: float, *, draws: int, seed: int) -> tuple[float, float]:
    """Bootstrap-t interval of a mean, nowhere closer than Student's t.

        m - q_{1-a} se,  m - q_a se,    q the quantiles of  T* = (m* - m) / se*

    over resamples of the n values with replacement, a = (1 - level) / 2 (1 - 2 / n). T* is skewed
    as the values are, so that the interval reaches further to the side where a rare unit may hide;
    se* is at least `FLOOR` se, and an end is never nearer to m than t_{n-1, (1 + level)/2} se.
    The factor 1 - 2 / n was found by simulation, see `coverage_if_skewed`.

    Args:
        values: (unit,) at least two, finite.
        level: of the interval.
        draws: number of resamples.
        seed: of the resamples.

    Source: Efron 1982, sec. 10.10; Hall 1988, who shows the error of its coverage to be of order
        1 / n where percentiles and Student's t have 1 / sqrt(n) on each side.
    """
    n, mean = len(values), float(values.mean())
    error = float(values.std(ddof=1)) / np.sqrt(n)
    away = values - mean
    squares = away**2
    pivots = []
    for counts in resampled_counts(n, draws=draws, seed=seed):
        moved = counts @ away / n
        spread = np.sqrt(np.maximum(counts @ squares / n - moved**2, 0.0) / (n - 1))
        pivots.append(moved / np.maximum(spread, FLOOR * error))
    tail = (1 - level) / 2 * (1 - 2 / n)
    low, high = np.quantile(np.concatenate(pivots), [tail, 1 - tail])
    t = float(scipy.stats.t.ppf((1 + level) / 2, n - 1))
    return mean - max(t, float(high)) * error, mean - min(-t, float(low)) * error


def bounded_ends(
    values: Floats, level: float, bounds: tuple[float, float], *, draws: int, seed: int
) -> tuple[float, float]:
    """What bounded values alone allow their mean to be; an infinite bound allows everything.

    The low end is the (1 - level) / 2 quantile of sum_i w_i v_i + w_0 b with w uniform on the
    simplex and b the lower bound, as if one further unit had shown the worst; the high end
    likewise. Where all n units show the upper bound 1 of [0, 1], the low end is a^(1/n), that of
    Clopper and Pearson. Unlike a studentised interval it is never too short, and often too long.

    Args:
        values: (unit,).
        level: of the interval.
        bounds: range of the values; a value beyond widens it.
        draws: number of weightings.
        seed: of the weightings.

    Source: Gaffke 2005; Learned-Miller and Thomas 2020.
    """
    worst = min(bounds[0], float(values.min())), max(bounds[1], float(values.max()))
    if not np.isfinite(worst).any():
        return worst
    rng, sums, extra = np.random.default_rng(seed), [], []
    for start in range(0, draws, _PIECE):
        raw = rng.exponential(size=(min(_PIECE, draws - start), len(values) + 1))
        weights = raw / raw.sum(1, keepdims=True)
        sums.append(weights[:, 1:] @ values)
        extra.append(weights[:, 0])
    inside, share, tail = np.concatenate(sums), np.concatenate(extra), (1 - level) / 2
    low, high = (
        float(np.quantile(inside + share * bound, q)) if np.isfinite(bound) else bound
        for bound, q in zip(worst, (tail, 1 - tail), strict=True)
    )
    return low, high


def resampled_counts(units: int, *, draws: int, seed: int) -> Iterator[Floats]:
    """(piece, unit) how often each unit is drawn with replacement, some resamples at a time."""
    rng = np.random.default_rng(seed)
    for start in range(0, draws, _PIECE):
        size = (min(_PIECE, draws - start),)
        yield rng.multinomial(units, np.full(units, 1 / units), size=size).astype(np.float64)


def coverage_if_skewed(units: int, level: float) -> float:
    """How often an interval of this level holds the mean of a lognormal with sd 1 of the log.

    Measured, `SKEWED_MISS`, and interpolated in log n. A lognormal with skewness 6 is about the
    worst that scores of people look like; for normal, exponential and accuracy-like values the
    intervals cover at least as often as they say, within 1 %. See docs/diagnostics.md.
    """
    known, place = np.log(list(SKEWED_MISS)), np.log(max(units, 1))
    measured = [float(np.interp(place, known, m)) for m in zip(*SKEWED_MISS.values(), strict=True)]
    return 1 - float(np.interp(1 - level, [0.0, 0.05, 0.1, 1.0], [0.0, *measured, 1.0]))
