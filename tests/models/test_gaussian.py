"""The Gaussian hierarchy against dense joint Gaussians, and its predictive by another route."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from scipy.stats import multivariate_normal
from torch import Tensor

from bayesfs._linalg.jitter import jittered_cholesky
from bayesfs.errors import InferenceError, NotPositiveDefiniteError, ShapeError
from bayesfs.inference.exact import Exact
from bayesfs.models.gaussian.conjugate import (
    Levels,
    condition_classes,
    log_normal_each,
    video_noise,
)
from bayesfs.models.gaussian.covariance import Dense, Diagonal
from bayesfs.models.gaussian.families import (
    CovarianceFamily,
    Full,
    LowRankCovariance,
    PerFeature,
    PowerLaw,
)
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.gaussian.labels import frame_queries, joint_log_density, open_labels
from bayesfs.prediction import predict
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.synthetic.truth import Population
from bayesfs.types import EpisodeBatch, Posterior
from bayesfs.uncertainty.decompose import decompose, decompose_draws

FAMILIES: list[CovarianceFamily] = [
    PowerLaw(spectrum=(0.9, 0.5, 0.3)),
    PerFeature(),
    LowRankCovariance(rank=2),
    Full(),
]


WITH_QUALITY = GaussianHierarchy(FAMILIES[0], covariates=("blur", "dark"))
MODELS = [*(GaussianHierarchy(family) for family in FAMILIES), WITH_QUALITY]


def name_of(model: GaussianHierarchy) -> str:
    return type(model.family).__name__ + ("-quality" if model.covariates else "")


def episodes_for(model: GaussianHierarchy, **options: object) -> EpisodeBatch:
    slope = (0.4, -0.2)[: len(model.covariates)]
    population = Population.isotropic(3, quality_slope=slope)
    return episodes(population=population, **options)


def episodes(**options: object) -> EpisodeBatch:
    settings = {"users": 3, "way": 3, "shots": 2, "frames": 3, "dim": 3, "seed": 0} | options
    batch, _ = synthetic_episodes(**settings)  # type: ignore[arg-type]
    return batch.to(torch.float64)


def draw_population(model: GaussianHierarchy, dim: int, seed: int = 0) -> dict[str, Tensor]:
    with torch.random.fork_rng(), poutine.block():
        pyro.set_rng_seed(seed)
        return dict(model.sample_population(torch.zeros(dim, dtype=torch.float64)))


def given(model: GaussianHierarchy, population: Mapping[str, Tensor]) -> Posterior:
    draws = {site: value[None] for site, value in population.items()}
    return Posterior("exact", draws, dict(model.population_dims))


def dense(operator: Diagonal | Dense) -> np.ndarray:
    matrix = operator.m if isinstance(operator, Dense) else torch.diag_embed(operator.d)
    return matrix.numpy()


def width(batch: EpisodeBatch, levels: Levels, frame: tuple[int, ...]) -> float:
    """exp(2 slope . quality) of one support frame."""
    if levels.slope is None or batch.support_quality is None:
        return 1.0
    slope = levels.slope[batch.support_condition[frame[:-1]]]
    return float((2.0 * batch.support_quality[frame] @ slope).exp())


def joint_covariance(batch: EpisodeBatch, task: int, levels: Levels) -> tuple[np.ndarray, ...]:
    """Frames of one task: (values, mean, covariance, class of each frame, loading of each)."""
    where = batch.support_mask[task].nonzero().numpy()
    condition = batch.support_condition[task].numpy()
    x = batch.support[task].numpy()
    loading, offset = levels.loading.numpy(), levels.offset.numpy()
    dim, n = batch.dim, len(where)
    cov = np.zeros((n, dim, n, dim))
    task_cov, way = dense(levels.task), dense(levels.way)
    video, frame = dense(levels.video), dense(levels.frame)
    for i, (k, v, f) in enumerate(where):
        for j, (k2, v2, f2) in enumerate(where):
            r = loading[condition[k, v]] * loading[condition[k2, v2]]
            block = r * task_cov + (k == k2) * r * way
            if (k, v) == (k2, v2):
                own = frame[condition[k, v]] * width(batch, levels, (task, k, v, f))
                block = block + video[condition[k, v]] + (f == f2) * own
            cov[i, :, j] = block
    mean = np.stack([offset[condition[k, v]] for k, v, _ in where])
    values = np.stack([x[k, v, f] for k, v, f in where])
    r = np.array([loading[condition[k, v]] for k, v, _ in where])
    return values, mean, cov.reshape(n * dim, n * dim), where[:, 0], r


@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_posterior_and_evidence_equal_a_dense_joint_gaussian(model: GaussianHierarchy) -> None:
    batch = episodes_for(model, ragged=True)
    levels = model.levels(draw_population(model, 3), 3)
    post = condition_classes(batch, levels)
    evidence = model.log_evidence(batch, draw_population(model, 3))
    task_cov, way = dense(levels.task), dense(levels.way)
    for t in range(len(batch)):
        values, mean, cov, owner, r = joint_covariance(batch, t, levels)
        want = multivariate_normal(mean.ravel(), cov, allow_singular=True).logpdf(values.ravel())
        assert float(evidence[t]) == pytest.approx(want, rel=1e-6, abs=1e-6)
        for k in batch.way_mask[t].nonzero()[:, 0].tolist():
            cross = np.stack(
                [ri * (task_cov + (o == k) * way) for o, ri in zip(owner, r, strict=True)], 1
            )
            cross = cross.reshape(3, -1)
            gain = np.linalg.solve(cov, cross.T).T
            np.testing.assert_allclose(
                post.mean[t, k], gain @ (values - mean).ravel(), atol=1e-6, rtol=1e-6
            )
            want_cov = task_cov + way - gain @ cross.T
            np.testing.assert_allclose(dense(post.cov())[t, k], want_cov, atol=1e-6, rtol=1e-6)


def test_exact_draws_have_the_posterior_mean_and_covariance() -> None:
    model, batch = GaussianHierarchy(), episodes()
    population = draw_population(model, 3)
    posterior = Exact(draws=20000).infer(model, batch, seed=1, given=given(model, population))
    means = model.class_means({k: v[:4000] for k, v in posterior.draws.items()}, batch)
    exact = condition_classes(batch, model.levels(population, 3))
    sd = dense(exact.cov()).diagonal(axis1=-2, axis2=-1) ** 0.5
    assert (np.abs(means.mean(0) - exact.mean) / sd).max() < 5 / 4000**0.5
    np.testing.assert_allclose(means.std(0), sd, rtol=0.06)


@pytest.mark.parametrize(
    "model",
    [MODELS[0], MODELS[3], pytest.param(WITH_QUALITY, marks=pytest.mark.slow)],
    ids=name_of,
)
def test_closed_form_equals_reweighted_draws(model: GaussianHierarchy) -> None:
    """Two routes to p(y | x, D) and its decomposition: Matheron's rule, importance weights."""
    batch = episodes_for(model, ragged=True)
    population = given(model, draw_population(model, 3, seed=3))
    posterior = Exact(draws=3000).infer(model, batch, seed=0, given=population)
    closed = predict(model, posterior, batch)
    sampled = predict(model, posterior, batch, exact=False)
    for a, b in ((closed.frame, sampled.frame), (closed.video, sampled.video)):
        size = 1.0 / b.log_weight.exp().square().sum(0)  # effective draws behind the second route
        assert ((a.prob - b.prob).abs().amax(-1) < 2.5 / size.sqrt()).all()
        average = (a.log_prob_given + a.log_weight[..., None]).logsumexp(0).exp()
        assert (average - a.prob).abs().max() < 0.01
    one, two = decompose(closed, batch), decompose(sampled, batch)
    for name in ("frame_epistemic", "video_aleatoric"):
        assert abs(float(one[name].mean() - two[name].mean())) < 0.01


