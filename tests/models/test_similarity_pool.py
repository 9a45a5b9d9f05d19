"""The similarity pool against dense linear algebra, refitting, SciPy and scikit-learn."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct
from torch import Tensor

from bayesfs.errors import ShapeError
from bayesfs.inference.own_approximation import OwnApproximation
from bayesfs.models.per_batch import once_per_batch
from bayesfs.models.similarity.heads import (
    HEADS,
    LIKENESS,
    LIKENESS_LIMITS,
    OWN_STRENGTH,
    RIDGE,
    UNIT,
    WithinScatter,
    likeness,
    support_examples,
    unlikeness,
)
from bayesfs.models.similarity.pool import SimilarityPool, pooled
from bayesfs.models.similarity.scores import left_out_scores, query_scores
from bayesfs.prediction import predict
from bayesfs.protocols import Model
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing import ModelContract
from bayesfs.types import EpisodeBatch, Posterior
from bayesfs.uncertainty.decompose import decompose_draws

Array = NDArray[np.float64]


class TestSimilarityPool(ModelContract):
    def make_model(self) -> SimilarityPool:
        return SimilarityPool()

    def make_tasks(self) -> EpisodeBatch:
        """More features than classes, as similarities are for."""
        return tasks(users=6, way=3, shots=3, frames=8, query_frames=2, dim=16, seed=5)

    def infer(self, model: Model, episodes: EpisodeBatch, given: Posterior | None) -> Posterior:
        return OwnApproximation(draws=64).infer(model, episodes, seed=0, given=given)


def tasks(**options: object) -> EpisodeBatch:
    settings: dict[str, object] = {
        "users": 2,
        "way": 3,
        "shots": 3,
        "frames": 4,
        "dim": 7,
        "seed": 0,
    }
    settings |= options
    settings.setdefault("ragged", "query_frames" not in options)
    batch, _ = synthetic_episodes(**settings)  # type: ignore[arg-type]
    return batch.to(torch.float64)


def unit(x: Array) -> Array:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def dense_scores(videos: Array, label: Array, query: Array, scatter: WithinScatter | None) -> Array:
    """Every head from its definition, D x D matrices and all."""
    ways, dim = len(set(label.tolist())), videos.shape[1]
    mean = np.stack([videos[label == k].mean(0) for k in range(ways)])
    centre = mean.mean(0)
    away, asked = videos - centre, query - centre
    count = np.bincount(label)
    usual = (1.0 / count).mean()
    noise = RIDGE * count[label] * usual
    process = GaussianProcessRegressor(DotProduct(0.0, "fixed"), alpha=noise, optimizer=None).fit(
        unit(away), np.eye(ways)[label] - 1.0 / ways
    )
    rest = videos - mean[label]
    own = np.eye(dim)
    total = np.trace(rest.T @ rest)
    if total > 1e-12:
        rank = np.linalg.matrix_rank(rest, tol=1e-6)
        own = np.linalg.inv(own + OWN_STRENGTH * rest.T @ rest / total * rank)
    foreign = np.eye(dim)
    if scatter is not None:
        axes = scatter.axes.astype(float)
        foreign = np.linalg.inv(foreign + (axes * scatter.excess) @ axes.T)

    def cosine(metric: Array, about: Array, even: float) -> Array:
        """Of class means that are brought to one number of videos each."""

        def inner(a: Array, b: Array) -> Array:
            return a @ metric @ b.T

        freedom = max(len(videos) - ways, 1)
        within = np.trace(inner(rest, rest)) / freedom
        shift = within * (usual - 1.0 / count) * even
        size = np.diag(inner(mean - about, mean - about))
        real = max(0.0, (size - within / count).mean())
        if within > 0:
            size = size * (real + within * usual) / (real + within / count)
        asked = np.diag(inner(query - about, query - about))
        product = inner(query - about, mean - about) - shift
        return product / np.sqrt(asked)[:, None] / np.sqrt(size)

    heads = [
        cosine(np.eye(dim), np.zeros(dim), 0.0),
        process.predict(unit(asked)),
        cosine(foreign, centre, 1.0 / ways),
        cosine(own, centre, 1.0 / ways),
    ]
    return np.stack(heads, -1) * np.array(UNIT)


def support_of(batch: EpisodeBatch, task: int) -> tuple[Array, Array]:
    means, label = support_examples(batch)
    there = label[task].sum(-1) > 0
    return means[task][there].numpy(), label[task][there].argmax(-1).numpy()


@pytest.fixture
def scatter() -> WithinScatter:
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 2)))[0]
    return WithinScatter(axes.astype(np.float32), np.array([5.0, 1.5], np.float32))


@pytest.mark.parametrize("foreign", [True, False])
def test_heads_of_queries_are_those_of_dense_algebra(foreign: bool, scatter: WithinScatter) -> None:
    batch, metric = tasks(), scatter if foreign else None
    found = query_scores(batch, metric)
    for t in range(len(batch)):
        videos, label = support_of(batch, t)
        ways = int(batch.way_mask[t].sum())
        for v, f in batch.query_mask[t].nonzero().tolist():
            frame = unit(batch.query[t, v, f].numpy())[None]
            expected = dense_scores(videos, label, frame, metric)[0]
            np.testing.assert_allclose(found[t, v, f, :ways], expected, rtol=1e-6, atol=1e-6)


def with_first(batch: EpisodeBatch, first: int, others: int) -> tuple[float, float]:
    """How often the first class is named, over how often it is shown, and the NLL of queries.

    Args:
        batch: tasks.
        first: videos of the first class that are taught.
        others: of each other class.
    """
    keep = torch.ones(batch.shot_mask.shape, dtype=torch.bool)
    keep[:, 0, first:], keep[:, 1:, others:] = False, False
    mask = batch.support_mask & keep[..., None]
    task = batch.changed(support=batch.support * mask[..., None], support_mask=mask)
    model = SimilarityPool()
    given = model.default_population(batch.dim)
    posterior = OwnApproximation(draws=64).infer(model, task, seed=0, given=given)
    prob = predict(model, posterior, task, given=given).video.prob[task.video_mask]
    label = task.query_labels[task.video_mask]
    nll = -prob.gather(-1, label[:, None]).log().mean()
    return float(prob[:, 0].mean() / (label == 0).double().mean()), float(nll)


def test_teaching_one_class_more_does_not_make_others_look_like_it() -> None:
    batch, _ = synthetic_episodes(users=60, way=5, shots=6, frames=2, dim=16, seed=7)
    batch, rng = batch.to(torch.float64), np.random.default_rng(0)
    of_video = [
        torch.from_numpy(1.5 * rng.normal(size=(*mask.shape[:-1], 1, 16))) * mask[..., None]
        for mask in (batch.support_mask, batch.query_mask)
    ]
    batch = batch.changed(support=batch.support + of_video[0], query=batch.query + of_video[1])
    assert with_first(batch, 6, 2)[0] == pytest.approx(1.0, abs=0.1)
    assert with_first(batch, 6, 1)[1] < with_first(batch, 1, 1)[1]


def test_left_out_videos_are_asked_of_the_task_without_them() -> None:
    batch = tasks()
    found = left_out_scores(batch, None)
    assert found is not None
    for t in range(len(batch)):
        videos, label = support_of(batch, t)
        mask = batch.support_mask[t].flatten(0, 1)
        frames = batch.support[t].flatten(0, 1)[mask.any(-1)]
        mask = mask[mask.any(-1)]
        several = np.flatnonzero(np.bincount(label)[label] > 1)
        assert found.mask[t].any(-1).sum() == len(several)
        for fold, i in enumerate(several.tolist()):
            rest = np.arange(len(label)) != i
            asked = unit(frames[i][mask[i]].numpy())
            expected = dense_scores(videos[rest], label[rest], asked, None)
            ways = expected.shape[1]
            value = found.scores[t, fold][found.mask[t, fold], :ways]
            np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-6)
            assert found.label[t, fold] == label[i]


def test_one_video_of_each_class_leaves_nothing_out_and_the_prior_as_it_is() -> None:
    batch, model = tasks().limit_shots(1), SimilarityPool()
    assert left_out_scores(batch, None) is None
    given = model.default_population(7)
    posterior = OwnApproximation(draws=64).infer(model, batch, seed=0, given=given)
    torch.testing.assert_close(
        posterior.sample_stats["borrowed"],
        torch.full((2,), 1.0 - model.vague, dtype=torch.float64),
        atol=0.01,
        rtol=0,
    )


def test_a_video_says_what_its_best_frame_says() -> None:
    scores = torch.tensor([[[[[30.0], [0.0]], [[0.0], [0.0]], [[0.0], [0.0]]]]])
    mask = torch.ones(1, 1, 3, dtype=torch.bool)
    logits = pooled(scores, mask, torch.zeros(1, 1), torch.zeros(1, 1, 1))
    assert float(logits[0, 0, 0, 0] - logits[0, 0, 0, 1]) == pytest.approx(
        30.0 - np.log(3), abs=1e-5
    )


def test_resampled_scales_follow_the_left_out_score() -> None:
    """Posterior means of the scale against quadrature over it, weights of the heads fixed."""
    batch = tasks(shots=3, seed=2)
    model = SimilarityPool(head_between=1e-3, head_sd=1e-3, vague=1e-3)
    population = {
        "scale_mean": torch.tensor([model.scale], dtype=torch.float64),
        "head_mean": torch.zeros(1, len(HEADS), dtype=torch.float64),
    }
    posterior = model.approximate(batch, population, draws=2000, seed=0)
    grid = torch.linspace(-2.0, 3.0, 801, dtype=torch.float64)
    folds = left_out_scores(batch, None)
    assert folds is not None
    score = _score_on(grid, model, folds)
    prior = -0.5 * ((grid - model.scale) / model.between) ** 2
    weight = (score + prior[:, None]).softmax(0)
    expected = (weight * grid[:, None]).sum(0)
    found = posterior.draws["log_scale"].mean(0)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def _score_on(grid: Tensor, model: SimilarityPool, folds: object) -> Tensor:
    from bayesfs.models.similarity.scores import LeftOut

    assert isinstance(folds, LeftOut)
    even = torch.zeros(len(grid), folds.scores.shape[0], len(HEADS), dtype=torch.float64)
    logits = pooled(folds.scores, folds.mask, grid[:, None].expand(-1, folds.scores.shape[0]), even)
    count = folds.count.clamp(min=1.0)
    there = folds.count > 0
    variance = torch.where(there, model.class_sd**2 / count, 0.0).sum(-1) / there.sum(-1)
    variance = torch.exp(2.0 * (grid - model.scale))[:, None, None] * variance
    logits = logits / (1.0 + np.pi / 4.0 * variance).sqrt()[..., None]
    log_p = logits.masked_fill(~there, -torch.inf).log_softmax(-1)
    label = folds.label[None, ..., None].expand(len(grid), -1, -1, 1)
    each = log_p.gather(-1, label)[..., 0].masked_fill(~folds.mask.any(-1), 0.0)
    return each.sum(-1)


def test_what_more_videos_remove_is_called_epistemic() -> None:
    """The same tasks with 1, 2 and 6 videos: the epistemic part falls at each step."""
    batch, _ = synthetic_episodes(users=30, way=5, shots=6, frames=2, dim=16, seed=4)
    batch, model = batch.to(torch.float64), SimilarityPool()
    parts, totals = [], []
    for shots in (1, 2, 6):
        task, given = batch.limit_shots(shots), model.default_population(16)
        posterior = OwnApproximation(draws=256).infer(model, task, seed=0, given=given)
        total, _, epistemic = decompose_draws(predict(model, posterior, task, given=given).video)
        parts.append(float(epistemic.mean()))
        totals.append(float(total.mean()))
    assert parts[0] > parts[1] > parts[2]


def test_scatter_of_others_finds_what_videos_vary_in() -> None:
    rng = np.random.default_rng(1)
    objects = np.repeat(np.arange(40), 5)
    centre = rng.normal(size=(40, 20))
    nuisance = np.zeros((200, 20))
    nuisance[:, 3] = 4.0 * rng.normal(size=200)
    videos = centre[objects] + nuisance + 0.3 * rng.normal(size=(200, 20))
    found = WithinScatter.fit(videos, objects, rank=4)
    assert abs(found.axes[3, 0]) > 0.99
    assert found.excess[0] > 10 * found.excess[1]
    np.testing.assert_allclose(found.axes.T @ found.axes, np.eye(4), atol=1e-5)


def mean_cosine(videos: Array, first: Array, second: Array) -> float:
    """Mean cosine over the pairs of different videos that agree, or not, as two labels say."""
    x = videos / np.linalg.norm(videos, axis=1, keepdims=True)
    wanted = (first[:, None] == first) & (second[:, None] != second)
    return float((x @ x.T)[wanted].mean())


def alike_factor_of(videos: Array, label: Array, unlike: float) -> float:
    between = mean_cosine(videos, np.zeros(len(videos)), label)
    ratio = np.clip((1.0 - between) / (1.0 - unlike), *LIKENESS_LIMITS)
    return float(ratio ** np.mean(np.unique(label, return_counts=True)[1] == 1))


def test_heads_about_a_centre_say_less_where_the_taught_are_alike(scatter: WithinScatter) -> None:
    batch, unlike = tasks(), -0.3
    told = replace(scatter, unlike=unlike)
    plain, found = query_scores(batch, scatter), query_scores(batch, told)
    folds, less = left_out_scores(batch, scatter), left_out_scores(batch, told)
    assert folds is not None
    assert less is not None
    powers, seen = torch.tensor(LIKENESS, dtype=torch.float64), []
    for t in range(len(batch)):
        videos, label = support_of(batch, t)
        seen.append(alike_factor_of(videos, label, unlike))
        expected = plain[t] * seen[-1] ** powers
        torch.testing.assert_close(found[t], expected, rtol=1e-6, atol=1e-9)
        several = np.flatnonzero(np.bincount(label)[label] > 1)
        for fold, i in enumerate(several.tolist()):
            rest = np.arange(len(label)) != i
            expected = folds.scores[t, fold] * (
                alike_factor_of(videos[rest], label[rest], unlike) ** powers
            )
            torch.testing.assert_close(less.scores[t, fold], expected, rtol=1e-6, atol=1e-9)
    assert abs(seen[0] - seen[1]) > 0.01
    assert min(seen) < 0.99
    model = SimilarityPool(told)
    posterior = model.approximate(batch, model.default_population(7).draws, draws=8, seed=0)
    np.testing.assert_allclose(posterior.sample_stats["alike_factor"], seen, rtol=1e-6)


def test_with_two_videos_of_each_what_is_left_out_tells_the_scale_instead(
    scatter: WithinScatter,
) -> None:
    batch, told = tasks(shots=2, ragged=False), replace(scatter, unlike=-0.3)
    assert torch.equal(query_scores(batch, told), query_scores(batch, scatter))
    one = batch.limit_shots(1)
    assert not torch.equal(query_scores(one, told), query_scores(one, scatter))


@pytest.mark.parametrize("unlike", [np.nan, 1.0])
def test_nothing_is_foretold_where_others_likeness_is_not_known(
    unlike: float, scatter: WithinScatter
) -> None:
    told = replace(scatter, unlike=unlike)
    assert torch.equal(query_scores(tasks(), told), query_scores(tasks(), scatter))
    alone = tasks(way=1)
    known = replace(scatter, unlike=0.1)
    assert torch.equal(query_scores(alone, known), query_scores(alone, scatter))


def test_likeness_is_the_mean_cosine_of_pairs() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 5)) + 1.0
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    thing = np.array([0, 0, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4])
    place = np.array([0] * 6 + [1] * 6)
    of_places = [mean_cosine(x[place == p], place[place == p], thing[place == p]) for p in (0, 1)]
    assert unlikeness(x, thing, place) == pytest.approx(np.mean(of_places))
    each = [
        mean_cosine(x[thing == k], thing[thing == k], np.arange((thing == k).sum()))
        for k in range(5)
    ]
    assert likeness(x, thing) == pytest.approx(np.mean(each))
    assert np.isnan(unlikeness(x[:2], thing[:2], place[:2]))


def test_scatter_of_another_backbone_is_refused(scatter: WithinScatter) -> None:
    with pytest.raises(ShapeError, match="another backbone"):
        query_scores(tasks(dim=9), scatter)


def test_a_population_of_its_own_world_is_kept_and_a_foreign_one_is_left() -> None:
    """Told a scale far from what left-out videos say, the person leaves the population."""
    batch = tasks(users=4, way=5, shots=5, seed=3)
    model = SimilarityPool(scatter=None)
    even = torch.zeros(1, len(HEADS), dtype=torch.float64)

    def borrowed(scale: float) -> float:
        population = {
            "scale_mean": torch.tensor([scale], dtype=torch.float64),
            "head_mean": even,
        }
        posterior = model.approximate(batch, population, draws=16, seed=0)
        return float(posterior.sample_stats["borrowed"].mean())

    grid = torch.linspace(-4.0, 4.0, 81, dtype=torch.float64)
    folds = left_out_scores(batch, None)
    best = float(grid[_score_on(grid, model, folds).sum(1).argmax()])
    assert borrowed(best) > 1.0 - model.vague > borrowed(best - 4.0)


def test_each_user_is_scored_in_the_metric_learnt_without_them(scatter: WithinScatter) -> None:
    batch = tasks()
    axes = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 3)))[0].astype(np.float32)
    other = WithinScatter(axes, np.array([4.0, 2.0, 1.0], np.float32))
    first, second = batch.users
    found = query_scores(batch, {first: scatter, second: other})
    for task, metric in enumerate((scatter, other)):
        alone = query_scores(batch, metric)[task]
        torch.testing.assert_close(found[task], alone, rtol=1e-9, atol=1e-9)
    with pytest.raises(ShapeError, match="missing that of"):
        query_scores(batch, {first: scatter})


def test_scores_are_computed_once_for_a_batch_and_go_with_it() -> None:
    calls = []

    @once_per_batch
    def count(episodes: EpisodeBatch, more: object) -> Tensor:
        calls.append(more)
        return episodes.support.sum()

    batch, one, two = tasks(), object(), object()
    known = count(batch, one)
    assert count(batch, one) is known
    assert count(batch, two) == count(tasks(), one)
    assert len(calls) == 3  # the batch with each argument, and another batch
    gone = weakref.ref(batch)
    del batch
    gc.collect()
    assert gone() is None


def test_videos_that_are_not_left_out_are_stood_for_by_the_rest() -> None:
    batch = tasks(users=1, shots=4, way=3)
    all_of_them, some = left_out_scores(batch, None), left_out_scores(batch, None, 6)
    assert all_of_them is not None
    assert some is not None
    asked, few = (int(f.mask.any(-1).sum()) for f in (all_of_them, some))
    assert few == 6
    assert float(all_of_them.share) == 1.0
    assert float(some.share) == pytest.approx(asked / few)


@pytest.mark.parametrize("draws", [1, 3, 5, 7, 100])
def test_any_number_of_population_draws_can_be_carried_through(draws: int) -> None:
    batch, model = tasks(), SimilarityPool()
    given = model.default_population(7)
    some = {site: v[torch.arange(draws) % len(v)] for site, v in given.draws.items()}
    posterior = model.approximate(batch, some, draws=2, seed=0)
    assert posterior.draws["log_scale"].shape == (2 * draws, 2)


@pytest.mark.parametrize("frames", [1, 4])
def test_a_frame_of_many_says_less_than_its_video_and_an_only_one_the_same(frames: int) -> None:
    batch = tasks(frames=frames, ragged=False)
    model = SimilarityPool(frame_sd=1.3)
    given = model.default_population(7)
    posterior = model.approximate(batch, given.draws, draws=3, seed=0)
    draws = {**{site: value[:3] for site, value in given.draws.items()}, **posterior.draws}
    draws = {site: value[:3] for site, value in draws.items()}
    found = model.log_joint_frame(draws, batch)
    plain = replace(model, frame_sd=0.0).log_joint_frame(draws, batch)
    factor = (1.0 + np.pi / 4 * 1.3**2 * (1 - 1 / frames)) ** -0.5
    torch.testing.assert_close(found, (factor * plain).log_softmax(-1))
    video = model.log_joint_video(draws, batch)
    assert torch.equal(video, replace(model, frame_sd=0.0).log_joint_video(draws, batch))
    if frames == 1:
        torch.testing.assert_close(found[:, :, :, 0], video)
