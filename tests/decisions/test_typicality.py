"""Typicality against simulated people, and sets that may be empty against counts."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bayesfs.decisions.prediction_sets import average_sets, credible_set, open_set
from bayesfs.errors import DataError
from bayesfs.models.similarity.heads import WithinScatter
from bayesfs.models.similarity.scores import centred_cosines
from bayesfs.models.similarity.typicality import (
    Typicality,
    largest_cosines,
    left_out_cosines,
    log_distance,
    pair_cosine,
    to_mean,
)
from bayesfs.types import EpisodeBatch

DIM = 300


def people(tasks: int, shots: int, seed: int, *, spread: float = 1.0) -> EpisodeBatch:
    """Objects in directions of their own, videos about them; as many queries of untaught ones."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, DIM, generator=rng, dtype=torch.float64)

    ways, asked = 5, 10
    common = normal(1, 1)
    things = 0.7 * common + normal(tasks, 2 * ways)
    support = things[:, :ways, None, None] + spread * normal(tasks, ways, shots, 1)
    which = torch.arange(asked) % (2 * ways)
    query = things[:, which][:, :, None] + spread * normal(tasks, asked, 1)
    label = torch.where(which < ways, which, -1).expand(tasks, -1)
    return EpisodeBatch(
        support=support,
        support_mask=torch.ones(support.shape[:-1], dtype=torch.bool),
        support_condition=torch.zeros(support.shape[:3], dtype=torch.long),
        query=query,
        query_mask=torch.ones(query.shape[:-1], dtype=torch.bool),
        query_condition=torch.zeros(query.shape[:2], dtype=torch.long),
        query_labels=label.contiguous(),
    )


@pytest.mark.parametrize("shots", [2, 3, 6])
@pytest.mark.parametrize("spread", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("both", [False, True], ids=["cosine", "with the centred one"])
def test_one_taught_video_in_twenty_is_called_new(shots: int, spread: float, both: bool) -> None:
    """Whatever the spread of a person's videos; 500 taught queries, and 500 of untaught things."""
    episodes = people(100, shots, seed=1, spread=spread)
    rule = Typicality(log_sd=0.1, centred_sd=0.04)
    new = rule.p_values(episodes, centred=centred_cosines(episodes, None) if both else None) < 0.05
    taught = episodes.query_labels >= 0
    assert float(new[taught].double().mean()) < 0.08
    if spread < 1.2:
        assert float(new[~taught].double().mean()) > 0.9


def test_with_one_video_of_each_only_the_very_odd_is_new() -> None:
    episodes = people(60, 1, seed=2)
    new = Typicality().p_values(episodes) < 0.05
    assert float(new[episodes.query_labels >= 0].double().mean()) < 0.05


@pytest.mark.parametrize("shots", [2, 4])
def test_left_out_cosines_are_those_of_a_complete_class(shots: int) -> None:
    """On average what a new video of the class has, though a video fewer stands behind them."""
    episodes = people(150, shots, seed=3)
    own = torch.cat([left_out_cosines(episodes, t)[0] for t in range(len(episodes))])
    found = largest_cosines(episodes)[episodes.query_labels >= 0]
    assert float(own.mean()) == pytest.approx(float(found.mean()), abs=0.004)


def test_centred_cosines_are_those_of_dense_algebra() -> None:
    """Of queries, and of support videos without which centre and class mean are taken."""
    episodes = people(1, 2, seed=12)
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(DIM, 3)))[0].astype(np.float32)
    scatter = WithinScatter(axes, np.array([9.0, 4.0, 1.0], np.float32))
    metric = np.linalg.inv(np.eye(DIM) + (axes * scatter.excess) @ axes.T)

    def largest(query: NDArray[np.float64], classes: list[NDArray[np.float64]]) -> float:
        means = np.stack([x.mean(0) for x in classes])
        q, m = query - means.mean(0), means - means.mean(0)
        size = np.sqrt(q @ metric @ q * np.einsum("kd,de,ke->k", m, metric, m))
        return float((m @ metric @ q / size).max())

    def unit(x: torch.Tensor) -> NDArray[np.float64]:
        return (x / x.norm(dim=-1, keepdim=True)).numpy()

    support, query = unit(episodes.support[0, :, :, 0]), unit(episodes.query[0, :, 0])
    asked, own = centred_cosines(episodes, scatter)
    np.testing.assert_allclose(asked[0], [largest(q, list(support)) for q in query], atol=1e-6)
    expected = [
        largest(support[k, i], [np.delete(x, i, 0) if j == k else x for j, x in enumerate(support)])
        for k in range(5)
        for i in range(2)
    ]
    np.testing.assert_allclose(own[0], expected, atol=1e-6)


