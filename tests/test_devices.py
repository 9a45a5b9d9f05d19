"""Every model with every engine on a device of its own: no tensor is born on the wrong one.

No card is needed: `bayesfs.testing.elsewhere` pretends one. Numbers are those of the CPU.
"""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from bayesfs._utils import devices
from bayesfs.cli.main import FAILED, main
from bayesfs.cli.subcommands import COMMANDS
from bayesfs.errors import DataError
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.explanation.recording import record_explanations
from bayesfs.features.reduction import PrincipalAxes
from bayesfs.inference.exact import Exact
from bayesfs.inference.gibbs.gibbs import Gibbs
from bayesfs.inference.laplace.laplace import Laplace
from bayesfs.inference.nuts.nuts import NUTS
from bayesfs.inference.nuts.pyro_nuts import PyroNUTS
from bayesfs.inference.own_approximation import OwnApproximation
from bayesfs.inference.program.potential import potential
from bayesfs.inference.svgd.svgd import SVGD
from bayesfs.inference.svi.amortised import AmortisedSVI
from bayesfs.inference.svi.autoguides import PyroSVI
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.gaussian.families import Full
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.gaussian.robust import RobustHierarchy
from bayesfs.models.gaussian.shared_classes import SharedClasses
from bayesfs.models.gp.deep_kernel_gp import DeepKernelGP
from bayesfs.models.gp.likelihoods.dirichlet import Dirichlet
from bayesfs.models.gp.likelihoods.laplace_softmax import LaplaceSoftmax
from bayesfs.models.gp.likelihoods.logistic_softmax import LogisticSoftmax
from bayesfs.models.gp.likelihoods.one_vs_each import OneVsEach, OneVsEachGibbs
from bayesfs.models.gp.likelihoods.regression import LabelRegression
from bayesfs.models.gp.likelihoods.sigmoid_of_mean import SigmoidOfMean
from bayesfs.models.gp.likelihoods.softmax import Softmax
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.models.niw.classes import NIWClasses, NIWMode
from bayesfs.models.objectives import PredictiveScore
from bayesfs.models.similarity.pool import SimilarityPool, TablePool
from bayesfs.models.similarity.with_hierarchy import PoolWithHierarchy
from bayesfs.prediction import predict
from bayesfs.protocols import Engine, Model
from bayesfs.recipes.load import recipe_folder
from bayesfs.runs.rules import rules_of
from bayesfs.sklearn import BayesianFewShotClassifier
from bayesfs.study import Study
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing.elsewhere import ELSEWHERE, Crossings, MixedDevicesError, elsewhere
from bayesfs.types import Embeddings, EpisodeBatch, Posterior
from bayesfs.uncertainty.decompose import decompose

CLOSE = 1e-12
"""What another order of the same operations may do to a probability."""

EXACT = Exact(draws=4, population_draws=2)
OWN = OwnApproximation(draws=4, population_draws=1)
PAIRS: dict[str, tuple[Model, Engine]] = {
    "gaussian": (GaussianHierarchy(), EXACT),
    "gaussian-full": (GaussianHierarchy(Full()), EXACT),
    "gaussian-quality": (GaussianHierarchy(covariates=("blur",)), EXACT),
    "niw": (NIWClasses(), EXACT),
    "niw-mode": (NIWMode(), EXACT),
    "robust": (RobustHierarchy(), OWN),
    "table-pool": (TablePool(), OWN),
    "similarity-pool": (SimilarityPool(), OWN),
    "gp-regression": (DeepKernelGP(likelihood=LabelRegression()), EXACT),
    "gp-transfer": (DeepKernelGP(likelihood=SigmoidOfMean()), EXACT),
    "gp-dirichlet": (DeepKernelGP(likelihood=Dirichlet()), EXACT),
    "gp-laplace": (DeepKernelGP(likelihood=LaplaceSoftmax()), EXACT),
    "gp-logistic": (DeepKernelGP(likelihood=LogisticSoftmax()), EXACT),
    "gp-one-vs-each": (DeepKernelGP(likelihood=OneVsEach()), EXACT),
    "gp-softmax": (DeepKernelGP(likelihood=Softmax()), EXACT),
    "gp-gibbs": (DeepKernelGP(likelihood=OneVsEachGibbs(chains=1, burn_in=1, thin=1)), EXACT),
    "gaussian-svi": (GaussianHierarchy(), SVI(steps=2, draws=4, khat_draws=0)),
    "gaussian-svgd": (GaussianHierarchy(), SVGD(particles=3, steps=2)),
    "gaussian-laplace": (GaussianHierarchy(), Laplace(draws=4, steps=2)),
    "gaussian-nuts": (GaussianHierarchy(), NUTS(warmup=2, draws=2, chains=1, max_depth=2)),
    "gaussian-pyro-svi": (GaussianHierarchy(), PyroSVI(steps=2, draws=2)),
    "head-svi": (HierarchicalHead(), SVI(steps=2, draws=4, khat_draws=0)),
    "head-svgd": (HierarchicalHead(), SVGD(particles=3, steps=2)),
    "head-nested": (
        HierarchicalHead(),
        Laplace("kronecker", "task_scale_raw", nodes=2, draws=2, steps=2),
    ),
    "head-gibbs": (HierarchicalHead(), Gibbs(burn_in=1, draws=2, chains=1)),
    "head-pyro-nuts": (HierarchicalHead(), PyroNUTS(warmup=1, draws=4, chains=1)),
    "head-amortised": (
        HierarchicalHead(),
        AmortisedSVI(draws=4, khat_draws=0, learner=SVI(steps=2), refine=2),
    ),
    "robust-svi": (RobustHierarchy(), SVI(steps=2, draws=4, khat_draws=0)),
}


