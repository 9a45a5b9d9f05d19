"""Scores that scikit-learn's documentation prints, and its own functions on random forecasts.

Source: scikit-learn (BSD-3), examples of `log_loss` (.21616), `brier_score_loss` (.0375),
`roc_auc_score` (.75), `calibration_curve` (0, .5, 1 against .2, .525, .85 with three bins). Its
estimator checks are run in tests/test_sklearn.py.
"""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from bayesfs.metrics.calibration import binned_gaps, equal_width_bins
from bayesfs.metrics.scores import brier, nll
from bayesfs.metrics.selective import auroc


def test_log_loss() -> None:
    prob = [[0.1, 0.9], [0.9, 0.1], [0.8, 0.2], [0.35, 0.65]]
    assert nll(np.log(prob), [1, 0, 0, 1]) == pytest.approx(0.21616, abs=5e-6)


def test_brier_score_is_twice_the_binary_one() -> None:
    prob = np.array([0.1, 0.9, 0.8, 0.3])
    both = np.log(np.stack([1 - prob, prob], 1))
    assert brier(both, [0, 1, 1, 0]) == pytest.approx(2 * 0.0375)


def test_roc_auc() -> None:
    assert auroc([0.1, 0.4, 0.35, 0.8], [False, False, True, True]) == pytest.approx(0.75)


def test_calibration_curve() -> None:
    stated = np.array([0.1, 0.2, 0.3, 0.4, 0.65, 0.7, 0.8, 0.9, 1.0])
    happened = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1.0])
    index = equal_width_bins(stated, 3)
    assert [happened[index == b].mean() for b in range(3)] == [0.0, 0.5, 1.0]
    assert [stated[index == b].mean() for b in range(3)] == pytest.approx([0.2, 0.525, 0.85])
    assert binned_gaps(stated, happened, index)[1] == pytest.approx([0.2, 0.025, 0.15])


@pytest.mark.parametrize("way", [2, 3, 8])
def test_random_forecasts(way: int) -> None:
    rng = np.random.default_rng(way)
    prob = rng.dirichlet(np.ones(way), 200)
    y = rng.integers(0, way, 200)
    assert nll(np.log(prob), y) == pytest.approx(log_loss(y, prob, labels=range(way)))
    mine = brier(np.log(prob), y)
    theirs = sum(brier_score_loss(y == k, prob[:, k]) for k in range(way))
    assert mine == pytest.approx(theirs)
    score = np.round(rng.random(200), 1)  # with ties
    assert auroc(score, y == 0) == pytest.approx(roc_auc_score(y == 0, score))
