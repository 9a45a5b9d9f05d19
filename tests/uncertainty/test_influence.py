"""Leave-one-video-out influence, against dense joint Gaussians of all frames."""

from dataclasses import replace

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from scipy.special import log_softmax
from scipy.stats import multivariate_normal
from torch import Tensor

from bayesfs.errors import InferenceError
from bayesfs.models.gaussian.conjugate import Levels
from bayesfs.models.gaussian.families import PowerLaw
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing.toy import GaussianToy
from bayesfs.types import EpisodeBatch, Posterior
from bayesfs.uncertainty.influence import leave_one_out_influence

MODEL = GaussianHierarchy(PowerLaw(spectrum=(0.9, 0.5)))


def episodes(**options: object) -> EpisodeBatch:
    settings = {"users": 2, "way": 3, "shots": 3, "frames": 2, "dim": 2, "seed": 4} | options
    batch, _ = synthetic_episodes(**settings)  # type: ignore[arg-type]
    return batch.to(torch.float64)


def population(draws: int = 1, model: GaussianHierarchy = MODEL) -> Posterior:
    with torch.random.fork_rng(), poutine.block():
        pyro.set_rng_seed(0)
        each = [
            dict(model.sample_population(torch.zeros(2, dtype=torch.float64))) for _ in range(draws)
        ]
    sites = {site: torch.stack([one[site] for one in each]) for site in each[0]}
    return Posterior("exact", sites, dict(model.population_dims))


def dense_labels(batch: EpisodeBatch, task: int, video: int, levels: Levels) -> np.ndarray:
    """(way,) log p(y | query frames, support), from one Gaussian per feature over all frames."""
    rows = batch.support_mask[task].nonzero().tolist()
    x = [batch.support[task, k, s, f].numpy() for k, s, f in rows]
    frames = int(batch.query_mask[task, video].sum())
    x.append(batch.query[task, video, :frames].mean(0).numpy())
    score = np.zeros(batch.way)
    for label in range(batch.way):
        places = [(k, (k, s), (k, s, f), 1) for k, s, f in rows] + [(label, "q", "q", frames)]
        conditions = [int(batch.support_condition[task, k, s]) for k, s, _ in rows]
        conditions.append(int(batch.query_condition[task, video]))
        for d in range(batch.dim):
            score[label] += one_feature(places, conditions, levels, d, [v[d] for v in x])
    score[~batch.way_mask[task].numpy()] = -np.inf
    return log_softmax(score)


def one_feature(places: list, conditions: list[int], levels: Levels, d: int, x: list) -> float:
    """log density of all frames in one feature; `places` name class, video and frame."""
    loading = levels.loading.numpy()[conditions]
    a, b = float(levels.task.d[d]), float(levels.way.d[d])
    cov = np.outer(loading, loading) * a
    for i, (way, video, frame, _) in enumerate(places):
        for j, (other, other_video, other_frame, count) in enumerate(places):
            if way == other:
                cov[i, j] += loading[i] * loading[j] * b
            if video == other_video:
                cov[i, j] += float(levels.video.d[conditions[i], d])
            if frame == other_frame:
                cov[i, j] += float(levels.frame.d[conditions[i], d]) / count
    mean = levels.offset.numpy()[conditions, d]
    return float(multivariate_normal.logpdf(x, mean, cov))


def without(batch: EpisodeBatch, task: int, way: int, shot: int) -> EpisodeBatch:
    mask = batch.support_mask.clone()
    mask[task, way, shot] = False
    return replace(batch, support_mask=mask)


@pytest.mark.parametrize("ragged", [False, True])
def test_influence_is_the_divergence_of_dense_predictives(ragged: bool) -> None:
    batch, given = episodes(ragged=ragged, users=3, shots=4), population()
    found = leave_one_out_influence(MODEL, given, batch)
    levels = MODEL.levels({site: v[0] for site, v in given.draws.items()}, 2)
    checked = 0
    for task, way, shot, video in np.argwhere(np.isfinite(found["influence"].values))[::7]:
        whole = dense_labels(batch, task, video, levels)
        less = dense_labels(without(batch, task, way, shot), task, video, levels)
        exists = np.isfinite(whole)
        gap = whole[exists] - less[exists]
        value = found.isel(task=task, way=way, shot=shot, video=video)
        assert float(value["influence"]) == pytest.approx((np.exp(whole[exists]) * gap).sum())
        assert float(value["toward"]) == pytest.approx(gap[whole[exists].argmax()])
        checked += 1
    assert checked >= 5


def test_padding_and_the_only_video_of_an_object_have_none() -> None:
    batch = episodes(shots=2)
    mask = batch.support_mask.clone()
    mask[0, 1, 1] = False
    batch = replace(batch, support_mask=mask, support=batch.support * mask[..., None])
    batch.query_mask[1, 2] = False
    influence = leave_one_out_influence(MODEL, population(), batch)["influence"].values
    assert np.isnan(influence[0, 1]).all()
    assert np.isnan(influence[1, :, :, 2]).all()
    assert np.isfinite(influence[0, [0, 2]]).all()
    assert np.isnan(
        leave_one_out_influence(MODEL, population(), batch.limit_shots(1))["influence"]
    ).all()


def test_a_copy_of_a_video_moves_less_than_the_only_one_of_its_sort() -> None:
    """Two videos that say the same replace each other; a third that differs does not."""
    batch = episodes(users=1, way=2, shots=3, query_videos=1, seed=1)
    support = batch.support.clone()
    support[0, 0, 0] = 0.3
    support[0, 0, 1] = 0.3
    support[0, 0, 2] = -1.5
    moved = leave_one_out_influence(MODEL, population(), replace(batch, support=support))
    own = moved["influence"].values[0, 0, :, 0]
    assert own[0] == pytest.approx(own[1])
    assert own[2] > own[0]


def test_the_population_is_averaged_before_the_divergence() -> None:
    batch, given = episodes(users=1), population(3)
    found = leave_one_out_influence(MODEL, given, batch, population_draws=3)

    def average(tasks: EpisodeBatch) -> Tensor:
        each = [
            MODEL.log_labels(tasks, {site: v[p] for site, v in given.draws.items()})[1].exp()
            for p in range(3)
        ]
        return torch.stack(each).mean(0)

    p, q = average(batch)[0, 0], average(without(batch, 0, 1, 2))[0, 0]
    expected = float((p * (p / q).log()).sum())
    assert float(found["influence"][0, 1, 2, 0]) == pytest.approx(expected)


def test_a_model_without_closed_labels_is_refused() -> None:
    toy = GaussianToy()
    with pytest.raises(InferenceError, match="log_labels"):
        leave_one_out_influence(toy, toy.fixed_population(2), episodes())