@cache
def task(model: Model) -> EpisodeBatch:
    """One small ragged task."""
    batch, _ = synthetic_episodes(
        users=1, way=2, shots=2, frames=2, query_videos=1, dim=2, ragged=True, seed=9
    )
    batch = batch.to(torch.float64)
    if not model.covariates:
        return batch
    taught, asked = (torch.ones(*x.shape[:-1], 1).double() for x in (batch.support, batch.query))
    return replace(batch, support_quality=taught, query_quality=asked)


@cache
def population(model: Model) -> Posterior:
    """Two draws of the prior of what holds for every task."""
    joint = potential(model, task(model))
    draws = joint.constrain(joint.prior(2, seed=0))
    names = [site for site, axes in model.dims.items() if "task" not in axes]
    return Posterior("exact", {s: draws[s] for s in names}, {s: model.dims[s] for s in names})


def answer(pair: tuple[Model, Engine], device: torch.device | str) -> tuple[Tensor, xr.Dataset]:
    """Draws, probabilities and uncertainty, all made on a device."""
    model, engine = pair
    batch, given = task(model).to(device), population(model).to(device)
    posterior = engine.infer(model, batch, seed=5, given=given)
    found = predict(model, posterior, batch, given=given)
    where = {v.device for v in posterior.draws.values()}
    where |= {getattr(found, unit).log_prob_given.device for unit in ("frame", "video")}
    assert where == {torch.device(device)}
    return found.to("cpu").video.prob, decompose(found, batch)


@pytest.mark.parametrize("name", PAIRS)
def test_every_model_with_every_engine(name: str) -> None:
    prob, parts = answer(PAIRS[name], "cpu")
    with elsewhere() as count:
        far, far_parts = answer(PAIRS[name], ELSEWHERE)
    assert count.operations > 50
    assert (far - prob).abs().max() < CLOSE
    xr.testing.assert_allclose(far_parts, parts, rtol=1e-9, atol=1e-9)


Small = Callable[..., Embeddings]


def study(model: Model, engine: Engine, **settings: Any) -> Study:
    evaluation = HeldOutUsers(shots=(2,), frames_per_video=1, query_frames=1)
    return Study(model, engine, evaluation, reduction=PrincipalAxes(3), **settings)


QUICK = SVI(steps=2, draws=1, khat_draws=0)
FEW = Exact(draws=2, population_draws=1)
STUDIES = {
    "gaussian": study(GaussianHierarchy(), FEW, population_engine=QUICK),
    "gp": study(DeepKernelGP(), FEW, objective=PredictiveScore, population_engine=QUICK),
    "pool": study(SimilarityPool(), OWN, population_engine=Laplace(draws=1, steps=1)),
    "pool with hierarchy": study(
        PoolWithHierarchy(reduction=PrincipalAxes(3)),
        OWN,
        objective=PredictiveScore,
        population_engine=QUICK,
    ),
    "named": study(SharedClasses(), FEW, population_engine=QUICK),
}


@pytest.mark.parametrize("name", STUDIES)
def test_a_whole_study_is_the_same_elsewhere(name: str, make_embeddings: Small) -> None:
    """Population, tasks, predictive, levels, sets, explanations, checks and the DataTree."""
    whole = make_embeddings(users=4, objects=2)
    embeddings = whole.where(video=[v for v in whole.coord("video") if v[-1] in "012"])

    def everything(device: torch.device | str) -> tuple[Any, Any]:
        here = replace(STUDIES[name], device=device)
        learnt = here.learn(embeddings, seed=0, progress=lambda *_: None)
        assert {v.device for v in learnt.population.draws.values()} == {torch.device(device)}
        calibration = here.train_tasks(embeddings, learnt, seed=0)
        assert calibration is not None
        rules = rules_of(here.infer(calibration, learnt, seed=0), learnt)
        answer = here.infer(here.tasks(embeddings, learnt, seed=0), learnt, seed=0)
        said = record_explanations(answer, learnt, rules, seed=0)
        tree = answer.to_datatree(learnt, {}) if name == "gaussian" else None
        return tree, {key: statement.text for key, statement in said.said.items()}

    tree, said = everything("cpu")
    with elsewhere():
        far, far_said = everything(ELSEWHERE)
    assert far_said == said
    if tree is not None:
        assert "posterior" in tree.children
        for path, group in tree.children.items():
            xr.testing.assert_allclose(far[path].to_dataset(), group.to_dataset(), atol=1e-6)


