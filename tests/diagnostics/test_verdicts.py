"""Grades of a posterior: what is grave, what is off in all tasks together, and what to do next."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from bayesfs.diagnostics.convergence import Diagnostics
from bayesfs.diagnostics.verdicts import (
    TOGETHER_MAX,
    Check,
    baseline_check,
    guessing_check,
    rhat_check,
    share_error_check,
    stouffer_z,
    task_check,
    unlike_check,
)


def of(*checks: Check) -> Diagnostics:
    return Diagnostics("tasks", "mcmc", checks, pd.DataFrame())


def test_answers_worse_than_guessing_are_not_to_be_used():
    """A Student-t model had 3.10 nats a video where guessing among six has 1.79."""
    logp = np.log(np.full((30, 6), 0.2 / 5))
    labels = np.arange(30) % 6
    logp[np.arange(30), (labels + 1) % 6] = np.log(0.8)
    found = guessing_check(logp, labels)
    assert found.value == pytest.approx(np.log(0.04) + np.log(6))
    assert of(found).is_grave
    assert of(found).verdict == "do not use: better than guessing"
    assert "mixed up" in found.next_step
    assert guessing_check(logp, (labels + 1) % 6).passed


def test_labels_dealt_at_random_are_told():
    """Some of them win a little by luck, and are not to be used all the same."""
    rng = np.random.default_rng(0)
    logp, people = np.log(rng.dirichlet(np.full(5, 50.0), 60)), np.repeat(np.arange(6), 10)
    dealt = [guessing_check(logp, rng.integers(0, 5, 60), people) for _ in range(100)]
    assert sum(found.value > 0 for found in dealt) > 10
    assert sum(of(found).is_grave for found in dealt) >= 95
    assert of(guessing_check(logp, logp.argmin(1))).is_grave
    right = np.where(rng.random(60) < 0.7, logp.argmax(1), rng.integers(0, 5, 60))
    assert guessing_check(logp, right, people).passed
    assert guessing_check(logp, right).passed


def test_guessing_counts_the_taught_objects_of_each_video():
    logp = np.log([[0.6, 0.4, 1.0], [0.2, 0.3, 0.5]])
    logp[0, 2] = -np.inf
    found = guessing_check(logp, np.array([0, 2]))
    assert found.value == pytest.approx(np.mean([np.log(0.6 * 2), np.log(0.5 * 3)]))
    assert guessing_check(np.empty((0, 3)), np.empty(0, int)).passed is None


def test_answers_worse_than_the_nearest_class_mean_are_not_to_be_used():
    """Beyond the error over people; within it they are to be looked at."""
    worse, level, better = (baseline_check(gain, 0.1, 30) for gain in (-0.2, -0.05, 0.3))
    assert (worse.passed, worse.grave) == (False, True)
    assert (level.passed, level.grave) == (False, False)
    assert better.passed
    assert of(worse).verdict == "do not use: better than the nearest class mean"
    assert baseline_check(-0.01, float("nan"), 30).grave
    assert baseline_check(-0.2, 0.1, 0).passed is None


def test_a_share_known_too_badly_says_how_many_draws_it_takes():
    found = share_error_check(0.02, 50)
    assert found.passed is False
    assert found.next_step.startswith("some 200 draws")
    assert share_error_check(0.007, 128).passed
    assert share_error_check(float("nan"), 1).passed is None


def test_grave_checks_come_first():
    sites = pd.DataFrame({"rhat": [1.2], "rhat_above": [1.0], "looked_at": [1.0]}, index=["scale"])
    rhat = rhat_check(sites)
    mild = task_check("k-hat", xr.DataArray([0.9]), 0.7, np.array(["a"]))
    assert (rhat.grave, mild.grave) == (True, False)
    assert of(mild, rhat).verdict == "do not use: R-hat, k-hat"
    assert of(mild).verdict == "usable, but look at k-hat"
    assert task_check("k-hat", xr.DataArray([0.1, np.nan]), 0.7, np.array(["a", "b"])).grave
    assert all(check.next_step for check in (rhat, mild))


def checked(p: np.ndarray) -> xr.Dataset:
    quantity = [f"q{i}" for i in range(len(p))]
    return xr.Dataset({"p": (("quantity", "task"), p)}, {"quantity": quantity})


def test_what_is_off_in_every_task_alike_is_found():
    """p of .94 to .995 in six of six tasks passed before."""
    p = np.array([[0.94, 0.96, 0.97, 0.98, 0.99, 0.995], [0.5, 0.2, 0.8, 0.4, 0.6, 0.3]])
    found = unlike_check("labels drawn check", checked(p[:, :]), 0.001)
    assert found.passed is False
    assert found.reason.endswith("off in all tasks together: q0")
    assert unlike_check("labels drawn check", checked(p[1:]), 0.001).passed


def test_chance_is_seldom_called_off():
    """Of uniform p values: two-sided, at most 1 in 2,000 quantities."""
    p = np.random.default_rng(0).random((20_000, 8))
    z = stouffer_z(p)
    assert z.std() == pytest.approx(1.0, abs=0.02)
    assert (np.abs(z) > TOGETHER_MAX).mean() < 2.5 * 2 * stats.norm.sf(TOGETHER_MAX)
    p[0, 3:] = np.nan
    assert stouffer_z(p)[0] == pytest.approx(stats.norm.ppf(p[0, :3]).sum() / 3**0.5, abs=1e-6)
