"""The DataTree against ArviZ, closed forms, and files that were tampered with."""

import json
from dataclasses import replace
from pathlib import Path

import arviz_stats
import h5py
import numpy as np
import pytest
import torch
import xarray as xr
from scipy.special import logsumexp
from scipy.stats import norm

from bayesfs.diagnostics.left_out import support_log_prob
from bayesfs.diagnostics.loo import heldout_elpd, smoothed_weights, support_elpd, weight_pareto_k
from bayesfs.errors import DataError, ShapeError
from bayesfs.results.assemble import assemble_tree
from bayesfs.results.query import equal_weight_draws
from bayesfs.results.schema import UNCERTAINTY
from bayesfs.results.store import as_saved, load_datatree, save_datatree
from bayesfs.types import EpisodeBatch, LabelDraws, Posterior, Predictive

T, W, S, V, F, D = 2, 3, 2, 4, 5, 3
DRAWS = 60


def make_episodes() -> EpisodeBatch:
    """Two tasks; the second has 2 of 3 classes and 3 of 4 videos, one of them unlabelled."""
    g = torch.Generator().manual_seed(1)
    support_mask = torch.ones(T, W, S, F, dtype=torch.bool)
    support_mask[1, 2] = False
    support_mask[0, 0, 1] = False
    query_mask = torch.ones(T, V, F, dtype=torch.bool)
    query_mask[1, 3] = False
    query_mask[0, 0, 3:] = False
    return EpisodeBatch(
        support=torch.randn(T, W, S, F, D, generator=g) * support_mask[..., None],
        support_mask=support_mask,
        support_condition=torch.zeros(T, W, S, dtype=torch.long),
        query=torch.randn(T, V, F, D, generator=g) * query_mask[..., None],
        query_mask=query_mask,
        query_condition=torch.ones(T, V, dtype=torch.long),
        query_labels=torch.tensor([[0, 1, 2, 1], [0, 1, -1, 0]]),
        tasks=("P001", "P002"),
        classes=(("mug", "<script>alert(1)</script>", "clé"), ("keys", "phone")),
        videos=(("v1", "v2", "v3", "v4"), ("w1", "w2", "w3")),
    )


def label_draws(shape: tuple[int, ...], ways: torch.Tensor, g: torch.Generator) -> LabelDraws:
    logits = torch.randn(DRAWS, *shape, W, generator=g) * 2
    logits = logits.masked_fill(~ways.reshape(T, *[1] * (len(shape) - 1), W), -torch.inf)
    given = torch.log_softmax(logits, -1)
    weight = torch.log_softmax(torch.randn(DRAWS, *shape, generator=g), 0)
    return LabelDraws(torch.logsumexp(weight[..., None] + given, 0), given, weight)


def make_predictive(episodes: EpisodeBatch) -> Predictive:
    g = torch.Generator().manual_seed(2)
    ways = episodes.way_mask
    return Predictive(label_draws((T, V, F), ways, g), label_draws((T, V), ways, g))


def make_posterior(**changes) -> Posterior:
    g = torch.Generator().manual_seed(3)
    draws = {
        "class_mean": torch.randn(DRAWS, T, W, D, generator=g),
        "scale": torch.rand(DRAWS, T, generator=g),
    }
    dims = {"class_mean": ("task", "way", "feature"), "scale": ("task",)}
    fields = {"chains": 2, "sample_stats": {"diverging": torch.zeros(DRAWS, T)}, **changes}
    return Posterior("mcmc", draws, dims, seed=7, **fields)


def make_uncertainty() -> xr.Dataset:
    shapes = {"frame": ("task", "video", "frame"), "video": ("task", "video")}
    sizes = {"task": T, "video": V, "frame": F}
    rng = np.random.default_rng(0)
    return xr.Dataset(
        {n: (shapes[n[:5]], rng.random([sizes[d] for d in shapes[n[:5]]]) / 2) for n in UNCERTAINTY}
    )


@pytest.fixture
def episodes() -> EpisodeBatch:
    return make_episodes()


