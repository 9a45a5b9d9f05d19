"""Coverage of sets of the likeliest classes, by the probability integral transform: `pit_curve`.

The classes of an item are ordered from the likeliest. Its probability integral transform is where
the truth's own step lies: from a, the probability of all classes that are likelier, to b, that of
those and the truth's (and its equals'). If the forecast is calibrated, u drawn evenly from [a, b]
is uniform on [0, 1], and the mean over items

    F(u) = mean_i clip{(u - a_i) / (b_i - a_i), 0, 1}

is u: the smallest set of classes with probability u holds the truth a share u of the time (with the
last class taken in by chance). Above the diagonal, sets hold it too often: underconfident; below,
too seldom. Unlike top-label calibration it looks at every probability.

Source: Czado, Gneiting and Held 2009 (PIT for discrete outcomes); Romano, Sesia and Candès 2020
(the ordering).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bayesfs._utils.arrays import Floats, Ints
from bayesfs.metrics.scores import scored

GRID = 100
SIMULATIONS = 500


@dataclass(frozen=True)
class PitCurve:
    """The PIT's distribution less uniformity.

    Attributes:
        place: (place,) u, from 0 to 1.
        difference: (place,) F(u) - u.
        low: lower end of the band that holds a calibrated forecast's whole curve in 95 of 100.
        high: upper end.
        p: probability of a curve as far off, if the forecast were calibrated and items independent.
        items: number of items.
    """

    place: Floats
    difference: Floats
    low: Floats
    high: Floats
    p: float
    items: int

    @property
    def bias(self) -> float:
        """Mean of F(u) - u: above 0 underconfident, below 0 overconfident."""
        return float(self.difference.mean())


def pit_curve(
    log_prob: ArrayLike, labels: ArrayLike, *, seed: int = 0, level: float = 0.95
) -> PitCurve:
    """Distribution of the PIT over items, with a simultaneous band.

    The band and p come from labels drawn from the forecast itself. Items are taken as independent,
    so that videos of one person, which share the posterior, make p somewhat too small.

    Args:
        log_prob: (item, way) log-probabilities; -inf for padded classes.
        labels: (item,) classes, or `UNLABELLED`.
        seed: of the simulated labels.
        level: of the band.

    Raises:
        ShapeError: see `bayesfs.metrics.scores.scored`.
    """
    logp, y = scored(log_prob, labels)
    lower, upper = steps(logp)
    place = np.linspace(0, 1, GRID + 1)
    rng = np.random.default_rng(seed)
    null = np.stack(
        [_curve(lower, upper, drawn, place) for drawn in drawn_labels(logp, SIMULATIONS, rng)]
    )
    sd = np.maximum(null.std(0), 1e-12)
    worst = (np.abs(null) / sd)[:, 1:-1].max(1)
    found = _curve(lower, upper, y, place)
    reach = np.quantile(worst, level) * sd
    off = float((np.abs(found) / sd)[1:-1].max())
    p = (float((worst >= off).sum()) + 1) / (SIMULATIONS + 1)
    return PitCurve(place, found, -reach, reach, p, len(y))


def steps(log_prob: Floats) -> tuple[Floats, Floats]:
    """(item, way) ends of each class's step: probability of likelier classes, and with its own."""
    prob = np.exp(log_prob)
    order = np.argsort(-prob, axis=1, kind="stable")
    ranked = np.take_along_axis(prob, order, 1)
    total = np.cumsum(ranked, 1)
    way = ranked.shape[1]
    new = np.ones_like(ranked, dtype=bool)
    new[:, 1:] = ranked[:, 1:] < ranked[:, :-1] - 1e-12
    first = np.maximum.accumulate(np.where(new, np.arange(way), 0), 1)
    ends = np.ones_like(new)
    ends[:, :-1] = new[:, 1:]
    last = np.minimum.accumulate(np.where(ends, np.arange(way), way)[:, ::-1], 1)[:, ::-1]
    before = np.concatenate([np.zeros((len(total), 1)), total], 1)
    lower, upper = np.empty_like(prob), np.empty_like(prob)
    np.put_along_axis(lower, order, np.take_along_axis(before, first, 1), 1)
    np.put_along_axis(upper, order, np.take_along_axis(before, last + 1, 1), 1)
    return lower, upper


def drawn_labels(log_prob: Floats, draws: int, rng: np.random.Generator) -> Ints:
    """(draw, item) labels drawn from the forecast, items independent."""
    cumulative = np.exp(log_prob).cumsum(1)
    place = rng.random((draws, len(log_prob), 1)) * cumulative[:, -1:]
    return np.asarray((cumulative <= place).sum(-1).clip(max=log_prob.shape[1] - 1), np.int64)


def _curve(lower: Floats, upper: Floats, labels: Ints, place: Floats) -> Floats:
    """F(u) - u at every place; one pass over sorted ends, not items times places."""
    row = np.arange(len(labels))
    a, b = lower[row, labels], np.maximum(upper[row, labels], lower[row, labels] + 1e-9)
    slope = 1 / (b - a)
    rising = _ramps(a, slope, place) - _ramps(b, slope, place)
    difference: Floats = rising / len(labels) - place
    return difference


def _ramps(start: Floats, slope: Floats, place: Floats) -> Floats:
    """Sum over items of slope_i max(u - start_i, 0) at every u."""
    order = np.argsort(start)
    until = np.searchsorted(start[order], place, side="right")
    total = np.concatenate([[0.0], slope[order].cumsum()])[until]
    offset = np.concatenate([[0.0], (slope * start)[order].cumsum()])[until]
    ramps: Floats = total * place - offset
    return ramps
