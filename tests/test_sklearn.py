"""The scikit-learn estimator: its contract, its three sources of a population, its uncertainty."""

import subprocess
import sys
import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
import xarray as xr
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.utils.estimator_checks import (
    check_estimators_pickle,
    check_fit_idempotent,
    parametrize_with_checks,
)

import bayesfs as bf
from bayesfs.data import leave_one_out
from bayesfs.errors import DataError, ShapeError
from bayesfs.inference.laplace.laplace import Laplace
from bayesfs.inference.own_approximation import OwnApproximation
from bayesfs.models.gaussian.robust import RobustHierarchy
from bayesfs.models.gp.covariance import VideoCovariance
from bayesfs.models.gp.deep_kernel_gp import DeepKernelGP
from bayesfs.models.gp.feature_maps import OrderedAxes
from bayesfs.models.gp.kernels import Linear
from bayesfs.models.gp.likelihoods.dirichlet import Dirichlet
from bayesfs.models.gp.likelihoods.regression import LabelRegression
from bayesfs.models.gp.likelihoods.softmax import Softmax
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.models.niw.classes import NIWClasses
from bayesfs.models.objectives import MarginalLikelihood
from bayesfs.report.view import verdicts_of
from bayesfs.sklearn import BayesianFewShotClassifier
from bayesfs.synthetic.tasks import synthetic_embeddings
from bayesfs.testing import GaussianToy
from bayesfs.training.population_from_support import SupportAxes, support_population

Arrays = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def frames(videos: int = 3, each: int = 4, seed: int = 0, gap: float = 3.0) -> Arrays:
    """Features (frame, 6), labels and video names of three objects; video effects have sd 0.8."""
    rng = np.random.default_rng(seed)
    x, y, groups = [], [], []
    for k, name in enumerate(("keys", "mug", "wallet")):
        for v in range(videos):
            centre = gap * np.eye(6)[k] + 0.8 * rng.normal(size=6)
            x.append(centre + 0.2 * rng.normal(size=(each, 6)))
            y += [name] * each
            groups += [f"{name}-{v}"] * each
    return np.concatenate(x), np.array(y), np.array(groups)


MADE_BY = {
    "default": {},
    "hierarchy": {"model": bf.GaussianHierarchy()},
    "niw": {"model": NIWClasses()},
    "robust": {"model": RobustHierarchy(), "engine": OwnApproximation(draws=20)},
    "gp": {"model": DeepKernelGP(likelihood=LabelRegression())},
    "gp-dirichlet": {"model": DeepKernelGP(likelihood=Dirichlet())},
    "head": {
        "model": HierarchicalHead(),
        "engine": bf.SVI(steps=20, draws=20, khat_draws=0),
    },
}


@cache
def taught(name: str) -> BayesianFewShotClassifier:
    """Taught by `frames()`, once for every test that only asks it."""
    x, y, videos = frames()
    return BayesianFewShotClassifier(**MADE_BY[name]).fit(x, y, videos)


EXPECTED_FAILURES: dict[str, str] = {}
"""Checks of scikit-learn that cannot hold here, with the reason."""


LEARNS = BayesianFewShotClassifier(engine=bf.Exact(draws=8, population_draws=2))
"""It learns a population at every fit."""


