"""Rules learnt across users: coverage and risk against their nominal values on simulated people."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine

from bayesfs.decisions.abstention import answer_threshold
from bayesfs.decisions.checks import check_left_out, check_rules
from bayesfs.decisions.prediction_sets import rank_of, set_threshold
from bayesfs.decisions.queries import UNREACHABLE, Judged, judged
from bayesfs.decisions.rules import Rules, UnitRules, between, learn_rules, unit_rules
from bayesfs.errors import DataError
from bayesfs.metrics.selective import plain_sets
from bayesfs.models.gaussian.families import PowerLaw
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.types import EpisodeBatch, LabelDraws, Predictive

WANTED = {"level": 0.9, "share": 0.9, "risk": 0.1, "rejected": 0.05}


def people(count: int, rng: np.random.Generator, queries: int = 20, ways: int = 5) -> Judged:
    """Users whose forecasts are overconfident to different degrees: labels follow flatter odds."""
    parts = []
    for u in range(count):
        truth = rng.dirichlet(np.full(ways, 0.3), size=queries)
        label = (truth.cumsum(-1)[:, :-1] < rng.random((queries, 1))).sum(-1)
        said = truth ** (1.0 + 2.0 * rng.random())
        said /= said.sum(-1, keepdims=True)
        absent = rng.beta(1, 9, size=queries)
        parts.append((np.full(queries, f"u{u:03d}"), said, label, absent))
    return Judged(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def covered(queries: Judged, least: float) -> list[float]:
    """Coverage of each user's sets, without `UnitRules`."""
    true = queries.prob[np.arange(len(queries.label)), queries.label]
    inside = (true >= least) | (true == queries.prob.max(-1))
    return [inside[queries.user == u].mean() for u in np.unique(queries.user)]


@pytest.mark.parametrize("users", [6, 19])
def test_as_many_new_users_are_covered_as_was_promised(users: int) -> None:
    """Over 400 simulated studies, against the nominal probability k / (K + 1)."""
    rng = np.random.default_rng(users)
    kept = []
    for _ in range(400):
        least = set_threshold(people(users, rng), 0.9, 0.9)
        kept.append(covered(people(1, rng), least)[0] >= 0.9)
    promised = rank_of(users, 0.9) / (users + 1)
    error = math.sqrt(promised * (1 - promised) / len(kept))
    assert promised - 3 * error <= np.mean(kept)
    assert np.mean(kept) <= promised + 0.08, "sets are no larger than they need be"


def test_plain_sets_of_overconfident_forecasts_fall_short_of_learnt_ones() -> None:
    rng = np.random.default_rng(3)
    table = check_left_out(people(20, rng), **WANTED)
    assert (table["coverage"] >= 0.9).mean() >= 0.8
    assert (table["plain_coverage"] >= 0.9).mean() < (table["coverage"] >= 0.9).mean()
    assert table["error"].mean() <= 0.1 + 0.05
    assert table["rejected"].mean() == pytest.approx(0.05, abs=0.04)
    assert (table["queries"] == 20).all()


def test_the_promise_grows_with_the_number_of_users() -> None:
    assert [rank_of(n, 0.9) / (n + 1) for n in (1, 6, 9, 99)] == pytest.approx(
        [1 / 2, 6 / 7, 0.9, 0.9]
    )


def test_the_answer_threshold_is_the_lowest_that_keeps_the_risk() -> None:
    """Against trying every value."""
    queries = people(4, np.random.default_rng(8), queries=60)
    top, wrong = queries.prob.max(-1), queries.prob.argmax(-1) != queries.label
    good = [
        t for t in np.unique(top) if (wrong[top >= t].sum() + 1) / ((top >= t).sum() + 1) <= 0.1
    ]
    assert answer_threshold(queries, 0.1) == min(good)
    assert answer_threshold(queries, 1e-6) == UNREACHABLE