@pytest.fixture
def tree(episodes: EpisodeBatch) -> xr.DataTree:
    return assemble_tree(make_posterior(), make_predictive(episodes), make_uncertainty(), episodes)


def test_arviz_takes_it(tree: xr.DataTree) -> None:
    table = arviz_stats.summary(tree, round_to="none")
    site = make_posterior().draws["class_mean"]
    assert table.loc["class_mean[P001, 1, 2]", "mean"] == pytest.approx(
        float(site[:, 0, 1, 2].mean()), abs=1e-6
    )
    assert np.isfinite(arviz_stats.rhat(tree)["scale"].values).all()
    assert (arviz_stats.ess(tree)["scale"].values > 1).all()
    assert arviz_stats.loo(tree, var_name="video_label").n_data_points == 6


def test_padding_is_nan_and_the_rest_is_not(tree: xr.DataTree) -> None:
    mean = tree["posterior"]["class_mean"]
    assert np.isnan(mean.sel(task="P002", way=2)).all()
    assert int(np.isnan(mean).sum()) == DRAWS * D
    prob = tree["uncertainty"]["frame_prob"]
    assert np.isnan(prob[0, 0, 3:]).all()
    assert np.isnan(prob[1, 3]).all()
    assert np.isnan(prob[1, :, :, 2]).all()
    np.testing.assert_allclose(prob[0, 1].sum("way"), 1, rtol=1e-5)
    np.testing.assert_array_equal(
        tree["observed_data"]["label"], [[0, 1, 2, 1], [0, 1, np.nan, np.nan]]
    )
    assert tree["constant_data"]["class_name"].values[1].tolist() == ["keys", "phone", ""]
    assert tree["log_likelihood"]["query"].values[4] == "P002 / w1"


def test_chains_stay_together(tree: xr.DataTree) -> None:
    stored = tree["posterior"]["scale"].values
    np.testing.assert_allclose(stored.reshape(DRAWS, T), make_posterior().draws["scale"])
    assert tree["sample_stats"]["task_diverging"].dims == ("chain", "draw", "task")
    assert tree["sample_stats"]["diverging"].dims == ("chain", "draw")  # as ArviZ expects it


def test_likelihood_of_the_true_label(tree: xr.DataTree, episodes: EpisodeBatch) -> None:
    given = make_predictive(episodes).video.log_prob_given
    stored = tree["query_log_likelihood"]["video_label"].sel(query="P001 / v3").values.ravel()
    np.testing.assert_allclose(stored, given[:, 0, 2, 2], rtol=1e-6)


def test_heldout_elpd_is_the_predictive_score(tree: xr.DataTree, episodes: EpisodeBatch) -> None:
    exact = make_predictive(episodes).video.log_prob
    wanted = [exact[0, v, y] for v, y in enumerate([0, 1, 2, 1])] + [exact[1, 0, 0], exact[1, 1, 1]]
    found = heldout_elpd(tree)
    np.testing.assert_allclose(found.elpd_i, wanted, rtol=1e-5)
    assert found.elpd == pytest.approx(float(sum(wanted)), rel=1e-5)


def test_elpd_data_can_be_compared(tree: xr.DataTree) -> None:
    other = tree.copy(deep=True)
    other["query_log_likelihood"]["video_label"] -= 1.0
    table = arviz_stats.compare({"good": heldout_elpd(tree), "bad": heldout_elpd(other)})
    assert list(table.index) == ["good", "bad"]
    assert abs(table.loc["bad", "elpd_diff"]) == pytest.approx(6.0, abs=1e-4)


def test_systematic_resampling_keeps_the_weights() -> None:
    weight = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
    kept = equal_weight_draws(weight[:, None].expand(4, 3), 8)
    assert kept[:, 1].tolist() == [0, 0, 0, 0, 1, 1, 2, 3]
    equal = torch.full((40, 2), -np.log(40.0))
    assert equal_weight_draws(equal, 40)[:, 0].tolist() == list(range(40))


