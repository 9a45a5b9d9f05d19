"""PIT of class sets and isotonic calibration, against definitions, scikit-learn and coverage."""

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.metrics import brier_score_loss

from bayesfs.metrics.pav import pav_curve
from bayesfs.metrics.pit import drawn_labels, pit_curve, steps


def forecast(items: int, seed: int, sharpness: float = 1.0, way: int = 5) -> np.ndarray:
    logit = np.random.default_rng(seed).normal(size=(items, way)) * 2 * sharpness
    return logit - np.log(np.exp(logit).sum(1, keepdims=True))


def labels_of(log_prob: np.ndarray, seed: int) -> np.ndarray:
    return drawn_labels(log_prob, 1, np.random.default_rng(seed))[0]


def test_steps_stack_the_classes_from_the_likeliest() -> None:
    lower, upper = steps(np.log([[0.2, 0.2, 0.5, 0.1], [0.25, 0.25, 0.25, 0.25]]))
    np.testing.assert_allclose(lower, [[0.5, 0.5, 0, 0.9], [0, 0, 0, 0]])
    np.testing.assert_allclose(upper, [[0.9, 0.9, 0.5, 1], [1, 1, 1, 1]])


def test_the_curve_is_the_mean_of_the_items_own() -> None:
    log_prob = forecast(50, 0)
    labels = labels_of(log_prob, 1)
    found = pit_curve(log_prob, labels)
    lower, upper = steps(log_prob)
    a, b = lower[np.arange(50), labels], upper[np.arange(50), labels]
    for u, difference in zip(found.place[::9], found.difference[::9], strict=True):
        expected = np.clip((u - a) / (b - a), 0, 1).mean() - u
        assert difference == pytest.approx(expected, abs=1e-6)


def test_p_is_uniform_where_the_forecast_is_right() -> None:
    curves = [pit_curve(f, labels_of(f, s)) for s in range(60) for f in [forecast(60, s)]]
    assert kstest([c.p for c in curves], "uniform").pvalue > 0.01
    outside = [(np.abs(c.difference) > c.high + 1e-12)[1:-1].any() for c in curves]
    assert np.mean(outside) < 0.15


@pytest.mark.parametrize(("sharpness", "sign"), [(2.0, -1), (0.5, 1)])
def test_over_and_underconfidence_are_told_apart(sharpness: float, sign: int) -> None:
    labels = labels_of(forecast(300, 0), 1)
    stated = forecast(300, 0, sharpness)
    found = pit_curve(stated, labels)
    assert found.p < 0.01
    assert np.sign(found.bias) == sign
    pooled = pav_curve(stated, labels)
    assert pooled.p < 0.02
    assert pooled.miscalibration > 2 * pooled.expected


def test_padded_classes_and_unlabelled_items_change_nothing() -> None:
    log_prob = forecast(40, 0)
    labels = labels_of(log_prob, 1)
    wide = np.pad(log_prob, ((0, 5), (0, 2)), constant_values=-np.inf)
    wide[40:, 0] = 0.0
    more = np.concatenate([labels, np.full(5, -1)])
    for curve in (pit_curve, pav_curve):
        plain, padded = curve(log_prob, labels), curve(wide, more)
        found = getattr(plain, "difference", getattr(plain, "found", None))
        other = getattr(padded, "difference", getattr(padded, "found", None))
        np.testing.assert_allclose(found, other, atol=1e-9)


def test_the_parts_of_the_brier_score_add_up() -> None:
    log_prob = forecast(200, 3, 1.5)
    labels = labels_of(forecast(200, 3), 4)
    found = pav_curve(log_prob, labels)
    event = (labels[:, None] == np.arange(5)).ravel()
    score = brier_score_loss(event, np.exp(log_prob).ravel())
    total = found.miscalibration - found.discrimination + found.uncertainty
    assert total == pytest.approx(score)
    assert found.uncertainty == pytest.approx(0.2 * 0.8)
    assert (np.diff(found.found) >= 0).all()


def test_a_forecast_recalibrated_by_its_curve_is_calibrated() -> None:
    log_prob = forecast(400, 5, way=2)
    found = pav_curve(log_prob, labels_of(log_prob, 6))
    assert found.p > 0.02
    inside = (found.found >= found.low - 1e-9) & (found.found <= found.high + 1e-9)
    assert inside.mean() > 0.8
