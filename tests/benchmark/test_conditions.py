"""Conditions of a sweep, noise on features, and sums of scores per unit."""

import numpy as np
import pytest

from bayesfs.benchmark.conditions import (
    Condition,
    noisy,
    sweeps,
    with_queries_of_others,
    with_query_of,
)
from bayesfs.data.sampling import sample_episodes
from bayesfs.errors import DataError, ShapeError
from bayesfs.metrics.paired import sums_difference
from bayesfs.types import UNLABELLED, Embeddings


def embeddings(seed: int = 0) -> Embeddings:
    rng = np.random.default_rng(seed)
    thing = np.repeat(np.arange(6), 8)
    x = 4 + 3 * rng.normal(size=(6, 200))[thing] + rng.normal(size=(48, 200))
    return Embeddings.from_arrays(x, object=[f"o{t}" for t in thing], user="u")


def test_one_thing_changes_at_a_time() -> None:
    found = sweeps((1, 5), 5, ways=(2, 5), noises=(0.0, 0.5))
    assert found == (Condition(1, 5), Condition(5, 5), Condition(5, 2), Condition(5, 5, 0.5))


def test_corruptions_are_swept_over_severities_with_none_first() -> None:
    found = sweeps((1, 5), 0, corruptions=("blur", "noise"), severities=(2, 4))[2:]
    assert [(c.corruption, c.severity) for c in found] == [
        ("none", 0),
        ("blur", 2),
        ("blur", 4),
        ("noise", 2),
        ("noise", 4),
    ]
    assert {c.shots for c in found} == {5}


@pytest.mark.parametrize("values", [(0, 5, 0.0), (1, 1, 0.0), (1, 5, -1.0), (1, 5, np.nan)])
def test_senseless_conditions_are_refused(values: tuple[int, int, float]) -> None:
    with pytest.raises(DataError, match="expected shots >= 1"):
        Condition(*values)


def test_noise_is_measured_in_the_spread_of_the_features() -> None:
    clean = embeddings()
    moved = noisy(clean, 0.5, seed=1).features - clean.features
    spread = np.sqrt(clean.features.var(0).sum())
    assert np.sqrt(np.square(moved).sum(1).mean()) == pytest.approx(0.5 * spread, rel=0.03)
    np.testing.assert_array_equal(noisy(clean, 0.0, seed=1).features, clean.features)
    np.testing.assert_array_equal(noisy(clean, 0.5, seed=1).features - clean.features, moved)


def test_only_the_query_is_replaced() -> None:
    clean = embeddings()
    worse = noisy(clean, 1.0, seed=0)
    one, two = (
        sample_episodes(e, query_conditions=("clean",), shots=2, seed=3) for e in (clean, worse)
    )
    both = with_query_of(one, two)
    assert both.support.equal(one.support)
    assert both.query.equal(two.query)
    other = sample_episodes(clean, query_conditions=("clean",), shots=4, seed=3)
    with pytest.raises(DataError, match="the same tasks"):
        with_query_of(one, other)


def test_the_difference_of_sums_is_that_of_the_means_over_rows() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(5, 20, 200)
    first = rows * (1.0 + 0.2 * rng.normal(size=200))
    second = rows * (0.7 + 0.2 * rng.normal(size=200))
    gap = sums_difference(first, second, rows)
    assert gap.estimate == pytest.approx((first.sum() - second.sum()) / rows.sum())
    per_unit = (first - second) / rows
    half = 1.96 * np.sqrt(np.average((per_unit - 0.3) ** 2, weights=rows**2) / 200)
    assert (gap.high - gap.low) / 2 == pytest.approx(half, rel=0.25)
    with pytest.raises(ShapeError, match="the same units"):
        sums_difference(first, second[:-1], rows)


def test_tasks_are_asked_about_the_next_users_objects_too() -> None:
    rng = np.random.default_rng(0)
    user, video = np.repeat(np.arange(3), 24), np.repeat(np.arange(36), 2)
    drawn = Embeddings.from_arrays(
        rng.normal(size=(72, 4)),
        object=[f"o{v // 3 % 4}" for v in video],
        video=[f"v{v:02d}" for v in video],
        user=[f"u{u}" for u in user],
    )
    tasks = sample_episodes(
        drawn, query_conditions=("clean",), shots=1, episodes_per_user=2, seed=0
    )
    asked = with_queries_of_others(tasks)
    own = tasks.query.shape[1]
    assert asked.query[:, :own].equal(tasks.query)
    assert asked.query_labels[:, :own].equal(tasks.query_labels)
    assert (asked.query_labels[:, own:] == UNLABELLED).all()
    assert asked.query_frame is not None
    strangers = drawn.coord("user")[asked.query_frame[:, own:].numpy()]
    assert [set(s.ravel().tolist()) for s in strangers] == [
        {"u1"}, {"u1"}, {"u2"}, {"u2"}, {"u0"}, {"u0"},
    ]  # fmt: skip
    assert all(len(names) == asked.query.shape[1] for names in asked.videos)
    alone = tasks.select([0, 1])
    assert with_queries_of_others(alone) is alone