def test_the_estimator_answers_on_the_cpu(make_embeddings: Small) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 4)), np.repeat(["a", "b"], 6)
    here = BayesianFewShotClassifier().fit(x, y, np.arange(12)).predict_proba(x)
    with elsewhere():
        far = BayesianFewShotClassifier(device="meta").fit(x, y, np.arange(12)).predict_proba(x)
    np.testing.assert_allclose(far, here, atol=1e-9)


@dataclass(frozen=True)
class Planted(Exact):
    """An engine that makes one tensor without saying where."""

    def infer(self, model: Model, episodes: EpisodeBatch, **rest: Any) -> Posterior:
        moved = episodes.support + torch.zeros(episodes.dim, dtype=torch.float64)
        return super().infer(model, replace(episodes, support=moved), **rest)


def test_a_planted_tensor_is_caught() -> None:
    planted = (GaussianHierarchy(), Planted(draws=4, population_draws=2))
    answer(planted, "cpu")
    with elsewhere(), pytest.raises(MixedDevicesError, match="made without device="):
        answer(planted, ELSEWHERE)


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + torch.ones(3),
        lambda x: x[torch.tensor([0, 1])],
        lambda x: torch.where(torch.ones(3, dtype=torch.bool), x, 0.0),
        lambda x: torch.cat([x, torch.ones(1)]),
        lambda x: torch.func.vmap(lambda a: a * torch.ones(1))(x),
        lambda x: x.add_(torch.ones(3)),
        lambda x: x.numpy(),
        lambda x: np.asarray(x),
    ],
)
def test_what_a_card_refuses_is_refused(mix: Callable[[Tensor], Any]) -> None:
    mix(torch.arange(3.0))
    with elsewhere():
        x = torch.arange(3.0).to(ELSEWHERE)
        with pytest.raises((RuntimeError, TypeError)):
            mix(x)


def test_what_a_card_does_is_done() -> None:
    with elsewhere() as count:
        x = torch.arange(3.0, device=ELSEWHERE)
        x[[0, 2]] += torch.tensor(1.0)  # a plain number
        assert x.tolist() == [1.0, 1.0, 3.0]
        assert x.cpu().numpy().tolist() == [1.0, 1.0, 3.0]
        assert float(x.sum()) == 5.0
        y = x.clone().requires_grad_()
        (y.square().sum() + y.new_tensor([1.0, 2.0]).sum()).backward()
        assert y.grad is not None
        assert y.grad.tolist() == [2.0, 2.0, 6.0]
        assert {t.device for t in (x, y.grad, torch.zeros_like(x))} == {ELSEWHERE}
    assert isinstance(count, Crossings)
    assert count.read == 1
    assert count.carried >= 2


def test_a_device_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(DataError, match="cuda: not usable on this machine"):
            _ = study(GaussianHierarchy(), EXACT, device="cuda").place
    with pytest.raises(DataError, match="nowhere"):
        devices.usable_device("nowhere")
    monkeypatch.setattr(devices, "NO_DOUBLE", ("cpu",))
    with pytest.raises(DataError, match="double precision"):
        devices.usable_device("cpu", torch.float64)
    assert devices.usable_device("cpu", torch.float32).type == "cpu"
    if not torch.cuda.is_available():
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
        assert devices.best_device(torch.float32).type == "mps"
        assert devices.best_device(torch.float64).type == "cpu"


@pytest.mark.parametrize("command", ["run", "predict", "benchmark", "compare", "explain", "watch"])
def test_commands_take_a_device(command: str) -> None:
    assert "device" in inspect.signature(COMMANDS[command]).parameters


def test_a_run_says_where_it_was_computed(
    small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("models/gaussian.py", "inference/exact.py", "evaluation/clutter.py")
    recipes = [str(recipe_folder() / name) for name in names]
    argv = ["run", *recipes, "--data", str(small_store), "--smoke"]
    assert main([*argv, "--out", str(tmp_path / "no"), "--device", "nowhere"]) == FAILED
    assert "not usable on this machine" in capsys.readouterr().err
    assert main([*argv, "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    state = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert state["facts"]["Device"] == "cpu, float64"
