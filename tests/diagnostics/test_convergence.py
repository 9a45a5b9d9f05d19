"""Diagnostics against ArviZ, and against chains and optimisers that are known to be bad."""

import math

import arviz_stats
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.special import ndtri
from scipy.stats import rankdata

from bayesfs.diagnostics.convergence import MAX_SCALARS, diagnose, site_table, spread
from bayesfs.diagnostics.verdicts import elbo_check, rhat_check
from bayesfs.errors import DataError
from bayesfs.report.draws import Scalar, summary_table


def make_tree(posterior: xr.Dataset, kind: str, **stats: tuple) -> xr.DataTree:
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    weight = np.full((chains, draws, 4), -np.log(chains * draws))
    tree = xr.DataTree.from_dict(
        {
            "posterior": posterior,
            "sample_stats": xr.Dataset(stats),
            "constant_data": xr.Dataset(coords={"task": ["P001", "P002"]}),
            "predictive_weights": xr.Dataset({"video": (("chain", "draw", "query"), weight)}),
        }
    )
    tree.attrs["kind"] = kind
    return tree


def independent_chains(shift: float = 0.0) -> xr.Dataset:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 500, 2, 3))
    values[0] += shift
    values[:, :, 1, 2] = np.nan
    names = ("chain", "draw", "task", "way")
    return xr.Dataset({"mean": (names, values), "scale": (names[:2], rng.normal(size=(4, 500)))})


def check_of(tree: xr.DataTree, name: str):
    return next(c for c in diagnose(tree).checks if c.name == name)


def test_good_chains_are_fit_for_use() -> None:
    rng = np.random.default_rng(1)
    tree = make_tree(
        independent_chains(),
        "mcmc",
        diverging=(("chain", "draw", "task"), np.zeros((4, 500, 2))),
        energy=(("chain", "draw", "task"), rng.normal(size=(4, 500, 2))),
    )
    found = diagnose(tree)
    assert found.verdict == "fit for use"
    assert {c.name for c in found.checks if c.passed is None} == {
        "ELBO trend",
        "k-hat",
        "KSD left",
        "weights of the draws",
    }
    assert all(c.reason for c in found.checks if np.isnan(c.value))


def test_site_table_is_arviz_worst_over_scalars() -> None:
    posterior = independent_chains(0.3)
    table = site_table(posterior, "mcmc")
    rhat = arviz_stats.rhat(posterior)["mean"]
    bulk = arviz_stats.ess(posterior, method="bulk")["mean"]
    tail = arviz_stats.ess(posterior, method="tail", prob=(0.05, 0.95))["mean"]
    mcse = arviz_stats.mcse(posterior)["mean"] / posterior["mean"].std(("chain", "draw"))
    row = table.loc["mean"]
    assert row["scalars"] == 5
    assert row["rhat"] == pytest.approx(float(rhat.max()))
    assert row["ess_bulk"] == pytest.approx(float(bulk.min()))
    assert row["ess_tail"] == pytest.approx(float(tail.min()))
    assert row["mcse_over_sd"] == pytest.approx(float(mcse.max()))


def nested(x: np.ndarray, of: np.ndarray) -> float:
    """Nested R-hat of (chain, draw) by the sums of Margossian et al. (2024), equations 4 to 8."""
    means, within = [], []
    for k in sorted(set(of.tolist())):
        chains = [x[c] for c in range(len(x)) if of[c] == k]
        centres = [sum(c) / len(c) for c in chains]
        middle = sum(centres) / len(centres)
        between = sum((c - middle) ** 2 for c in centres) / (len(chains) - 1)
        inside = [
            sum((v - m) ** 2 for v in c) / (len(c) - 1)
            for c, m in zip(chains, centres, strict=True)
        ]
        means.append(middle)
        within.append(between + sum(inside) / len(chains))
    whole = sum(means) / len(means)
    above = sum((m - whole) ** 2 for m in means) / (len(means) - 1)
    return math.sqrt(1 + above / (sum(within) / len(within)))


def scores(x: np.ndarray) -> np.ndarray:
    """Normal scores of all values together (Vehtari et al. 2021, equation 14)."""
    return ndtri((rankdata(x).reshape(x.shape) - 3 / 8) / (x.size + 1 / 4))