def test_equally_confident_queries_are_answered_together_or_not_at_all() -> None:
    prob = np.tile([0.8, 0.2], (40, 1))
    label = np.array([0] * 30 + [1] * 10)
    same = Judged(np.full(40, "u"), prob, label, np.full(40, math.nan))
    assert answer_threshold(same, 0.1) == UNREACHABLE
    assert answer_threshold(same, 0.3) == 0.8


def test_no_more_taught_queries_are_turned_away_than_allowed() -> None:
    rng = np.random.default_rng(1)
    queries = people(10, rng, queries=50)
    rules = unit_rules(queries, **WANTED)
    turned = rules.absent(queries.absent)
    assert turned.sum() + 1 <= 0.05 * 501 < turned.sum() + 2
    assert (
        unit_rules(replace(queries, absent=np.full(500, np.nan)), **WANTED).most_absent
        == UNREACHABLE
    )
    few = people(1, rng, queries=10)
    assert unit_rules(few, **WANTED).most_absent == UNREACHABLE, "ten queries cannot show 5 %"


def test_every_user_counts_alike_however_many_queries_he_has() -> None:
    one = Judged(
        np.array(["a"] * 30 + ["b"] * 300),
        np.tile([0.9, 0.1], (330, 1)),
        np.array([1] * 30 + [0] * 300),
        np.full(330, math.nan),
    )
    assert answer_threshold(one, 0.4) == UNREACHABLE, "half of the users' answers are wrong"
    assert answer_threshold(one, 0.6) == 0.9