@parametrize_with_checks(
    [BayesianFewShotClassifier()], expected_failed_checks=lambda estimator: EXPECTED_FAILURES
)
def test_it_is_a_scikit_learn_estimator(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([LEARNS], expected_failed_checks=lambda estimator: EXPECTED_FAILURES)
def test_it_is_one_where_it_learns_a_population(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("check", [check_fit_idempotent, check_estimators_pickle])
@pytest.mark.filterwarnings("ignore:without groups")
def test_what_a_learnt_population_could_break(check: Any) -> None:
    """The rest of these checks, at every fit a population, are the night's."""
    check("BayesianFewShotClassifier", clone(LEARNS))


def test_five_lines_from_arrays_to_a_posterior_and_uncertainty_by_kind() -> None:
    x, y, videos = frames()
    known = BayesianFewShotClassifier().fit(x, y, groups=videos)
    new, truth, asked = frames(seed=1)
    assert (known.predict(new, asked) == truth).mean() > 0.9
    assert known.posterior_.draws["class_bias"].shape == (256, 1, 3)
    said = known.predict_uncertainty(new, asked)
    np.testing.assert_allclose(said["total"], said["aleatoric"] + said["epistemic"], atol=1e-9)
    assert (said >= 0).all(None)
    assert said["total"].max() <= np.log(3) + 1e-9


def test_pandas_and_xarray_are_taken_as_they_are() -> None:
    x, y, videos = frames()
    plain = taught("default").predict_proba(x)
    table = pd.DataFrame(x, columns=list("abcdef"), index=np.arange(len(x)) + 100)
    from_pandas = BayesianFewShotClassifier().fit(table, pd.Series(y), pd.Series(videos))
    np.testing.assert_allclose(from_pandas.predict_proba(table), plain)
    assert from_pandas.feature_names_in_.tolist() == list("abcdef")
    assert from_pandas.predict_uncertainty(table).index.tolist() == table.index.tolist()
    array = xr.DataArray(x.T, dims=("feature", "frame"))
    label = xr.DataArray(y, dims="frame")
    from_xarray = BayesianFewShotClassifier().fit(array, label, xr.DataArray(videos, dims="frame"))
    np.testing.assert_allclose(from_xarray.predict_proba(array), plain)


def test_frames_of_one_video_are_not_many_examples() -> None:
    """The same frames said to be independent make the classifier surer than it should be."""
    x, y, videos = frames(each=8, gap=1.2)
    new, truth, asked = frames(videos=10, seed=1, gap=1.2)

    def loss(groups: Any) -> float:
        known = BayesianFewShotClassifier().fit(x, y, groups)
        prob = known.predict_proba(new, None if groups is None else asked)
        return float(
            -np.log(prob[np.arange(len(new)), np.searchsorted(known.classes_, truth)]).mean()
        )

    assert loss(videos) < loss(None)


def test_rows_of_a_video_share_its_answer_in_any_order() -> None:
    known = taught("default")
    new, _, asked = frames(seed=1)
    prob = known.predict_proba(new, asked)
    for name in set(asked):
        assert np.ptp(prob[asked == name], axis=0).max() == 0
    order = np.random.default_rng(0).permutation(len(new))
    np.testing.assert_allclose(known.predict_proba(new[order], asked[order]), prob[order])


def test_many_rows_are_predicted_by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _, _ = frames()
    known = taught("default")
    whole = known.predict_proba(x)
    monkeypatch.setattr("bayesfs.sklearn.CHUNK", 7)
    np.testing.assert_allclose(known.predict_proba(x), whole)
    assert len(known.predict_uncertainty(x)) == len(x)


def test_one_video_a_class_leaves_the_prior_and_more_teach_the_population() -> None:
    x, y, videos = frames(videos=1)
    alone = BayesianFewShotClassifier(model=bf.GaussianHierarchy()).fit(x, y, videos)
    assert alone.population_.kind == "exact"
    x, y, videos = frames(videos=4)
    taught = BayesianFewShotClassifier(model=bf.GaussianHierarchy()).fit(x, y, videos)
    assert taught.population_.kind == "variational"
    prior, learnt = (k.population_.draws["scale"] for k in (alone, taught))
    assert float(learnt.log().std(0).mean()) < float(prior.log().std(0).mean())


def test_epistemic_uncertainty_falls_with_videos() -> None:
    new, _, asked = frames(videos=5, seed=9, gap=1.5)
    mean = []
    for videos in (2, 12):
        known = BayesianFewShotClassifier().fit(*frames(videos=videos, gap=1.5))
        mean.append(known.predict_uncertainty(new, asked)["epistemic"].mean())
    assert mean[1] < mean[0]


def test_a_learnt_population_brings_its_projection() -> None:
    """The estimator gives what `Study.infer` gives for the same task."""
    embeddings, _ = synthetic_embeddings(
        users=3, test_users=1, way=3, shots=4, frames=3, dim=6, seed=0
    )
    study = bf.Study(
        bf.GaussianHierarchy(),
        bf.Exact(),
        bf.HeldOutUsers(shots=(3,), query_conditions=("clean",)),
        population_engine=bf.SVI(steps=20, draws=16),
        objective=MarginalLikelihood,
    )
    learnt = study.learn(embeddings, seed=0)
    test = embeddings.where(split="test")
    known = BayesianFewShotClassifier(population=learnt)
    known.fit(test.features, test.coord("object"), groups=test.coord("video"))
    assert known.population_ is learnt.population
    task = bf.make_episode(
        torch.from_numpy(learnt.projection(test).features).double(),
        test.coord("object"),
        test.coord("video"),
        torch.from_numpy(learnt.projection(test).features).double(),
        query_condition="clean",
    )
    answer = study.infer(task, learnt, seed=0)
    ours = known.predict_proba(test.features)
    np.testing.assert_allclose(ours, answer.predictive.video.prob[0], atol=1e-6)


def test_a_population_of_a_store_with_measured_quality_takes_plain_features() -> None:
    """Every store of `bayesfs features` has measured quality; plain features have none."""
    embeddings, _ = synthetic_embeddings(
        users=3, test_users=1, way=3, shots=4, frames=3, dim=6, seed=0
    )
    measured = np.random.default_rng(0).standard_normal((len(embeddings), 2))
    embeddings = bf.Embeddings(
        embeddings.dataset.assign(quality=(("frame", "covariate"), measured)).assign_coords(
            covariate=["sharpness", "contrast"]
        )
    )
    study = bf.Study(
        bf.GaussianHierarchy(),
        bf.Exact(),
        bf.HeldOutUsers(shots=(3,), query_conditions=("clean",)),
        population_engine=bf.SVI(steps=20, draws=16),
        objective=MarginalLikelihood,
    )
    learnt = study.learn(embeddings, seed=0)
    assert learnt.projection.quality_mean.shape[1] == 2
    test = embeddings.where(split="test")
    known = BayesianFewShotClassifier(population=learnt)
    known.fit(test.features, test.coord("object"), groups=test.coord("video"))
    assert np.isfinite(known.predict_proba(test.features)).all()
    asks = BayesianFewShotClassifier(model=bf.GaussianHierarchy(covariates=("a", "b")))
    with pytest.raises(DataError, match="plain features do not have"):
        asks.fit(test.features, test.coord("object"))


def test_a_posterior_of_the_population_takes_features_as_they_come() -> None:
    x, y, videos = frames()
    first = taught("hierarchy")
    axes = SupportAxes.fit(x, 32)
    model = bf.GaussianHierarchy().fit_to(axes.spectrum)
    again = BayesianFewShotClassifier(model=model, population=first.population_)
    again.fit(axes(x), y, videos)
    np.testing.assert_allclose(again.predict_proba(axes(x)), first.predict_proba(x), atol=1e-9)


def test_other_models_and_engines_fit_in() -> None:
    x, y, videos = frames()
    head = BayesianFewShotClassifier(model=HierarchicalHead(), engine=bf.SVI(steps=60, draws=64))
    assert (head.fit(x, y, videos).predict(x) == y).mean() > 0.9
    assert head.posterior_.kind == "variational"


def test_a_model_without_a_closed_form_infers_all_levels_together() -> None:
    x, y, videos = frames()
    toy = BayesianFewShotClassifier(model=GaussianToy(), engine=bf.SVI(steps=100, draws=64))
    assert (toy.fit(x, y, videos).predict(x) == y).mean() > 0.9
    assert toy.population_ is None
    assert "mean" in toy.posterior_.draws


def test_it_works_in_a_pipeline_and_is_cloned() -> None:
    x, y, videos = frames()
    pipe = make_pipeline(Normalizer(), BayesianFewShotClassifier())
    pipe.fit(x, y, bayesianfewshotclassifier__groups=videos)
    assert pipe.score(x, y) > 0.9
    assert clone(pipe[-1]).get_params() == pipe[-1].get_params()


def test_the_answer_holds_everything_and_goes_to_arviz() -> None:
    x, y, videos = frames()
    known = taught("default")
    answer = known.answer(x, videos, y)
    assert answer.episodes.classes == (("keys", "mug", "wallet"),)
    assert answer.episodes.query_labels[0].tolist() == [0] * 3 + [1] * 3 + [2] * 3
    tree = known.to_datatree(x, videos, y)
    assert {"posterior", "posterior_predictive", "uncertainty", "population"} <= set(tree.children)


def test_frames_that_are_all_alike_give_no_idea() -> None:
    for name, error in (("default", 0.01), ("hierarchy", 1e-6)):
        known = BayesianFewShotClassifier(**MADE_BY[name])
        known.fit(np.ones((4, 3)), ["a", "a", "b", "b"])
        np.testing.assert_allclose(known.predict_proba(np.ones((1, 3))), 0.5, atol=error)


def test_mistakes_are_told() -> None:
    x, y, videos = frames()
    with pytest.raises(DataError, match="video 'keys-0' has frames of 2 classes"):
        BayesianFewShotClassifier().fit(x, y, ["keys-0"] * 13 + list(videos[13:]))
    with pytest.raises(ShapeError, match="expected 36 groups, one per frame"):
        BayesianFewShotClassifier().fit(x, y, videos[:3])
    with pytest.raises(ShapeError, match="n_components >= 1"):
        BayesianFewShotClassifier(n_components=0).fit(x, y)
    known = BayesianFewShotClassifier().fit(x, y)
    with pytest.raises(ShapeError, match="expected 36 groups"):
        known.predict(x, groups=videos[:2])
    with pytest.raises(DataError, match="label 'glove' was not taught"):
        known.answer(x[:1], y=["glove"])


def test_what_is_asked_never_changes_what_was_learnt() -> None:
    x, _, _ = frames()
    known = taught("hierarchy")
    before = known.posterior_.draws["class_raw"].clone()
    known.predict_uncertainty(10 + x)
    assert torch.equal(before, known.posterior_.draws["class_raw"])
    again = support_population(known.model_, known.answer(x).episodes, seed=known._seed)
    assert torch.equal(again.draws["scale"], known.population_.draws["scale"])


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        *(("default", factor) for factor in (1e-160, 1e-12, 1e-9, 1e12, 1e160)),
        *(("hierarchy", factor) for factor in (1e-160, 1e-9, 1e160)),
        *(pytest.param("hierarchy", f, marks=pytest.mark.slow) for f in (1e-12, 1e12)),
    ],
)
def test_answers_do_not_depend_on_the_unit_of_the_features(name: str, factor: float) -> None:
    """Features of sd below 1e-9 were once taken for all alike, and answered 1/3 each."""
    x, y, videos = frames()
    new, _, asked = frames(seed=1)
    known = taught(name).predict_proba(new, asked)
    other = BayesianFewShotClassifier(**MADE_BY[name]).fit(factor * x, y, groups=videos)
    np.testing.assert_allclose(other.predict_proba(factor * new, asked), known, atol=1e-6)


