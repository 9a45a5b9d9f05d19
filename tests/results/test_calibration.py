"""What ArviZ's pictures of calibration are given: PIT of sets, one class against the rest."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import kstest

from bayesfs.errors import DataError
from bayesfs.report.view import ReportData
from bayesfs.results.calibration import calibration_tree
from bayesfs.results.rows import labelled_items


def with_labels(tree: xr.DataTree, labels: np.ndarray) -> xr.DataTree:
    changed = tree.copy(deep=True)
    changed["observed_data"]["label"][:] = labels
    return changed


def test_stated_probabilities_are_kept(report_data: ReportData) -> None:
    tree = report_data.trees[5]
    log_prob, rows = labelled_items(tree, "video")
    made = calibration_tree(tree)
    pairs = np.isfinite(log_prob)
    stated = made["posterior_predictive"]["is_class"].mean(("chain", "draw")).to_numpy()
    np.testing.assert_allclose(stated, np.exp(log_prob)[pairs], atol=1.5 / 400)
    happened = made["observed_data"]["is_class"].to_numpy()
    assert happened.sum() == len(rows)
    assert (made["posterior_predictive"]["is_class"].sum("pair") == len(rows)).all()


def test_draws_of_different_videos_are_independent(report_data: ReportData) -> None:
    drawn = calibration_tree(report_data.trees[5])["posterior_predictive"]["is_class"].to_numpy()[0]
    moving = drawn[:, (drawn.std(0) > 0.3)].astype(float)
    r = np.corrcoef(moving.T)
    assert np.abs(np.median(r[np.triu_indices(len(r), 1)])) < 0.05


def test_pit_is_uniform_for_labels_of_the_forecast_itself(report_data: ReportData) -> None:
    tree, rng = report_data.trees[5], np.random.default_rng(0)
    prob = tree["uncertainty"]["video_prob"].to_numpy()
    label = tree["observed_data"]["label"].to_numpy()
    found = []
    for seed in range(20):
        known = np.nan_to_num(prob) / np.nansum(prob, -1, keepdims=True)
        drawn = (known.cumsum(-1) <= rng.random(label.shape)[..., None]).sum(-1).astype(float)
        made = calibration_tree(
            with_labels(tree, np.where(np.isnan(label), np.nan, drawn)), seed=seed
        )
        found += made["pit"]["class_set"].to_numpy().tolist()
    assert kstest(found, "uniform").pvalue > 0.01


def test_without_labels_there_is_nothing(report_data: ReportData) -> None:
    tree = report_data.trees[5]
    nothing = np.full(tree["observed_data"]["label"].shape, np.nan)
    with pytest.raises(DataError, match="labelled"):
        calibration_tree(with_labels(tree, nothing))
