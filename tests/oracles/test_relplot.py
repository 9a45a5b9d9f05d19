"""Smooth ECE as relplot prints it.

Source: relplot 1.0.3 (apple/ml-calibration), `smECE` and `smECE_sigma` on the forecasts of
`forecasts`. It finds the width by ten halvings of [0, 1] and works on a mesh, which is what the
tolerances are for.
"""

import numpy as np
import pytest
from scipy.stats import norm

from bayesfs.metrics.smooth_calibration import error_at_width, smooth_ece, smooth_error

SMECE = {
    (50, 1.0): 0.07511640808523493,
    (50, 0.5): 0.13673615458916843,
    (50, 0.0): 0.22352305268425596,
    (200, 1.0): 0.029262940731372488,
    (200, 0.5): 0.10541545652668331,
    (200, 0.0): 0.20924432875769367,
    (1000, 1.0): 0.01632708275103072,
    (1000, 0.5): 0.11817507302886554,
    (1000, 0.0): 0.21580354466660898,
}
"""(items, slope) -> printed; slope 1 is calibrated."""

AT_WIDTH = {
    (50, 1.0): (0.22360756696212128, 0.11202641594297039, 0.009800251279202535),
    (200, 0.5): (0.12755661879742244, 0.11405679827492007, 0.09083701085264415),
    (1000, 0.0): (0.258260990002738, 0.256365092130679, 0.22014894791615935),
}
"""The same at widths .01, .05 and .2."""


def forecasts(items: int, slope: float) -> tuple[np.ndarray, np.ndarray]:
    """Stated probabilities, and what came true of them."""
    i = np.arange(items)
    stated = (i * 0.6180339887498949) % 1.0
    happens = (i * 0.7548776662466927 + 0.5) % 1.0 < np.clip(0.5 + slope * (stated - 0.5), 0, 1)
    return stated, happens.astype(float)


def by_quadrature(stated: np.ndarray, happens: np.ndarray, width: float) -> float:
    """The definition: every residual under a Gaussian and its reflections, integrated."""
    t = (np.arange(4000) + 0.5) / 4000
    kernel = sum(
        norm.pdf(t[:, None], image, width)
        for k in range(-3, 4)
        for image in (2 * k + stated, 2 * k - stated)
    )
    return float(np.abs(kernel @ (stated - happens) / len(stated)).mean())


@pytest.mark.parametrize("case", SMECE)
def test_smooth_error_is_relplots(case: tuple[int, float]) -> None:
    """Its Gaussian ends half a unit from its middle, which shows where that is not far."""
    tolerance = 1.5e-3 if SMECE[case] < 0.15 else 0.04 * SMECE[case]
    assert smooth_error(*forecasts(*case)) == pytest.approx(SMECE[case], abs=tolerance)


@pytest.mark.parametrize("case", AT_WIDTH)
def test_error_at_a_width_is_relplots(case: tuple[int, float]) -> None:
    for width, printed in zip((0.01, 0.05, 0.2), AT_WIDTH[case], strict=True):
        assert error_at_width(*forecasts(*case), width) == pytest.approx(printed, rel=0.04)


@pytest.mark.parametrize("width", [0.005, 0.05, 0.22, 0.6])
def test_error_at_a_width_is_the_definition(width: float) -> None:
    exact = by_quadrature(*forecasts(50, 0.0), width)
    assert error_at_width(*forecasts(50, 0.0), width) == pytest.approx(exact, rel=2e-3)


def test_the_width_solves_the_equation() -> None:
    found = smooth_error(*forecasts(200, 0.5))
    assert error_at_width(*forecasts(200, 0.5), found) == pytest.approx(found, abs=1e-5)


def test_a_constant_that_is_right_as_often_as_it_says_is_calibrated() -> None:
    logp = np.log(np.tile([0.75, 0.25], (400, 1)))
    assert smooth_ece(logp, np.repeat([0, 1], [300, 100])) < 2e-3
    assert smooth_ece(logp, np.repeat([0, 1], [100, 300])) > 0.3