@pytest.mark.parametrize(("name", "error"), [("default", 0.01), ("hierarchy", 1e-7)])
def test_features_that_are_all_alike_up_to_rounding_have_no_axes(name: str, error: float) -> None:
    """The error is that of a mean over 256 draws."""
    x = np.full((12, 6), 0.1) * np.array([1.0, 3.0, 7.0, 1e5, 1e-5, 1.0])
    said = BayesianFewShotClassifier(**MADE_BY[name])
    said.fit(x, np.arange(12) % 3, groups=np.arange(12))
    np.testing.assert_allclose(said.predict_proba(x[:2]), 1 / 3, atol=error)


def test_a_query_that_would_overflow_is_refused() -> None:
    """NaN came of it before."""
    x, _, _ = frames()
    known = taught("default")
    with pytest.raises(ShapeError, match=r"features of at most 1\.2e\+77 .* in the query"):
        known.predict_proba(1e160 * x)
    assert np.isfinite(known.predict_proba(1e60 * x)).all()


@pytest.mark.parametrize(("videos", "features"), [(1, 6), (2, 1)])
def test_one_video_per_object_and_one_feature_are_answered(videos: int, features: int) -> None:
    """A model without evidence has a prior too; a population that nothing settles is told."""
    x, y, groups = frames(videos=videos, each=1)
    deep = DeepKernelGP(VideoCovariance(OrderedAxes(24), Linear(signal=8.0)), Softmax(steps=4))
    model, engine = (RobustHierarchy(), OwnApproximation(16)) if videos == 1 else (deep, None)
    known = BayesianFewShotClassifier(model=model, engine=engine)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prob = known.fit(x[:, :features], y, groups=groups).predict_proba(x[:, :features])
    np.testing.assert_allclose(prob.sum(1), 1.0)


