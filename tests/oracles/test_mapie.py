"""Sets of classes of MAPIE's toy problem.

Source: scikit-learn-contrib/MAPIE (BSD-3), mapie/tests/test_classification.py: nine points on a
line, logistic regression, alpha = .5; sets and coverages of its methods "naive" (the likeliest
classes until they reach the level) and "lac" (probability above a threshold that was taken from
the same nine points). It takes the sixth of nine scores as the threshold; our groups are people,
and with one of them the threshold holds for a share of their queries, here six of nine.
"""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bayesfs.decisions.prediction_sets import credible_set, set_threshold
from bayesfs.decisions.queries import Judged
from bayesfs.metrics.selective import SLACK, plain_sets, set_coverage

X = np.arange(9.0).reshape(-1, 1)
Y = np.array([0, 0, 1, 0, 1, 1, 2, 1, 2])
NAIVE = [{0}, {0}, {0}, {1}, {1}, {1}, {1}, {2}, {2}]
LAC = [{0}, {0}, {0}, {1}, {1}, {1}, {1}, {1, 2}, {2}]
COVERAGE = {"naive": 5 / 9, "lac": 6 / 9}


@pytest.fixture(scope="module")
def prob() -> np.ndarray:
    return LogisticRegression().fit(X, Y).predict_proba(X)


def named(sets: np.ndarray) -> list[set[int]]:
    return [set(np.flatnonzero(row).tolist()) for row in sets]


def test_naive_sets(prob: np.ndarray) -> None:
    assert named(plain_sets(prob, 0.5)) == NAIVE
    assert named(credible_set(prob, 0.5)) == NAIVE
    coverage, size = set_coverage(np.log(prob), Y, 0.5)
    assert coverage == pytest.approx(COVERAGE["naive"])
    assert size == 1.0


def test_sets_above_a_threshold(prob: np.ndarray) -> None:
    one_person = Judged(np.array(["P01"] * 9), prob, Y, np.full(9, np.nan))
    sets = prob >= set_threshold(one_person, level=6 / 9, share=0.5) - SLACK
    assert named(sets) == LAC
    assert sets[np.arange(9), Y].mean() == pytest.approx(COVERAGE["lac"])
