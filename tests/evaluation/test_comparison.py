"""Comparison of runs: rows of a tree, paired differences, leave-one-out and reliability."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import t as student
from sklearn.metrics import log_loss

from bayesfs.errors import DataError, ShapeError
from bayesfs.evaluation.comparison import (
    compare_elpd,
    compare_scores,
    overall_table,
    reliability_table,
    user_table,
)
from bayesfs.evaluation.score_sheet import score_sheet
from bayesfs.metrics.score_table import group_scores
from bayesfs.metrics.scores import nll
from bayesfs.plots.reliability import plot_reliability
from bayesfs.report.view import ReportData
from bayesfs.results.rows import labelled_items, tree_rows

USERS, VIDEOS = 40, 6


def rows_of(shift: float, seed: int = 1) -> pd.DataFrame:
    """Every user has a difficulty of its own, the same for all methods."""
    hard = np.random.default_rng(0).normal(size=USERS)
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(USERS), VIDEOS)
    right = np.clip(0.6 + 0.1 * hard[user] + 0.02 * rng.normal(size=len(user)) + shift, 0.05, 0.95)
    correct = (np.random.default_rng(7).random(len(user)) < right).astype(float)
    return pd.DataFrame(
        {
            "user": [f"u{u:02d}" for u in user],
            "task": [f"u{u:02d}" for u in user],
            "object": "u/mug",
            "video": [f"v{i:04d}" for i in range(len(user))],
            "frame": 0,
            "label": 0,
            "confidence": np.maximum(right, 1 - right),
            "correct": correct,
            "nll": -np.log(right),
            "brier": 2 * (1 - right) ** 2,
        }
    )


def both(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {"frame": frame, "video": frame}


@pytest.fixture(scope="module")
def pairs() -> list:
    rows = {"old": both(rows_of(0.0)), "new": both(rows_of(0.05, 2)), "bad": both(rows_of(-0.2, 3))}
    return compare_scores(rows, ("nll", "accuracy"))


def test_differences_have_the_interval_of_a_paired_t_test(pairs: list) -> None:
    table = overall_table(pairs).set_index(["item", "score", "method"])
    line = table.loc["frame", "nll", "new"]
    old, new = rows_of(0.0), rows_of(0.05, 2)
    gap = (new["nll"] - old["nll"]).groupby(new["user"]).mean()
    assert line["difference"] == pytest.approx(gap.mean())
    assert line["value"] == pytest.approx(new["nll"].mean())
    assert line["reference_value"] == pytest.approx(old["nll"].mean())
    half = student.ppf(0.975, USERS - 1) * gap.std() / USERS**0.5
    assert (line["high"] - line["low"]) / 2 == pytest.approx(half, rel=0.1)
    assert line["high"] < 0
    assert table.loc["frame", "nll", "bad"]["low"] > 0
    assert line["share_better"] == pytest.approx((gap < 0).mean())
    assert len(table) == 2 * 2 * 2


def test_the_table_by_user_holds_the_users_own_scores(pairs: list) -> None:
    table = user_table(pairs)
    of = table[(table["item"] == "frame") & (table["score"] == "nll") & (table["method"] == "new")]
    wanted = group_scores(rows_of(0.05, 2))["nll"]
    np.testing.assert_allclose(of.set_index("user")["value"].sort_index(), wanted)
    assert of["difference"].is_monotonic_increasing
    assert (of["low"] <= of["high"]).all()
    accuracy = table[(table["score"] == "accuracy") & (table["method"] == "bad")]
    assert accuracy[accuracy["item"] == "frame"]["difference"].is_monotonic_decreasing


def test_other_queries_and_single_methods_are_refused() -> None:
    fewer = rows_of(0.0).iloc[:-1]
    with pytest.raises(ShapeError, match="the same frames with the same labels"):
        compare_scores({"a": both(rows_of(0.0)), "b": both(fewer)})
    with pytest.raises(DataError, match="two methods or more"):
        compare_scores({"a": both(rows_of(0.0))})


def test_rows_of_a_tree_are_those_of_its_predictive(report_data: ReportData) -> None:
    tree = report_data.trees[5]
    log_prob, rows = labelled_items(tree, "video")
    labels = tree["observed_data"]["video_label"].to_numpy()
    np.testing.assert_array_equal(rows["label"], labels)
    given = tree["query_log_likelihood"]["video_label"].to_numpy()
    weight = tree["predictive_weights"]["video"].to_numpy()
    np.testing.assert_allclose(-np.log(np.exp(given + weight).sum((0, 1))), rows["nll"], rtol=1e-5)
    assert rows["nll"].mean() == pytest.approx(nll(log_prob, labels))
    queries = tree["observed_data"]["query"].to_numpy()
    assert [f"{t} / {v}" for t, v in zip(rows["task"], rows["video"], strict=True)] == list(queries)
    frames = tree_rows(tree)["frame"]
    assert len(frames) == tree["observed_data"].sizes["query_frame"]
    assert set(frames["object"]) <= {
        f"{u}/{name}"
        for u in frames["user"].unique()
        for name in tree["constant_data"]["class_name"].to_numpy().ravel()
    }


def with_support(tree: xr.DataTree, shift: float) -> xr.DataTree:
    """A tree with leave-one-out rows whose label likelihood varies a little over draws."""
    chains, draws = tree["posterior"].sizes["chain"], tree["posterior"].sizes["draw"]
    noise = np.random.default_rng(0).normal(size=(chains, draws, 30))
    values = -np.log1p(np.exp(-(1.5 + shift + 0.2 * noise)))
    changed = tree.copy()
    rows = xr.DataArray(values, dims=("chain", "draw", "support"))
    changed["support_log_likelihood"] = xr.DataTree(xr.Dataset({"support_label": rows}))
    return changed


@pytest.mark.filterwarnings("ignore:Estimated shape parameter")
def test_elpd_of_query_and_support_videos(report_data: ReportData) -> None:
    tree = report_data.trees[5]
    table = compare_elpd({"low": with_support(tree, 0.0), "high": with_support(tree, 0.5)})
    assert list(table["view"]) == ["query", "query", "support", "support"]
    support = table[table["view"] == "support"]
    assert list(support["method"]) == ["high", "low"]
    wanted = [30 * -np.log1p(np.exp(-2.0)), 30 * -np.log1p(np.exp(-1.5))]
    np.testing.assert_allclose(support["elpd"], wanted, rtol=0.05)
    assert support["elpd_diff"].iloc[0] == 0
    assert support["elpd_diff"].iloc[1] < 0
    query = table[table["view"] == "query"]
    videos = tree_rows(tree)["video"]
    np.testing.assert_allclose(query["elpd"], -videos["nll"].sum(), rtol=1e-4)
    assert (query["videos"] == len(videos)).all()


def test_with_one_support_video_nothing_is_left_out(report_data: ReportData) -> None:
    tree = report_data.trees[1]
    table = compare_elpd({"a": with_support(tree, 0.0), "b": with_support(tree, 0.5)})
    assert set(table["view"]) == {"query"}


def test_reliability_numbers_and_picture(report_data: ReportData, tmp_path) -> None:
    tables = {k: reliability_table({"a$b": t, "b": t}) for k, t in report_data.trees.items()}
    table = tables[5]
    frames = table[(table["item"] == "frame") & (table["method"] == "b")]
    assert frames["count"].sum() == report_data.trees[5]["observed_data"].sizes["query_frame"]
    for name in ("curves.png", "curves.svg"):
        plot_reliability(tables, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 5000


def test_the_sheet_holds_every_score_of_every_group(report_data: ReportData) -> None:
    tree = report_data.trees[5]
    sheet = score_sheet(tree).set_index(["item", "group", "name"])
    for item in ("frame", "video"):
        log_prob, rows = labelled_items(tree, item)
        whole = sheet.loc[(item, "all", "")]
        assert whole["nll"] == pytest.approx(rows["nll"].mean())
        assert whole["accuracy"] == pytest.approx(rows["correct"].mean())
        one_hot = np.eye(log_prob.shape[1])[rows["label"]]
        wanted = log_loss(one_hot, np.exp(log_prob))
        assert whole["nll"] == pytest.approx(wanted, rel=1e-4)
        for group in ("user", "object", "video"):
            part = sheet.loc[(item, group)]
            wanted = rows.groupby(group, sort=True)[["nll", "brier"]].mean()
            np.testing.assert_allclose(part[["nll", "brier"]], wanted)
            assert part["rows"].sum() == len(rows)
        users = sheet.loc[(item, "user")]
        worst = sheet.loc[(item, "worst users")].iloc[0]
        assert worst["nll"] == pytest.approx(users["nll"].max())
        assert worst["accuracy"] == pytest.approx(users["accuracy"].min())
        assert sheet.loc[(item, "worst users")].index[0] == users["nll"].idxmax()
    by_task = []
    log_prob, rows = labelled_items(tree, "frame")
    for places in rows.groupby("task").indices.values():
        p, y = np.exp(log_prob[places]), rows["label"].to_numpy()[places]
        gaps = []
        for k in range(p.shape[1]):
            bins = np.ceil(p[:, k] * 15).clip(1)
            at = [bins == b for b in np.unique(bins)]
            gaps.append(sum(abs(p[m, k].sum() - (y[m] == k).sum()) for m in at) / len(y))
        by_task.append(np.mean(gaps))
    assert sheet.loc[("frame", "all", "")]["classwise_ece"] == pytest.approx(np.mean(by_task))
