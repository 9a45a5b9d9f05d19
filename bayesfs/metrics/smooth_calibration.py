"""Calibration error without bins: `smooth_ece` of Blasiok and Nakkiran.

Residuals f_i - y_i are smoothed over [0, 1] by a Gaussian of width s that is reflected at both
ends, which is heat that spreads in a closed bar: a cosine transform times exp(-(pi k s)^2 / 2).
The error at width s is the mean absolute value of what is left, and the width is where the two are
equal, so that nothing has to be chosen.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import ArrayLike
from scipy.fft import dct, idct

from bayesfs._utils.arrays import Floats
from bayesfs.metrics.scores import top_label

CELLS = 8192
"""Cells of [0, 1] to which a confidence is rounded."""

NARROWEST = 1e-3
"""Least width, and least error that is told from 0."""


def smooth_ece(log_prob: ArrayLike, labels: ArrayLike) -> float:
    """Smooth expected calibration error of the top label, smECE = smECE_s at the s that equals it.

        smECE_s = int_0^1 |1/n sum_i K_s(t, f_i) (f_i - y_i)| dt

    with f_i = max_k p_ik, y_i whether that label is right and K_s the reflected Gaussian. It is
    continuous in the forecast, and within constant factors of the least distance to a calibrated
    one, which a binned `ece` is not.

    Args:
        log_prob: (item, way) log-probabilities; -inf for padded classes.
        labels: (item,) classes, or `UNLABELLED`.

    Returns:
        From 0 to 1. Like `ece` it grows as data shrink.

    Raises:
        ShapeError: see `bayesfs.metrics.scores.scored`.

    Source: Blasiok and Nakkiran 2024, definition 5; refs.bib: blasiok2024. The package relplot
        finds the width by ten halvings, here the equation is solved.
    """
    return smooth_error(*top_label(log_prob, labels))


def smooth_error(confidence: Floats, correct: Floats) -> float:
    """`smooth_ece` of (item,) stated probabilities in [0, 1] and of what came true, 0 or 1."""
    residual = _spectrum(confidence, correct)
    if _left(residual, NARROWEST) <= NARROWEST:
        return _left(residual, NARROWEST)
    root = scipy.optimize.brentq
    return float(root(lambda width: _left(residual, width) - width, NARROWEST, 1.0, xtol=1e-6))


def error_at_width(confidence: Floats, correct: Floats, width: float) -> float:
    """smECE_s at a given width s of the Gaussian; see `smooth_ece`."""
    return _left(_spectrum(confidence, correct), width)


def _spectrum(confidence: Floats, correct: Floats) -> Floats:
    """Cosine transform of the residuals, as a density over the cells."""
    cell = np.minimum((confidence * CELLS).astype(np.int64), CELLS - 1)
    mass = np.bincount(cell, confidence - correct, minlength=CELLS) / len(confidence)
    spectrum: Floats = dct(mass * CELLS, type=2)
    return spectrum


def _left(spectrum: Floats, width: float) -> float:
    """Mean absolute value of the residuals after smoothing."""
    decay = np.exp(-0.5 * np.square(np.pi * np.arange(CELLS) * width))
    return float(np.abs(idct(spectrum * decay, type=2)).mean())
