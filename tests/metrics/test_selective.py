import itertools

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.metrics import roc_auc_score

from bayesfs.errors import ShapeError
from bayesfs.metrics import selective as sel
from bayesfs.metrics.scores import accuracy, top_label


def binary(confidence: list[float], correct: list[int]) -> tuple[np.ndarray, np.ndarray]:
    c = np.array(confidence)
    return np.log(np.stack([c, 1 - c], 1)), 1 - np.array(correct)


def by_definition(correct: np.ndarray) -> float:
    """Area of answers that stand surest first."""
    return float(((1 - correct).cumsum() / np.arange(1, len(correct) + 1)).mean())


@pytest.fixture
def predictions() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return log_softmax(rng.normal(size=(400, 3)) * 2, axis=1), rng.integers(3, size=400)


def test_aurc_by_definition(predictions: tuple[np.ndarray, np.ndarray]) -> None:
    confidence, correct = top_label(*predictions)
    order = np.argsort(-confidence)
    assert sel.aurc(*predictions) == pytest.approx(by_definition(correct[order]))


def test_aurc_by_hand() -> None:
    """Right, wrong, right, wrong: risks 0, 1/2, 1/3, 2/4; the best order gives 0, 0, 1/3, 2/4."""
    logp, y = binary([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0])
    assert sel.aurc(logp, y) == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert sel.e_aurc(logp, y) == pytest.approx((1 / 2) / 4)


def test_ties_count_as_in_random_order() -> None:
    logp, y = binary([0.9, 0.8, 0.8, 0.8, 0.6], [1, 0, 1, 0, 1])
    orders = [
        by_definition(np.array([1, *middle, 1])) for middle in itertools.permutations([0, 1, 0])
    ]
    assert sel.aurc(logp, y) == pytest.approx(np.mean(orders))
    assert sel.accuracy_at_coverage(logp, y, 0.4) == pytest.approx(np.mean([1, 1 / 3]))


def test_e_aurc_near_published_approximation() -> None:
    """Geifman et al.: the best area is about r + (1 - r) log(1 - r)."""
    rng = np.random.default_rng(1)
    correct = (rng.random(20_000) > 0.3).astype(int)
    logp, y = binary(list(rng.uniform(0.51, 0.99, 20_000)), list(correct))
    r = 1 - accuracy(logp, y)
    best = r + (1 - r) * np.log(1 - r)
    assert sel.aurc(logp, y) - sel.e_aurc(logp, y) == pytest.approx(best, abs=1e-4)
    assert sel.aurc(logp, y) == pytest.approx(r, abs=0.02)


def test_e_aurc_of_the_best_ranking_is_zero(predictions: tuple[np.ndarray, np.ndarray]) -> None:
    _, correct = top_label(*predictions)
    assert sel.e_aurc(*predictions, confidence=correct) == pytest.approx(0, abs=1e-12)


def test_risk_coverage_ends_at_the_error_rate(predictions: tuple[np.ndarray, np.ndarray]) -> None:
    coverage, risk = sel.risk_coverage(*predictions)
    assert coverage[-1] == 1
    assert risk[-1] == pytest.approx(1 - accuracy(*predictions))
    assert (np.diff(coverage) > 0).all()


def test_accuracy_at_coverage(predictions: tuple[np.ndarray, np.ndarray]) -> None:
    confidence, correct = top_label(*predictions)
    surest = np.argsort(-confidence)[:320]
    assert sel.accuracy_at_coverage(*predictions, 0.8) == pytest.approx(correct[surest].mean())
    assert sel.accuracy_at_coverage(*predictions, 1.0) == pytest.approx(accuracy(*predictions))
    with pytest.raises(ShapeError, match="coverage"):
        sel.accuracy_at_coverage(*predictions, 0.0)


def test_area_leaves_out_empty_blocks_and_batches() -> None:
    count, errors = np.array([[2.0, 0.0, 3.0], [1.0, 1.0, 1.0]]), np.array([[1.0, 0, 1], [0, 1, 1]])
    together = sel.area(count, errors)
    assert together[0] == pytest.approx(sel.area(count[0, [0, 2]], errors[0, [0, 2]]))
    assert together[1] == pytest.approx(by_definition(np.array([1, 0, 0])))


def test_auroc_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    positive = rng.random(300) < 0.3
    score = np.round(rng.normal(size=300) + positive, 1)  # with ties
    assert sel.auroc(score, positive) == pytest.approx(roc_auc_score(positive, score))
    assert np.isnan(sel.auroc(score, np.ones(300, bool)))
    with pytest.raises(ShapeError, match="NaN"):
        sel.auroc(np.array([np.nan, 0.0]), np.array([True, False]))


def test_sets_of_a_calibrated_forecast_cover() -> None:
    rng = np.random.default_rng(4)
    p = rng.dirichlet(np.ones(5), size=20_000)
    y = (rng.random(20_000)[:, None] > p.cumsum(1)).sum(1)
    for level in (0.5, 0.9):
        coverage, size = sel.set_coverage(np.log(p), y, level)
        assert coverage > level - 0.01
        assert 1 <= size <= 5
    assert sel.set_coverage(np.log([[0.6, 0.3, 0.1]]), [1], 0.9) == (1.0, 2.0)
    assert sel.set_coverage(np.log([[0.6, 0.3, 0.1]]), [2], 0.9) == (0.0, 2.0)


def test_another_confidence_leaves_out_unlabelled_items() -> None:
    logp, y = binary([0.9, 0.8, 0.7], [1, 0, 1])
    y[2] = -1
    assert sel.aurc(logp, y, confidence=np.array([0.0, 1.0, 2.0])) == pytest.approx(0.75)
    with pytest.raises(ShapeError, match="confidence"):
        sel.aurc(logp, y, confidence=np.zeros(2))