KINDS_OF_ARRAYS = {
    "numpy": np.array,
    "torch": torch.from_numpy,
    "pandas": lambda x: pd.DataFrame(x, copy=False),
    "xarray": lambda x: xr.DataArray(x, dims=("frame", "feature")),
}
EACH = pytest.mark.parametrize("name", MADE_BY)
BY_DAY = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "robust")) for name in MADE_BY],
)
"""`EACH`, but for the one that takes longest to be taught anew."""


@pytest.mark.parametrize("made", KINDS_OF_ARRAYS.values(), ids=KINDS_OF_ARRAYS)
def test_nothing_of_the_callers_is_kept(made: Any) -> None:
    """Neither what is taught nor what is asked is looked at again."""
    x, y, videos = frames()
    new, _, _ = frames(seed=1)
    taught, names = made(x), videos.copy()
    known = BayesianFewShotClassifier().fit(taught, y, names)
    before = known.predict_proba(new)
    x *= -3.0
    if isinstance(taught, np.ndarray):
        taught *= -3.0
    names[:] = "other"
    y[:] = "other"
    np.testing.assert_array_equal(known.predict_proba(new), before)


def said_of(known: BayesianFewShotClassifier, x: Any, groups: Any = None) -> pd.DataFrame:
    """Probabilities, by name, and uncertainty of each row."""
    prob = pd.DataFrame(known.predict_proba(x, groups), columns=known.classes_)
    return prob.join(known.predict_uncertainty(x, groups))