def test_uncertainty_is_ordered_and_padding_is_nan() -> None:
    model, batch = GaussianHierarchy(), episodes(ragged=True)
    population = given(model, draw_population(model, 3))
    posterior = Exact(draws=64).infer(model, batch, seed=0, given=population)
    predictive = predict(model, posterior, batch)
    total, aleatoric, epistemic = decompose_draws(predictive.frame)
    ways = batch.way_mask.sum(-1).double().log()[:, None, None]
    assert ((epistemic >= 0) & (epistemic <= total) & (aleatoric >= 0)).all()
    assert (total <= ways + 1e-9).all()
    table = decompose(predictive, batch)
    assert (np.isfinite(table["frame_total"].values) == batch.query_mask.numpy()).all()
    assert (
        predictive.video.prob[~batch.way_mask[:, None].expand_as(predictive.video.prob)] == 0
    ).all()


def test_expected_epistemic_uncertainty_falls_and_aleatoric_stays_with_more_videos() -> None:
    """Tower property: E_x E_theta|x H[p(y | x, theta)] does not depend on the support."""
    model = GaussianHierarchy(PowerLaw())
    values = draw_population(model, 3) | {"scale": torch.tensor([0.3, 1.0, 0.6, 0.6, 0.3, 0.3])}
    values = {k: v.double() for k, v in values.items()} | {"loading": torch.tensor(1.0).double()}
    values["offset_raw"] = torch.zeros(2, 3).double()
    with torch.random.fork_rng():
        pyro.set_rng_seed(0)
        batch = from_the_model(model, values, tasks=400)
    parts = []
    for shots in (1, 2, 4):
        few = batch.limit_shots(shots)
        posterior = Exact(draws=32).infer(model, few, seed=0, given=given(model, values))
        table = decompose(predict(model, posterior, few), few)
        parts.append(
            (float(table["video_aleatoric"].mean()), float(table["video_epistemic"].mean()))
        )
    assert parts[0][1] > 1.2 * parts[1][1] > 1.2 * parts[2][1]
    assert max(abs(a - parts[0][0]) for a, _ in parts) < 0.1 * parts[0][0]


