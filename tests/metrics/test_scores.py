import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from bayesfs.errors import ShapeError
from bayesfs.metrics import scores


@pytest.fixture
def predictions() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return log_softmax(rng.normal(size=(300, 4)) * 2, axis=1), rng.integers(4, size=300)


def test_agrees_with_scikit_learn(predictions: tuple[np.ndarray, np.ndarray]) -> None:
    logp, y = predictions
    p = np.exp(logp)
    assert scores.nll(logp, y) == pytest.approx(log_loss(y, p, labels=range(4)))
    assert scores.accuracy(logp, y) == accuracy_score(y, p.argmax(1))
    binary = log_softmax(logp[:, :2], axis=1)
    y2 = y % 2
    # scikit-learn's binary Brier score counts one of the two classes only.
    assert scores.brier(binary, y2) == pytest.approx(2 * brier_score_loss(y2, np.exp(binary[:, 1])))


def test_hand_computed() -> None:
    logp = np.log([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    assert scores.nll(logp, [0, 1]) == pytest.approx(-(np.log(0.7) + np.log(0.3)) / 2)
    assert scores.brier(logp, [0, 1]) == pytest.approx(
        ((0.3**2 + 0.2**2 + 0.1**2) + (0.1**2 + 0.7**2 + 0.6**2)) / 2
    )
    assert scores.brier(np.array([[0.0, -np.inf]]), [1]) == 2.0
    assert scores.accuracy(logp, [0, 1]) == 0.5


def test_padded_classes_and_unlabelled_items_change_nothing(
    predictions: tuple[np.ndarray, np.ndarray],
) -> None:
    logp, y = predictions
    padded = np.concatenate([logp, np.full((300, 2), -np.inf)], axis=1)
    padded = np.concatenate([padded, padded[:7]])
    labels = np.concatenate([y, np.full(7, -1)])
    for score in (scores.nll, scores.brier, scores.accuracy):
        assert score(padded, labels) == score(logp, y)


def test_nll_and_brier_are_proper() -> None:
    """In expectation under p, no other forecast q scores better than p."""
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(3))
    for q in rng.dirichlet(np.ones(3), size=50):
        for items in (scores.nll_items, scores.brier_items):
            honest = items(np.log([p] * 3), np.arange(3)) @ p
            other = items(np.log([q] * 3), np.arange(3)) @ p
            assert honest <= other


def test_takes_tensors(predictions: tuple[np.ndarray, np.ndarray]) -> None:
    logp, y = predictions
    tensor = torch.tensor(logp, requires_grad=True)
    assert scores.nll(tensor, torch.tensor(y)) == pytest.approx(scores.nll(logp, y))


def test_impossible_label_costs_infinitely_much() -> None:
    assert scores.nll(np.array([[0.0, -np.inf]]), [1]) == np.inf


@pytest.mark.parametrize(
    ("logp", "labels", "message"),
    [
        (np.zeros((2, 3)), [0, 1], "logits"),
        (np.full((2, 2), np.nan), [0, 1], "NaN"),
        (np.full((2, 2), np.log(0.5)), [0, 2], "labels 0..1"),
        (np.full((2, 2), np.log(0.5)), [0, -2], "labels 0..1"),
        (np.full((2, 2), np.log(0.5)), [0], "labels"),
        (np.full((2, 2), np.log(0.5)), [0.0, 1.0], "integer"),
        (np.full((2, 2), np.log(0.5)), [-1, -1], "at least one labelled"),
        (np.full(2, np.log(0.5)), [0, 1], "item, way"),
    ],
)
def test_bad_input_is_refused(logp: np.ndarray, labels: list[float], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        scores.nll(logp, labels)
