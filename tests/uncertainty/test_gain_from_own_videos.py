"""What own videos say of one more: against removal and addition by hand, and where it may err."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bayesfs.data.leave_one_out import without_videos
from bayesfs.errors import ShapeError
from bayesfs.models.gaussian.families import PerFeature
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.prediction import thinned_values
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.synthetic.truth import Population
from bayesfs.types import EpisodeBatch, Posterior
from bayesfs.uncertainty.gain_from_own_videos import (
    BEFORE,
    LEAN,
    LIKELY,
    TELLS,
    WEIGHTS,
    added,
    gain_from_own_videos,
    label_law,
    label_scores,
    taken_away,
    with_query_taught,
)

DIM = 6
MODEL = GaussianHierarchy(PerFeature())
CLEAN, CLUTTER = 0, 1


def tasks(**options) -> EpisodeBatch:
    """Clean and cluttered videos of three classes, the second of which has but one."""
    truth = Population.isotropic(DIM, offset=0.0, dtype=torch.float64)
    settings = {"users": 3, "way": 3, "shots": 3, "query_videos": 2, "seed": 0}
    batch = synthetic_episodes(truth, **(settings | options))[0]
    mask = batch.support_mask.clone()
    mask[:, 1, 1:] = False
    condition = batch.support_condition.clone()
    condition[:, :, 2] = CLUTTER
    support = batch.support * mask[..., None]
    return replace(batch, support=support, support_mask=mask, support_condition=condition)


def population() -> Posterior:
    scale = torch.tensor([0.5, 1.0, 0.4, 0.6, 0.4, 0.6], dtype=torch.float64) * DIM**0.5
    draws = {
        "offset_raw": torch.zeros(1, 2, DIM, dtype=torch.float64),
        "loading": torch.ones(1, dtype=torch.float64),
        "absent_odds": torch.full((1,), -3.0, dtype=torch.float64),
        "scale": scale[None],
        "relative": torch.ones(1, 6, DIM, dtype=torch.float64),
    }
    return Posterior("exact", draws, dict(MODEL.population_dims))


VALUES = thinned_values(population(), 1)


def score(batch: EpisodeBatch) -> Tensor:
    return label_scores(MODEL, batch, VALUES)


def test_what_is_taken_away_is_what_each_video_did_scaled_to_the_next_one() -> None:
    batch = tasks()
    now = score(batch)
    law = label_law(now, batch)
    found = taken_away(score, batch, now, law)
    for task in range(len(batch)):
        for way in (0, 2):
            falls = []
            for shot in (0, 1):
                rest = without_videos(batch, torch.tensor([[task, way, shot]]))
                gap = now[task] - score(rest)[0]
                falls.append((law[task] * gap).sum(-1).mean())
            known = BEFORE + 2 * TELLS[CLEAN] + TELLS[CLUTTER]
            share = (known - TELLS[CLEAN]) / (known + TELLS[CLEAN])
            expected = torch.stack(falls).mean() * share
            torch.testing.assert_close(found[task, way, CLEAN], expected)
    assert found[:, 1].isnan().all()  # the only video of an object cannot be taken away
    assert not found[:, [0, 2]].isnan().any()


def test_what_is_added_is_what_queries_would_do_for_the_others() -> None:
    batch = tasks()
    now = score(batch)
    law = label_law(now, batch)
    found = added(score, batch, now, law)
    task, way = 1, 2
    worth, weight = 0.0, 0.0
    for video in range(batch.query.shape[1]):
        share = law[task, video, way]
        if share <= LIKELY:
            continue
        frames = batch.query.shape[2]
        room = torch.zeros_like(batch.support[:, :, :1])
        room[task, way, 0, :frames] = batch.query[task, video]
        there = torch.zeros_like(batch.support_mask[:, :, :1])
        there[task, way, 0, :frames] = True
        more = replace(
            batch,
            support=torch.cat([batch.support, room], 2),
            support_mask=torch.cat([batch.support_mask, there], 2),
            support_condition=torch.nn.functional.pad(batch.support_condition, (0, 1), value=1),
            support_quality=None,
            support_frame=None,
        )
        change = (law[task] * (score(more) - now)[task]).sum(-1)
        others = [q for q in range(len(change)) if q != video]
        worth, weight = worth + share * change[others].mean(), weight + share
    assert weight > 0
    torch.testing.assert_close(found[task, way, CLUTTER], worth / weight)
    shown = 2.0 / (2 * 3)  # two clean videos show little of how it looks in clutter
    torch.testing.assert_close(found[task, way, CLEAN], shown * worth / weight / TELLS[CLUTTER])


def test_a_query_that_is_taught_keeps_its_frames_and_is_still_asked() -> None:
    batch = tasks(query_frames=11)
    more = with_query_taught(batch, torch.tensor([[2, 1, 0]]))
    assert more.support_mask[0, 0, -1].sum() == 11
    torch.testing.assert_close(more.support[0, 0, -1], batch.query[2, 1])
    torch.testing.assert_close(more.support[0, :, :-1, :8], batch.support[2])
    assert int(more.support_condition[0, 0, -1]) == CLUTTER
    assert more.shot_mask[0, 1:, -1].sum() == 0
    torch.testing.assert_close(more.query[0], batch.query[2])


def test_answers_lean_to_what_is_named_too_seldom_and_never_far() -> None:
    batch = tasks()
    scores = torch.zeros(3, 6, 3, dtype=torch.float64)
    scores[0, :, 0] = 0.7  # every query looks a little like the first object
    scores[1, :, 0] = 30.0  # every query surely is it
    law = label_law(scores, batch)
    torch.testing.assert_close(law[0].mean(0), torch.full((3,), 1 / 3).to(law))
    assert (law[1, :, 0] > 1 - 1e-9).all()
    torch.testing.assert_close(law[2], torch.full((6, 3), 1 / 3).to(law))
    odds = torch.log(law[:2, 0, 0] / law[:2, 0, 1]) - scores[:2, 0, 0]
    assert (odds.abs() <= 2 * LEAN + 1e-9).all()


def test_relabelled_classes_relabel_the_gain_and_a_task_does_not_see_another() -> None:
    batch = tasks()
    simulated = torch.linspace(0.01, 0.04, 18, dtype=torch.float64).reshape(3, 3, 2)
    found = gain_from_own_videos(MODEL, population(), batch, simulated)
    order = [2, 0, 1]
    turned = gain_from_own_videos(
        MODEL, population(), batch.permute_classes(order), simulated[:, order]
    )
    torch.testing.assert_close(turned, found[:, order])
    alone = gain_from_own_videos(MODEL, population(), batch.select([1]), simulated[[1]])
    torch.testing.assert_close(alone, found[[1]])


def test_the_labels_of_the_queries_play_no_part() -> None:
    batch, simulated = tasks(), torch.full((3, 3, 2), 0.02, dtype=torch.float64)
    other = batch.changed(query_labels=torch.zeros_like(batch.query_labels))
    found = gain_from_own_videos(MODEL, population(), batch, simulated)
    torch.testing.assert_close(
        gain_from_own_videos(MODEL, population(), other, simulated), found, rtol=0.0, atol=0.0
    )


def test_what_is_not_known_is_simulated() -> None:
    """One video an object and one query: nothing can be taken away or asked of the others."""
    batch = tasks(shots=3, query_videos=1).limit_shots(1)
    first = torch.zeros_like(batch.query_mask)
    first[:, 0] = batch.query_mask[:, 0]
    batch = batch.changed(
        query=batch.query * first[..., None],
        query_mask=first,
        query_labels=torch.where(first.any(-1), batch.query_labels, -1),
    )
    simulated = torch.rand(3, 3, 2, dtype=torch.float64)
    found = gain_from_own_videos(MODEL, population(), batch, simulated)
    torch.testing.assert_close(found, sum(WEIGHTS) * simulated)


def test_a_gain_of_another_shape_is_refused() -> None:
    with pytest.raises(ShapeError, match="in one condition only"):
        gain_from_own_videos(MODEL, population(), tasks(), torch.zeros(3, 3))
