"""ArviZ's functions, called with nothing but the tree that a fit gives."""

from collections.abc import Callable, Iterator
from typing import Any

import arviz_plots
import arviz_stats
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr
from arviz_base import rc_context

from bayesfs.data.synthetic import synthetic_embeddings, synthetic_episodes
from bayesfs.estimator import BayesianFewShotClassifier
from bayesfs.evaluation.axes import query_index
from bayesfs.evaluation.datatree import to_datatree
from bayesfs.evaluation.elpd import heldout_elpd
from bayesfs.evaluation.tree_query import log_likelihood_group, predictive_group
from bayesfs.evaluation.tree_store import load_datatree, save_datatree
from bayesfs.evaluation.users import HeldOutUsers
from bayesfs.features.reduce import PrincipalAxes
from bayesfs.inference.exact import Exact
from bayesfs.inference.nuts import NUTS
from bayesfs.inference.svi import SVI
from bayesfs.models.gaussian import GaussianHierarchy
from bayesfs.models.linear_head import HierarchicalHead
from bayesfs.predict import predict
from bayesfs.study import Study
from bayesfs.types import LabelDraws, Posterior, Predictive
from bayesfs.uncertainty import decompose

OUTCOME = ("plot_ppc_dist", "plot_ppc_pava", "plot_loo_pit", "plot_ppc_pit", "plot_ppc_tstat")
SITES = ("plot_trace", "plot_rank", "plot_forest", "plot_ess")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:arviz")
SHARED = ("observed_data", "posterior_predictive", "log_likelihood")


def estimator_tree() -> xr.DataTree:
    rng = np.random.default_rng(0)
    y = np.repeat(["keys", "mug", "purse"], 8)
    x = rng.normal(size=(24, 2)) + 2 * np.repeat(np.arange(3), 8)[:, None]
    known = BayesianFewShotClassifier(engine=Exact(draws=40)).fit(x, y, np.repeat(range(6), 4))
    return known.to_datatree(x + 0.3, np.repeat(range(12), 2), y)


def study_tree() -> xr.DataTree:
    """Two test users, learnt from three others; their objects are two and three."""
    embeddings, _ = synthetic_embeddings(
        users=3, test_users=2, way=3, shots=2, frames=2, query_videos=2, query_frames=2, dim=4
    )
    user, thing = embeddings.coord("user"), embeddings.coord("object")
    first = np.unique(user[embeddings.coord("split") == "test"])[0]
    gone = (user == first) & (thing == np.unique(thing[user == first])[0])
    embeddings = type(embeddings)(embeddings.dataset.isel(frame=np.flatnonzero(~gone)))
    study = Study(
        model=GaussianHierarchy(),
        engine=Exact(draws=40),
        evaluation=HeldOutUsers(shots=(2,)),
        population_engine=SVI(steps=30, draws=20),
        reduction=PrincipalAxes(dim=2),
    )
    learnt = study.learn(embeddings, seed=0)
    tasks = study.tasks(embeddings, learnt, seed=0)
    return study.infer(tasks, learnt, seed=0).to_datatree(learnt, {})


def joint_tree(model: Any, engine: Any) -> xr.DataTree:
    """Population and tasks at once, nothing given."""
    episodes, _ = synthetic_episodes(
        users=2, way=2, shots=2, frames=2, query_videos=3, query_frames=2, dim=2, seed=0
    )
    posterior = engine.infer(model, episodes, seed=0)
    predictive = predict(model, posterior, episodes)
    return to_datatree(posterior, predictive, decompose(predictive, episodes), episodes)


MAKERS: dict[str, Callable[[], xr.DataTree]] = {
    "estimator": estimator_tree,
    "study": study_tree,
    "joint SVI": lambda: joint_tree(GaussianHierarchy(), SVI(steps=30, draws=40)),
    "joint NUTS": lambda: joint_tree(HierarchicalHead(), NUTS(warmup=30, draws=20, chains=2)),
}


@pytest.fixture(scope="module", params=list(MAKERS))
def tree(request: pytest.FixtureRequest) -> xr.DataTree:
    return MAKERS[request.param]()


