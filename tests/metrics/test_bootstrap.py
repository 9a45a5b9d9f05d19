import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import bootstrap, norm, t

from bayesfs.errors import ShapeError
from bayesfs.metrics import bootstrap as rs
from bayesfs.metrics.calibration import ece, mce
from bayesfs.metrics.scores import nll_items, top_label
from bayesfs.metrics.selective import aurc, auroc


@pytest.fixture
def items() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions, labels and users of 500 items; users differ in size and in difficulty."""
    rng = np.random.default_rng(0)
    user = np.sort(rng.integers(9, size=500))
    logp = log_softmax(rng.normal(size=(500, 4)) * 2, axis=1)
    easy = rng.random(500) < user / 9
    return logp, np.where(easy, logp.argmax(1), rng.integers(4, size=500)), user


def direct(score: object, logp: np.ndarray, y: np.ndarray, rows: np.ndarray) -> float:
    return float(score(logp[rows], y[rows]))  # type: ignore[operator]


def test_a_statistic_of_counts_is_the_score_of_repeated_rows(
    items: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """The fast sums give what copying every row as often as its user was drawn gives."""
    logp, y, user = items
    confidence, correct = top_label(logp, y)
    fast = rs.calibration_statistics(confidence, correct, user, 9)
    fast["aurc"] = rs.aurc_statistic(confidence, correct, user, 9)
    fast["nll"] = rs.mean_statistic(nll_items(logp, y), user, 9)
    slow = {"ece": ece, "mce": mce, "aurc": aurc, "nll": lambda p, t: nll_items(p, t).mean()}
    counts = np.random.default_rng(1).multinomial(9, np.full(9, 1 / 9), size=5)
    weights = np.concatenate([np.ones((1, 9)), np.eye(9), counts])
    for name, score in slow.items():
        expected = rs.rows_statistic(lambda r, s=score: direct(s, logp, y, r), user)(weights)
        np.testing.assert_allclose(fast[name](weights), expected, atol=1e-12, err_msg=name)


def test_squared_error_between_units_by_definition(
    items: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    logp, y, user = items
    confidence, correct = top_label(logp, y)
    index, total, used = np.ceil(confidence * 15).astype(int), 0.0, 0
    for b in np.unique(index):
        r = (confidence - correct)[index == b]
        who = user[index == b]
        gap = r.mean()
        sums = [((r - gap)[who == u]).sum() for u in np.unique(who)]
        if len(sums) > 1:
            variance = np.square(sums).sum() / len(r) ** 2 * len(sums) / (len(sums) - 1)
            total += len(r) * (gap**2 - variance)
            used += len(r)
    fast = rs.calibration_statistics(confidence, correct, user, 9)["squared_ce"]
    assert fast(np.ones((1, 9)))[0] == pytest.approx(total / used)


def test_aurc_of_many_values_is_close_to_exact() -> None:
    rng = np.random.default_rng(2)
    confidence = rng.random(30_000)
    correct = (rng.random(30_000) < confidence).astype(float)
    logp, y = np.log(np.stack([confidence, 1 - confidence], 1)), 1 - correct.astype(int)
    sure = np.maximum(confidence, 1 - confidence)
    right = (y == (confidence < 0.5)).astype(float)
    fast = rs.aurc_statistic(sure, right, np.zeros(30_000, int), 1)(np.ones((1, 1)))[0]
    assert fast == pytest.approx(aurc(logp, y), abs=1e-3)


def test_many_units_agree_with_scipy_and_the_normal_interval() -> None:
    x = np.random.default_rng(3).gamma(2.0, size=400)
    got = rs.bootstrap_interval(rs.mean_statistic(x, np.arange(400), 400), 400, draws=4000)
    scipy = bootstrap((x,), np.mean, method="percentile", n_resamples=4000, random_state=0)
    assert got.estimate == pytest.approx(x.mean())
    half = norm.ppf(0.975) * x.std(ddof=1) / 20
    for end, theirs, sign in (
        (got.low, scipy.confidence_interval.low, -1),
        (got.high, scipy.confidence_interval.high, 1),
    ):
        assert end == pytest.approx(theirs, abs=0.1 * half)
        assert end == pytest.approx(x.mean() + sign * half, abs=0.1 * half)


def test_few_units_are_as_wide_as_student() -> None:
    x = norm.ppf((np.arange(12) + 0.5) / 12)
    got = rs.bootstrap_interval(rs.mean_statistic(x, np.arange(12), 12), 12, draws=20_000)
    half = t.ppf(0.975, 11) * x.std(ddof=1) / np.sqrt(12)
    assert got.high - got.low == pytest.approx(2 * half, rel=0.08)


def test_intervals_over_17_users_cover_as_often_as_they_say() -> None:
    """17 users with random effects, 5 frames each: resampling frames would cover far too rarely."""
    rng = np.random.default_rng(4)
    user = np.repeat(np.arange(17), 5)
    covered, frames_covered = [], []
    for seed in range(300):
        x = rng.normal(size=17)[user] + 0.5 * rng.normal(size=85)
        i = rs.bootstrap_interval(rs.mean_statistic(x, user, 17), 17, draws=400, seed=seed)
        j = rs.bootstrap_interval(rs.mean_statistic(x, np.arange(85), 85), 85, draws=400, seed=seed)
        covered.append(i.low < 0 < i.high)
        frames_covered.append(j.low < 0 < j.high)
    assert 0.91 < np.mean(covered) < 0.98
    assert np.mean(frames_covered) < 0.8


def test_too_few_users_give_the_reason_instead_of_an_interval() -> None:
    statistic = rs.mean_statistic(np.arange(5.0), np.arange(5), 5)
    got = rs.bootstrap_interval(statistic, 5)
    assert got.estimate == 2.0
    assert np.isnan([got.low, got.high]).all()
    assert "5 users or other units are too few" in got.reason
    assert not rs.bootstrap_interval(statistic, 5, level=0.9).reason
    infinite = rs.mean_statistic(np.array([np.inf, 1, 1, 1, 1, 1, 1]), np.arange(7), 7)
    assert "not finite" in rs.bootstrap_interval(infinite, 7).reason
    with pytest.raises(ShapeError, match="level"):
        rs.bootstrap_interval(statistic, 5, level=95)


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    rng = np.random.default_rng(5)
    user = np.repeat(np.arange(20), 10)
    hard = rng.normal(size=20)[user]
    a, b = hard + 0.1 * rng.normal(size=200) + 0.2, hard + 0.1 * rng.normal(size=200)
    one, two = rs.mean_statistic(a, user, 20), rs.mean_statistic(b, user, 20)
    gap = rs.bootstrap_interval(rs.difference(one, two), 20)
    alone = rs.bootstrap_interval(one, 20)
    assert 0 < gap.low < 0.2 < gap.high
    assert gap.high - gap.low < 0.2 * (alone.high - alone.low)


def test_bootstrap_of_a_score_of_rows() -> None:
    rng = np.random.default_rng(6)
    user, positive = np.repeat(np.arange(10), 20), rng.random(200) < 0.5
    score = rng.normal(size=200) + positive
    statistic = rs.rows_statistic(lambda r: auroc(score[r], positive[r]), user)
    got = rs.bootstrap_interval(statistic, 10, draws=300)
    assert got.estimate == pytest.approx(auroc(score, positive))
    assert 0.5 < got.low < norm.cdf(1 / np.sqrt(2)) < got.high < 1


def test_the_same_seed_gives_the_same_interval() -> None:
    statistic = rs.mean_statistic(np.arange(10.0), np.arange(10), 10)
    one, two, other = (rs.bootstrap_interval(statistic, 10, seed=s) for s in (1, 1, 2))
    assert one == two
    assert one != other
    assert str(one).startswith("4.500 [")
    cut = rs.bootstrap_interval(statistic, 10, seed=1, bounds=(3.0, 5.0))
    assert (cut.low, cut.high) == (3.0, 5.0)
