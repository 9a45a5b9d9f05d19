"""Intervals over few, skewed units: what they are made of, and how often they hold the truth."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import beta, dirichlet, t

from bayesfs.evaluation import resampling as rs
from bayesfs.evaluation import studentised as st

Draw = Callable[[np.random.Generator, int], np.ndarray]


def accuracies(rng: np.random.Generator, n: int) -> np.ndarray:
    """Half of the people are right always, the others in half to all of the cases."""
    return np.where(rng.random(n) < 0.5, 1.0, 0.5 + 0.5 * rng.beta(2, 2, n))


WORLDS: dict[str, tuple[Draw, float, tuple[float, float]]] = {
    "normal": (lambda rng, n: rng.normal(size=n), 0.0, (-np.inf, np.inf)),
    "exponential": (lambda rng, n: rng.exponential(size=n), 1.0, (0.0, np.inf)),
    "accuracies": (accuracies, 0.875, (0.0, 1.0)),
    "lognormal": (lambda rng, n: rng.lognormal(size=n), np.exp(0.5), (0.0, np.inf)),
}


def coverage(world: str, units: int, *, repeats: int = 600) -> tuple[float, float]:
    """Share of 95 % intervals that hold the mean, and their median width."""
    draw, truth, bounds = WORLDS[world]
    rng, held, widths = np.random.default_rng(units), [], []
    for seed in range(repeats):
        mean = rs.mean_statistic(draw(rng, units), np.arange(units), units)
        found = rs.bootstrap_interval(mean, units, draws=600, seed=seed, bounds=bounds)
        held.append(found.low <= truth <= found.high)
        widths.append(found.high - found.low)
    return float(np.mean(held)), float(np.median(widths))


@pytest.mark.parametrize("units", [6, 12, 40])
@pytest.mark.parametrize("world", ["normal", "exponential", "accuracies"])
def test_intervals_cover_as_often_as_they_say(world: str, units: int) -> None:
    """Percentiles held the truth in 89, 91 and 93 % of the cases of exponential users."""
    held, _ = coverage(world, units)
    assert held > 0.93


@pytest.mark.parametrize("units", [6, 12, 40])
def test_what_is_said_of_lognormal_users_is_so(units: int) -> None:
    held, _ = coverage("lognormal", units)
    assert held == pytest.approx(st.coverage_if_skewed(units, 0.95), abs=0.025)


def test_normal_users_do_not_pay_much() -> None:
    """At most 45, 20 and 7 % wider than Student's interval with 6, 12 and 40 users."""
    for units, factor in ((6, 1.45), (12, 1.2), (40, 1.07)):
        student = 2 * t.ppf(0.975, units - 1) / np.sqrt(units)
        assert coverage("normal", units, repeats=200)[1] < factor * student


def test_users_who_are_all_right_have_the_interval_of_clopper_and_pearson() -> None:
    for units in (6, 17):
        ones = rs.mean_statistic(np.ones(units), np.arange(units), units)
        found = rs.bootstrap_interval(ones, units, draws=20_000, bounds=(0.0, 1.0))
        assert found.low == pytest.approx(beta.ppf(0.025, units, 1), abs=0.01)
        assert found.high == found.estimate == 1.0


def test_bounded_ends_are_quantiles_of_weights_with_one_further_unit() -> None:
    values = np.array([0.2, 0.9, 1.0, 0.7])
    low, high = st.bounded_ends(values, 0.9, (0.0, 1.0), draws=40_000, seed=0)
    weights = dirichlet.rvs(np.ones(5), size=40_000, random_state=1)
    for end, bound, tail in ((low, 0.0, 0.05), (high, 1.0, 0.95)):
        wanted = np.quantile(weights @ np.append(values, bound), tail)
        assert end == pytest.approx(wanted, abs=0.01)
    assert st.bounded_ends(values, 0.9, (-np.inf, np.inf), draws=10, seed=0) == (-np.inf, np.inf)


def test_pseudo_values_of_a_mean_are_its_values_and_of_a_ratio_its_linear_part() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=9)
    np.testing.assert_allclose(st.pseudo_values(rs.mean_statistic(x, np.arange(9), 9), 9), x)
    unit = np.repeat(np.arange(300), rng.integers(1, 9, 300))
    values = rng.normal(size=len(unit)) + unit / 300
    found = st.pseudo_values(rs.mean_statistic(values, unit, 300), 300)
    size = np.bincount(unit)
    mean = values.mean()
    linear = mean + (np.bincount(unit, values) - mean * size) / size.mean()
    assert found.mean() == pytest.approx(mean)
    np.testing.assert_allclose(found, linear, atol=0.05)


def test_ends_reach_further_to_the_skewed_side_and_never_less_than_student() -> None:
    x = np.random.default_rng(1).exponential(size=20)
    low, high = st.studentised_ends(x, 0.95, draws=4000, seed=0)
    half = t.ppf(0.975, 19) * x.std(ddof=1) / np.sqrt(20)
    assert x.mean() - low >= half * (1 - 1e-12)
    assert high - x.mean() > 1.2 * half
    mirrored = st.studentised_ends(-x, 0.95, draws=4000, seed=0)
    np.testing.assert_allclose(mirrored, (-high, -low))
    np.testing.assert_allclose(
        st.studentised_ends(3 + 1e6 * x, 0.95, draws=4000, seed=0), (3 + 1e6 * low, 3 + 1e6 * high)
    )


def test_one_who_differs_gives_a_finite_interval() -> None:
    """Resamples without that user have no spread at all."""
    x = np.zeros(12)
    x[3] = 0.1
    low, high = st.studentised_ends(x, 0.95, draws=4000, seed=0)
    assert -0.05 < low < 0 < high < 0.2


def test_a_score_that_needs_one_unit_says_so() -> None:
    unit, positive = np.repeat(np.arange(8), 2), np.arange(16) == 0

    def auc(rows: np.ndarray) -> float:
        return float(positive[rows].mean()) if positive[rows].any() else float("nan")

    found = rs.bootstrap_interval(rs.rows_statistic(auc, unit), 8)
    assert np.isnan(found.low)
    assert "without one of the units" in found.reason


def test_few_units_say_how_often_they_cover() -> None:
    statistic = rs.mean_statistic(np.arange(8.0), np.arange(8), 8)
    found = rs.bootstrap_interval(statistic, 8)
    assert (
        "over 8 people or other units, a 95 % interval holds the truth in about 91 %" in found.note
    )
    assert rs.bootstrap_interval(statistic, 8, level=0.9).note
    assert not rs.interval_note(5, 0.95)  # there is no interval
    assert not rs.interval_note(1000, 0.95)