def test_stored_draws_average_to_the_predictive(episodes: EpisodeBatch) -> None:
    predictive = make_predictive(episodes)
    tree = assemble_tree(
        make_posterior(), predictive, make_uncertainty(), episodes, predictive_draws=DRAWS
    )
    mean = tree["posterior_predictive"]["video_prob"].mean(("chain", "draw"))
    np.testing.assert_allclose(mean[0], predictive.video.prob[0], atol=1 / DRAWS + 0.02)
    assert tree["posterior_predictive"]["video_label"].max() <= 2


class TwoGaussians:
    """x | y=k ~ N(mu_k, 1), mu_k ~ N(0, 2^2): the support posterior and leave-one-out are exact."""

    def log_joint_video(self, draws, episodes):
        x = episodes.query[..., 0, 0]
        mean = draws["mu"]
        return torch.distributions.Normal(mean[:, :, None], 1.0).log_prob(x[None, ..., None])


def gaussian_posterior(x: np.ndarray) -> tuple[float, float]:
    precision = 1 / 4 + len(x)
    return x.sum() / precision, 1 / precision


def test_leave_one_support_video_out_is_the_closed_form() -> None:
    x = np.array([[0.3, 1.2, -0.4, 0.9], [1.8, 2.6, 0.7, 2.2]])
    g = torch.Generator().manual_seed(0)
    moments = [gaussian_posterior(row) for row in x]
    mu = torch.stack(
        [m + v**0.5 * torch.randn(8000, generator=g, dtype=torch.float64) for m, v in moments], 1
    )
    support = torch.tensor(x).reshape(1, 2, 4, 1, 1)
    episodes = EpisodeBatch(
        support=support,
        support_mask=torch.ones(1, 2, 4, 1, dtype=torch.bool),
        support_condition=torch.zeros(1, 2, 4, dtype=torch.long),
        query=torch.zeros(1, 1, 1, 1, dtype=torch.float64),
        query_mask=torch.ones(1, 1, 1, dtype=torch.bool),
        query_condition=torch.zeros(1, 1, dtype=torch.long),
        query_labels=torch.zeros(1, 1, dtype=torch.long),
    )
    posterior = Posterior("exact", {"mu": mu[:, None]}, {"mu": ("task", "way")})
    log_prob = support_log_prob(TwoGaussians(), posterior, episodes)
    even = torch.full((1, 1, 2), 0.5, dtype=torch.float64).log()
    labels = LabelDraws(even, even[None], torch.zeros(1, 1, 1))
    frames = LabelDraws(even[:, :, None], even[None, :, :, None], torch.zeros(1, 1, 1, 1))
    nothing = xr.Dataset(
        {
            n: (
                tuple("tvf")[: 3 if n[0] == "f" else 2],
                np.zeros((1, 1, 1)[: 3 if n[0] == "f" else 2]),
            )
            for n in UNCERTAINTY
        }
    )
    tree = assemble_tree(
        posterior, Predictive(frames, labels), nothing, episodes, support_log_prob=log_prob
    )
    wanted = [leave_out(x, way, shot) for way in range(2) for shot in range(4)]
    np.testing.assert_allclose(support_elpd(tree).elpd_i, wanted, atol=0.03)


def leave_out(x: np.ndarray, way: int, shot: int) -> float:
    """log p(y | x, the other videos), from the two classes' closed-form predictives."""
    density = []
    for k, row in enumerate(x):
        m, v = gaussian_posterior(np.delete(row, shot) if k == way else row)
        density.append(norm.logpdf(x[way, shot], m, np.sqrt(v + 1)))
    return density[way] - logsumexp(density)


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_round_trip(tree: xr.DataTree, tmp_path, suffix: str) -> None:
    path = save_datatree(tree, tmp_path / f"run{suffix}")
    save_datatree(tree, path)
    back = load_datatree(path)
    less = load_datatree(path, without=("frame_predictive", "no such group"))
    assert set(back.children) - set(less.children) == {"frame_predictive"}
    xr.testing.assert_identical(less["posterior"].to_dataset(), back["posterior"].to_dataset())
    assert back.attrs == tree.attrs
    assert {k: type(v) for k, v in back.attrs.items()} == {
        k: type(v) for k, v in tree.attrs.items()
    }
    for node in tree.subtree:
        xr.testing.assert_equal(back[node.path].to_dataset(), node.to_dataset())
    assert [p.name for p in tmp_path.iterdir()] == [f"run{suffix}"]
    if suffix == ".zarr":
        assert json.loads((path / "zarr.json").read_text())["zarr_format"] == 3