@pytest.mark.parametrize(("shots", "off"), [(2, 0.04), (4, 0.02)])
def test_left_out_centred_cosines_grow_to_those_of_a_complete_class(shots: int, off: float) -> None:
    """Somewhat less, since the centre has a video fewer, too; never more: fewer are called new."""
    episodes = people(150, shots, seed=3)
    asked, own = centred_cosines(episodes, None)
    pair = pair_cosine(float(own.mean()), shots)
    assert to_mean(pair, shots - 1.0) == pytest.approx(float(own.mean()))
    grown = float(own.mean()) * to_mean(pair, shots) / to_mean(pair, shots - 1.0)
    taught = float(asked[episodes.query_labels >= 0].mean())
    assert taught - off < grown < taught + 0.01
    assert abs(grown - taught) < 0.5 * abs(float(own.mean()) - taught)


def test_one_class_has_no_centred_cosine_and_the_other_one_is_all() -> None:
    episodes = people(2, 3, seed=4)
    alone = episodes.changed(
        support_mask=episodes.support_mask & (torch.arange(5) == 0)[None, :, None, None],
        query_labels=torch.where(episodes.query_labels == 0, 0, -1),
    )
    assert torch.isnan(centred_cosines(alone, None)[0]).all()
    found = Typicality().p_values(alone, centred=centred_cosines(alone, None))
    torch.testing.assert_close(found, Typicality().p_values(alone))


def test_other_classes_are_asked_without_the_videos_own() -> None:
    episodes = people(1, 2, seed=4)
    _, other = left_out_cosines(episodes, 0)
    unit = episodes.support[0, :, :, 0] / episodes.support[0, :, :, 0].norm(dim=-1, keepdim=True)
    mean = unit.mean(1) / unit.mean(1).norm(dim=-1, keepdim=True)
    expected = [
        float(max(unit[k, i] @ mean[j] for j in range(5) if j != k))
        for k in range(5)
        for i in range(2)
    ]
    np.testing.assert_allclose(other, expected)


def test_another_condition_is_allowed_a_larger_change() -> None:
    episodes = people(20, 3, seed=5)
    moved = replace(episodes, query_condition=torch.ones_like(episodes.query_condition))
    assert (Typicality().p_values(moved) >= Typicality().p_values(episodes)).double().mean() > 0.9


def test_units_and_padding_change_no_p_value() -> None:
    episodes = people(3, 2, seed=6)
    plain = Typicality().p_values(episodes)
    scaled = replace(episodes, support=7.0 * episodes.support, query=0.01 * episodes.query)
    torch.testing.assert_close(Typicality().p_values(scaled), plain)


