"""Power scaling against conjugate posteriors whose powers are known, and the densities it needs."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from bayesfs.diagnostics.densities import with_densities
from bayesfs.diagnostics.prior_sensitivity import diagnosis, power_scaling, prior_sensitivity
from bayesfs.diagnostics.verdicts import prior_check_of
from bayesfs.errors import DataError
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing.toy import GaussianToy
from bayesfs.types import Posterior


def normal_posterior(mean: float, variance: float, draws: int = 1000) -> tuple[np.ndarray, ...]:
    """Draws of theta | y with theta ~ N(0, 1), y ~ N(theta, variance), and the two densities."""
    precision = 1 + 1 / variance
    theta = np.random.default_rng(0).normal(
        mean / variance / precision, precision**-0.5, (4, draws // 4)
    )
    return theta[..., None], -(theta**2) / 2, -((theta - mean) ** 2) / 2 / variance


@pytest.mark.parametrize(
    ("mean", "variance", "said"),
    [
        (0.0, 1e-3, "✓"),
        (0.0, 20.0, "strong prior, weak data"),
        (6.0, 1.0, "prior and data disagree"),
    ],
)
def test_a_conjugate_posterior_is_read_right(mean: float, variance: float, said: str) -> None:
    prior, chance, likelihood, other, found = power_scaling(*normal_posterior(mean, variance))[0]
    assert found == said
    assert (prior > max(chance, 0.05)) == (said != "✓")
    assert (likelihood > max(other, 0.05)) == (said != "strong prior, weak data")


def test_a_density_that_has_nothing_to_do_with_a_scalar_is_noise() -> None:
    rng = np.random.default_rng(1)
    values, other = rng.normal(size=(1, 200, 8)), 16 * rng.normal(size=(1, 200))
    rows = power_scaling(values, other, other)
    assert sum(prior > chance for prior, chance, *_ in rows) <= 2
    assert max(prior for prior, *_ in rows) > 0.05, "without chance beside it, it would be told"
    assert diagnosis(False, 0.06, True, 0.2) == "too few draws to say"
    assert diagnosis(False, 0.04, True, 0.2) == "✓"


def test_densities_of_a_posterior_go_through_the_tree(tmp_path) -> None:
    episodes, _ = synthetic_episodes(users=2, way=2, shots=2, frames=2, query_videos=1, dim=2)
    model, generator = GaussianToy(), torch.Generator().manual_seed(0)
    exact = model.exact(episodes, joint=True)
    draws = {
        site: mean + sd * torch.randn(100, *mean.shape, generator=generator, dtype=mean.dtype)
        for site, (mean, sd) in exact.items()
    }
    draws["mean"] = draws["mean"].reshape(100, -1)
    whole = with_densities(model, Posterior("exact", draws, dict(model.dims)), episodes)
    normal = torch.distributions.Normal(0.0, 1.0)
    expected = normal.log_prob(draws["mean"]).sum(-1)
    torch.testing.assert_close(
        whole.sample_stats["log_prior_mean"].double(), expected, rtol=1e-5, atol=1e-5
    )
    assert whole.sample_stats["log_likelihood"].shape == (100,)
    assert "log_prior_class_raw" not in whole.sample_stats, "a task's site"
    names = ("chain", "draw")
    stats = {n: (names, v.numpy()[None]) for n, v in whole.sample_stats.items()}
    tree = xr.DataTree.from_dict(
        {
            "population": xr.Dataset({"mean": ((*names, "feature"), draws["mean"].numpy()[None])}),
            "population_sample_stats": xr.Dataset(stats),
        }
    )
    table = prior_sensitivity(tree)
    assert list(table.index) == ["mean[0]", "mean[1]"]
    assert (table[["prior", "prior_chance", "likelihood", "likelihood_chance"]] >= 0).all(axis=None)
    bare = tree.assign({"population_sample_stats": xr.DataTree(xr.Dataset())})
    assert prior_sensitivity(bare).empty
    short = xr.DataTree.from_dict({n: tree[n].to_dataset().isel(draw=slice(50)) for n in tree})
    assert prior_sensitivity(short).empty, "too few draws"
    with pytest.raises(DataError, match="missing"):
        with_densities(model, Posterior("exact", {}, {}), episodes)


def test_chains_of_one_draw_are_read_too() -> None:
    """As an engine with many short chains gives them."""
    values, prior, likelihood = normal_posterior(0.0, 20.0)
    many = (values.reshape(-1, 1, 1), prior.reshape(-1, 1), likelihood.reshape(-1, 1))
    assert power_scaling(*many) == power_scaling(values, prior, likelihood)


def test_the_verdict_counts_what_the_prior_decides() -> None:
    said = ["✓", "strong prior, weak data", "too few draws to say"]
    table = pd.DataFrame({"diagnosis": said}, index=["a", "b", "c"])
    check = prior_check_of(table)
    assert check.passed is False
    assert check.value == 1
    assert check.reason == "b"
    assert prior_check_of(table.iloc[:1]).passed
    assert prior_check_of(table.iloc[:0]).passed is None
