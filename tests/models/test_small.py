"""The smallest data there is, end to end: every recipe and every baseline learns and answers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.features.quality import COVARIATES
from bayesfs.features.reduction import PrincipalAxes
from bayesfs.inference.exact import Exact
from bayesfs.inference.own_approximation import OwnApproximation
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.baselines.classifiers import HeadEnsemble, standard_baselines
from bayesfs.models.gaussian.robust import RobustHierarchy
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.models.similarity.pool import SimilarityPool
from bayesfs.protocols import Engine
from bayesfs.recipes.load import load_recipe, recipe_folder
from bayesfs.study import Study
from bayesfs.synthetic.tasks import synthetic_embeddings
from bayesfs.training.supervised_projection import LearnedProjection
from bayesfs.types import Embeddings, EpisodeBatch, Predictive

ORDINARY = {"way": 2, "shots": 2, "frames": 2, "query_videos": 2, "dim": 2}
FEWER = "1 video beside 2"
CASES: Mapping[str, Mapping[str, int]] = {
    "1 shot": {"shots": 1},
    "1 feature": {"dim": 1},
    "1 class": {"way": 1},
    "1 frame": {"frames": 1},
    "1 query video": {"query_videos": 1},
    FEWER: {},
}
RECIPES = sorted(path.stem for path in (recipe_folder() / "models").glob("*.py"))
QUICK = SVI(steps=1, draws=2, particles=1, khat_draws=0)
each_case = pytest.mark.parametrize("case", CASES)


def drawn(case: str) -> Embeddings:
    """Two train users and one to score, with qualities; perhaps one class of one clean video."""
    sizes = {**ORDINARY, **CASES[case]}
    frames = synthetic_embeddings(users=2, test_users=1, seed=0, **sizes)[0].dataset
    if case == FEWER:
        left_out = np.char.endswith(frames["video"].values, "object-02--clean--002")
        assert left_out.any()
        frames = frames.isel(frame=~left_out)
    rng = np.random.default_rng(0)
    table = rng.normal(size=(frames.sizes["frame"], len(COVARIATES))).astype(np.float32)
    measured = frames.assign(quality=(("frame", "covariate"), table))
    return Embeddings(measured.assign_coords(covariate=list(COVARIATES)))


def quick_study(name: str, shots: int) -> Study:
    """A recipe's model, objective and reduction, with few steps of everything."""
    found: Mapping[str, Any] = load_recipe(
        recipe_folder() / "models" / f"{name}.py", "model"
    ).values
    model, reduction = found["model"], found.get("reduction", PrincipalAxes())
    likelihood = getattr(model, "likelihood", None)
    if hasattr(likelihood, "steps"):
        model = replace(model, likelihood=replace(likelihood, steps=2))
    engine: Engine = Exact(draws=4, population_draws=2)
    if isinstance(model, RobustHierarchy | SimilarityPool):
        engine = OwnApproximation(draws=4)
    if isinstance(model, HierarchicalHead):
        engine = QUICK
    evaluation = HeldOutUsers(shots=(shots,), train_shots=(1, 2))
    if isinstance(reduction, LearnedProjection):
        reduction = replace(
            reduction, dims=(1,), steps=1, check_every=1, folds=2, evaluation=evaluation
        )
    return Study(model, engine, evaluation, QUICK, found.get("objective"), reduction)


def require_probabilities(found: Predictive, episodes: EpisodeBatch) -> None:
    for prob in (found.frame.prob[episodes.query_mask], found.video.prob[episodes.video_mask]):
        assert len(prob)
        torch.testing.assert_close(prob.sum(-1), torch.ones_like(prob[..., 0]), atol=1e-5, rtol=0.0)
        assert (prob >= 0).all()


LONG = (
    "learnt_axes",
    "deep_kernel_laplace",
    "deep_kernel_logistic_softmax",
    "deep_kernel_one_vs_each",
    "deep_kernel_softmax",
)


def asked_by_day(name: str, case: str) -> bool:
    """The recipes that take longest are asked half of the cases by day, all of them by night."""
    return name not in LONG or case in ("1 shot", "1 class", FEWER)


@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(name, case, marks=[pytest.mark.slow] * (not asked_by_day(name, case)))
        for name in RECIPES
        for case in CASES
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_recipe_learns_and_answers(name: str, case: str) -> None:
    embeddings = drawn(case)
    study = quick_study(name, CASES[case].get("shots", 2))
    learnt = study.learn(embeddings, seed=0)
    episodes = study.tasks(embeddings, learnt, seed=0)
    assert (episodes.shot_mask.sum(-1).min() < episodes.shot_mask.sum(-1).max()) == (case == FEWER)
    require_probabilities(study.infer(episodes, learnt, seed=0).predictive, episodes)


@each_case
@pytest.mark.parametrize("name", standard_baselines())
def test_a_baseline_answers(name: str, case: str) -> None:
    baseline = standard_baselines()[name]
    if isinstance(baseline, HeadEnsemble):
        baseline = replace(baseline, steps=5)
    evaluation = HeldOutUsers(shots=(CASES[case].get("shots", 2),))
    episodes = evaluation.test_episodes(drawn(case), seed=0).to(torch.float64)
    require_probabilities(baseline.predictive(episodes), episodes)
