import math

import numpy as np
import pytest
import scipy.stats
import torch

from bayesfs.data.sampling import population_episodes, sample_episodes
from bayesfs.errors import ShapeError
from bayesfs.synthetic.tasks import synthetic_embeddings, synthetic_episodes
from bayesfs.synthetic.truth import Population
from bayesfs.types import UNLABELLED


def noise(episodes, truth, part):
    """Frame minus everything that is constant over its video, in units of the frame's scale."""
    p = truth.population
    condition = 0 if part == "support" else 1
    base = p.mean + p.offset[condition]
    if part == "support":
        centre = truth.class_mean[:, :, None] + truth.support_video_effect
        quality = episodes.support_quality
    else:
        index = truth.query_labels[..., None].expand(-1, -1, episodes.dim)
        centre = truth.class_mean.gather(1, index) + truth.query_video_effect
        quality = episodes.query_quality
    x = getattr(episodes, part)
    scale = 1.0 if quality is None else (quality @ p.quality_slope).exp()[..., None]
    return (x - (base - p.mean) - centre[..., None, :]) / p.frame_scale[condition] / scale


def test_covariances_are_sums_over_shared_levels():
    p = Population.isotropic(3, dtype=torch.float64)
    episodes, _ = synthetic_episodes(p, users=6000, way=2, shots=2, frames=2, seed=1)
    x = episodes.support

    def covariance(a, b):
        return ((a * b).mean((0, 1)) - a.mean((0, 1)) * b.mean((0, 1))).mean().item()

    task, thing, video, frame = 0.5**2, 1.0, 0.4**2, 0.4**2
    first = x[:, :, 0, 0]
    assert covariance(first, first) == pytest.approx(task + thing + video + frame, rel=0.05)
    assert covariance(first, x[:, :, 0, 1]) == pytest.approx(task + thing + video, rel=0.05)
    assert covariance(first, x[:, :, 1, 0]) == pytest.approx(task + thing, rel=0.05)
    assert covariance(first, x.flip(1)[:, :, 0, 0]) == pytest.approx(task, abs=0.04)
    assert x.mean() == pytest.approx(0.0, abs=0.03)
    assert episodes.query.mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("part", ["support", "query"])
@pytest.mark.parametrize("dof", [math.inf, 4.0])
def test_what_is_left_after_the_truth_is_frame_noise(part, dof):
    p = Population.isotropic(4, dof=dof, quality_slope=(0.5, -0.3))
    episodes, truth = synthetic_episodes(p, users=40, seed=2)
    left = noise(episodes, truth, part)
    law = scipy.stats.norm if math.isinf(dof) else scipy.stats.t(dof)
    assert scipy.stats.kstest(left[..., 0].flatten().numpy(), law.cdf).pvalue > 0.01
    assert scipy.stats.kstest(left[..., 3].flatten().numpy(), law.cdf).pvalue > 0.01


def test_student_frames_share_one_scale_over_their_features():
    p = Population.isotropic(200, dof=4.0, dtype=torch.float64)
    episodes, truth = synthetic_episodes(p, users=20, seed=3)
    squared = noise(episodes, truth, "support").square().mean(-1).flatten().numpy()
    # the mean square of a frame is 1 / (chi2_4 / 4), up to a relative error of sqrt(2 / 200)
    law = scipy.stats.invgamma(2.0, scale=2.0)
    assert np.median(squared) == pytest.approx(law.median(), rel=0.08)
    assert np.quantile(squared, 0.9) == pytest.approx(law.ppf(0.9), rel=0.12)


def test_absent_frames_show_another_object():
    p = Population.isotropic(50, absent=(0.0, 0.25), frame_scale=(0.1, 0.1))
    episodes, truth = synthetic_episodes(p, users=40, seed=4)
    assert not truth.support_absent.any()
    share = truth.query_absent.float().mean().item()
    assert share == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / truth.query_absent.numel()))
    size = noise(episodes, truth, "query").square().mean(-1)
    assert size[~truth.query_absent].max() < 3
    assert size[truth.query_absent].min() > 50


def test_ragged_tasks_are_padded_and_valid():
    episodes, truth = synthetic_episodes(users=50, ragged=True, seed=5)
    ways = episodes.way_mask.sum(1)
    assert ways.min() == 2
    assert ways.max() == 5
    assert [len(c) for c in episodes.classes] == ways.tolist()
    assert episodes.shot_mask.sum(-1)[episodes.way_mask].unique().tolist() == [1, 2, 3, 4, 5]
    assert (episodes.support[~episodes.support_mask] == 0).all()
    assert (episodes.query[~episodes.query_mask] == 0).all()
    shown = episodes.video_mask
    assert torch.equal(episodes.query_labels[shown], truth.query_labels[shown])
    assert (episodes.query_labels[~shown] == UNLABELLED).all()


def test_same_seed_same_tasks_and_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    a, b, c = (synthetic_episodes(seed=s)[0].support for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("ragged", [False, True])
def test_embeddings_hold_the_frames_of_the_episodes(ragged):
    p = Population.isotropic(6, absent=(0.1, 0.2), quality_slope=(0.4,))
    call = dict(way=3, shots=3, frames=4, query_frames=5, ragged=ragged, seed=6)
    episodes, truth = synthetic_episodes(p, users=6, **call)
    emb, again = synthetic_embeddings(p, users=3, validation_users=1, test_users=2, **call)
    assert torch.equal(truth.class_effect, again.class_effect)
    assert len(emb) == episodes.support_mask.sum() + episodes.query_mask.sum()
    drawn = sample_episodes(emb, shots=None, frames_per_video=None, seed=0)
    assert drawn.classes == episodes.classes
    assert (
        torch.equal(drawn.query_labels, episodes.query_labels[:, : drawn.query.shape[1]]) or ragged
    )
    for part in ("support", "query"):
        mask = getattr(drawn, f"{part}_mask")
        ours, theirs = getattr(drawn, part)[mask], getattr(episodes, part)
        theirs = theirs[getattr(episodes, f"{part}_mask")]
        assert torch.equal(ours.sum(-1).sort()[0], theirs.sum(-1).sort()[0])
        absent = emb.coord("flag_object_not_present_issue")[getattr(drawn, f"{part}_frame")[mask]]
        kept = getattr(truth, f"{part}_absent")[getattr(episodes, f"{part}_mask")]
        assert absent.sum() == kept.sum()
        quality = getattr(drawn, f"{part}_quality")[mask].flatten().sort()[0]
        expected = getattr(episodes, f"{part}_quality")[getattr(episodes, f"{part}_mask")]
        assert torch.equal(quality, expected.flatten().sort()[0])
    assert dict(zip(emb.coord("user"), emb.coord("split"), strict=True)) == {
        "U0001": "train",
        "U0002": "train",
        "U0003": "train",
        "U0004": "validation",
        "U0005": "test",
        "U0006": "test",
    }
    assert len(population_episodes(emb.where(split="train"))) == 3


def test_sizes_of_a_population_are_checked():
    p = Population.isotropic(3)
    with pytest.raises(ShapeError, match=r"video_scale of shape \(2, 3\), got \(3,\)"):
        Population(**{**vars(p), "video_scale": torch.ones(3)})
