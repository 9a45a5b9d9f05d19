"""Decompositions of probly's fixtures.

Source: pwhofman/probly (MIT), tests/probly/quantification/decomposition/{entropy,zero_one}/
test_array.py and measure/distribution/test_array.py: three draws of two queries, two draws with
known zero-one parts, and Dirichlet distributions. probly's epistemic part is the mutual
information of the draws themselves; ours is an estimate of that of the posterior behind them and
larger by S / (S - 1).
"""

import numpy as np
import pytest
import torch
from scipy.special import digamma
from scipy.stats import entropy

from bayesfs.types import LabelDraws
from bayesfs.uncertainty.decompose import decompose_draws
from bayesfs.uncertainty.zero_one import decompose_zero_one

DRAWS = np.array(
    [
        [[0.70, 0.20, 0.10], [0.15, 0.35, 0.50]],
        [[0.60, 0.30, 0.10], [0.20, 0.30, 0.50]],
        [[0.80, 0.10, 0.10], [0.10, 0.40, 0.50]],
    ]
)


def labels(prob: np.ndarray) -> LabelDraws:
    """(draw, query, way) equally likely draws."""
    given = torch.tensor(prob, dtype=torch.float64).log()
    weight = torch.full(given.shape[:-1], -np.log(len(given)), dtype=torch.float64)
    return LabelDraws((given + weight[..., None]).logsumexp(0), given, weight)


def test_entropy_decomposition_of_three_draws() -> None:
    mean = DRAWS.mean(0)
    information = entropy(DRAWS, mean[None], axis=-1).mean(0)
    total, aleatoric, epistemic = (v.numpy() for v in decompose_draws(labels(DRAWS)))
    np.testing.assert_allclose(total, entropy(mean, axis=-1), atol=1e-9)
    np.testing.assert_allclose(epistemic, information * 3 / 2, atol=1e-9)
    np.testing.assert_allclose(aleatoric, total - information * 3 / 2, atol=1e-9)


def test_zero_one_decomposition_of_known_values() -> None:
    parts = decompose_zero_one(labels(np.array([[[0.90, 0.10]], [[0.20, 0.80]]])))
    assert [float(p) for p in parts] == pytest.approx([0.45, 0.15, 0.30])


def test_zero_one_decomposition_of_three_draws() -> None:
    total, aleatoric, epistemic = decompose_zero_one(labels(DRAWS))
    np.testing.assert_allclose(total, 1 - DRAWS.mean(0).max(-1), atol=1e-12)
    np.testing.assert_allclose(aleatoric, (1 - DRAWS.max(-1)).mean(0), atol=1e-12)
    np.testing.assert_allclose(epistemic, total - aleatoric, atol=1e-12)


def test_draws_that_agree_on_the_class_make_no_epistemic_mistakes() -> None:
    _, _, epistemic = decompose_zero_one(labels(DRAWS))
    assert float(epistemic.abs().max()) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("alpha", [(2.0, 3.0, 5.0), (1.0, 4.0, 2.0), (1.5, 2.0, 3.5)])
def test_draws_of_a_dirichlet_have_its_closed_form(alpha: tuple[float, ...]) -> None:
    a = np.array(alpha)
    aleatoric = digamma(a.sum() + 1) - (a / a.sum()) @ digamma(a + 1)
    drawn = np.random.default_rng(0).dirichlet(a, (4000, 1))
    total, known, epistemic = (float(v) for v in decompose_draws(labels(drawn)))
    assert total == pytest.approx(entropy(a / a.sum()), abs=0.01)
    assert known == pytest.approx(aleatoric, abs=0.01)
    assert epistemic == pytest.approx(entropy(a / a.sum()) - aleatoric, abs=0.01)


@pytest.mark.parametrize(("each", "share"), [(1000.0, (0.0, 1e-3)), (1e-2, (0.95, 1.0))])
def test_concentrated_and_corner_like_dirichlets(each: float, share: tuple[float, float]) -> None:
    """All of log 3 is aleatoric in the first case, nearly all of it epistemic in the second."""
    drawn = np.random.default_rng(0).dirichlet([each] * 3, (4000, 1)).clip(1e-300)
    total, _, epistemic = (float(v) for v in decompose_draws(labels(drawn)))
    assert total == pytest.approx(np.log(3), abs=1e-3)
    assert share[0] <= epistemic / total <= share[1]
