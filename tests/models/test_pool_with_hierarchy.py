"""The pool with the hierarchy against its two members, and its axes against `Projection`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from bayesfs.errors import ShapeError
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.features.reduction import PrincipalAxes, UnitNorm, fitted_on_others
from bayesfs.inference.own_approximation import OwnApproximation
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.objectives import PredictiveScore
from bayesfs.models.similarity.pool import SimilarityPool
from bayesfs.models.similarity.with_hierarchy import PoolWithHierarchy, along_axes
from bayesfs.prediction import predict
from bayesfs.protocols import Model
from bayesfs.study import Study
from bayesfs.synthetic.tasks import synthetic_embeddings, synthetic_episodes
from bayesfs.synthetic.truth import Population
from bayesfs.testing import ModelContract
from bayesfs.types import Embeddings, EpisodeBatch, Posterior
from bayesfs.uncertainty.by_level import by_level

WIDE, AXES = 16, 5


def people(seed: int = 0) -> Embeddings:
    """Frames of four people in both conditions, far from the origin as a backbone's are."""
    made, _ = synthetic_embeddings(
        Population.isotropic(WIDE), users=4, way=3, shots=3, frames=3, dim=WIDE, seed=seed
    )
    return UnitNorm().fit(made)(made.with_features(made.features + 3.0))


def tasks(**options: int) -> EpisodeBatch:
    settings = {"users": 3, "way": 3, "shots": 2, "frames": 4, "dim": WIDE, "seed": 1} | options
    batch, _ = synthetic_episodes(**settings)  # type: ignore[arg-type]
    return batch.to(torch.float64)


def model() -> PoolWithHierarchy:
    made = PoolWithHierarchy(reduction=PrincipalAxes(AXES))
    return made.with_axes(made.reduction.fit(people()))


class TestPoolWithHierarchy(ModelContract):
    def make_model(self) -> PoolWithHierarchy:
        return model()

    def make_episodes(self) -> EpisodeBatch:
        return tasks(users=2, frames=3)

    def make_tasks(self) -> EpisodeBatch:
        return tasks(users=6, shots=3, frames=8, query_frames=2, seed=5)

    def infer(self, model: Model, episodes: EpisodeBatch, given: Posterior | None) -> Posterior:
        return OwnApproximation(draws=64).infer(model, episodes, seed=0, given=given)


def changed(**settings: float) -> PoolWithHierarchy:
    return replace(model(), **settings)  # type: ignore[arg-type]


def test_with_no_share_the_hierarchy_says_nothing() -> None:
    batch, engine, alone = tasks(), OwnApproximation(draws=64), SimilarityPool()
    given, made = model().default_population(WIDE), changed(share=1e-300)
    both = predict(made, engine.infer(made, batch, seed=0, given=given), batch, given=given)
    pool = {site: given.draws[site] for site in alone.population_dims}
    of_pool = Posterior("exact", pool, dict(alone.population_dims))
    one = predict(alone, engine.infer(alone, batch, seed=0, given=of_pool), batch, given=of_pool)
    np.testing.assert_allclose(both.frame.prob, one.frame.prob, atol=1e-12)
    np.testing.assert_allclose(both.video.prob, one.video.prob, atol=1e-12)


def test_with_the_whole_share_the_hierarchy_alone_answers() -> None:
    batch, made = tasks(), changed(share=1.0 - 1e-12, vague=1e-300)
    value = {site: v[0] for site, v in made.default_population(WIDE).draws.items()}
    frame, video = made.log_labels(batch, value)
    sites = {site: value[site] for site in made.hierarchy.population_dims}
    true_frame, true_video = made.hierarchy.log_labels(along_axes(batch, made.axes, AXES), sites)
    torch.testing.assert_close(frame.exp(), true_frame.exp(), rtol=0.0, atol=1e-7)
    torch.testing.assert_close(video.exp(), true_video.exp(), rtol=0.0, atol=1e-7)


