"""ArviZ's functions, called with nothing but the tree that a fit gives."""

from collections.abc import Callable, Iterator
from importlib.metadata import version
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

from bayesfs.diagnostics.convergence import diagnose
from bayesfs.diagnostics.loo import heldout_elpd
from bayesfs.diagnostics.prior_sensitivity import learnt_from
from bayesfs.diagnostics.sbc import Calibration
from bayesfs.diagnostics.verdicts import bfmi_check
from bayesfs.errors import DataError
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.features.reduction import PrincipalAxes
from bayesfs.inference.exact import Exact
from bayesfs.inference.nuts.nuts import NUTS
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.gaussian.families import COVARIANCE_LEVELS
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.prediction import predict
from bayesfs.results.assemble import assemble_tree, stats_group
from bayesfs.results.axes import query_index
from bayesfs.results.convert import one_task, to_datatree
from bayesfs.results.query import heldout_group, predictive_group
from bayesfs.results.rows import tree_rows
from bayesfs.results.store import load_datatree, save_datatree
from bayesfs.sklearn import BayesianFewShotClassifier
from bayesfs.study import Study
from bayesfs.synthetic.tasks import synthetic_embeddings, synthetic_episodes
from bayesfs.types import LabelDraws, Posterior, Predictive
from bayesfs.uncertainty.decompose import decompose

PLOTS = (
    "plot_trace",
    "plot_rank",
    "plot_forest",
    "plot_ess",
    "plot_mcse",
    "plot_ppc_dist",
    "plot_ppc_pava",
    "plot_ppc_pit",
    "plot_ppc_tstat",
    "plot_loo_pit",
    "plot_prior_posterior",
)
NUMBERS = ("loo", "psense", "psense_summary", "summary")
OF_CHAINS = {
    (arviz_plots, "plot_energy"): "has no attribute 'energy'|Invalid value for sample_dims",
    (arviz_stats, "bfmi"): r"energy.* are not present",
}
"""What needs the energy of trajectories -> what ArviZ says where there is none."""

OF_ARVIZ_1 = {
    "plot_rank": (lambda tree: tree["posterior"].sizes["chain"] < 2, "at least 2 chains"),
    "plot_ppc_dist": (lambda tree: True, "Invalid value for sample_dims"),
}
"""What ArviZ 1.3 refuses, of which trees: ranks of one chain are nothing to test, and the axes of
coordinates that no variable of a group has are taken for axes of its draws."""

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:arviz"),
    pytest.mark.filterwarnings("ignore:Estimated shape parameter"),
]
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
    return assemble_tree(
        posterior, predictive, decompose(predictive, episodes), episodes, model=model
    )


MAKERS: dict[str, Callable[[], xr.DataTree]] = {
    "estimator": estimator_tree,
    "study": study_tree,
    "joint SVI": lambda: joint_tree(GaussianHierarchy(), SVI(steps=30, draws=40)),
    "joint NUTS": lambda: joint_tree(HierarchicalHead(), NUTS(warmup=30, draws=20, chains=2)),
}