def from_the_model(model: GaussianHierarchy, values: dict[str, Tensor], tasks: int) -> EpisodeBatch:
    """Tasks whose support and query (clean, one video per class) come from the program itself."""
    way, shots, frames, dim = 3, 5, 2, 3
    blank = torch.zeros(tasks, way, shots, frames, dim, dtype=torch.float64)
    template = EpisodeBatch(
        support=blank,
        support_mask=torch.ones(tasks, way, shots, frames, dtype=torch.bool),
        support_condition=torch.zeros(tasks, way, shots, dtype=torch.long),
        query=blank[:, :, 0],
        query_mask=torch.ones(tasks, way, frames, dtype=torch.bool),
        query_condition=torch.zeros(tasks, way, dtype=torch.long),
        query_labels=torch.arange(way).expand(tasks, way).contiguous(),
    )
    levels = model.levels(values, dim)
    trace = poutine.trace(poutine.condition(model, data=values)).get_trace(template)
    raw = {k: trace.nodes[k]["value"].reshape(tasks, -1, dim) for k in ("task_raw", "class_raw")}
    mean = levels.task.colour(raw["task_raw"]) + levels.way.colour(raw["class_raw"])
    video = levels.video[0].colour(torch.randn(tasks, way, shots, dim, dtype=torch.float64))
    noise = levels.frame[0].colour(torch.randn(blank.shape, dtype=torch.float64))
    x = mean[:, :, None, None] + video[..., None, :] + noise
    return replace(
        template,
        support=x[:, :, :4],
        query=x[:, :, 4],
        **{
            "support_mask": template.support_mask[:, :, :4],
            "support_condition": template.support_condition[:, :, :4],
        },
    )