def test_sets_hold_the_likeliest_class_and_no_padding() -> None:
    rules = UnitRules(least_in_set=0.0, least_alone=0.5, most_absent=0.5)
    prob = np.array([[0.7, 0.3, 0.0], [0.4, 0.35, 0.25]])
    np.testing.assert_array_equal(rules.in_set(prob), [[1, 1, 0], [1, 1, 1]])
    strict = UnitRules(least_in_set=0.9, least_alone=0.5, most_absent=0.5)
    np.testing.assert_array_equal(strict.in_set(prob), [[1, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(strict.alone(prob), [True, False])
    np.testing.assert_array_equal(strict.absent(np.array([0.6, 0.5, math.nan])), [1, 0, 0])
    np.testing.assert_array_equal(plain_sets(prob, 0.7), [[1, 0, 0], [1, 1, 0]])


def tasks() -> tuple[EpisodeBatch, Predictive]:
    """Two users, two videos of two frames each, one of them of an untaught object."""
    rng = torch.Generator().manual_seed(0)
    mask = torch.ones(2, 2, 2, dtype=torch.bool)
    mask[1, 1, 1] = False
    episodes = EpisodeBatch(
        torch.zeros(2, 2, 3, 1, 1),
        torch.ones(2, 2, 3, 1, dtype=torch.bool),
        torch.zeros(2, 2, 3, dtype=torch.long),
        torch.zeros(2, 2, 2, 1),
        mask,
        torch.zeros(2, 2, dtype=torch.long),
        torch.tensor([[0, -1], [1, 0]]),
        tasks=("a#1", "b#1"),
    )

    def labels(*shape: int) -> LabelDraws:
        log = torch.randn(*shape, 2, generator=rng).log_softmax(-1)
        return LabelDraws(log, log[None], torch.zeros(1, *shape))

    absent = torch.rand(2, 2, 2, generator=rng)
    return episodes, Predictive(labels(2, 2, 2), labels(2, 2), absent)


def test_only_labelled_queries_that_exist_are_judged() -> None:
    episodes, predictive = tasks()
    videos = judged(predictive, episodes, "video", torch.tensor([[0.1, 0.2], [0.3, 0.4]]))
    assert videos.user.tolist() == ["a", "b", "b"]
    assert videos.label.tolist() == [0, 1, 0]
    np.testing.assert_allclose(videos.absent, [0.1, 0.3, 0.4])
    frames = judged(predictive, episodes, "frame")
    assert frames.label.tolist() == [0, 0, 1, 1, 0]
    np.testing.assert_allclose(frames.prob[-1], predictive.frame.prob[1, 1, 0])
    np.testing.assert_allclose(frames.absent[-1], predictive.absent[1, 1, 0])


def test_sets_of_a_wrong_model_cover_other_simulated_people_as_promised() -> None:
    """The Gaussian hierarchy with a population from its prior, not the one behind the data."""
    batch, _ = synthetic_episodes(users=120, way=4, shots=2, frames=3, query_videos=3, seed=5)
    batch = batch.to(torch.float64)
    model = GaussianHierarchy(PowerLaw(spectrum=tuple(0.9**d for d in range(8))))
    with torch.random.fork_rng(), poutine.block():
        pyro.set_rng_seed(1)
        sites = model.sample_population(torch.zeros(8, dtype=torch.float64))
    frame, video = model.log_labels(batch, sites)

    def alone(log: torch.Tensor) -> LabelDraws:
        return LabelDraws(log, log[None], log.new_zeros(1, *log.shape[:-1]))

    predictive = Predictive(alone(frame), alone(video))
    taught = list(range(40))
    rules = learn_rules(
        Predictive(alone(frame[:40]), alone(video[:40])), batch.select(taught), level=0.75
    )
    assert rules.promised == pytest.approx(37 / 41)
    others = judged(predictive, batch, "video").of(np.repeat(np.arange(120) >= 40, 12))
    table = check_rules(others, rules.video, 0.75)
    assert len(table) == 80
    error = math.sqrt(rules.promised * (1 - rules.promised) * (1 / 80 + 1 / 41))
    assert (table["coverage"] >= 0.75).mean() >= rules.promised - 3 * error
    assert table["set_size"].mean() < 4


def test_rules_are_plain_numbers_and_come_back_from_json() -> None:
    episodes, predictive = tasks()
    rules = learn_rules(predictive, episodes)
    assert rules.shots == 3
    assert rules.users == 2
    assert rules.promised == pytest.approx(2 / 3)
    again = json.loads(json.dumps(rules.to_dict(), allow_nan=False))
    assert Rules.from_dict(again) == rules


def test_bad_rules_and_bad_wishes_are_refused() -> None:
    episodes, predictive = tasks()
    with pytest.raises(DataError, match="risk between 0 and 1"):
        learn_rules(predictive, episodes, risk=0.0)
    good = learn_rules(predictive, episodes).to_dict()
    for bad in ({}, {**good, "extra": 1}, {**good, "level": math.nan}, {**good, "frame": 3}):
        with pytest.raises(DataError, match="expected"):
            Rules.from_dict(bad)
    one = judged(predictive, episodes, "video").of(np.array([True, False, False]))
    with pytest.raises(DataError, match="two users"):
        check_left_out(one)
    table = check_rules(one, UnitRules(**asdict(Rules.from_dict(good).video)), 0.9)
    assert table["coverage"].between(0, 1).all()


def at_shots(shots: int, alone: float) -> Rules:
    unit = UnitRules(0.1 * shots, alone, 2.0)
    return Rules(unit, unit, 0.9, 0.8, 0.1, 0.05, 6, shots)


def test_thresholds_between_those_of_two_numbers_of_videos() -> None:
    """Linear in 1 / shots, and those of the nearest beyond the ends."""
    one, five = at_shots(1, 0.9), at_shots(5, 0.5)
    for shots, alone in ((1, 0.9), (5, 0.5), (0.5, 0.9), (9, 0.5), (2.5, 0.6), (5 / 3, 0.7)):
        found = between([one, five], shots)
        assert found.video.least_alone == pytest.approx(alone)
        assert found.frame == found.video
        assert found.video.most_absent == 2.0
    assert between([five], 2) == five
    assert between([one, at_shots(2, 0.7), five], 2) == at_shots(2, 0.7)