def test_a_netcdf_file_is_read_as_xarray_reads_it(tree: xr.DataTree, tmp_path: Path) -> None:
    """Own reading, for its speed; types, axes, coordinates, attributes and empty groups too."""
    more = xr.Dataset(
        {
            "flag": ("x", np.array([True, False])),
            "name": ("x", np.array(["ключ", ""])),
            "one": ((), 3.5),
            "count": (("x", "bare"), np.arange(6, dtype=np.int32).reshape(2, 3)),
            "unknown": ("x", [np.nan, 1.0]),
        },
        {"x": ["a", "b"], "beside": ("x", [1, 2])},
        {"said": "", "number": 3, "several": [1.5, 2.5]},
    )
    whole = tree.assign({"more": xr.DataTree(more), "empty": xr.DataTree(xr.Dataset())})
    path = save_datatree(whole, tmp_path / "run.nc")
    with xr.open_datatree(path, engine="h5netcdf") as opened:
        expected = as_saved(opened.load())
    found = load_datatree(path)
    xr.testing.assert_identical(found, expected)
    for node in expected.subtree:
        for name, variable in node.variables.items():
            assert found[node.path].variables[name].dtype == variable.dtype, (node.path, name)


def test_a_failed_write_leaves_the_old_file(tree: xr.DataTree, tmp_path, monkeypatch) -> None:
    path = save_datatree(tree, tmp_path / "run.nc")
    before = path.read_bytes()
    bad = tree.copy()
    bad.attrs["what"] = object()
    with pytest.raises(TypeError):
        save_datatree(bad, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.nc"]


def test_bad_files_are_named(tree: xr.DataTree, tmp_path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_datatree(tmp_path / "none.nc")
    with pytest.raises(DataError, match=r"\.zarr or \.nc"):
        save_datatree(tree, tmp_path / "run.pkl")
    cut = save_datatree(tree, tmp_path / "cut.nc")
    cut.write_bytes(cut.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"cut\.nc"):
        load_datatree(cut)
    changed = tree.copy(deep=True)
    changed["uncertainty"]["video_prob"][0, 0, 0] = 7.0
    with pytest.raises(DataError, match="out of range"):
        load_datatree(save_datatree(changed, tmp_path / "changed.nc"))
    short = tree.drop_nodes("log_likelihood")
    with pytest.raises(DataError, match="log_likelihood"):
        load_datatree(save_datatree(short, tmp_path / "short.zarr"))


def test_a_store_that_asks_to_unpickle_is_refused(tree: xr.DataTree, tmp_path) -> None:
    path = save_datatree(tree, tmp_path / "run.zarr")
    metadata = path / "constant_data" / "class_name" / "zarr.json"
    changed = json.loads(metadata.read_text())
    changed["codecs"] = [{"name": "numcodecs.pickle", "configuration": {}}]
    metadata.write_text(json.dumps(changed))
    with pytest.raises(DataError, match="unpickle"):
        load_datatree(path)


def test_values_of_other_episodes_are_refused(episodes: EpisodeBatch) -> None:
    predictive, uncertainty = make_predictive(episodes), make_uncertainty()
    with pytest.raises(ShapeError, match="other episodes"):
        assemble_tree(make_posterior(), predictive, uncertainty, episodes.select([0]))
    with pytest.raises(DataError, match="video_total"):
        assemble_tree(make_posterior(), predictive, uncertainty.drop_vars("video_total"), episodes)
    slashed = Posterior("exact", {"a/b": torch.zeros(3)}, {"a/b": ()})
    with pytest.raises(DataError, match="slash"):
        assemble_tree(slashed, predictive, uncertainty, episodes)


def test_the_population_has_its_own_groups(episodes: EpisodeBatch) -> None:
    g = torch.Generator().manual_seed(0)
    population = Posterior(
        "variational",
        {"mean": torch.randn(50, D, generator=g)},
        {"mean": ("feature",)},
        sample_stats={"elbo": torch.arange(200.0)},
    )
    tree = assemble_tree(
        replace(make_posterior(), seed=1),
        make_predictive(episodes),
        make_uncertainty(),
        episodes,
        population=population,
        sites=["scale"],
    )
    assert tree["population"].sizes == {"chain": 1, "draw": 50, "feature": D}
    assert tree["population_sample_stats"]["elbo"].dims == ("elbo_step",)
    assert list(tree["posterior"].data_vars) == ["scale"]
    assert tree["posterior"].attrs["left_out"] == "class_mean"
    assert len(arviz_stats.summary(tree, group="population")) == D


def test_sites_too_large_to_keep_are_named(episodes: EpisodeBatch) -> None:
    size = DRAWS * T * W * D - 1
    made = assemble_tree(
        make_posterior(), make_predictive(episodes), make_uncertainty(), episodes, max_values=size
    )
    assert list(made["posterior"].data_vars) == ["scale"]
    assert made["posterior"].attrs["left_out"] == "class_mean"


def test_pareto_k_is_that_of_the_weights_and_not_of_their_inverse() -> None:
    """exp(0.9 E) with E exponential is Pareto with k = 0.9; its inverse is bounded, with k < 0."""
    log_weight = 0.9 * np.random.default_rng(0).exponential(size=(2, 2000, 1))
    weights = xr.DataArray(log_weight, dims=("chain", "draw", "query"))
    assert weight_pareto_k(weights).item() == pytest.approx(0.9, abs=0.25)
    assert weight_pareto_k(-weights).item() < 0


def test_weights_without_a_tail_are_kept() -> None:
    rng = np.random.default_rng(0)
    bounded = -np.where(rng.random(200) < 0.9, 0.0, rng.random(200))  # the largest are all alike
    even = 1e-5 * rng.random(200)
    raw = xr.DataArray(np.stack([bounded, even], -1)[None], dims=("chain", "draw", "support"))
    smoothed, k = smoothed_weights(raw, 1.0)
    np.testing.assert_allclose(smoothed, raw - logsumexp(raw, (0, 1)), atol=1e-12)
    np.testing.assert_array_equal(k, 0)
    too_few, k = smoothed_weights(raw[:, :10, :1] + rng.random((1, 10, 1)), 1.0)
    assert np.isnan(k).all()
    np.testing.assert_allclose(np.exp(too_few).sum(), 1)


def test_values_that_lie_in_other_files_are_refused(tree: xr.DataTree, tmp_path: Path) -> None:
    """External storage, links and virtual datasets would read any file of this machine."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"of another person")
    other = tmp_path / "other.nc"
    with h5py.File(other, "w") as file:
        file["data"] = np.zeros(4)

    def external(group: h5py.Group) -> None:
        group.create_dataset("evil", (17,), "S1", external=[(str(secret), 0, 17)])

    def link(group: h5py.Group) -> None:
        group["evil"] = h5py.ExternalLink(str(other), "/data")

    def soft(group: h5py.Group) -> None:
        group["evil"] = h5py.SoftLink("/uncertainty")

    def virtual(group: h5py.Group) -> None:
        layout = h5py.VirtualLayout((4,), "f8")
        layout[:] = h5py.VirtualSource(str(other), "data", (4,))
        group.create_virtual_dataset("evil", layout)

    def loop(group: h5py.Group) -> None:
        group["evil"] = group.parent

    for number, spoil in enumerate((external, link, soft, virtual, loop)):
        path = save_datatree(tree, tmp_path / f"{number}.nc")
        with h5py.File(path, "a") as file:
            spoil(file["posterior"])
        with pytest.raises(DataError, match=r"evil|posterior"):
            load_datatree(path)
    store = save_datatree(tree, tmp_path / "tree.zarr")
    (store / "posterior" / "evil").symlink_to(secret)
    with pytest.raises(DataError, match="link"):
        load_datatree(store)