def uncertain(queries: int, sharpness: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Calibrated probabilities, and classes drawn from them."""
    rng = np.random.default_rng(0)
    logits = sharpness * rng.normal(size=(queries, 6))
    prob = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return prob, np.array([rng.choice(6, p=p) for p in prob])


@pytest.mark.parametrize("sharpness", [1.0, 4.0, 40.0])
def test_sets_that_may_be_empty_cover_what_they_say(sharpness: float) -> None:
    """Also where nearly every class is known, so that sets that are never empty hold it always."""
    prob, label = uncertain(6000, sharpness)
    typical = np.random.default_rng(1).random(6000)
    held = open_set(prob, typical)[np.arange(6000), label].mean()
    assert 0.89 < held < 0.97
    always = credible_set(prob, 0.9)[np.arange(6000), label].mean()
    assert sharpness < 40 or always > 0.97


def test_credible_sets_are_the_smallest() -> None:
    prob = np.array([[0.5, 0.3, 0.15, 0.05, 0.0], [0.91, 0.09, 0.0, 0.0, 0.0]])
    assert credible_set(prob, 0.9).tolist() == [
        [True, True, True, False, False],
        [True, False, False, False, False],
    ]


def test_average_sets_are_the_smallest_that_hold_the_level() -> None:
    """Against all sets of three videos of three classes; one video has its credible set."""
    prob = np.random.default_rng(0).dirichlet(np.ones(3), size=(20, 3))
    every = np.array(list(product(product([False, True], repeat=3), repeat=3)))
    every = every[every.any(2).all(1)]
    for videos in prob:
        held = (every * videos).sum((1, 2)) / 3
        found = average_sets(videos, 0.8)
        assert (found * videos).sum() / 3 >= 0.8
        assert found.sum() == every[held >= 0.8].sum((1, 2)).min()
        alone = [average_sets(video[None], 0.8)[0].tolist() for video in videos]
        assert alone == credible_set(videos, 0.8).tolist()


@pytest.mark.parametrize("sharpness", [1.0, 4.0, 40.0])
def test_average_sets_cover_what_they_say_and_are_smaller(sharpness: float) -> None:
    prob, label = uncertain(6000, sharpness)
    sets = average_sets(prob, 0.9)
    held = sets[np.arange(6000), label].mean()
    assert held > 0.9 - 3 * (0.09 / 6000) ** 0.5
    assert sharpness > 4 or held < 0.91
    assert sets.any(1).all()
    assert sets.sum() <= credible_set(prob, 0.9).sum()


def test_padded_classes_and_equal_ones_are_in_no_more_sets_than_needed() -> None:
    padded = np.pad(np.full((2, 2), 0.5), ((0, 0), (0, 2)))
    assert average_sets(padded, 1.0).tolist() == [[True, True, False, False]] * 2
    assert average_sets(padded, 0.5).sum() == 2


def test_shares_that_cannot_both_hold_are_refused() -> None:
    with pytest.raises(DataError, match="0 < rejected < 1 - level"):
        open_set(np.ones((1, 1)), np.ones(1), level=0.9, rejected=0.2)


@pytest.mark.parametrize("shots", [1, 3])
def test_other_peoples_likeness_tells_what_a_taught_video_looks_like(shots: int) -> None:
    """With one video of each object it is nearly all that is known; errors stay in bounds."""
    episodes = people(100, shots, seed=7)
    like = (0.7**2 + 1.0) / (0.7**2 + 2.0)  # of two videos, by the sizes of the parts
    rule = Typicality(log_sd=0.1)
    taught = episodes.query_labels >= 0
    found = {}
    for told in (None, [like] * len(episodes)):
        new = rule.p_values(episodes, told) < 0.05
        assert float(new[taught].double().mean()) < 0.08
        found[told is None] = float(new[~taught].double().mean())
    assert found[False] > 0.9
    assert shots > 1 or found[True] < 0.5


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize("like", [0.4, 0.73])
def test_where_everything_is_alike_other_peoples_likeness_counts_for_little(
    shots: int, like: float
) -> None:
    """Two different things here are nearer than two videos of one thing elsewhere."""
    episodes = people(100, shots, seed=9, spread=0.5)
    alike = 3.0 * torch.ones(DIM, dtype=torch.float64)
    near = episodes.changed(support=episodes.support + alike, query=episodes.query + alike)
    mean = Typicality().taught(near, [like] * len(near))[0]
    expected = Typicality().taught(near)[0]
    foreign = log_distance(torch.tensor(to_mean(like, shots), dtype=torch.float64))
    assert float((foreign - expected).min()) > 0.8
    assert float((mean - expected).abs().max()) < 0.25 * float((foreign - expected).min())
    new = Typicality().p_values(near, [like] * len(near)) < 0.05
    assert float(new[near.query_labels >= 0].double().mean()) < 0.05
    assert shots == 1 or float(new[near.query_labels < 0].double().mean()) > 0.9


def test_an_unknown_condition_is_both() -> None:
    episodes = people(20, 3, seed=5)
    moved = replace(episodes, query_condition=torch.ones_like(episodes.query_condition))
    each = [Typicality().p_values(batch) for batch in (episodes, moved)]
    for batch in (episodes, moved):
        found = Typicality().p_values(batch, condition_known=False)
        torch.testing.assert_close(found, 0.5 * (each[0] + each[1]))


def test_people_who_record_otherwise_are_told() -> None:
    """Uniform p-values where likeness is as told, small ones where not; NaN with one video."""
    like = (0.7**2 + 1.0) / (0.7**2 + 2.0)
    rule = Typicality(like_log_sd=0.001, log_sd=0.1)
    p = rule.likeness_p_values(people(200, 3, seed=8), [like] * 200)
    assert float((p < 0.05).double().mean()) < 0.1
    other = (0.7**2 + 1.0) / (0.7**2 + 1.0 + 1.5**2)
    p = rule.likeness_p_values(people(50, 3, seed=8, spread=1.5), [like] * 50)
    assert abs(other - like) > 0.1
    assert float(p.max()) < 0.01
    assert torch.isnan(rule.likeness_p_values(people(2, 1, seed=8), [like] * 2)).all()
    assert torch.isnan(rule.likeness_p_values(people(1, 2, seed=8), [np.nan])).all()
