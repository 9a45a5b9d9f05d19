"""Learnt axes: alignment, folding into a projection, choice by left-out users."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bayesfs.errors import ShapeError
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.features.projection import fit_projection
from bayesfs.features.reduction import PrincipalAxes
from bayesfs.inference.exact import Exact
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.learned_map import LearnedLinearMap
from bayesfs.models.objectives import PredictiveScore
from bayesfs.study import Study, frames_of
from bayesfs.training.supervised_projection import LearnedProjection, Validation, aligned, turned
from bayesfs.types import Embeddings

EVALUATION = HeldOutUsers(shots=(1, 2), train_shots=(1, 2), frames_per_video=2)
SMALL = LearnedProjection(
    dims=(3, 6), feature_map=LearnedLinearMap(0.2), evaluation=EVALUATION, steps=4, check_every=2
)


@pytest.fixture
def train(make_embeddings: Callable[..., Embeddings]) -> Embeddings:
    """Frames of three train users."""
    embeddings = make_embeddings(users=5)
    return embeddings.where(split="train")


def test_alignment_keeps_every_product_within_a_user(train: Embeddings) -> None:
    """The axes are turned, nothing else: cross-fitted features up to a rotation per user."""
    projection = fit_projection(train, 5)
    turned_to_common = aligned(train, projection).features
    plain = PrincipalAxes(5).cross_fit(train, 5).features
    for name in set(train.coord("user").tolist()):
        here = train.coord("user") == name
        a, b = turned_to_common[here], plain[here]
        np.testing.assert_allclose(a @ a.T, b @ b.T, atol=1e-5)


def test_aligned_axes_are_nearer_to_the_common_ones(train: Embeddings) -> None:
    projection = fit_projection(train, 5)
    common = projection(train).features
    near = np.square(aligned(train, projection).features - common).sum()
    assert near < np.square(PrincipalAxes(5).cross_fit(train, 5).features - common).sum()


def test_a_map_folds_into_the_projection(train: Embeddings) -> None:
    projection = fit_projection(train, 5)
    matrix = np.eye(5) + 0.3 * np.random.default_rng(0).normal(size=(5, 5))
    mapped = projection(train).features @ matrix
    mapped /= np.linalg.norm(mapped, axis=1, keepdims=True)
    folded = turned(projection, matrix, train)
    np.testing.assert_allclose(folded(train).features, mapped, atol=1e-5)
    assert np.square(folded.spectrum).sum() == pytest.approx(1.0)


def test_validation_chooses_the_best_number_of_axes_and_steps() -> None:
    found = Validation((4, 8), 10, np.array([[-2.0, -1.0, -1.5], [-1.2, -0.9, -0.8]]))
    assert (found.dim, found.steps) == (8, 20)


def test_steps_are_chosen_by_users_that_are_left_out(train: Embeddings) -> None:
    used = frames_of(train, EVALUATION.train_tasks(train, seed=0))
    found = SMALL.validate(used)
    assert found.scores.shape == (2, 3)
    assert np.isfinite(found.scores).all()
    assert (found.scores < 0).all()
    projection = SMALL.fit(used)
    assert projection.dim == found.dim
    again = SMALL.fit(used)
    np.testing.assert_array_equal(projection.axes, again.axes)


def test_a_left_out_user_has_no_part_in_his_own_projection(train: Embeddings) -> None:
    """Other features of one user change nobody's cross-fitted features but through the others."""
    one = LearnedProjection(dims=(4,), evaluation=EVALUATION, steps=2, check_every=2)
    used = frames_of(train, EVALUATION.train_tasks(train, seed=0))
    name = sorted(set(used.coord("user").tolist()))[0]
    here = used.coord("user") == name
    features = used.features.copy()
    features[here] += np.random.default_rng(0).normal(size=features[here].shape)
    projected = one.cross_fit(used, 4).features
    steps = one.validate(used).steps
    others = one._at(used.where(user=[u for u in set(used.coord("user")) if u != name]), 4, steps)
    np.testing.assert_allclose(projected[here], others(used.where(user=name)).features, atol=1e-5)


def test_a_study_takes_it_as_its_reduction(make_embeddings: Callable[..., Embeddings]) -> None:
    study = Study(
        model=GaussianHierarchy(),
        engine=Exact(draws=8, population_draws=2),
        evaluation=EVALUATION,
        population_engine=SVI(steps=5, draws=8, khat_draws=0),
        objective=PredictiveScore,
        reduction=SMALL,
    )
    embeddings = make_embeddings(users=5)
    learnt = study.learn(embeddings, seed=0)
    answer = study.infer(study.tasks(embeddings, learnt, seed=0), learnt, seed=0)
    assert np.isfinite(answer.predictive.frame.log_prob.exp()).all()


def test_numbers_below_one_are_refused() -> None:
    with pytest.raises(ShapeError, match="folds: expected 2 or more, got 1"):
        LearnedProjection(folds=1)


def test_measured_quality_is_standardised_as_for_a_new_user(train: Embeddings) -> None:
    """As the principal axes do it: slopes learnt on raw numbers would be used on sds."""
    measured = np.random.default_rng(0).normal(50.0, 5.0, (len(train), 2)).astype(np.float32)
    with_quality = Embeddings(
        train.dataset.assign(quality=(("frame", "covariate"), measured)).assign_coords(
            covariate=["sharpness", "contrast"]
        )
    )
    axes = LearnedProjection(dims=(4,), evaluation=EVALUATION, steps=1, check_every=1)
    crossed = axes.cross_fit(with_quality, 4).dataset["quality"].values
    assert np.abs(crossed.mean(0)).max() < 0.5
    assert np.abs(crossed.std(0) - 1.0).max() < 0.3
    quality = aligned(with_quality, fit_projection(with_quality, 4)).dataset["quality"].values
    plain = PrincipalAxes(4).cross_fit(with_quality, 4).dataset["quality"].values
    np.testing.assert_array_equal(quality, plain)


def test_a_single_user_is_projected_by_his_own_axes(train: Embeddings) -> None:
    one = train.where(user=train.coord("user")[0])
    crossed = LearnedProjection(dims=(4,), evaluation=EVALUATION, steps=1, check_every=1).cross_fit(
        one, 4
    )
    assert np.isfinite(crossed.features).all()
