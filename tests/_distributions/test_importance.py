"""Smoothed importance weights against known tails, and where the weights themselves underflow."""

from __future__ import annotations

import math

import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy.special import logsumexp

from bayesfs._distributions.importance import TAIL_NEEDS, smoothed


@pytest.mark.parametrize("k", [0.3, 0.7, 1.2, 3.0])
def test_the_shape_of_a_known_tail(k: float) -> None:
    """Pareto weights have log w = k E, E standard exponential, whatever their size."""
    log_weight = k * np.random.default_rng(0).exponential(size=4000)
    for shift in (0.0, 5000.0, -1e6):
        assert smoothed(log_weight + shift)[1] == pytest.approx(k, abs=0.2)


@pytest.mark.parametrize("far", [5.0, 50.0, 200.0, 5000.0])
def test_a_guide_that_is_sds_off_is_told(far: float) -> None:
    """p = N(far, I) in 20 dimensions against q = N(0, I): the logs spread by up to 10^5 nats."""
    z = np.random.default_rng(1).normal(size=(400, 20))
    assert smoothed(far * z.sum(1))[1] > 0.7


def test_weights_are_those_of_arviz_where_they_do_not_underflow() -> None:
    log_weight = np.random.default_rng(2).normal(size=500)
    expected, k = array_stats.psislw(-(log_weight - logsumexp(log_weight)))
    found = smoothed(log_weight)
    np.testing.assert_allclose(found[0], expected)
    assert found[1] == pytest.approx(float(k))


def test_what_cannot_be_fitted() -> None:
    rng = np.random.default_rng(3)
    some = rng.normal(size=100)
    assert smoothed(np.zeros(100))[1] == -math.inf
    assert math.isnan(smoothed(some[: TAIL_NEEDS - 1])[1])
    for bad in (np.nan, np.inf):
        assert smoothed(np.append(some, bad))[1] == math.inf
    assert smoothed(np.full(100, -np.inf))[1] == math.inf
    few = np.where(np.arange(100) < 5, some, -np.inf)  # five draws alone have a weight
    assert smoothed(few)[1] == math.inf
    half = np.where(np.arange(100) < 50, some, -np.inf)
    weight, k = smoothed(half)
    assert (np.isneginf(weight) == np.isneginf(half)).all()
    assert logsumexp(weight) == pytest.approx(0.0, abs=0.05)
    assert k < 0.7
    assert smoothed(np.minimum(some, np.sort(some)[-30]))[1] == -math.inf  # ties at the top
