"""Tasks that no textbook has: every model still gives finite, normalised, sensible predictives."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyro
import pytest
import torch
from _pytest.mark.structures import ParameterSet
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bayesfs.data.leave_one_out import leave_one_video_out
from bayesfs.errors import DataError, ShapeError
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.inference.exact import Exact
from bayesfs.inference.gibbs.gibbs import Gibbs
from bayesfs.inference.laplace.laplace import Laplace
from bayesfs.inference.own_approximation import OwnApproximation
from bayesfs.inference.program.potential import potential
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.baselines.classifiers import HeadEnsemble, standard_baselines
from bayesfs.models.gaussian.families import Full, LowRankCovariance, PerFeature
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.gaussian.robust import RobustHierarchy
from bayesfs.models.gp.deep_kernel_gp import DeepKernelGP
from bayesfs.models.gp.likelihoods.dirichlet import Dirichlet
from bayesfs.models.gp.likelihoods.laplace_softmax import LaplaceSoftmax
from bayesfs.models.gp.likelihoods.logistic_softmax import LogisticSoftmax
from bayesfs.models.gp.likelihoods.one_vs_each import OneVsEach
from bayesfs.models.gp.likelihoods.regression import LabelRegression
from bayesfs.models.gp.likelihoods.sigmoid_of_mean import SigmoidOfMean
from bayesfs.models.gp.likelihoods.softmax import Softmax
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.models.niw.classes import NIWClasses, NIWMode
from bayesfs.models.objectives import MarginalLikelihood, PredictiveScore
from bayesfs.prediction import predict
from bayesfs.study import Study
from bayesfs.synthetic.tasks import synthetic_embeddings, synthetic_episodes
from bayesfs.training.supervised_projection import LearnedProjection
from bayesfs.types import Embeddings, EpisodeBatch, Posterior, Predictive
from bayesfs.uncertainty.decompose import decompose

DIM = 4
Ask = Callable[[EpisodeBatch], Predictive]


QUALITIES = ("sharpness", "exposure")
Closed = GaussianHierarchy | DeepKernelGP | NIWClasses


def population(model: Closed | RobustHierarchy, episodes: EpisodeBatch) -> dict[str, torch.Tensor]:
    """Two draws of the population from its prior."""
    like = torch.zeros(1, episodes.dim, dtype=torch.float64)
    with torch.random.fork_rng():
        pyro.set_rng_seed(0)
        sites = [model.sample_population(like) for _ in range(2)]
    return {
        name: torch.stack([s[name].detach() for s in sites]).to(episodes.support)
        for name in sites[0]
    }


def conjugate(model: Closed, draws: int = 8) -> Ask:
    def ask(episodes: EpisodeBatch) -> Predictive:
        return model.predictive(episodes, population(model, episodes), draws=draws, seed=0)

    return ask


def of_quality(scale: float) -> Ask:
    """Noise that depends on measured quality, which is `scale` sds from the mean as a rule."""
    ask = conjugate(GaussianHierarchy(covariates=QUALITIES))

    def measured(mask: torch.Tensor, episodes: EpisodeBatch) -> torch.Tensor:
        noise = torch.Generator().manual_seed(0)
        drawn = torch.randn(*mask.shape, len(QUALITIES), generator=noise)
        return (scale * drawn * mask[..., None]).to(episodes.support)

    def with_quality(episodes: EpisodeBatch) -> Predictive:
        support = measured(episodes.support_mask, episodes)
        alike = support[:, :1, :1, :1].expand_as(support)  # no class is better recorded
        support = alike * episodes.support_mask[..., None]
        query = measured(episodes.query_mask, episodes)
        return ask(replace(episodes, support_quality=support, query_quality=query))

    return with_quality


def robust(draws: int) -> Ask:
    """With the approximation that the model brings along."""
    model = RobustHierarchy()

    def ask(episodes: EpisodeBatch) -> Predictive:
        dims = model.population_dims
        values = population(model, episodes)
        given = Posterior("variational", values, {site: dims[site] for site in values})
        posterior = OwnApproximation(draws=draws).infer(model, episodes, seed=0, given=given)
        return predict(model, posterior, episodes, given=given)

    return ask


def head(engine: SVI | Laplace) -> Ask:
    model = HierarchicalHead(video_scale=0.0)

    def ask(episodes: EpisodeBatch) -> Predictive:
        given = model.default_population(episodes.dim)
        given = replace(given, draws={s: v.to(episodes.support) for s, v in given.draws.items()})
        posterior = engine.infer(model, episodes, seed=0, given=given)
        return predict(model, posterior, episodes, given=given)

    return ask


GP = {
    "regression": LabelRegression(),
    "dirichlet": Dirichlet(learnt=True),
    "one_vs_each": OneVsEach(steps=4),
    "logistic_softmax": LogisticSoftmax(steps=4),
    "softmax": Softmax(steps=4),
    "laplace": LaplaceSoftmax(steps=8),
    "sigmoid": SigmoidOfMean(),
}
CLOSED = ("regression", "sigmoid")
"""Likelihoods whose predictive is not an average over draws."""

BASELINES = {
    name: replace(b, steps=20) if isinstance(b, HeadEnsemble) else b
    for name, b in standard_baselines().items()
}


def asks(draws: int) -> dict[str, Ask]:
    """Every model; so many draws where the predictive is an average over draws."""
    return {
        "gaussian": conjugate(GaussianHierarchy()),
        "gaussian_per_feature": conjugate(GaussianHierarchy(PerFeature())),
        "gaussian_low_rank": conjugate(GaussianHierarchy(LowRankCovariance())),
        "gaussian_full": conjugate(GaussianHierarchy(Full())),
        "gaussian_quality": of_quality(1.0),
        "gaussian_quality_far_out": of_quality(100.0),
        "robust": robust(2 * draws),
        "niw": conjugate(NIWClasses()),
        "niw_mode": conjugate(NIWMode()),
        **{
            f"gp_{name}": conjugate(DeepKernelGP(likelihood=law), 8 if name in CLOSED else draws)
            for name, law in GP.items()
        },
        "head_svi": head(SVI(steps=30, draws=8)),
        "head_laplace": head(Laplace(draws=8, steps=30)),
        **{f"baseline_{name}": b.predictive for name, b in BASELINES.items()},
    }


MODELS = asks(draws=100)
QUICK = asks(draws=4)
"""For what holds of an average over any number of draws."""
ENSEMBLE = next(n for n in MODELS if "ensemble" in n)
SAMPLED = (*(f"gp_{n}" for n in GP if n not in CLOSED), "robust", "head_svi", "head_laplace")
"""Models whose predictive is an average over draws, and the ensemble, which starts at random."""

named = pytest.mark.parametrize("name", MODELS)
exact = pytest.mark.parametrize("name", [n for n in MODELS if n not in (*SAMPLED, ENSEMBLE)])


def tolerance(name: str) -> float:
    if name in SAMPLED:
        return 0.4 if "head" in name else 0.12
    return 0.4 if name == ENSEMBLE else 1e-6


def task(seed: int = 0, **sizes: int) -> EpisodeBatch:
    plain = {"users": 1, "way": 3, "shots": 2, "frames": 2, "query_videos": 1, "dim": DIM}
    return synthetic_episodes(seed=seed, **{**plain, **sizes})[0].to(torch.float64)


def copies(episodes: EpisodeBatch) -> EpisodeBatch:
    """Every support frame of a class is its first one."""
    return replace(episodes, support=episodes.support[:, :, :1, :1].expand_as(episodes.support))


def all_alike(episodes: EpisodeBatch) -> EpisodeBatch:
    """Every support frame of all classes is the same."""
    first = episodes.support[:, :1, :1, :1]
    return replace(episodes, support=first.expand_as(episodes.support).contiguous())


def twins(episodes: EpisodeBatch) -> EpisodeBatch:
    """Class 1 has the very support of class 0."""
    support = episodes.support.clone()
    support[:, 1] = support[:, 0]
    return replace(episodes, support=support)


def without_video(episodes: EpisodeBatch) -> EpisodeBatch:
    """The last class has one support video fewer than the others."""
    mask = episodes.support_mask.clone()
    mask[:, -1, -1] = False
    return replace(episodes, support=episodes.support * mask[..., None], support_mask=mask)


def scaled(episodes: EpisodeBatch, factor: float) -> EpisodeBatch:
    return replace(episodes, support=factor * episodes.support, query=factor * episodes.query)


CASES: Mapping[str, Callable[[], EpisodeBatch]] = {
    "identical support frames": lambda: copies(task()),
    "nothing to tell apart": lambda: all_alike(task()),
    "one frame": lambda: task(shots=1, frames=1, query_frames=1),
    "one feature": lambda: task(dim=1),
    "one class": lambda: task(way=1),
    "one class with one video": lambda: without_video(task()),
    "100 classes": lambda: task(way=100, shots=1, frames=1, query_frames=1),
    "1,000 support frames": lambda: task(way=2, shots=10, frames=50, query_frames=1),
    "features times a million": lambda: scaled(task(), 1e6),
    "features over a million": lambda: scaled(task(), 1e-6),
    "queries times 1e70": lambda: replace(task(), query=1e70 * task().query),
    "queries over 1e150": lambda: replace(task(), query=1e-150 * task().query),
    "queries times 1e9, single precision": lambda: replace(
        task().to(torch.float32), query=1e9 * task().query.float()
    ),
    "features zero": lambda: scaled(task(), 0.0),
    "a class twice": lambda: twins(task()),
    "single precision": lambda: task().to(torch.float32),
}


def cells() -> Iterator[ParameterSet]:
    """Every model on every case; the large cases are slow for GPs that are sampled."""
    for name, ask in QUICK.items():
        for case, make in CASES.items():
            large = case.startswith("1") and name in SAMPLED
            yield pytest.param(ask, make, id=f"{name}-{case}", marks=[pytest.mark.slow] * large)


@pytest.mark.parametrize(("ask", "case"), cells())
def test_finite_normalised_and_sensible(ask: Ask, case: Callable[[], EpisodeBatch]) -> None:
    """0 <= epistemic <= total <= log way, at every frame and video."""
    episodes = case()
    found = ask(episodes)
    way, precise = episodes.way, 1e-4 if episodes.support.dtype == torch.float32 else 1e-6
    for unit, mask in (("frame", episodes.query_mask), ("video", episodes.video_mask)):
        labels = getattr(found, unit)
        prob = labels.prob[mask]
        assert torch.isfinite(prob).all()
        assert not torch.isnan(labels.log_prob[mask]).any()
        torch.testing.assert_close(prob.sum(-1), torch.ones_like(prob[..., 0]), atol=1e-4, rtol=0.0)
    said = decompose(found, episodes)
    for unit, there in (("frame", episodes.query_mask), ("video", episodes.video_mask)):
        total, epistemic = (
            torch.from_numpy(said[f"{unit}_{part}"].values)[there]
            for part in ("total", "epistemic")
        )
        assert (total <= torch.tensor(float(way)).log() + precise).all()
        assert (epistemic >= -precise).all()
        assert (epistemic <= total + precise).all()


def test_queries_that_would_overflow_are_refused() -> None:
    """At 1e160 their squares are infinite, and probabilities would be NaN."""
    for factor, kind in ((1e160, torch.float64), (1e30, torch.float32)):
        episodes = task().to(kind)
        with pytest.raises(ShapeError, match="squares and their ratios do not overflow"):
            replace(episodes, query=factor * episodes.query)


@pytest.mark.parametrize("name", ["cosine prototypes", "nearest neighbour", "head ensemble"])
def test_what_scales_features_itself_does_not_depend_on_units(name: str) -> None:
    """Far below the tolerance that a norm once had, and where squares would underflow."""
    known = MODELS[f"baseline_{name}"](task()).video.prob
    for factor in (1e-250, 1e-30, 1e30):
        prob = MODELS[f"baseline_{name}"](scaled(task(), factor)).video.prob
        torch.testing.assert_close(prob, known, rtol=1e-5, atol=1e-7)


@named
def test_a_class_taught_twice_is_as_likely_under_both_names(name: str) -> None:
    prob = MODELS[name](twins(task())).video.prob[0]
    torch.testing.assert_close(prob[:, 0], prob[:, 1], atol=tolerance(name), rtol=0.0)


@named
def test_where_nothing_differs_nothing_is_known(name: str) -> None:
    """All classes taught by the same frame: as likely as one another."""
    prob = MODELS[name](all_alike(task())).video.prob[0]
    torch.testing.assert_close(prob, torch.full_like(prob, 1 / 3), atol=tolerance(name), rtol=0.0)


@exact
def test_single_precision_says_the_same(name: str) -> None:
    one, two = (MODELS[name](task().to(kind)).video.prob for kind in (torch.float64, torch.float32))
    torch.testing.assert_close(two.double(), one, atol=1e-4, rtol=0.0)


class Narrowed(TorchDispatchMode):
    """Notes operations that make single precision out of anything wider, or of whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = [t.dtype for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        made = [t.dtype for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        if torch.float32 in made and any(kind not in (torch.float32, torch.bool) for kind in given):
            self.found.add(f"{func} of {given}")
        return out


PROGRAMS = {
    "gaussian": GaussianHierarchy(),
    "per feature": GaussianHierarchy(PerFeature()),
    "full": GaussianHierarchy(Full()),
    "robust": RobustHierarchy(),
    "niw": NIWClasses(),
    "head": HierarchicalHead(),
    **{f"gp_{name}": DeepKernelGP(likelihood=law) for name, law in GP.items()},
}


@pytest.mark.parametrize("name", [n for n in MODELS if "quality" not in n])
def test_a_prediction_in_double_precision_is_double_throughout(name: str) -> None:
    episodes = task()
    with Narrowed() as narrowed:
        decompose(QUICK[name](episodes), episodes)
    assert not narrowed.found


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_density_in_double_precision_is_double_throughout(name: str) -> None:
    """Program, evidence and label score: an odd count in single precision costs nats."""
    model, episodes = PROGRAMS[name], task(users=2, frames=3)
    with Narrowed() as narrowed:
        joint = potential(model, episodes)
        joint.value_and_gradient(joint.prior(2, seed=0))
        if not isinstance(model, HierarchicalHead | RobustHierarchy):
            for objective in (MarginalLikelihood(model), PredictiveScore(model)):
                score = potential(objective, episodes)
                score.value_and_gradient(score.prior(2, seed=0))
    assert not narrowed.found


@pytest.mark.parametrize("dim", [1, DIM])
@pytest.mark.parametrize("name", [n for n in PROGRAMS if n not in ("robust", "head")])
def test_the_label_score_has_a_gradient_where_tasks_have_fewer_videos_than_others(
    name: str, dim: int
) -> None:
    """A padded query video varies by nothing, and sqrt(0) has no slope: NaN came of it."""
    episodes = leave_one_video_out(without_video(task(dim=dim)))
    score = potential(PredictiveScore(PROGRAMS[name]), episodes)
    value, gradient = score.value_and_gradient(score.prior(2, seed=0))
    assert not episodes.video_mask.all()
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("engine", [Gibbs(burn_in=2, draws=4, chains=2), Laplace(draws=4, steps=3)])
def test_an_engine_in_double_precision_is_double_throughout(engine: Gibbs | Laplace) -> None:
    model = HierarchicalHead()
    given = model.default_population(DIM)
    given = replace(given, draws={s: v.double() for s, v in given.draws.items()})
    episodes = task()
    with Narrowed() as narrowed:
        engine.infer(model, episodes, seed=0, given=given)
    assert not narrowed.found


def alike(embeddings: Embeddings) -> Embeddings:
    """Every frame shows the same."""
    return embeddings.with_features(embeddings.features[:1].repeat(len(embeddings), 0))


def one_frame_each(embeddings: Embeddings) -> Embeddings:
    """One frame of each video."""
    first = [
        i
        for i, v in enumerate(embeddings.coord("video").tolist())
        if i == 0 or v != embeddings.coord("video")[i - 1]
    ]
    return Embeddings(embeddings.dataset.isel(frame=first))


TRAIN: Mapping[str, Callable[[Embeddings], Embeddings]] = {
    "ordinary": lambda e: e,
    "identical frames": alike,
    "one frame": one_frame_each,
    "features times a million": lambda e: e.with_features(1e6 * e.features),
    "features over a million": lambda e: e.with_features(1e-6 * e.features),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "case",
    [  # `test_sklearn` asks by day whether units matter
        pytest.param(name, marks=[pytest.mark.slow] * name.endswith("a million")) for name in TRAIN
    ],
)
def test_learnt_axes_of_degenerate_users(case: str) -> None:
    """Axes that are turned by labels, a population learnt on them, and tasks of new users."""
    size = {"users": 3, "test_users": 1, "way": 3, "shots": 2, "frames": 2, "query_videos": 1}
    drawn, _ = synthetic_embeddings(seed=0, dim=DIM, **size)
    evaluation = HeldOutUsers(shots=(2,), train_shots=(2,))
    axes = LearnedProjection(dims=(2, 3), evaluation=evaluation, steps=4, check_every=2)
    study = Study(
        GaussianHierarchy(), Exact(16, 2), evaluation, SVI(steps=5, draws=4), reduction=axes
    )
    embeddings = TRAIN[case](drawn)
    if case == "identical frames":
        with pytest.raises(DataError, match="all train frames have the same features"):
            study.learn(embeddings, seed=0)
        return
    learnt = study.learn(embeddings, seed=0)
    assert learnt.projection.dim in (2, 3)
    answer = study.infer(study.tasks(embeddings, learnt, seed=0), learnt, seed=0)
    prob = answer.predictive.video.prob[answer.episodes.video_mask]
    torch.testing.assert_close(prob.sum(-1), torch.ones_like(prob[:, 0]))
