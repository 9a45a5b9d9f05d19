"""The deep-kernel GP as a model: contract, limits, named errors, objectives, bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pyro
import pytest
import torch
from torch import Tensor

from bayesfs._linalg.cholesky import cholesky
from bayesfs.data.from_arrays import stack
from bayesfs.errors import InferenceError, NotPositiveDefiniteError, ShapeError
from bayesfs.inference.exact import Exact
from bayesfs.inference.program.potential import potential
from bayesfs.models.gp.covariance import VideoCovariance
from bayesfs.models.gp.deep_kernel_gp import FUNCTION, DeepKernelGP
from bayesfs.models.gp.feature_maps import (
    MLP,
    FeatureMap,
    Identity,
    LinearMap,
    OrderedAxes,
    PrincipalAxesMap,
)
from bayesfs.models.gp.hyperparameters import merge, population_draws, positive
from bayesfs.models.gp.kernels import RBF, Linear, Matern, Spectral
from bayesfs.models.gp.likelihoods.dirichlet import Dirichlet
from bayesfs.models.gp.likelihoods.laplace_softmax import LaplaceSoftmax
from bayesfs.models.gp.likelihoods.logistic_softmax import LogisticSoftmax
from bayesfs.models.gp.likelihoods.one_vs_each import OneVsEach
from bayesfs.models.gp.likelihoods.softmax import Softmax
from bayesfs.models.gp.objective import HeldOutScore, hold_out
from bayesfs.models.gp.points import by_support_size, query_points
from bayesfs.models.objectives import MarginalLikelihood, PredictiveScore
from bayesfs.protocols import Conjugate
from bayesfs.testing import ModelContract
from bayesfs.types import EpisodeBatch, Posterior


def tasks(
    *,
    way: int = 4,
    shot: int = 3,
    frame: int = 2,
    videos: int = 5,
    conditions: bool = False,
    noise: float = 0.5,
    dtype: torch.dtype = torch.float64,
) -> EpisodeBatch:
    """Tasks whose classes scatter about centres; with `conditions`, each last shot is cluttered."""
    g = torch.Generator().manual_seed(0)
    centre = torch.randn(2, way, 6, generator=g, dtype=dtype)
    shape = (2, way, shot, frame, 6)
    support = centre[:, :, None, None] + noise * torch.randn(shape, generator=g, dtype=dtype)
    label = torch.randint(way, (2, videos), generator=g)
    about = centre[torch.arange(2)[:, None], label][:, :, None]
    query = about + noise * torch.randn(2, videos, frame, 6, generator=g, dtype=dtype)
    condition = torch.zeros(2, way, shot, dtype=torch.long)
    if conditions:
        condition[:, :, -1] = 1
    return EpisodeBatch(
        support=support,
        support_mask=torch.ones(shape[:-1], dtype=torch.bool),
        support_condition=condition,
        query=query,
        query_mask=torch.ones(query.shape[:-1], dtype=torch.bool),
        query_condition=torch.ones(2, videos, dtype=torch.long),
        query_labels=label,
        tasks=("A", "B"),
    )


def population(model: DeepKernelGP, episodes: EpisodeBatch, draws: int = 0) -> dict[str, Tensor]:
    """Prior draws of the hyperparameters."""
    torch.manual_seed(1)
    if not draws:
        return dict(model.sample_population(episodes.support))
    each = [model.sample_population(episodes.support) for _ in range(draws)]
    return {n: torch.stack([e[n] for e in each]) for n in each[0]}


class GPContract(ModelContract):
    """Every site is of the population: one joint density, and nothing left to condition on."""

    model = DeepKernelGP()

    def make_model(self) -> DeepKernelGP:
        return self.model

    def make_population(self, model: object, episodes: EpisodeBatch) -> Posterior | None:
        return None

    @pytest.mark.xfail(run=False, reason="integration points go to frames in their order")
    def test_the_order_of_videos_and_frames_does_not_matter(self) -> None: ...

    @pytest.mark.xfail(run=False, reason="at prior medians .1 to .4 lower: video noise is small")
    def test_repeating_every_frame_hardly_lowers_the_epistemic_uncertainty(self) -> None: ...

    @pytest.mark.xfail(run=False, reason="regression on labels: frames rise by 5 %; half a minute")
    def test_new_support_videos_lower_the_expected_epistemic_uncertainty(self) -> None: ...

    def test_tasks_are_independent_given_the_population(self) -> None:
        model, episodes = self.make_model(), self.make_episodes()
        values = population(model, episodes)
        together = model.log_evidence(episodes, values)
        for t in range(len(episodes)):
            alone = model.log_evidence(episodes.select([t]), values)
            torch.testing.assert_close(alone, together[t : t + 1])


class TestRegressionContract(GPContract):
    pass


class TestHeldOutContract(GPContract):
    model = DeepKernelGP(VideoCovariance(base=Matern(1.5)), objective=HeldOutScore((1, 2)))


class PaddedByNight(GPContract):
    """Padding takes ten seconds; `test_same_row` asks these likelihoods the same by day."""

    @pytest.mark.slow
    def test_padding_changes_no_prediction(self) -> None:
        super().test_padding_changes_no_prediction()


class TestDirichletContract(PaddedByNight):
    model = DeepKernelGP(VideoCovariance(base=RBF(), constant=0.2), Dirichlet())


class TestSoftmaxContract(PaddedByNight):
    model = DeepKernelGP(VideoCovariance(scaled_video=True), Softmax(steps=5))


class TestLogisticSoftmaxContract(PaddedByNight):
    model = DeepKernelGP(VideoCovariance(), LogisticSoftmax(steps=5))


class TestOneVsEachContract(PaddedByNight):
    model = DeepKernelGP(VideoCovariance(video=None, shift=None), OneVsEach(steps=5))


class TestLaplaceContract(GPContract):
    model = DeepKernelGP(VideoCovariance(), LaplaceSoftmax(steps=8))


def test_is_a_conjugate_model_and_the_exact_engine_takes_it() -> None:
    model, episodes = DeepKernelGP(), tasks()
    assert isinstance(model, Conjugate)
    given = Posterior("variational", population(model, episodes, draws=3), model.dims)
    posterior = Exact(draws=12, population_draws=3).infer(model, episodes, seed=0, given=given)
    assert posterior.kind == "exact"
    assert posterior.num_draws == 12
    assert posterior.dims[FUNCTION] == ("task", "way", "point")
    again = Exact(draws=12, population_draws=3).infer(model, episodes, seed=0, given=given)
    assert torch.equal(posterior.draws[FUNCTION], again.draws[FUNCTION])
    predictive = model.predictive(episodes, given.draws, draws=4, seed=0)
    assert predictive.video.log_prob_given.shape == (12, 2, 5, 4)
    mixed = model.log_joint_video(given.draws, episodes).exp().mean(0)
    torch.testing.assert_close(predictive.video.prob, mixed)


def test_population_draws_are_mixed_with_equal_weight() -> None:
    model, episodes = DeepKernelGP(), tasks()
    draws = population(model, episodes, draws=4)
    whole = model.predictive(episodes, draws, draws=5, seed=0)
    each = [
        model.predictive(episodes, {n: v[i] for n, v in draws.items()}, draws=5, seed=0)
        for i in range(4)
    ]
    mean = torch.stack([p.frame.prob for p in each]).mean(0)
    torch.testing.assert_close(whole.frame.prob, mean)
    assert float(whole.frame.log_weight.logsumexp(0).abs().max()) < 1e-9
    evidence = torch.stack(
        [model.log_evidence(episodes, {n: v[i] for n, v in draws.items()}) for i in range(4)]
    )
    torch.testing.assert_close(
        model.log_evidence(episodes, draws), evidence.exp().mean(0).log(), rtol=1e-6, atol=1e-6
    )


def test_query_labels_never_change_a_result() -> None:
    model, episodes = DeepKernelGP(), tasks()
    values = population(model, episodes)
    blind = replace(episodes, query_labels=torch.full_like(episodes.query_labels, -1))
    a, b = (model.predictive(e, values, draws=3, seed=0) for e in (episodes, blind))
    assert torch.equal(a.video.log_prob_given, b.video.log_prob_given)


def test_one_class() -> None:
    model, episodes = DeepKernelGP(), tasks(way=1)
    for likelihood in (model.likelihood, Dirichlet(), Softmax(), OneVsEach(), LaplaceSoftmax()):
        one = replace(model, likelihood=likelihood)
        predictive = one.predictive(episodes, population(one, episodes), draws=4, seed=0)
        torch.testing.assert_close(predictive.video.prob, torch.ones(2, 5, 1, dtype=torch.float64))
        assert torch.isfinite(predictive.frame.log_prob_given).all()


def test_a_hundred_classes() -> None:
    episodes = tasks(way=100, shot=2, videos=3, noise=0.05, dtype=torch.float32)
    model = DeepKernelGP(VideoCovariance(Identity(), Linear(), shift=None))
    values = {
        "signal": torch.tensor(0.5),
        "frame_scale": torch.full((2,), 0.05),
        "video_scale": torch.full((2,), 0.01),
    }
    predictive = model.predictive(episodes, values, draws=8, seed=0)
    assert torch.isfinite(predictive.frame.log_prob).all()
    torch.testing.assert_close(predictive.video.prob.sum(-1), torch.ones(2, 3))
    assert (predictive.video.log_prob.argmax(-1) == episodes.query_labels).float().mean() > 0.6


def test_float32_agrees_with_float64() -> None:
    model, episodes = DeepKernelGP(), tasks()
    values = population(model, episodes)
    double = model.predictive(episodes, values, draws=2, seed=0)
    single = model.predictive(episodes.to(torch.float32), values, draws=2, seed=0)
    assert single.frame.log_prob.dtype == torch.float32
    torch.testing.assert_close(single.frame.prob.double(), double.frame.prob, atol=1e-4, rtol=0)


def test_pieces_of_the_query_give_the_same_and_bound_memory() -> None:
    model, episodes = DeepKernelGP(), tasks(videos=7)
    values = population(model, episodes)
    small = replace(model, memory=1)
    whole = model.predictive(episodes, values, draws=3, seed=0)
    parts = small.predictive(episodes, values, draws=3, seed=0)
    torch.testing.assert_close(whole.video.log_prob, parts.video.log_prob)
    torch.testing.assert_close(whole.frame.log_prob, parts.frame.log_prob)
    assert len(list(small.pieces(query_points(episodes), episodes.way))) == 7
    torch.testing.assert_close(
        small.log_joint_frame(values, episodes), model.log_joint_frame(values, episodes)
    )


def test_tasks_of_unequal_size_are_scored_in_groups_and_put_back() -> None:
    episodes = tasks(shot=4)
    episodes = stack([episodes.limit_shots(n) for n in (1, 4, 2)])
    model = DeepKernelGP()
    values = population(model, episodes)
    assert len(by_support_size(episodes)) == 3
    frame, video = model.log_labels(episodes, values)
    evidence = model.log_evidence(episodes, values)
    for t in range(len(episodes)):
        alone = episodes.select([t])
        torch.testing.assert_close(model.log_labels(alone, values)[0], frame[t : t + 1])
        torch.testing.assert_close(model.log_labels(alone, values)[1], video[t : t + 1])
        torch.testing.assert_close(model.log_evidence(alone, values), evidence[t : t + 1])


def test_running_ends_at_the_video_and_starts_at_its_first_frame() -> None:
    model, episodes = DeepKernelGP(), tasks(frame=4)
    values = population(model, episodes)
    running = model.running(episodes, values)
    torch.testing.assert_close(running[:, :, -1], model.log_labels(episodes, values)[1])
    torch.testing.assert_close(running[:, :, 0], model.log_labels(episodes, values)[0][:, :, 0])


def test_repeating_frames_changes_nothing_without_frame_noise() -> None:
    episodes = tasks(frame=2).to(torch.float64)  # in float32 rounding alone moves 2e-4
    model = DeepKernelGP(VideoCovariance(Identity(), Linear(), shift=None))
    values = population(model, episodes) | {"frame_scale": torch.full((2,), 1e-5).double()}
    twice = replace(
        episodes,
        query=episodes.query.repeat_interleave(2, 2),
        query_mask=episodes.query_mask.repeat_interleave(2, 2),
    )
    a, b = (model.log_labels(e, values)[1] for e in (episodes, twice))
    torch.testing.assert_close(a.exp(), b.exp(), atol=1e-4, rtol=0)


def test_frames_of_one_video_count_for_less_than_videos() -> None:
    """Forty frames of one video leave more doubt than forty of five videos."""
    g = torch.Generator().manual_seed(3)
    x = torch.randn(1, 2, 5, 8, 6, generator=g, dtype=torch.float64)
    many = tasks(way=2, shot=5, frame=8).select([0])
    many = replace(
        many, support=x, query=many.query[:, :, :1], query_mask=many.query_mask[:, :, :1]
    )
    one = replace(
        many,
        support=x.reshape(1, 2, 1, 40, 6),
        support_mask=torch.ones(1, 2, 1, 40, dtype=torch.bool),
        support_condition=torch.zeros(1, 2, 1, dtype=torch.long),
    )
    model = DeepKernelGP(VideoCovariance(Identity(), Linear(), constant=1.0, shift=None))
    values = population(model, many) | {"video_scale": torch.ones(2, dtype=torch.float64)}
    spread = [
        model.fit(e, values).conditioned.latent(query_points(e)).signal.mean()  # type: ignore[attr-defined]
        for e in (many, one)
    ]
    assert float(spread[0]) < float(spread[1])


@dataclass(frozen=True)
class Indefinite(Linear):
    """A "kernel" that is none."""

    def __call__(self, values: Mapping[str, Tensor], x1: Tensor, x2: Tensor) -> Tensor:
        return -10 * super().__call__(values, x1, x2)


def test_not_positive_definite_names_kernel_task_jitter_and_condition_number() -> None:
    model, episodes = DeepKernelGP(VideoCovariance(base=Indefinite(1.0))), tasks()
    values = population(model, episodes) | {"signal": torch.tensor(3.0)}
    with pytest.raises(NotPositiveDefiniteError, match=r"Indefinite.*jitter.*condition number"):
        model.predictive(episodes, values, draws=1, seed=0)


def test_nan_or_missing_hyperparameters_are_named() -> None:
    model, episodes = DeepKernelGP(), tasks()
    values = population(model, episodes)
    with pytest.raises(InferenceError, match=r"'signal' is not finite"):
        model.predictive(episodes, values | {"signal": torch.tensor(torch.nan)}, draws=1, seed=0)
    with pytest.raises(InferenceError, match="missing"):
        model.predictive(episodes, {}, draws=1, seed=0)
    with pytest.raises(ShapeError, match="number of draws"):
        population_draws(model.sites, values | {"signal": torch.ones(3)}, episodes.support)


def test_infinite_covariance_is_a_named_error() -> None:
    model, episodes = DeepKernelGP(VideoCovariance(base=RBF())), tasks()
    values = population(model, episodes) | {"lengthscale": torch.tensor(0.0)}
    with pytest.raises(NotPositiveDefiniteError, match="NaN or infinite"):
        model.predictive(episodes, values, draws=1, seed=0)


def test_nan_features_are_refused_where_the_episode_is_built() -> None:
    episodes = tasks()
    bad = episodes.support.clone()
    bad[0, 0, 0, 0, 0] = torch.nan
    with pytest.raises(ShapeError, match="NaN or infinite features"):
        replace(episodes, support=bad)


def test_jitter_is_added_only_where_it_is_needed() -> None:
    singular = torch.ones(3, 3)
    good = torch.eye(3) * 2
    factor = cholesky(torch.stack([good, singular]), name="test")
    assert torch.equal(factor[0], torch.linalg.cholesky(good))
    torch.testing.assert_close(factor[1] @ factor[1].mT, singular, atol=1e-3, rtol=0)
    inside = torch.func.vmap(lambda k: cholesky(k, name="test"))(torch.stack([good, singular]))
    assert torch.isfinite(inside).all()
    never = torch.func.vmap(lambda k: cholesky(k, name="test"))(-good[None])
    assert torch.isnan(never).all()


@pytest.mark.parametrize(
    "features",
    [
        Identity(),
        OrderedAxes(),
        PrincipalAxesMap(latent=4),
        LinearMap(3),
        MLP(PrincipalAxesMap(latent=4)),
    ],
    ids=lambda f: type(f).__name__,
)
def test_every_feature_map_learns_prepared_or_not(features: FeatureMap) -> None:
    episodes = tasks(conditions=True)
    for model in (
        DeepKernelGP(VideoCovariance(features, Spectral(2))),
        DeepKernelGP(VideoCovariance(features, Spectral(2))).prepare(episodes),
    ):
        density = potential(model, episodes)
        value, gradient = density.value_and_gradient(density.prior(2, seed=0))
        assert torch.isfinite(value).all()
        assert torch.isfinite(gradient).all()
        for site, axes in model.dims.items():
            assert density.constrain(density.prior(1, seed=0))[site].ndim == 1 + len(axes)


def test_principal_axes_centre_by_kind_and_whiten() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(400, 5, generator=g, dtype=torch.float64) * torch.tensor([5, 3, 2, 1, 0.5])
    condition = torch.arange(400) % 2
    x = x + condition[:, None] * 7.0
    whole = PrincipalAxesMap(latent=None, normalise=False).prepare(x, condition)
    z = whole({"whitening": torch.tensor(1.0, dtype=x.dtype)}, x[None], condition[None])[0]
    for k in range(2):
        torch.testing.assert_close(z[condition == k].mean(0), torch.zeros(5, dtype=x.dtype))
    cov = z.T @ z / len(z)
    torch.testing.assert_close(cov / cov[0, 0], torch.eye(5, dtype=x.dtype))
    kept = whole({"whitening": torch.tensor(0.0, dtype=x.dtype)}, x[None], condition[None])[0]
    centred = x - torch.stack([x[condition == k].mean(0) for k in range(2)])[condition]
    torch.testing.assert_close(kept.square().sum(1), centred.square().sum(1))


def test_ordered_axes_are_principal_axes_of_projected_features() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(300, 5, generator=g, dtype=torch.float64) * torch.tensor([5, 3, 2, 1, 0.5])
    condition = torch.zeros(300, dtype=torch.long)
    values = {"whitening": torch.tensor(0.4, dtype=x.dtype)}
    whole = PrincipalAxesMap(latent=None, normalise=False).prepare(x, condition)
    assert whole.axes is not None
    projected = (x - whole.axes.centre[0]) @ whole.axes.basis
    told = OrderedAxes().fit_to(tuple((3 * whole.axes.spread).tolist()))
    expected = whole(values, x[None], condition[None])
    expected = expected / expected.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(told(values, projected[None], condition[None]), expected)
    with pytest.raises(ShapeError, match="another projection"):
        told(values, projected[None, :, :3], condition[None])
    assert DeepKernelGP().fit_to((1.0, 0.5)).covariance.features.spectrum == (1.0, 0.5)


def test_hold_out_learns_from_clean_and_asks_for_clutter() -> None:
    episodes = tasks(conditions=True)
    part = hold_out(episodes, shots=1)
    assert part.support_mask.flatten(3).any(-1).sum(2).eq(1).all()
    assert part.query_condition[part.video_mask].eq(1).all()
    assert part.video_mask.sum(1).eq(4).all()
    for t in range(2):
        for v in range(4):
            label = int(part.query_labels[t, v])
            assert torch.equal(part.query[t, v], episodes.support[t, label, 2])


def test_hold_out_of_one_kind_keeps_a_video_back_and_rotates() -> None:
    episodes = tasks()
    assert hold_out(episodes, shots=9).shot_mask.sum(2).eq(2).all()
    assert hold_out(episodes, shots=9).video_mask.sum(1).eq(4).all()
    first, second = (hold_out(episodes, 1, r) for r in (0, 1))
    assert torch.equal(first.support[:, :, 0], episodes.support[:, :, 0])
    assert torch.equal(second.support[:, :, 1], episodes.support[:, :, 1])
    single = tasks(shot=1)
    assert not hold_out(single, 1).video_mask.any()


def test_objectives_of_the_library_take_the_model_and_gradients_are_finite() -> None:
    episodes = tasks(conditions=True)
    for objective in (MarginalLikelihood, PredictiveScore):
        program = objective(DeepKernelGP(VideoCovariance(base=Matern(0.5))))
        density = potential(program, episodes)
        value, gradient = density.value_and_gradient(density.prior(3, seed=0))
        assert torch.isfinite(value).all()
        assert torch.isfinite(gradient).all()


def test_learning_raises_the_score_of_new_tasks() -> None:
    episodes = tasks(conditions=True, noise=1.0)
    model = DeepKernelGP(objective=HeldOutScore((1, 2)))
    density = potential(model, episodes)
    z = density.prior(16, seed=0).mean(1, keepdim=True)
    before = float(density.log_density(z))
    optimiser = torch.optim.Adam([z], lr=0.05)
    for _ in range(60):
        _, gradient = density.value_and_gradient(z)
        z.grad = -gradient
        optimiser.step()
    assert float(density.log_density(z)) > before + 0.5


def test_plain_pyro_runs_the_program() -> None:
    model, episodes = DeepKernelGP(), tasks()
    trace = pyro.poutine.trace(model).get_trace(episodes)
    assert torch.isfinite(trace.log_prob_sum())
    assert {n for n in model.dims} <= set(trace.nodes)


def test_two_components_may_not_use_one_name() -> None:
    with pytest.raises(ShapeError, match="'signal'"):
        merge({"signal": positive(1.0)}, {"signal": positive(2.0)})
