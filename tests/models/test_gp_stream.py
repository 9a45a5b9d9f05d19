"""Frames as they arrive: the same as all at once, in bounded memory."""

from __future__ import annotations

import resource

import pytest
import torch

from bayesfs._distributions.categorical import entropy
from bayesfs.errors import ShapeError
from bayesfs.models.gp.covariance import VideoCovariance
from bayesfs.models.gp.deep_kernel_gp import DeepKernelGP
from bayesfs.models.gp.feature_maps import Identity
from bayesfs.models.gp.kernels import Linear
from bayesfs.models.gp.likelihood import Fitted
from bayesfs.models.gp.likelihoods.sigmoid_of_mean import SigmoidOfMean
from bayesfs.models.gp.points import query_points
from bayesfs.models.gp.stream import score_frames, watch
from bayesfs.types import EpisodeBatch

VALUES = {
    "signal": torch.tensor(0.5),
    "frame_scale": torch.full((2,), 0.3),
    "video_scale": torch.full((2,), 0.1),
    "video_shift": torch.full((2,), 0.05),
    "frame_shift": torch.full((2,), 0.05),
}


def one_task() -> EpisodeBatch:
    g = torch.Generator().manual_seed(0)
    return EpisodeBatch(
        support=torch.randn(1, 3, 2, 2, 16, generator=g),
        support_mask=torch.ones(1, 3, 2, 2, dtype=torch.bool),
        support_condition=torch.zeros(1, 3, 2, dtype=torch.long),
        query=torch.randn(1, 2, 6, 16, generator=g),
        query_mask=torch.ones(1, 2, 6, dtype=torch.bool),
        query_condition=torch.ones(1, 2, dtype=torch.long),
        query_labels=torch.zeros(1, 2, dtype=torch.long),
    )


def fitted(episodes: EpisodeBatch) -> Fitted:
    return DeepKernelGP(VideoCovariance(Identity(), Linear())).fit(episodes, VALUES)


def test_watching_equals_the_running_posterior() -> None:
    episodes = one_task()
    model = DeepKernelGP(VideoCovariance(Identity(), Linear()))
    running = model.running(episodes, VALUES)[0, 1]
    seen = list(
        watch(fitted(episodes), episodes.query[:, 1].unbind(1), episodes.query_condition[:, 1])
    )
    torch.testing.assert_close(torch.cat([g.log_prob for g in seen]), running)
    assert [g.frames for g in seen] == [1, 2, 3, 4, 5, 6]
    prob = running.exp()
    torch.testing.assert_close(
        torch.cat([g.entropy for g in seen]), torch.distributions.Categorical(prob).entropy()
    )


def test_a_window_forgets_the_oldest_frames() -> None:
    episodes = one_task()
    condition = episodes.query_condition[:, 0]
    frames = episodes.query[:, 0].unbind(1)
    last = list(watch(fitted(episodes), frames, condition, window=2))[-1]
    again = list(watch(fitted(episodes), frames[-2:], condition))[-1]
    torch.testing.assert_close(last.log_prob, again.log_prob)
    assert last.frames == 6


def test_long_recordings_are_scored_in_bounded_memory() -> None:
    episodes = one_task()
    fit = fitted(episodes)
    g = torch.Generator().manual_seed(1)
    first = torch.randn(2000, 16, generator=g)
    whole = next(score_frames(fit, [first], condition=1))
    parts = torch.cat(list(score_frames(fit, first.split(300), condition=1)))
    torch.testing.assert_close(whole, parts)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = sum(len(p) for p in score_frames(fit, (first for _ in range(100)), condition=1))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert count == 200_000
    assert grown < 50_000  # kB


def test_a_corrupt_piece_is_named() -> None:
    bad = torch.full((3, 16), torch.nan)
    with pytest.raises(ShapeError, match="piece 1"):
        list(score_frames(fitted(one_task()), [torch.ones(2, 16), bad], condition=0))


def test_entropy_of_padded_classes_is_none() -> None:
    log_prob = torch.tensor([0.5, 0.5, 0.0]).log()
    torch.testing.assert_close(entropy(log_prob), torch.tensor(2.0).log())


def test_sigmoid_of_the_mean_has_no_epistemic_part_and_a_ceiling() -> None:
    episodes = one_task()
    model = DeepKernelGP(VideoCovariance(Identity(), Linear(), video=None), SigmoidOfMean())
    predictive = model.predictive(episodes, VALUES, draws=5, seed=0)
    assert (predictive.frame.log_prob_given == predictive.frame.log_prob).all()
    fit = model.fit(episodes, VALUES).regression  # type: ignore[attr-defined]
    mean = fit.conditioned.latent(query_points(episodes)).mean
    expected = mean.sigmoid() / mean.sigmoid().sum(1, keepdim=True)
    torch.testing.assert_close(predictive.frame.prob, expected.movedim(1, -1))
    torch.testing.assert_close(predictive.video.prob, predictive.frame.prob.mean(2))