@BY_DAY
def test_the_order_of_rows_moves_nothing(name: str) -> None:
    """Of those taught, and of those asked; frames within videos too."""
    x, y, videos = frames()
    new, _, asked = frames(seed=1, each=2)
    plain = said_of(taught(name), new, asked)
    turn, back = (np.random.default_rng(s).permutation(n) for s, n in ((2, len(x)), (3, len(new))))
    known = BayesianFewShotClassifier(**MADE_BY[name]).fit(x[turn], y[turn], videos[turn])
    moved = said_of(known, new[back], asked[back])
    np.testing.assert_allclose(moved.values, plain.values[back], rtol=0, atol=1e-10)


@EACH
def test_a_row_is_answered_alike_alone_and_among_many(name: str) -> None:
    known = taught(name)
    new, _, _ = frames(seed=1)
    together = said_of(known, new)
    alone = pd.concat([said_of(known, new[[i]]) for i in (0, 17, 35)])
    np.testing.assert_allclose(alone.values, together.values[[0, 17, 35]], rtol=0, atol=1e-10)


@BY_DAY
def test_the_names_of_classes_move_nothing(name: str) -> None:
    x, y, videos = frames()
    new, _, _ = frames(seed=1)
    plain = said_of(taught(name), new)
    other = {"keys": "zebra", "mug": "anchor", "wallet": "mug"}
    named = np.array([other[label] for label in y])
    known = BayesianFewShotClassifier(**MADE_BY[name]).fit(x, named, videos)
    moved = said_of(known, new)[[*other.values(), "total", "aleatoric", "epistemic"]]
    np.testing.assert_allclose(moved.values, plain.values, rtol=0, atol=1e-10)