DAY = ("study", "joint NUTS")
"""One is given a population, one infers it; exact draws, and chains. The others: by night."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name not in DAY)) for name in MAKERS],
)
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


def refusal(tree: xr.DataTree, name: str) -> str | None:
    """What ArviZ says where it refuses a picture of this tree; None where it draws it."""
    if version("arviz-plots") < "1" or name not in OF_ARVIZ_1:
        return None
    applies, message = OF_ARVIZ_1[name]
    return message if applies(tree) else None


@pytest.mark.parametrize("name", PLOTS)
def test_plots_need_no_arguments(tree: xr.DataTree, name: str) -> None:
    if (message := refusal(tree, name)) is not None:
        with rc_context({"plot.backend": "none"}), pytest.raises(ValueError, match=message):
            getattr(arviz_plots, name)(tree)
        return
    settings = {"plot.backend": "none", "plot.max_subplots": 500}
    with rc_context(settings):  # a figure for every scalar takes a minute
        assert getattr(arviz_plots, name)(tree) is not None


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_need_no_arguments(tree: xr.DataTree, name: str) -> None:
    assert getattr(arviz_stats, name)(tree) is not None


@pytest.mark.parametrize(("module", "name"), OF_CHAINS, ids=[name for _, name in OF_CHAINS])
def test_the_energy_is_that_of_trajectories(tree: xr.DataTree, module: Any, name: str) -> None:
    if tree.attrs["kind"] == "mcmc":
        assert getattr(module, name)(tree) is not None
    else:
        message = OF_CHAINS[module, name]
        with pytest.raises((AttributeError, KeyError, ValueError), match=message):
            getattr(module, name)(tree)


def test_tasks_of_their_own_chains_have_one_energy_together() -> None:
    """Each of the tasks has chains of its own; ArviZ wants one energy a draw."""
    energy = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    draws = {"x": torch.randn(40, 3)}
    posterior = Posterior(
        "mcmc", draws, {"x": ("task",)}, chains=2, sample_stats={"energy": energy}
    )
    stats = stats_group(posterior, np.array(["a", "b", "c"]))
    assert stats["energy"].dims == ("chain", "draw")
    np.testing.assert_allclose(stats["energy"].values.ravel(), energy.sum(1), rtol=1e-6)
    assert stats["task_energy"].sel(task="b").values.ravel().tolist() == energy[:, 1].tolist()
    each = arviz_stats.bfmi(stats[["task_energy"]], var_names="task_energy")["task_energy"]
    assert bfmi_check(stats).value == pytest.approx(float(each.min()), rel=0.06)


def test_a_picture_of_a_fit_is_no_picture_of_calibration(tree: xr.DataTree) -> None:
    """`plot_ecdf_pit` is of simulations; `Calibration.to_datatree` makes its group."""
    with pytest.raises(KeyError, match="prior_sbc"):
        arviz_plots.plot_ecdf_pit(tree)


def test_simulations_are_what_plot_ecdf_pit_takes() -> None:
    ranks = np.random.default_rng(0).integers(0, 64, 50)
    made = Calibration({"scale": ranks, "TARP": ranks}, 63).to_datatree()
    assert arviz_plots.plot_ecdf_pit(made) is not None
    assert made["prior_sbc/TARP"].values.ravel().tolist() == ((ranks + 1) / 64).tolist()


def test_every_pair_of_one_site_is_drawn(tree: xr.DataTree) -> None:
    """All pairs of all scalars are thousands, and ArviZ stumbles over axes of length one."""
    one = one_task(tree, str(tree["constant_data"]["task"].values[0]))
    site = "class_raw" if "class_raw" in one["posterior"] else "weight_raw"
    small = one.assign({"posterior": xr.DataTree(one["posterior"].to_dataset()[[site]])})
    assert arviz_plots.plot_pair(small) is not None


def test_figures_are_drawn() -> None:
    tree = estimator_tree()
    site = {g: xr.DataTree(tree[g].to_dataset()[["class_raw"]]) for g in ("posterior", "prior")}
    small = tree.assign(site)
    for name in PLOTS:
        if refusal(small, name) is None:
            assert getattr(arviz_plots, name)(small) is not None


def test_loo_and_compare_are_of_the_query(tree: xr.DataTree) -> None:
    """A query is in no posterior: left out a second time it lost up to 14 nats, and was NaN."""
    found, nll = arviz_stats.loo(tree, pointwise=True), tree_rows(tree)["video"]["nll"]
    assert found.n_data_points == tree["observed_data"].sizes["query"] == len(nll)
    np.testing.assert_allclose(found.elpd_i, -nll, atol=1e-6)
    assert found.elpd == pytest.approx(heldout_elpd(tree).elpd, rel=0.05)
    assert found.p == pytest.approx(0, abs=1e-6)
    assert (found.pareto_k < 0).all()
    assert list(arviz_stats.compare({"a": tree, "b": tree}).index) == ["a", "b"]


def test_frames_have_a_likelihood_of_their_own(tree: xr.DataTree) -> None:
    frames = tree["frame_log_likelihood"]["frame_label"]
    assert frames.dims == ("chain", "draw", "query_frame")
    assert "frame_label" not in tree["log_likelihood"].coords


def test_one_class_against_the_rest_is_what_pava_gives_for_categories(tree: xr.DataTree) -> None:
    made = arviz_plots.plot_ppc_pava(tree, data_type="categorical")
    assert made is not None


def test_classes_levels_and_conditions_are_named_along_their_axes() -> None:
    tree = estimator_tree()
    for group in ("posterior", "prior", "uncertainty", "constant_data"):
        assert tree[group]["way"].values.tolist() == ["keys", "mug", "purse"]
    assert tree["posterior"]["level"].values.tolist() == list(COVARIANCE_LEVELS)
    assert tree["posterior"]["condition"].values.tolist() == ["clean", "clutter"]
    rows = arviz_stats.summary(tree).index
    assert f"class_raw[{tree['posterior']['task'].values[0]}, mug, 1]" in rows


def test_one_task_has_its_own_classes_and_queries() -> None:
    tree = study_tree()
    constant = tree["constant_data"].to_dataset()
    for t, name in enumerate(constant["task"].values.tolist()):
        one, classes = one_task(tree, name), constant["class_name"].values[t]
        classes = classes[classes != ""]
        assert one["posterior"]["way"].values.tolist() == classes.tolist()
        assert "task" not in one["posterior"].dims
        assert not np.isnan(one["posterior"]["video_raw"].values).any()
        assert arviz_stats.loo(one).n_data_points == 2 * len(classes)
        assert diagnose(one).verdict == diagnose(tree).verdict
    with pytest.raises(DataError, match="expected one of the tasks"):
        one_task(tree, "nobody")


def test_power_scaling_by_the_likelihood_is_of_what_was_learnt_from(tree: xr.DataTree) -> None:
    """The query, whose likelihood ArviZ finds in the tree, had no part in the posterior."""
    table = arviz_stats.psense_summary(learnt_from(tree))
    queries = arviz_stats.psense_summary(tree)
    assert queries["likelihood"].max() == 0
    assert table["prior"].equals(queries["prior"])
    assert not table["likelihood"].equals(queries["likelihood"])
    with pytest.raises(DataError, match="give `model` to `assemble_tree`"):
        learnt_from(tree.drop_nodes("support_log_density"))


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
    likelihood = heldout_group(posterior, predictive, index)["video_label"][0]
    weight = np.exp(-likelihood)
    seen = (weight * (drawn == index["label"].values)).sum("draw") / weight.sum("draw")
    assert float(seen.mean()) == pytest.approx(0.5, abs=0.01)


def by_xarray_netcdf(tree: xr.DataTree, folder: Any) -> xr.DataTree:
    tree.to_netcdf(folder / "tree.nc", engine="h5netcdf")
    return xr.open_datatree(folder / "tree.nc", engine="h5netcdf")


def by_xarray_zarr(tree: xr.DataTree, folder: Any) -> xr.DataTree:
    tree.to_zarr(folder / "tree.zarr", consolidated=False)
    return xr.open_datatree(folder / "tree.zarr", engine="zarr", consolidated=False)


def by_ours(tree: xr.DataTree, folder: Any) -> xr.DataTree:
    return load_datatree(save_datatree(tree, folder / "tree.zarr"))


@pytest.mark.parametrize("again", [by_ours, by_xarray_netcdf, by_xarray_zarr])
def test_a_tree_that_was_saved_is_diagnosed(
    tree: xr.DataTree, tmp_path: Any, again: Callable[[xr.DataTree, Any], xr.DataTree]
) -> None:
    back = again(tree, tmp_path)
    for group in ("posterior", *(["population"] if "population" in tree.children else [])):
        assert diagnose(back, group=group).verdict == diagnose(tree, group=group).verdict


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("exact", "fit for use: exact draws, given the population"),
        ("mcmc", "fit for use"),
        ("variational", "usable, but look at k-hat"),
        ("particles", "usable, but look at KSD ratio"),
    ],
)
def test_the_tree_of_one_posterior_is_diagnosed(kind: Any, verdict: str, tmp_path: Any) -> None:
    noise = torch.Generator().manual_seed(0)
    draws = {"x": torch.randn(800, 2, generator=noise), "scale": torch.rand(800, generator=noise)}
    stats = {
        "khat": torch.tensor(0.9),
        "ksd_ratio": torch.tensor(3.0),
        "diverging": torch.zeros(800, dtype=torch.bool),
    }
    posterior = Posterior(kind, draws, {"x": ("task",), "scale": ()}, 2, sample_stats=stats)
    tree = to_datatree(posterior)
    assert diagnose(tree).verdict == verdict
    assert diagnose(by_xarray_netcdf(tree, tmp_path)).verdict == verdict