@pytest.fixture(autouse=True)
def no_windows() -> Iterator[None]:
    with mpl.rc_context({"backend": "Agg", "figure.max_open_warning": 0}):
        yield
    plt.close("all")


def test_the_outcome_has_one_name(tree: xr.DataTree) -> None:
    for group in SHARED:
        assert list(tree[group].data_vars) == ["video_label"], group
    drawn, given = (tree[g]["video_label"] for g in SHARED[1:])
    assert drawn.dims == given.dims
    assert drawn.shape == given.shape


@pytest.mark.parametrize("name", OUTCOME)
def test_checks_of_the_outcome_need_no_arguments(tree: xr.DataTree, name: str) -> None:
    assert getattr(arviz_plots, name)(tree) is not None


@pytest.mark.parametrize("name", SITES)
def test_plots_of_sites_need_no_arguments(tree: xr.DataTree, name: str) -> None:
    with rc_context({"plot.backend": "none"}):  # a figure for every scalar takes a minute
        assert getattr(arviz_plots, name)(tree) is not None


def test_figures_of_sites_are_drawn() -> None:
    small = to_small(estimator_tree())
    for name in SITES:
        assert getattr(arviz_plots, name)(small) is not None


def to_small(tree: xr.DataTree) -> xr.DataTree:
    """The same with one site of six scalars."""
    return tree.assign({"posterior": xr.DataTree(tree["posterior"].to_dataset()[["class_raw"]])})


def test_numbers_need_no_arguments(tree: xr.DataTree) -> None:
    queries = tree["observed_data"].sizes["query"]
    assert arviz_stats.loo(tree).n_data_points == queries
    assert len(arviz_stats.summary(tree))
    assert np.isfinite(heldout_elpd(tree).elpd)


def test_one_class_against_the_rest_is_what_pava_gives_for_categories(tree: xr.DataTree) -> None:
    made = arviz_plots.plot_ppc_pava(tree, data_type="categorical")
    assert made is not None


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_a_tree_from_a_file_works_as_well(tree: xr.DataTree, tmp_path: Any, suffix: str) -> None:
    back = load_datatree(save_datatree(tree, tmp_path / f"run{suffix}"))
    for group in SHARED:
        xr.testing.assert_identical(back[group].to_dataset(), tree[group].to_dataset())
    assert arviz_plots.plot_loo_pit(back) is not None


def test_weights_of_draws_do_not_change_the_pit_of_a_query() -> None:
    """A query's label was not learnt from: leaving it out must leave the predictive as it is.

    The class is 1 with probability t, t ~ U(.2, .8), so the predictive is 1/2. Paired with their
    own draws, weights 1 / p(y | t) would make that of the label that was seen 0.6 / log 4 = .43.
    """
    draws, videos = 2000, 40
    episodes, _ = synthetic_episodes(
        users=1, way=2, shots=1, frames=1, query_videos=videos // 2, query_frames=1, dim=1, seed=0
    )
    share = 0.2 + 0.6 * torch.rand(draws, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    given = torch.cat([1 - share, share], -1).log().expand(draws, 1, videos, 2)
    even = torch.full((draws, 1, videos), -float(np.log(draws)))
    video = LabelDraws(torch.logsumexp(given, 0) - np.log(draws), given, even)
    frame = LabelDraws(video.log_prob[:, :, None], given[:, :, :, None], even[..., None])
    posterior = Posterior("exact", {"share": share[:, 0, 0, 0]}, {"share": ()})
    index, predictive = query_index(episodes), Predictive(frame, video)
    drawn = predictive_group(posterior, predictive, episodes, index, 10**9)["video_label"][0]
    likelihood = log_likelihood_group(posterior, predictive, index, 10**9)["video_label"][0]
    weight = np.exp(-likelihood)
    seen = (weight * (drawn == index["label"].values)).sum("draw") / weight.sum("draw")
    assert float(seen.mean()) == pytest.approx(0.5, abs=0.01)