def test_draws_are_distinct_where_the_engine_is_asked_for_as_many() -> None:
    """There were 16 draws of the population, whatever the engine was asked for."""
    x, y, videos = frames()
    known = BayesianFewShotClassifier(engine=bf.Exact(draws=128, population_draws=128))
    posterior = known.fit(x, y, videos).posterior_
    for site, draws in posterior.draws.items():
        assert (
            len(np.unique(draws.flatten(1).numpy() if draws.ndim > 1 else draws, axis=0)) == 128
        ), site


def test_many_videos_make_few_and_small_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 rows made 2,000 folds of 10,000 rows each before eight of them were chosen."""
    asked = []
    infer = Laplace.infer

    def told(self: Laplace, model: Any, episodes: Any, **settings: Any) -> Any:
        asked.append(episodes.support.shape[:3])
        return infer(self, model, episodes, **settings)

    monkeypatch.setattr(Laplace, "infer", told)
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [300, 5])
    x = rng.normal(size=(305, 3)) + y[:, None]
    made = []
    stack = leave_one_out.stack
    monkeypatch.setattr(
        leave_one_out, "stack", lambda folds: made.append(len(folds)) or stack(folds)
    )
    known = BayesianFewShotClassifier(model=bf.GaussianHierarchy()).fit(x, y, groups=range(305))
    assert (made, asked) == ([8], [(8, 2, 64)])
    assert known.posterior_.draws["video_raw"].shape[2:4] == (2, 300)


@pytest.mark.slow
def test_ten_thousand_rows_of_500_features_take_less_than_4_gb() -> None:
    """They ran out of 14 GB."""
    program = """
import resource, numpy as np, bayesfs as bf
y = np.arange(10_000) % 5
rng = np.random.default_rng(0)
x = rng.normal(size=(10_000, 500)) + rng.normal(size=(5, 500))[y]
known = bf.BayesianFewShotClassifier().fit(x, y, groups=range(10_000))
assert known.score(x[:200], y[:200]) == 1
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert float(done.stdout) < 4, done.stderr


@pytest.mark.parametrize("named", [True, False])
def test_a_weight_is_a_number_of_videos(named: bool) -> None:
    """Twice the weight is twice the videos, and none leaves rows out."""
    x, y, videos = frames(videos=2, gap=1.2)
    times = np.repeat([1, 2, 0, 1, 2, 1], 4)
    groups = videos if named else np.arange(len(x))
    weighted = BayesianFewShotClassifier().fit(x, y, groups, sample_weight=times)
    again = np.concatenate([np.flatnonzero(times > 0), np.flatnonzero(times > 1)])
    copies = np.array([f"{g}, again" for g in groups[times > 1]])
    names = np.concatenate([groups[times > 0].astype(str), copies])
    repeated = BayesianFewShotClassifier().fit(x[again], y[again], names)
    new, _, _ = frames(seed=1, gap=1.2)
    np.testing.assert_allclose(weighted.predict_proba(new), repeated.predict_proba(new), atol=1e-9)
    plain = BayesianFewShotClassifier().fit(x, y, groups)
    assert np.abs(plain.predict_proba(new) - weighted.predict_proba(new)).max() > 0.01


def test_weights_without_meaning_are_refused() -> None:
    x, y, videos = frames(videos=2)
    for weight, message in (
        (np.full(24, 0.5), r"0\.5 of row 0: expected whole numbers"),
        (np.arange(24.0) + 1, "rows of recording 'keys-0' have sample_weight from 1 to 4"),
        (np.full(24, 1e9), "add up to 1 to 100000 rows"),
    ):
        with pytest.raises(DataError, match=message):
            BayesianFewShotClassifier().fit(x, y, videos, sample_weight=weight)


def test_fields_of_the_engine_and_of_the_model_are_parameters() -> None:
    known = BayesianFewShotClassifier(model=HierarchicalHead(), engine=bf.SVI(steps=20))
    assert known.get_params()["engine__steps"] == 20
    assert "engine__steps" not in known.get_params(deep=False)
    other = clone(known).set_params(engine__steps=30, n_components=3, engine__guide__whiten=True)
    assert (other.engine.steps, other.engine.guide.whiten, other.n_components) == (30, True, 3)
    assert known.engine.steps == 20
    other.set_params(engine=bf.Exact(), engine__draws=16)
    assert other.engine == bf.Exact(draws=16)
    with pytest.raises(ValueError, match="has no parameter 'steps'; it has"):
        other.set_params(engine__steps=3)
    with pytest.raises(ValueError, match=r"engine is None, .* such as engine=bf.Exact\(\)"):
        BayesianFewShotClassifier().set_params(engine__draws=3)