def short_chains(shift: float) -> tuple[xr.Dataset, np.ndarray]:
    """64 chains of 20 draws in four superchains, the first of them elsewhere."""
    rng, of = np.random.default_rng(0), np.tile(np.arange(4), 16)
    x = rng.normal(size=(64, 20)) + shift * (of == 0)[:, None]
    return xr.Dataset({"x": (("chain", "draw"), x)}), of


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_many_short_chains_are_judged_by_nested_rhat_of_its_definition(shift: float) -> None:
    posterior, of = short_chains(shift)
    x = posterior["x"].to_numpy()
    halves, twice = np.concatenate([x[:, :10], x[:, 10:]]), np.concatenate([of, of])
    folded = np.abs(halves - np.median(halves))
    expected = max(nested(scores(part), twice) for part in (halves, folded))
    draws = np.repeat(of[:, None], 20, 1)
    tree = make_tree(posterior, "mcmc", superchain=(("chain", "draw"), draws))
    check = check_of(tree, "nested R-hat")
    assert check.value == pytest.approx(expected, rel=1e-10)
    assert check.passed == (shift == 0)
    assert "R-hat" not in {c.name for c in diagnose(tree).checks}


def test_tail_ess_is_at_the_quantiles_of_the_paper() -> None:
    """Who is below the 11 % quantile is independent, and below the 5 % quantile goes by periods."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(4, 2000))
    deep = (np.arange(2000) // 250) % 2 * np.ones((4, 1))
    x = np.where(x < 0.11, x / 2 + 0.055 * (1 - deep), x)
    posterior = xr.Dataset({"x": (("chain", "draw"), x)})
    low, high = (
        float(arviz_stats.ess(posterior, method="quantile", prob=q)["x"]) for q in (0.05, 0.95)
    )
    found = site_table(posterior, "mcmc").loc["x", "ess_tail"]
    assert found == pytest.approx(min(low, high))
    assert found < 0.5 * float(arviz_stats.ess(posterior, method="tail")["x"])
    scalar = Scalar("x", x)
    assert summary_table((scalar,), "mcmc").loc["x", "ess_tail"] == pytest.approx(found)


def test_a_chain_elsewhere_is_looked_at() -> None:
    found = diagnose(make_tree(independent_chains(3.0), "mcmc"))
    assert found.verdict.startswith("do not use: R-hat, bulk ESS")
    assert found.failed[0].value > 1.4
    assert "mean" in found.failed[0].reason


def test_one_chain_has_no_rhat_and_says_why() -> None:
    check = check_of(make_tree(independent_chains().isel(chain=[0]), "mcmc"), "R-hat")
    assert np.isnan(check.value)
    assert "two chains" in check.reason


def test_many_scalars_may_pass_the_line_by_chance() -> None:
    table = pd.DataFrame(
        {"rhat": [1.02, 1.005], "rhat_above": [3, 0], "looked_at": [1000, 1000]}, index=["a", "b"]
    )
    assert rhat_check(table).passed
    assert not rhat_check(table.assign(rhat_above=[300, 0])).passed
    assert not rhat_check(table.assign(rhat=[1.06, 1.0])).passed


def test_divergences_and_energy() -> None:
    rng = np.random.default_rng(0)
    energy = np.cumsum(rng.normal(size=(4, 500)), axis=1)
    diverging = np.zeros((4, 500, 2))
    diverging[2, 10:13, 1] = 1
    tree = make_tree(
        independent_chains(),
        "mcmc",
        diverging=(("chain", "draw", "task"), diverging),
        energy=(("chain", "draw"), energy),
    )
    bfmi = check_of(tree, "BFMI")
    wanted = float(np.min(np.square(np.diff(energy, axis=1)).mean(1) / energy.var(1)))
    assert bfmi.value == pytest.approx(wanted)
    assert bfmi.passed is False
    arviz = arviz_stats.bfmi(tree.to_dict()["/sample_stats"][["energy"]])["energy"]
    assert bfmi.value == pytest.approx(float(arviz.min()), rel=0.01)
    divergences = check_of(tree, "divergences")
    assert divergences.value == 3
    assert "1 of 2 tasks" in divergences.reason


@pytest.mark.parametrize(("slope", "passed"), [(0.0, True), (0.5, False)])
def test_elbo_that_still_rises_is_looked_at(slope: float, passed: bool) -> None:
    step = np.arange(1000)
    noise = np.random.default_rng(0).normal(size=1000)
    elbo = -1000 * np.exp(-step / 50) + slope * step + noise
    tree = make_tree(independent_chains(), "variational", elbo=("elbo_step", elbo))
    check = check_of(tree, "ELBO trend")
    assert check.passed is passed
    assert check.value == pytest.approx(slope * 100 / 2, abs=0.3)


def test_short_or_broken_histories_are_not_judged() -> None:
    for values in (np.zeros(20), np.full(200, np.nan)):
        check = elbo_check(xr.Dataset({"elbo": ("elbo_step", values)}), 1, 1)
        assert np.isnan(check.value)
        assert check.passed is None


def test_khat_names_the_task() -> None:
    tree = make_tree(independent_chains(), "variational", khat=("task", [0.2, 0.9]))
    found = diagnose(tree)
    assert found.verdict == "usable, but look at k-hat"
    assert found.failed[0].value == 0.9
    assert "P002" in found.failed[0].reason
    assert np.isnan(check_of(tree, "R-hat").value)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_khat_that_is_no_number_fails(bad: float) -> None:
    for values in ([0.2, bad], [np.inf, bad]):
        found = diagnose(make_tree(independent_chains(), "variational", khat=("task", values)))
        assert found.verdict == "do not use: k-hat"
        assert "P002" in found.failed[0].reason


def test_exact_draws_need_no_check() -> None:
    found = diagnose(make_tree(independent_chains(), "exact"))
    assert found.verdict == "fit for use: exact draws, given the population"
    assert all(c.passed is None for c in found.checks)


def test_ksd_must_have_fallen() -> None:
    history = np.geomspace(1, 0.01, 30)
    tree = make_tree(independent_chains(), "particles", ksd=("ksd_step", history))
    assert diagnose(tree).verdict == "fit for use"
    flat = make_tree(independent_chains(), "particles", ksd=("ksd_step", history**0.1))
    assert diagnose(flat).verdict == "usable, but look at KSD left"
    last_only = make_tree(independent_chains(), "particles", ksd=("task", [0.1, 0.2]))
    assert diagnose(last_only).verdict.startswith("not judged")


def test_particles_are_held_against_independent_draws() -> None:
    """Where the engine tells the ratio, the discrepancy's own fall no longer decides."""
    history = np.ones(20)
    stats = {"ksd": ("ksd_step", history), "ksd_ratio": ("task", [0.8, 1.1])}
    found = diagnose(make_tree(independent_chains(), "particles", **stats))
    assert found.verdict == "fit for use"
    assert not any(c.name == "KSD left" for c in found.checks)
    stats["ksd_ratio"] = ("task", [0.8, 5.0])
    found = diagnose(make_tree(independent_chains(), "particles", **stats))
    assert found.verdict == "usable, but look at KSD ratio"
    assert "P002" in found.failed[0].reason


