"""A person's own estimate: videos counted by hand, and an interval that covers what is to come."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bayesfs.diagnostics.left_out import left_out_log_prob
from bayesfs.diagnostics.self_estimate import SelfEstimate, self_estimate
from bayesfs.models.gaussian.families import PerFeature
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.synthetic.truth import Population
from bayesfs.types import EpisodeBatch

DIM = 6
MODEL = GaussianHierarchy(PerFeature())


def known() -> dict[str, torch.Tensor]:
    scale = torch.tensor([0.5, 1.0, 0.8, 0.8, 0.6, 0.6], dtype=torch.float64) * DIM**0.5
    return {
        "offset_raw": torch.zeros(2, DIM, dtype=torch.float64),
        "loading": torch.ones((), dtype=torch.float64),
        "absent_odds": torch.full((), -3.0, dtype=torch.float64),
        "scale": scale,
        "relative": torch.ones(6, DIM, dtype=torch.float64),
    }


def people(users: int) -> EpisodeBatch:
    truth = Population.isotropic(
        DIM, offset=0.0, video_scale=(0.8, 0.8), frame_scale=(0.6, 0.6), dtype=torch.float64
    )
    return synthetic_episodes(truth, users=users, way=4, shots=4, query_videos=20, seed=1)[0]


def test_each_video_is_asked_without_itself() -> None:
    tasks = people(3)
    for t, found in enumerate(self_estimate(MODEL, [known()], tasks)):
        assert found.asked == 16
        sure = left_out_log_prob(MODEL, [known()], tasks.select([t])).exp()
        assert (sure > 0.5).sum() <= found.right <= (sure >= 0.25).sum()


def test_an_object_with_one_video_is_not_counted() -> None:
    (found,) = self_estimate(MODEL, [known()], people(1).limit_shots(1))
    assert found == SelfEstimate(0, 0)
    assert found.of_further(10) == (0, 10)


def test_further_videos_are_as_often_right_as_told() -> None:
    tasks = people(60)
    with torch.no_grad():
        law = MODEL.log_labels(tasks, known())[1]
    right = ((law.argmax(-1) == tasks.query_labels) & tasks.video_mask).sum(-1).tolist()
    asked = tasks.video_mask.sum(-1).tolist()
    estimates = self_estimate(MODEL, [known()], tasks)
    inside = [
        low <= r <= high
        for e, r, n in zip(estimates, right, asked, strict=True)
        for low, high in [e.of_further(n)]
    ]
    assert np.mean(inside) >= 0.9
    widths = [high - low for e in estimates for low, high in [e.interval()]]
    assert np.mean(widths) < 0.6  # it does say something


@pytest.mark.parametrize(("right", "asked"), [(0, 10), (7, 10), (10, 10)])
def test_the_interval_holds_the_share_that_was_seen(right: int, asked: int) -> None:
    low, high = SelfEstimate(right, asked).interval()
    assert 0.0 <= low <= max(right / asked, 0.02)
    assert min(right / asked, 0.98) <= high <= 1.0