def test_repeating_frames_without_frame_noise_changes_nothing() -> None:
    model, batch = GaussianHierarchy(PowerLaw()), episodes()
    values = draw_population(model, 3)
    values["scale"] = values["scale"] * torch.tensor([1, 1, 1, 1, 0, 0]).double()
    frames = torch.arange(batch.support.shape[3]).double()[:, None]
    still = replace(batch, support=batch.support[:, :, :, :1] * (1 + 1e-12 * frames))
    once = replace(
        still,
        support=still.support[:, :, :, :1],
        support_mask=still.support_mask[:, :, :, :1],
        support_frame=None,
    )
    levels = model.levels(values, 3)
    a, b = condition_classes(still, levels), condition_classes(once, levels)
    torch.testing.assert_close(a.mean, b.mean, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(a.cov().d, b.cov().d, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_values_of_each_task_are_conditioned_at_once(model: GaussianHierarchy) -> None:
    """Draws of the population beside each other, for one task, and each by itself."""
    batch = episodes_for(model, ragged=True).select([0])
    plain = [model.levels(draw_population(model, 3, seed), 3) for seed in range(3)]
    centres = torch.randn(3, 1, batch.way, 3, dtype=torch.float64)
    own = [
        replace(levels, centre=centre, way=levels.way.expand_axis(0).expand_axis(0))
        for levels, centre in zip(plain, centres, strict=True)
    ]
    for values in (plain, own):
        at_once = condition_classes(batch, Levels.of_each(values))
        for p, levels in enumerate(values):
            one = condition_classes(batch, levels)
            close = {"rtol": 1e-12, "atol": 1e-12}
            torch.testing.assert_close(at_once.mean[p], one.mean[0], **close)
            np.testing.assert_allclose(dense(at_once.cov())[p], dense(one.cov())[0], **close)
            np.testing.assert_allclose(dense(at_once.cross(1))[p], dense(one.cross(1))[0], **close)
    for mixed in ([own[0], plain[1]], [replace(own[0], centre=torch.zeros(2, batch.way, 3))]):
        with pytest.raises(ShapeError, match="means of one task in every value"):
            Levels.of_each(mixed)


def test_one_task_is_answered_for_by_many_draws_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same labels and the same levels of doubt as draw by draw."""
    model = GaussianHierarchy(absent_odds=0.5)
    batch = episodes_for(model, ragged=True).select([0])
    draws = [draw_population(model, 3, seed) for seed in range(5)]
    population = {site: torch.stack([d[site] for d in draws]) for site in draws[0]}
    found = []
    for size in (2**18, 1):
        monkeypatch.setattr("bayesfs.models.gaussian.labels.AT_ONCE", size)
        labels = model.predictive(batch, population, draws=4, seed=0)
        levels = model.level_entropies(batch, population, draws=4, seed=0)
        given = (labels.frame.log_prob_given, labels.video.log_prob_given)
        found.append([*levels, labels.frame.prob, labels.video.prob, labels.absent, *given])
    for many, single in zip(*found, strict=True):
        torch.testing.assert_close(many, single, rtol=1e-10, atol=1e-12)


def test_permuting_classes_permutes_the_predictive() -> None:
    model, batch = GaussianHierarchy(), episodes()
    values = draw_population(model, 3)
    order = [2, 0, 1]
    frame, video = model.log_labels(batch, values)
    frame_p, video_p = model.log_labels(batch.permute_classes(order), values)
    torch.testing.assert_close(frame[..., order], frame_p)
    torch.testing.assert_close(video[..., order], video_p)


def test_exact_says_what_it_needs() -> None:
    model, batch = GaussianHierarchy(), episodes()
    with pytest.raises(InferenceError, match="given="):
        Exact().infer(model, batch, seed=0)
    with pytest.raises(InferenceError, match="missing"):
        Exact().infer(model, batch, seed=0, given=Posterior("exact", {}, {}))
    with pytest.raises(ShapeError, match="spectrum of 3 features"):
        model.fit_to((1.0, 2.0)).log_labels(batch, draw_population(model, 3))
    with pytest.raises(NotPositiveDefiniteError, match="no Cholesky factor"):
        jittered_cholesky(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))


def test_slopes_of_zero_change_nothing() -> None:
    batch = episodes_for(WITH_QUALITY, ragged=True)
    population = draw_population(WITH_QUALITY, 3)
    plain = GaussianHierarchy(WITH_QUALITY.family)
    same = {site: population[site] for site in plain.population_dims}
    flat = {**population, "quality_slope": torch.zeros(2, 2, dtype=torch.float64)}
    for a, b, mask in zip(
        WITH_QUALITY.log_labels(batch, flat),
        plain.log_labels(batch, same),
        (batch.query_mask, batch.video_mask),
        strict=True,
    ):
        torch.testing.assert_close(a[mask], b[mask])


def test_a_blurred_frame_counts_less_and_is_less_certain() -> None:
    batch = episodes_for(WITH_QUALITY)
    population = draw_population(WITH_QUALITY, 3)
    population["quality_slope"] = torch.tensor([[1.0, 0.0]] * 2, dtype=torch.float64)
    assert batch.query_quality is not None
    worse = batch.query_quality.clone()
    worse[..., 0] += 3.0
    sharp = WITH_QUALITY.log_labels(batch, population)[0]
    blurred = WITH_QUALITY.log_labels(replace(batch, query_quality=worse), population)[0]
    assert float(sharp.exp().amax(-1).mean()) > float(blurred.exp().amax(-1).mean()) + 0.02


def test_quality_that_is_not_a_number_is_refused_where_there_is_a_frame() -> None:
    batch = episodes_for(WITH_QUALITY, ragged=True)
    assert batch.query_quality is not None
    padded = batch.query_quality.clone()
    padded[~batch.query_mask] = math.nan
    replace(batch, query_quality=padded)
    padded[batch.query_mask] = math.nan
    with pytest.raises(ShapeError, match="query_quality holds NaN"):
        replace(batch, query_quality=padded)


def test_a_model_with_slopes_refuses_episodes_without_quality() -> None:
    population = draw_population(WITH_QUALITY, 3)
    with pytest.raises(ShapeError, match="expected 2 covariates of quality per frame"):
        WITH_QUALITY.log_labels(episodes(), population)


@pytest.mark.parametrize("model", [MODELS[0], WITH_QUALITY], ids=name_of)
def test_odds_that_nothing_taught_is_shown_equal_those_of_one_more_empty_class(
    model: GaussianHierarchy,
) -> None:
    """Two routes: the new object's law written down, and a class without support."""
    batch = episodes_for(model, ragged=True)
    population = draw_population(model, 3)
    levels = model.levels(population, 3)
    together, (frame, video) = open_labels(batch, levels)
    values = {site: v[None] for site, v in population.items()}
    opened = model.open_predictive(batch, values, untaught=4, draws=20, seed=0)
    for odds, labels, mask in (
        (frame, opened.frame, batch.query_mask),
        (video, opened.video, batch.video_mask),
    ):
        prob = labels.prob[..., -4:].sum(-1)
        torch.testing.assert_close(prob[mask], odds.sigmoid()[mask])
    closed = model.log_labels(batch, population)[0]
    torch.testing.assert_close(together[0], closed)
    taught = opened.frame.log_prob[..., :-4].log_softmax(-1)
    torch.testing.assert_close(taught[batch.query_mask], closed[batch.query_mask])


def test_something_unlike_all_that_was_taught_is_an_untaught_class() -> None:
    """Its uncertainty is epistemic: which untaught object it is, teaching would tell."""
    population = Population.isotropic(32, class_scale=2.0, video_scale=(0.2, 0.2), offset=0.0)
    batch, _ = synthetic_episodes(population, users=4, way=4, shots=3, seed=1)
    stranger, _ = synthetic_episodes(population, users=4, way=4, shots=3, seed=2)
    batch, stranger = batch.to(torch.float64), stranger.to(torch.float64)
    model = GaussianHierarchy(PowerLaw(), loading=1.0)
    sites = draw_population(model, 32)
    sites["scale"] = torch.tensor([0.5, 2.0, 0.2, 0.2, 0.4, 0.6]).double() * 32**0.5
    sites["loading"] = torch.tensor(1.0).double()
    sites["offset_raw"] = 0.0 * sites["offset_raw"]
    sites["absent_odds"] = torch.tensor(-2.0).double()
    values = {site: v[None] for site, v in sites.items()}
    other = replace(batch, query=stranger.query, query_labels=-torch.ones_like(batch.query_labels))
    own = decompose(model.open_predictive(batch, values, untaught=4, draws=64, seed=0), batch)
    new = decompose(model.open_predictive(other, values, untaught=4, draws=64, seed=0), other)
    assert float(new["video_epistemic"].mean()) == pytest.approx(np.log(4), abs=0.1)
    assert float(new["video_aleatoric"].mean()) < 0.1
    assert float(own["video_epistemic"].mean()) < 0.1


def test_interpolated_densities_equal_those_of_every_query_by_itself() -> None:
    """Frames of which some count twenty times as much as others; the formula written out."""
    batch = episodes_for(WITH_QUALITY)
    population = draw_population(WITH_QUALITY, 3)
    population["quality_slope"] = torch.tensor([[0.45, -0.3]] * 2, dtype=torch.float64)
    levels = WITH_QUALITY.levels(population, 3)
    queries = frame_queries(batch, levels)
    x, condition, count = queries.x, queries.condition, queries.frames
    assert float(count.max() / count.min()) > 20
    means = condition_classes(batch, levels).mean
    centre = (
        levels.offset[condition][:, :, None]
        + levels.loading[condition][..., None, None] * means[:, None]
    )
    want = log_normal_each(x, centre, video_noise(levels, condition, count).expand_axis(2))
    torch.testing.assert_close(joint_log_density(queries, means, levels), want, atol=1e-3, rtol=0)
