import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve

from bayesfs.metrics import calibration as cal
from bayesfs.metrics.kernel_calibration import skce
from bayesfs.metrics.scores import top_label


def forecasts(n: int, way: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Calibrated forecasts: the label is drawn from the stated probabilities."""
    rng = np.random.default_rng(seed)
    logp = log_softmax(2 * rng.normal(size=(n, way)), axis=1)
    return logp, draw(np.exp(logp), rng), rng


def draw(p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (rng.random(len(p))[:, None] > p.cumsum(1)).sum(1).clip(max=p.shape[1] - 1)


def binary(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.log(np.stack([confidence, 1 - confidence], 1)), np.where(correct, 0, 1)


def test_ece_and_mce_by_hand() -> None:
    """Two bins: (.6, .667] holds .61, .65 (one right), (.933, 1] holds .95, .99 (both right)."""
    logp, y = binary(np.array([0.61, 0.65, 0.95, 0.99]), np.array([1, 0, 1, 1]))
    assert cal.ece(logp, y) == pytest.approx(0.5 * 0.13 + 0.5 * 0.03)
    assert cal.mce(logp, y) == pytest.approx(0.13)


def test_what_a_calibrated_forecast_would_score() -> None:
    """Against the formula of a folded normal; and few frames never score low."""
    rng = np.random.default_rng(0)
    for items in (300, 30_000):
        p = rng.uniform(0.5, 1.0, items)
        log_prob = np.log(np.stack([p, 1 - p], 1))
        drawn = cal.ece_if_calibrated(log_prob, np.zeros(items, int))
        index = np.ceil(15 * p).astype(int)
        variance = np.bincount(index, p * (1 - p))
        assert drawn.mean() == pytest.approx(np.sqrt(2 / np.pi * variance).sum() / items, rel=0.03)
        truth = (rng.random(items) > p).astype(int)
        assert drawn.min() < cal.ece(log_prob, truth) < drawn.max()
    assert cal.ece_if_calibrated(np.zeros((4, 1)), np.zeros(4, int)).max() == 0.0


def test_bins_are_open_below_and_closed_above() -> None:
    edges = np.linspace(0, 1, 16)
    assert cal.equal_width_bins(edges).tolist() == [0, *range(15)]
    assert cal.equal_width_bins(np.nextafter(edges[:-1], 1)).tolist() == list(range(15))


def test_agrees_with_scikit_learn() -> None:
    logp, y, _ = forecasts(2000, 4, seed=0)
    confidence, correct = top_label(logp, y)
    true, predicted = calibration_curve(correct, confidence, n_bins=15)
    table = cal.reliability(logp, y)
    np.testing.assert_allclose(table["accuracy"], true, atol=1e-12)
    np.testing.assert_allclose(table["confidence"], predicted, atol=1e-12)
    assert cal.ece(logp, y) == pytest.approx(table["count"] @ np.abs(true - predicted) / 2000)
    assert cal.mce(logp, y) == pytest.approx(np.abs(true - predicted).max())


def test_classwise_ece_is_the_mean_over_classes() -> None:
    logp, y, _ = forecasts(500, 3, seed=1)
    errors = []
    for k in range(3):
        p = np.exp(logp[:, k])
        true, predicted = calibration_curve(y == k, p, n_bins=15)
        count = np.bincount(cal.equal_width_bins(p), minlength=15)
        errors.append(count[count > 0] @ np.abs(true - predicted) / 500)
    assert cal.classwise_ece(logp, y) == pytest.approx(np.mean(errors))
    padded = np.concatenate([logp, np.full((500, 2), -np.inf)], axis=1)
    assert cal.classwise_ece(padded, y) == pytest.approx(np.mean(errors))


@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_squared_error_is_unbiased(offset: float) -> None:
    """Accuracy is confidence - offset, so the squared error is offset^2; plain ECE^2 is above."""
    rng = np.random.default_rng(2)
    confidence = np.repeat([0.6, 0.7, 0.9], 40)
    debiased, plain = [], []
    for _ in range(1500):
        logp, y = binary(confidence, rng.random(120) < confidence - offset)
        debiased.append(cal.squared_calibration_error(logp, y))
        plain.append(cal.ece(logp, y) ** 2)
    error = np.std(debiased) / np.sqrt(1500)
    assert abs(np.mean(debiased) - offset**2) < 3.5 * error
    assert np.mean(plain) > offset**2 + 10 * error


def test_squared_error_with_one_confidence_is_the_textbook_estimate() -> None:
    """With constant confidence c the variance is a (1 - a) / (n - 1), as in Kumar et al."""
    logp, y = binary(np.full(50, 0.8), np.arange(50) < 35)
    assert cal.squared_calibration_error(logp, y) == pytest.approx(0.1**2 - 0.7 * 0.3 / 49)


def test_groups_measure_the_noise_of_dependent_frames() -> None:
    """All 20 frames of a video share its outcome; only with groups is the estimate unbiased."""
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(30), 20)
    confidence = np.repeat(np.tile([0.6, 0.9], 15), 20)
    grouped, ignored, kernel, kernel_ignored = [], [], [], []
    for _ in range(400):
        logp, y = binary(confidence, np.repeat(rng.random(30), 20) < confidence)
        grouped.append(cal.squared_calibration_error(logp, y, groups=group))
        ignored.append(cal.squared_calibration_error(logp, y))
        kernel.append(skce(logp, y, bandwidth=1.0, groups=group))
        kernel_ignored.append(skce(logp, y, bandwidth=1.0))
    assert abs(np.mean(grouped)) < 3.5 * np.std(grouped) / 20
    assert np.mean(ignored) > 0.005
    assert abs(np.mean(kernel)) < 3.5 * np.std(kernel) / 20
    assert np.mean(kernel_ignored) > 0.005


def test_debiased_ece_lies_between_zero_and_ece_for_a_calibrated_forecast() -> None:
    plain, debiased = [], []
    for seed in range(100):
        logp, y, _ = forecasts(300, 3, seed)
        plain.append(cal.ece(logp, y))
        debiased.append(cal.debiased_ece(logp, y))
    assert 0 < np.mean(debiased) < 0.75 * np.mean(plain)


def test_folded_normal_mean_against_simulation() -> None:
    x = np.random.default_rng(4).normal(size=400_000)
    for mean, sd in ((0.0, 1.0), (0.5, 0.3), (0.2, 2.0)):
        got = cal.folded_normal_mean(np.array([mean]), np.array([sd]))[0]
        assert got == pytest.approx(np.abs(mean + sd * x).mean(), rel=0.01)
    assert cal.folded_normal_mean(np.array([0.3]), np.array([0.0]))[0] == pytest.approx(0.3)


def test_kernel_error_is_the_sum_over_pairs() -> None:
    logp, y, _ = forecasts(12, 3, seed=5)
    p, total, pairs = np.exp(logp), 0.0, 0
    for i in range(12):
        for j in range(i + 1, 12):
            kernel = np.exp(-0.5 * np.abs(p[i] - p[j]).sum() / 0.4)
            total += kernel * (np.eye(3)[y[i]] - p[i]) @ (np.eye(3)[y[j]] - p[j])
            pairs += 1
    assert skce(logp, y, bandwidth=0.4) == pytest.approx(total / pairs)
    assert np.isnan(skce(logp, y, groups=np.zeros(12)))


def test_kernel_error_is_zero_on_average_if_and_only_if_calibrated() -> None:
    honest, sharp = [], []
    for seed in range(200):
        logp, y, _ = forecasts(60, 3, seed)
        honest.append(skce(logp, y))
        sharp.append(skce(log_softmax(3 * logp, axis=1), y))
    assert abs(np.mean(honest)) < 3.5 * np.std(honest) / np.sqrt(200)
    assert np.mean(sharp) > 10 * np.std(sharp) / np.sqrt(200)


def test_kernel_error_of_a_subset_is_reproducible() -> None:
    logp, y, _ = forecasts(400, 3, seed=6)
    assert skce(logp, y, max_items=100, seed=1) == skce(logp, y, max_items=100, seed=1)
    assert skce(logp, y, max_items=100, seed=1) != skce(logp, y, max_items=100, seed=2)


def test_wilson_agrees_with_scipy() -> None:
    low, high = cal.wilson(np.array([7 / 20]), np.array([20.0]), 0.9)
    expected = binomtest(7, 20).proportion_ci(0.9, "wilson")
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high))


def test_consistency_bands_hold_a_calibrated_forecast() -> None:
    inside = []
    for seed in range(60):
        logp, y, _ = forecasts(400, 3, seed)
        t = cal.reliability(logp, y)
        inside.append((t.accuracy >= t.consistent_low) & (t.accuracy <= t.consistent_high))
    assert np.concatenate(inside).mean() > 0.94


def test_reliability_widens_with_groups() -> None:
    rng = np.random.default_rng(7)
    confidence = np.repeat(np.full(40, 0.75), 25)
    logp, y = binary(confidence, np.repeat(rng.random(40), 25) < confidence)
    alone, grouped = (
        cal.reliability(logp, y),
        cal.reliability(logp, y, groups=np.arange(1000) // 25),
    )
    assert alone["effective_count"].item() == 1000
    assert 30 < grouped["effective_count"].item() < 50
    width = grouped["accuracy_high"] - grouped["accuracy_low"]
    assert (width > 3 * (alone["accuracy_high"] - alone["accuracy_low"])).all()


def test_unlabelled_items_are_left_out_of_groups_too() -> None:
    logp, y, _ = forecasts(50, 3, seed=8)
    group = np.arange(50) // 5
    more = np.concatenate([logp, logp[:5]]), np.concatenate([y, np.full(5, -1)])
    for score in (cal.squared_calibration_error, cal.debiased_ece, skce):
        got = score(*more, groups=np.concatenate([group, group[:5]]))  # type: ignore[operator]
        assert got == score(logp, y, groups=group)  # type: ignore[operator]
