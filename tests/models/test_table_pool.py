"""The pool for tables: its heads against scikit-learn, what is left out against fitting again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_wine
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from sklearn.linear_model import LogisticRegression

from bayesfs.inference.own_approximation import OwnApproximation
from bayesfs.models.similarity import table_heads
from bayesfs.models.similarity.heads import examples
from bayesfs.models.similarity.pool import TablePool
from bayesfs.models.similarity.table_heads import (
    NOISE,
    STRENGTH,
    UNIT,
    table_left_out_scores,
    table_query_scores,
)
from bayesfs.protocols import Model
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing import ModelContract
from bayesfs.types import EpisodeBatch, Posterior

Array = NDArray[np.float64]


class TestTablePool(ModelContract):
    def make_model(self) -> TablePool:
        return TablePool()

    def make_tasks(self) -> EpisodeBatch:
        return tasks(users=6, way=3, shots=3, frames=8, query_frames=2, dim=16, seed=5)

    def infer(self, model: Model, episodes: EpisodeBatch, given: Posterior | None) -> Posterior:
        return OwnApproximation(draws=64).infer(model, episodes, seed=0, given=given)


def tasks(**options: object) -> EpisodeBatch:
    settings: dict[str, object] = {"users": 2, "way": 3, "shots": 3, "frames": 4, "dim": 7}
    batch, _ = synthetic_episodes(**{"seed": 0, **settings, **options})  # type: ignore[arg-type]
    return batch.to(torch.float64)


def refitted(videos: Array, label: Array, rows: Array, left: int | None = None) -> Array:
    """(row, way, head) scores by scikit-learn of videos standardised together, one left out."""
    centre = videos.mean(0)
    size = np.sqrt(np.square(videos - centre).sum(1).mean())
    z, asked = (videos - centre) / size, (rows - centre) / size
    keep = np.arange(len(z)) != left
    ways, count = len(set(label.tolist())), len(z)
    lifted = [np.concatenate([x, np.ones((len(x), 1))], 1) for x in (z, asked)]
    linear = LogisticRegression(C=STRENGTH, fit_intercept=False, tol=1e-10, max_iter=10_000)
    linear.fit(lifted[0][keep], label[keep])
    eta = linear.decision_function(lifted[1])
    length = np.sqrt(count / (count - 1.0))  # exp(-d^2 / m) with m = 2 count / (count - 1)
    process = GaussianProcessRegressor(RBF(length, "fixed"), alpha=NOISE, optimizer=None)
    process.fit(z[keep], np.eye(ways)[label[keep]] - 1.0 / ways)
    return np.stack([eta - eta.mean(1, keepdims=True), process.predict(asked)], -1) * np.array(UNIT)


def support_of(batch: EpisodeBatch, task: int) -> tuple[Array, Array]:
    means, label = examples(batch.support, batch)
    there = label[task].sum(-1) > 0
    return means[task][there].numpy(), label[task][there].argmax(-1).numpy()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many steps that the mode is reached."""
    monkeypatch.setattr(table_heads, "STEPS", (4000, 2000))


@pytest.mark.usefixtures("patient")
def test_heads_are_logistic_regression_and_a_gaussian_process() -> None:
    batch = tasks(ragged=True)
    scores = table_query_scores(batch)
    for t in range(len(batch)):
        rows = batch.query[t][batch.query_mask[t]].numpy()
        expected = refitted(*support_of(batch, t), rows)
        ours = scores[t][batch.query_mask[t]][:, batch.way_mask[t]].numpy()
        ours -= np.stack([ours[..., 0].mean(1, keepdims=True), 0 * ours[:, :1, 0]], -1)
        np.testing.assert_allclose(ours, expected, atol=2e-4)


@pytest.mark.usefixtures("patient")
def test_a_left_out_video_is_scored_as_by_fitting_again() -> None:
    batch = tasks(frames=2)
    found = table_left_out_scores(batch)
    assert found is not None
    videos, label = support_of(batch, 0)
    for fold in range(len(label)):
        k, shot = divmod(fold, 3)
        rows = batch.support[0, k, shot].numpy()
        ours = found.scores[0, fold].numpy()
        ours[..., 0] -= ours[..., 0].mean(1, keepdims=True)
        np.testing.assert_allclose(ours, refitted(videos, label, rows, fold), atol=2e-4)
        assert int(found.label[0, fold]) == k


def test_the_usual_number_of_steps_is_close_to_the_mode() -> None:
    batch = tasks(shots=10, way=5, dim=30)
    rough = table_query_scores(batch)
    fine = table_query_scores.__wrapped__(batch)
    assert torch.equal(rough, fine)  # kept once for a batch
    probability = rough[..., 0].softmax(-1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_heads, "STEPS", (4000, 2000))
        exact = table_query_scores.__wrapped__(batch)[..., 0].softmax(-1)
    assert (probability - exact).abs().max() < 0.02


def test_origin_and_unit_move_nothing() -> None:
    batch = tasks()
    moved = batch.changed(support=1e3 * batch.support + 7e4, query=1e3 * batch.query + 7e4)
    torch.testing.assert_close(
        table_query_scores(moved), table_query_scores(batch), atol=1e-6, rtol=0
    )


def test_labels_without_meaning_lower_the_scale_and_trust_moves_to_the_better_head() -> None:
    """Rings that no line separates: the kernel is trusted; shuffled labels: nothing is."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 60)
    radius = np.repeat([0.5, 2.0], 30)
    x = np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]
    rings = torch.from_numpy(x).reshape(1, 2, 30, 1, 2)
    batch = tasks(users=1, way=2, shots=30, frames=1, dim=2)
    batch = batch.changed(support=rings)
    model = TablePool()
    engine = OwnApproximation(draws=256, population_draws=16)
    given = model.default_population(2)
    posterior = engine.infer(model, batch, seed=0, given=given)
    trust = posterior.draws["head_log_weight"].softmax(-1).mean((0, 1))
    assert trust[1] > 0.6  # .5 before
    shuffled = batch.changed(
        support=rings.reshape(1, 60, 1, 2)[:, torch.randperm(60)].reshape(1, 2, 30, 1, 2)
    )
    noise = engine.infer(model, shuffled, seed=0, given=given)
    assert noise.draws["log_scale"].mean() < posterior.draws["log_scale"].mean() - 0.5


def test_doubt_that_examples_remove_is_epistemic() -> None:
    """On wine: of what falls from 1 to 10 examples a class, half at least is said beforehand."""
    from bayesfs.sklearn import BayesianFewShotClassifier

    x, y = load_wine(return_X_y=True)
    rng = np.random.default_rng(1)
    order = [rng.permutation(np.flatnonzero(y == k)) for k in range(3)]
    asked = np.concatenate([rows[20:] for rows in order])
    said = {}
    for shots in (1, 2, 5, 10):
        rows = np.concatenate([each[:shots] for each in order])
        mean, sd = x[rows].mean(0), x[rows].std(0)
        known = BayesianFewShotClassifier().fit((x[rows] - mean) / sd, y[rows], range(len(rows)))
        said[shots] = known.predict_uncertainty((x[asked] - mean) / sd).mean()
    epistemic = [said[shots]["epistemic"] for shots in said]
    assert epistemic == sorted(epistemic, reverse=True)
    assert said[1]["epistemic"] >= 0.5 * (said[1]["total"] - said[10]["total"])


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="vague"):
        replace(TablePool(), vague=1.0)
