"""Entropy, mutual information, Brier score, calibration error and AURC of torch-uncertainty.

Source: ENSTA-U2IS-AI/torch-uncertainty (Apache-2.0), tests/metrics/classification/
test_{entropy,mutual_information,brier_score,calibration,risk_coverage}.py.
"""

import math

import numpy as np
import pytest
import torch

from bayesfs._distributions.categorical import entropy
from bayesfs.metrics.calibration import ece, equal_mass_bins, mce
from bayesfs.metrics.scores import brier_items, top_label
from bayesfs.metrics.selective import aurc
from bayesfs.types import LabelDraws
from bayesfs.uncertainty.decompose import decompose_draws

DISAGREE = [[1e-8, 1 - 1e-8], [1 - 1e-8, 1e-8]]
AGREE = [[0.9, 0.1], [0.9, 0.1]]
FIVE = [[0.2, 0.6, 0.1, 0.05, 0.05], [0.05, 0.25, 0.1, 0.3, 0.3]]


def log(prob: list[list[float]]) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.array(prob))


def both(prob: list[float]) -> np.ndarray:
    return log([[1 - p, p] for p in prob])


def parts(prob: list[list[float]]) -> tuple[float, float]:
    """Total and epistemic uncertainty of equally likely draws."""
    given = torch.tensor(prob, dtype=torch.float64).log()[:, None]
    weight = torch.full((len(prob), 1), -math.log(len(prob)), dtype=torch.float64)
    draws = LabelDraws((given + weight[..., None]).logsumexp(0), given, weight)
    total, _, epistemic = decompose_draws(draws)
    return float(total), float(epistemic)


@pytest.mark.parametrize(
    ("prob", "nats"), [([0.5, 0.5], math.log(2)), ([0.0, 1.0], 0.0)], ids=["even", "sure"]
)
def test_entropy(prob: list[float], nats: float) -> None:
    assert float(entropy(torch.tensor(prob).log())) == pytest.approx(nats, abs=1e-6)


def test_mutual_information_of_draws_that_agree_and_of_some_that_do_not() -> None:
    """All of the total where draws are sure of different classes, nothing where they agree."""
    assert parts(AGREE)[1] == pytest.approx(0.0, abs=1e-9)
    assert parts(DISAGREE) == pytest.approx((math.log(2), math.log(2)), rel=1e-5)


def test_brier_score() -> None:
    """Theirs of two classes is ours; the even forecast scores .5, the sure one 0."""
    assert brier_items(log([[0.5, 0.5], [0.0, 1.0]]), [1, 1]).tolist() == pytest.approx([0.5, 0.0])
    first = 0.2**2 + 0.6**2 + 0.1**2 + 0.95**2 + 0.05**2
    second = 0.05**2 + 0.25**2 + 0.1**2 + 0.3**2 + 0.7**2
    assert brier_items(log(FIVE), [3, 4]).tolist() == pytest.approx([first, second])


def test_equal_mass_bins_are_those_of_their_adaptive_error() -> None:
    """Three of five items in the lower bin, where their example has them."""
    confidence, correct = top_label(both([0.3, 0.24, 0.25, 0.2, 0.8]), [0, 0, 0, 1, 1])
    lower, upper = [0.7, 0.76, 0.75], [0.8, 0.8]
    assert confidence.tolist() == pytest.approx([0.7, 0.76, 0.75, 0.8, 0.8])
    index = equal_mass_bins(confidence, 2)
    assert confidence[index == 0].tolist() == pytest.approx(lower)
    gaps = [abs(correct[index == b].mean() - confidence[index == b].mean()) for b in (0, 1)]
    assert gaps == pytest.approx([1 - np.mean(lower), np.mean(upper) - 0.5])
    assert 3 / 5 * gaps[0] + 2 / 5 * gaps[1] == pytest.approx(0.6 * (1 - 2.21 / 3) + 0.4 * 0.3)


def test_adaptive_and_plain_error_agree_where_their_bins_do() -> None:
    logp, y = both([0.35, 0.35, 0.75, 0.75]), [0, 0, 1, 1]
    confidence, correct = top_label(logp, y)
    assert ece(logp, y, bins=2) == pytest.approx(float((correct - confidence).mean()))
    assert mce(logp, y, bins=2) == pytest.approx(0.30)


def test_aurc_of_answers_that_are_all_right() -> None:
    prob = [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6], [0.2, 0.8]]
    assert aurc(log(prob), [1] * 5) == 0.0
    assert aurc(log(prob), [0] * 5) == pytest.approx(1.0)