def test_weights_that_a_few_draws_carry_are_looked_at() -> None:
    tree = make_tree(independent_chains(), "exact")
    weight = np.random.default_rng(0).standard_cauchy((4, 500, 4))
    tree["predictive_weights"] = xr.Dataset({"video": (("chain", "draw", "query"), weight)})
    assert diagnose(tree).verdict == "usable, but look at weights of the draws"


def test_large_sites_are_sampled_evenly() -> None:
    values = np.arange(5000.0)
    chosen = spread(values, MAX_SCALARS)
    assert len(chosen) == MAX_SCALARS
    assert (chosen[0], chosen[-1]) == (0, 4999)
    assert spread(values[:3], MAX_SCALARS).tolist() == [0, 1, 2]


def test_unknown_kinds_and_groups_are_refused() -> None:
    tree = make_tree(independent_chains(), "guess")
    with pytest.raises(DataError, match="guess"):
        diagnose(tree)
    with pytest.raises(DataError, match="population"):
        diagnose(tree, group="population")


def test_an_elbo_too_noisy_to_be_seen_to_stop_does_not_pass() -> None:
    """A gain of 13,300 nats within its noise; with as many latents as it takes, noise is small."""
    rng = np.random.default_rng(0)
    wild = 1e5 * rng.normal(size=1000)
    wild[-100:] += 13_300
    check = elbo_check(xr.Dataset({"elbo": ("elbo_step", wild)}), 1, 200)
    assert check.passed is False
    calm = 10.0 * rng.normal(size=1000)
    assert elbo_check(xr.Dataset({"elbo": ("elbo_step", calm)}), 1, 200).passed is True
    assert elbo_check(xr.Dataset({"elbo": ("elbo_step", calm)}), 1, 2).passed is False
