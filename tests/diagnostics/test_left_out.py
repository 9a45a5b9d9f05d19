"""Leaving a support video out: exactly where a model allows it, never by blind weights."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

from bayesfs import SVI, Exact, GaussianHierarchy, HeldOutUsers, Study
from bayesfs.data.from_arrays import make_episode
from bayesfs.diagnostics.left_out import left_out_log_prob
from bayesfs.diagnostics.loo import support_elpd
from bayesfs.diagnostics.verdicts import loo_check
from bayesfs.models.population_draws import each_value
from bayesfs.prediction import complete_draws, distinct_population
from bayesfs.types import EpisodeBatch


@pytest.fixture(scope="module")
def answered(make_embeddings):
    """Tasks of three clean videos per object, their tree, the model and the population's values."""
    evaluation = HeldOutUsers(shots=(3,))
    study = Study(GaussianHierarchy(), Exact(draws=8), evaluation, SVI(steps=20, draws=4))
    frames = make_embeddings()
    learnt = study.learn(frames, seed=0)
    tasks = study.tasks(frames, learnt, seed=0)
    answer = study.infer(tasks, learnt, seed=0)
    draws = complete_draws(answer.model, answer.posterior, learnt.population)
    values = [*each_value(distinct_population(answer.model, draws))]
    return tasks, answer.to_datatree(learnt, {}), answer.model, values


def without(tasks: EpisodeBatch, task: int, way: int, shot: int) -> EpisodeBatch:
    """A task of its own from arrays: the support without one video, which is the query."""
    rows = [
        (w, s, frame)
        for w, s, f in tasks.support_mask[task].nonzero().tolist()
        for frame in [tasks.support[task, w, s, f]]
    ]
    taught = [row for row in rows if row[:2] != (way, shot)]
    asked = [row for row in rows if row[:2] == (way, shot)]
    return make_episode(
        torch.stack([x for *_, x in taught]),
        [w for w, _, _ in taught],
        [(w, s) for w, s, _ in taught],
        torch.stack([x for *_, x in asked]),
        ["asked"] * len(asked),
        query_condition="clean",
    )


@pytest.mark.parametrize("place", [(0, 1, 2), (1, 2, 0)])
def test_a_model_in_closed_form_is_asked_without_the_video(answered, place) -> None:
    tasks, tree, model, values = answered
    found = support_elpd(tree)
    alone = without(tasks, *place)
    labels = torch.stack([model.log_labels(alone, value)[1][0, 0] for value in values])
    wanted = float(labels[:, place[1]].logsumexp(0)) - math.log(len(values))
    task, way, shot = place
    name = f"{tasks.tasks[task]} / {tasks.classes[task][way]} / {shot}"
    assert float(found.elpd_i.sel(support=name)) == pytest.approx(wanted, abs=1e-9)


def test_what_is_exact_says_so(answered) -> None:
    _, tree, *_ = answered
    found = support_elpd(tree)
    assert (found.pareto_k == 0).all()
    assert float(found.elpd) == pytest.approx(float(found.elpd_i.sum()))
    assert found.p > 0
    assert loo_check(np.asarray(found.pareto_k)).passed


def test_the_only_video_of_an_object_cannot_be_left_out(answered) -> None:
    tasks, _, model, values = answered
    assert left_out_log_prob(model, values, tasks.limit_shots(1)).isnan().all()


def test_draws_that_are_all_sure_of_a_video_cannot_leave_it_out(answered) -> None:
    """They agree, so that weights are even, and say nothing about draws that never saw it."""
    _, tree, *_ = answered
    groups = {name: group.to_dataset() for name, group in tree.children.items()}
    del groups["support_left_out"]
    rows = groups["support_log_likelihood"]["support_label"].copy(deep=True)
    generator = np.random.default_rng(0)
    rows[:] = -0.5 + 0.1 * generator.normal(size=rows.shape)
    rows[..., :2] = -1e-9 * generator.random(rows[..., :2].shape)
    groups["support_log_likelihood"] = xr.Dataset({"support_label": rows})
    k = np.asarray(support_elpd(xr.DataTree.from_dict(groups)).pareto_k)
    assert np.isnan(k[:2]).all()
    check = loo_check(np.concatenate([k[:2], np.zeros(3)]))
    assert not check.passed
    assert "2 not known, since all draws are as sure" in check.reason
