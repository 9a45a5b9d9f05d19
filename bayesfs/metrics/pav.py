"""Calibration without bins, one class against the rest: `pav_curve`.

Every pair (item, class) is a forecast p of the event "the item is of that class". The calibrated
forecast is the isotonic regression of the events on p (pool adjacent violators), so that no choice
of bins decides what is seen. The Brier score of all pairs falls into

    S = miscalibration - discrimination + uncertainty,

miscalibration S(p) - S(pav), discrimination S(mean) - S(pav), uncertainty S(mean).

Source: Dimitriadis, Gneiting and Jordan 2021 (CORP reliability diagrams).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from bayesfs._utils.arrays import Floats, Ints
from bayesfs.metrics.pit import drawn_labels
from bayesfs.metrics.scores import scored

GRID = 101
TIE = 1e-15
"""Forecasts that are nearer than this are equal."""

SIMULATIONS = 100
"""Data sets behind the band."""


@dataclass(frozen=True)
class PavCurve:
    """Calibrated probability against the stated one, pooled over classes.

    Attributes:
        stated: (place,) probabilities, from the smallest to the largest that occurs.
        found: (place,) their isotonic regression.
        low: (place,) 2.5 % point of that, were the forecast calibrated.
        high: (place,) 97.5 % point.
        miscalibration: in units of the Brier score of one pair; 0 is calibrated.
        discrimination: the larger the better.
        uncertainty: of always stating the share of events.
        expected: mean miscalibration of a calibrated forecast of as many items.
        p: share of calibrated forecasts with at least this miscalibration.
    """

    stated: Floats
    found: Floats
    low: Floats
    high: Floats
    miscalibration: float
    discrimination: float
    uncertainty: float
    expected: float
    p: float


def pav_curve(log_prob: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> PavCurve:
    """Isotonic reliability of all (item, class) pairs, with a consistency band.

    Args:
        log_prob: (item, way) log-probabilities; -inf for padded classes, which make no pair.
        labels: (item,) classes, or `UNLABELLED`.
        seed: of the labels drawn from the forecast for the band and p; items are independent there.

    Raises:
        ShapeError: see `bayesfs.metrics.scores.scored`.
    """
    logp, y = scored(log_prob, labels)
    pairs = np.isfinite(logp)
    stated = np.exp(logp[pairs])
    grid = np.linspace(stated.min(), stated.max(), GRID)
    pooled = _Pooled.of(stated)
    found, miscalibration, discrimination, uncertainty = pooled.fit(_events(y, pairs), grid)
    rng = np.random.default_rng(seed)
    null = [pooled.fit(_events(d, pairs), grid) for d in drawn_labels(logp, SIMULATIONS, rng)]
    low, high = np.quantile([curve for curve, *_ in null], [0.025, 0.975], axis=0)
    chance = np.array([n[1] for n in null])
    p = (float((chance >= miscalibration).sum()) + 1) / (SIMULATIONS + 1)
    return PavCurve(
        stated=grid,
        found=found,
        low=low,
        high=high,
        miscalibration=miscalibration,
        discrimination=discrimination,
        uncertainty=uncertainty,
        expected=float(chance.mean()),
        p=p,
    )


def _events(labels: ArrayLike, pairs: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> Floats:
    hit = np.asarray(labels)[:, None] == np.arange(pairs.shape[1])
    return np.asarray(hit[pairs], np.float64)


@dataclass(frozen=True)
class _Pooled:
    """Forecasts in order, equal ones as one place: the same for every set of events."""

    places: Floats
    place_of: Ints  # (pair,)
    pairs: Ints  # (place,) how many

    @classmethod
    def of(cls, stated: Floats) -> _Pooled:
        order = np.argsort(stated)
        begins = np.diff(stated[order], prepend=-1.0) >= TIE
        place_of = np.empty_like(order)
        place_of[order] = np.cumsum(begins) - 1
        return cls(stated[order][begins], place_of, np.bincount(place_of))

    def fit(self, event: Floats, grid: Floats) -> tuple[Floats, float, float, float]:
        """Regression on the grid, miscalibration, discrimination and uncertainty."""
        share = np.bincount(self.place_of, event) / self.pairs
        found = scipy.optimize.isotonic_regression(share, weights=self.pairs).x
        score = float(np.square(self.places[self.place_of] - event).mean())
        best = float(np.square(found[self.place_of] - event).mean())
        flat = float(np.square(event.mean() - event).mean())
        return np.interp(grid, self.places, found), score - best, flat - best, flat