def test_draws_are_geometric_means_of_the_members() -> None:
    """p ~ exp((1 - s) (u + e^(a - a0) b)) p_hierarchy^s, draw by draw, by hand for videos."""
    made, batch = changed(share=0.3), tasks()
    posterior = OwnApproximation(draws=8, population_draws=2).infer(
        made, batch, seed=0, given=made.default_population(WIDE)
    )
    draws = posterior.draws
    found = made.log_joint_video(draws, batch)
    scores, seen = made.query_scores(batch), along_axes(batch, made.axes, AXES)
    for s in range(posterior.num_draws):
        a, mean = draws["log_scale"][s], draws["scale_mean"][s]
        own = 0.8 * Normal(mean, made.between).log_prob(a).exp()
        vague = 0.2 * Normal(made.scale, made.vague_sd).log_prob(a).exp()
        share = 0.3 * own / (own + vague)
        sites = {site: draws[site][s] for site in made.hierarchy.population_dims}
        other = made.hierarchy.log_labels(seen, sites)[1]
        for t in range(len(batch)):
            weight = draws["head_log_weight"][s, t].softmax(-1) * a[t].exp()
            u = (1 - share[t]) * (scores[t] @ weight)
            for v in range(u.shape[0]):
                logit = u[v][batch.query_mask[t, v]].exp().mean(0).log()
                bias = (a[t] - made.scale).exp() * draws["class_bias"][s, t]
                logit = logit + (1 - share[t]) * bias + share[t] * other[t, v]
                torch.testing.assert_close(found[s, t, v], logit.log_softmax(-1))


def test_members_are_learnt_apart() -> None:
    """The score that is learnt by is the sum of both members' own scores."""
    made, batch = model(), tasks()
    value = {site: v[0] for site, v in made.default_population(WIDE).draws.items()}
    found = made.for_learning().log_labels(batch, value)
    sites = {site: value[site] for site in made.hierarchy.population_dims}
    other = made.hierarchy.log_labels(along_axes(batch, made.axes, AXES), sites)
    for both, pool, hierarchy in zip(
        found, SimilarityPool().log_labels(batch, value), other, strict=True
    ):
        torch.testing.assert_close(both, pool + hierarchy)


def test_axes_are_those_of_the_projection() -> None:
    axes, batch = PrincipalAxes(AXES).fit(people()), tasks()
    seen = along_axes(batch, axes, AXES)
    for condition, name in enumerate(("clean", "clutter")):
        keep = batch.query_mask & (batch.query_condition == condition)[..., None]
        if keep.any():
            wanted = axes.of_features(batch.query[keep].numpy(), name)
            np.testing.assert_allclose(seen.query[keep], wanted, atol=1e-6)


def test_a_user_without_axes_is_refused() -> None:
    each = fitted_on_others(people(), PrincipalAxes(AXES).fit)
    one = {user: axes for user, axes in each.items() if user == next(iter(each))}
    with pytest.raises(ShapeError, match="missing those of"):
        along_axes(tasks(), one, AXES)


def test_a_study_learns_it_and_answers_by_level() -> None:
    study = Study(
        model=PoolWithHierarchy(reduction=PrincipalAxes(AXES)),
        engine=OwnApproximation(draws=32, population_draws=4),
        evaluation=HeldOutUsers(shots=(1,), train_shots=(1, 2), query_conditions=("clutter",)),
        population_engine=SVI(steps=4, draws=8, khat_draws=0),
        objective=PredictiveScore,
        reduction=UnitNorm(),
    )
    frames = people()
    split = np.where(frames.coord("user") == frames.coord("user")[-1], "test", "train")
    frames = Embeddings(frames.dataset.assign_coords(split=("frame", split)))
    learnt = study.learn(frames, seed=0)
    assert learnt.axes is not None
    batch = study.tasks(frames, learnt, seed=0)
    answer = study.infer(batch, learnt, seed=0)
    parts = by_level(answer.model, learnt.population, batch, draws=8, seed=0)
    assert parts
