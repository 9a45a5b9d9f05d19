"""A grid's table: means, paired differences and their errors, against sums done by hand."""

import numpy as np
import pandas as pd
import pytest

from bayesfs.evaluation.grid import GridRun, grid_table

USERS = [f"u{i}" for i in range(8)]


def rows(values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"user": USERS, "correct": values > 0, "nll": values, "brier": values})


def grid(effect: float, noise: float, seeds: tuple[int, int] = (3, 4)) -> list[GridRun]:
    rng = np.random.default_rng(0)
    person = rng.normal(size=len(USERS))
    hard = rng.normal(size=seeds[0])
    runs = []
    for setting, shift in (("a", 0.0), ("b", effect)):
        for e in range(seeds[0]):
            for f in range(seeds[1]):
                x = person + hard[e] + shift + noise * rng.normal(size=len(USERS))
                runs.append(GridRun(setting, e, f, {"frame": rows(x), "video": rows(2 * x)}))
    return runs


def line(table: pd.DataFrame, setting: str, item: str = "video", score: str = "nll") -> pd.Series:
    at = (table["setting"] == setting) & (table["item"] == item) & (table["score"] == score)
    return table[at].squeeze()


def test_means_and_errors_are_those_over_seeds() -> None:
    runs = grid(0.3, 0.1)
    found = line(grid_table(runs), "b")
    cube = np.array([r.rows["video"]["nll"].mean() for r in runs]).reshape(2, 3, 4)
    assert found["value"] == pytest.approx(cube[1].mean())
    assert found["fit_error"] == pytest.approx(cube[1].mean(0).std(ddof=1) / 2)
    assert found["episode_error"] == pytest.approx(cube[1].mean(1).std(ddof=1) / 3**0.5)
    gap = cube[1] - cube[0]
    assert found["difference"] == pytest.approx(gap.mean())
    assert found["difference_fit_error"] == pytest.approx(gap.mean(0).std(ddof=1) / 2)
    assert found["runs"] == 12


def test_what_makes_an_episode_or_a_person_hard_cancels_in_pairs() -> None:
    found = line(grid_table(grid(0.3, 0.0)), "b")
    assert found["episode_error"] > 0.1
    assert found["difference"] == pytest.approx(0.6)
    assert found["difference_episode_error"] < 1e-12
    assert found["low"] == pytest.approx(0.6)
    assert found["users"] == len(USERS)


def test_one_seed_has_no_error_and_the_reference_no_difference() -> None:
    table = grid_table(grid(0.3, 0.1, (1, 1)))
    assert np.isnan(line(table, "b")["fit_error"])
    assert np.isnan(line(table, "a")["difference"])


def test_differences_are_over_the_seeds_that_both_settings_have() -> None:
    runs = [r for r in grid(0.3, 0.1) if not (r.setting == "b" and r.fit_seed > 1)]
    found = line(grid_table(runs), "b")
    kept = [r for r in runs if r.fit_seed < 2]
    cube = np.array([r.rows["video"]["nll"].mean() for r in kept]).reshape(2, 3, 2)
    assert found["difference"] == pytest.approx((cube[1] - cube[0]).mean())