def test_the_number_of_draws_is_searched_over() -> None:
    x, y, videos = frames()
    search = GridSearchCV(
        BayesianFewShotClassifier(engine=bf.Exact()), {"engine__draws": [8, 16]}, cv=GroupKFold(2)
    )
    assert search.fit(x, y, groups=videos).best_estimator_.engine.draws in (8, 16)


def test_output_is_what_was_asked_for() -> None:
    x, y, videos = frames()
    table = pd.DataFrame(x, columns=list("abcdef"), index=np.arange(len(x)) + 100)
    known = BayesianFewShotClassifier().fit(table, y, videos)
    plain = known.predict_proba(table)
    prob = known.set_output(transform="pandas").predict_proba(table)
    assert prob.columns.tolist() == ["keys", "mug", "wallet"]
    assert prob.index.equals(table.index)
    np.testing.assert_array_equal(prob, plain)
    assert known.score(table, y) > 0.9
    known.set_output(transform="polars")
    assert isinstance(known.predict_proba(table), pl.DataFrame)
    assert isinstance(known.predict_uncertainty(table), pl.DataFrame)
    assert isinstance(clone(known).fit(table, y, videos).predict_proba(table), pl.DataFrame)
    assert isinstance(known.set_output(transform="default").predict_proba(table), np.ndarray)
    with pytest.raises(ValueError, match="expected transform to be one of"):
        known.set_output(transform="arrow")
    steps = StandardScaler(), BayesianFewShotClassifier()
    pipe = make_pipeline(*steps).set_output(transform="pandas")
    pipe.fit(table, y, bayesianfewshotclassifier__groups=videos)
    assert pipe[-1].feature_names_in_.tolist() == list("abcdef")


def test_an_engine_that_its_own_checks_call_unfit_warns() -> None:
    """Of SVI with a k-hat of 2 nothing was said."""
    x, y, videos = frames()
    short = BayesianFewShotClassifier(engine=bf.SVI(steps=100, draws=64))
    with pytest.warns(UserWarning, match=r"SVI is not fit for use: .*k-hat .* bf.Exact\(\)"):
        short.fit(x, y, videos)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BayesianFewShotClassifier().fit(x, y, videos)


def test_its_tree_has_a_report_s_verdict(known_rows: tuple[Any, Any, Any]) -> None:
    """Answers that guessing beats are not to be used, whoever made them."""
    x, y, more = known_rows
    classifier = BayesianFewShotClassifier().fit(x[:40], y[:40], groups=range(40))
    good = verdicts_of(classifier.to_datatree(x[40:], range(more), y[40:]))[-1]
    passed = {check.name: check.passed for check in good.checks}
    assert passed["better than guessing"]
    assert passed["better than the nearest class mean"] is not None
    assert passed["labels drawn check"] is not None
    assert passed["class sets (PIT)"] is not None
    wrong = verdicts_of(classifier.to_datatree(x[40:], range(more), (y[40:] + 1) % 3))[-1]
    assert wrong.is_grave
    assert wrong.verdict.startswith("do not use: better than guessing")


@pytest.fixture
def known_rows() -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    y = np.sort(rng.integers(0, 3, 100))
    x = np.eye(3)[y] * 3 + rng.normal(size=(100, 3))
    order = rng.permutation(100)
    return x[order], y[order], 60


def test_a_table_that_nobody_may_change_is_taken_without_a_word() -> None:
    """Such as the values of a data frame, which pandas 3 gives out read-only."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)), np.repeat(["a", "b"], 6)
    x.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = BayesianFewShotClassifier().fit(x, y, groups=range(12)).predict(x)
    assert set(found) <= {"a", "b"}
