"""arviz-stats' numbers for the eight schools, through our smoothing, NUTS and DataTree.

Source: arviz-devs/arviz-stats (Apache-2.0), tests/loo/test_loo.py: elpd -30.78, p .94, se 1.34 for
the draws of `centered_eight` that arviz-base has with it. Its functions on trees of
ours are called one by one in tests/evaluation/test_arviz.py.
"""

import arviz_stats
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from arviz_base import load_arviz_data
from scipy.special import logsumexp

import bayesfs as bf
from bayesfs.diagnostics.loo import smoothed_weights
from bayesfs.results.convert import to_datatree

SD = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


@pytest.fixture(scope="module")
def eight() -> xr.DataTree:
    return load_arviz_data("centered_eight")


def test_smoothed_weights_give_its_loo(eight: xr.DataTree) -> None:
    log_lik = eight["log_likelihood"]["obs"].transpose("chain", "draw", "school")
    each_ess = arviz_stats.ess(eight["posterior"].to_dataset(), method="mean")
    efficiency = float(np.mean([v.mean() for v in each_ess.data_vars.values()])) / 2000
    weight, k = smoothed_weights(-log_lik, efficiency)
    each = logsumexp((weight + log_lik).to_numpy(), axis=(0, 1))
    in_sample = logsumexp(log_lik.to_numpy(), axis=(0, 1)) - np.log(2000)
    assert each.sum() == pytest.approx(-30.78, abs=0.05)
    assert (in_sample - each).sum() == pytest.approx(0.94, abs=0.05)
    assert np.sqrt(8 * each.var()) == pytest.approx(1.34, abs=0.05)
    theirs = arviz_stats.loo(eight, reff=efficiency, pointwise=True)
    np.testing.assert_allclose(k, theirs.pareto_k, atol=1e-6)
    np.testing.assert_allclose(each, theirs.elpd_i, atol=1e-6)


@pytest.fixture(scope="module")
def ours(eight: xr.DataTree) -> xr.DataTree:
    """The same posterior by our NUTS, non-centred."""

    def schools(y: torch.Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("school", 8):
            raw = pyro.sample("raw", dist.Normal(0.0, 1.0))
            theta = pyro.deterministic("theta", mu + tau * raw)
            pyro.sample("obs", dist.Normal(theta, SD), obs=y)

    y = torch.tensor(eight["observed_data"]["obs"].to_numpy(), dtype=torch.float32)
    return to_datatree(bf.infer(schools, bf.NUTS(warmup=500, draws=1000), data={"y": y}))


def test_posterior_is_that_of_its_non_centred_draws(ours: xr.DataTree) -> None:
    theirs = load_arviz_data("non_centered_eight")["posterior"].to_dataset()
    mine = ours["posterior"].to_dataset()
    for site in ("mu", "tau", "theta"):
        a, b = mine[site].mean(("chain", "draw")), theirs[site].mean(("chain", "draw"))
        error = arviz_stats.mcse(mine[[site]])[site].to_numpy() ** 2
        error = np.sqrt(error + arviz_stats.mcse(theirs[[site]])[site].to_numpy() ** 2)
        assert (np.abs(a.to_numpy() - b.to_numpy()) < 4 * error).all(), site
        ratio = mine[site].std(("chain", "draw")).to_numpy() / theirs[site].std().item()
        if site != "theta":
            assert float(ratio) == pytest.approx(1.0, abs=0.15), site


def test_its_summary_and_diagnostics_take_our_tree(ours: xr.DataTree) -> None:
    table = arviz_stats.summary(ours, var_names=["mu", "tau"], round_to="none")
    assert (table["r_hat"].astype(float) < 1.02).all()
    assert (table["ess_bulk"].astype(float) > 400).all()
    assert (arviz_stats.bfmi(ours)["energy"].to_numpy() > 0.3).all()
