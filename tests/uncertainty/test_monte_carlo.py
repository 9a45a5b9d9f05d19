"""Errors from the draws of one predictive against the spread over many predictives."""

import math

import numpy as np
import torch

from bayesfs._distributions.categorical import entropy
from bayesfs.testing.toy import GaussianToy
from bayesfs.types import LabelDraws, Posterior
from bayesfs.uncertainty.monte_carlo import blocks_of, monte_carlo


def predictive(rng: np.random.Generator, *, values: int, each: int, weighted: bool) -> LabelDraws:
    """Twelve queries whose logits share the value of a block; draws within it scatter less."""
    centre = np.linspace(-1, 1, 12)[:, None] * np.array([2.0, 0.0, -2.0])
    block = rng.normal(size=(values, 1, 1, 3)).repeat(each, 1)
    logits = torch.from_numpy(centre + block + 0.3 * rng.normal(size=(values, each, 12, 3)))
    given = logits.reshape(values * each, 12, 3).log_softmax(-1)
    weight = torch.zeros(given.shape[:-1], dtype=torch.float64)
    if weighted:
        weight = 0.7 * logits.reshape(given.shape)[..., 0].clamp(-2, 2)
    weight = weight.log_softmax(0)
    return LabelDraws((given + weight[..., None]).logsumexp(0), given, weight)


def test_errors_are_the_spread_over_repetitions() -> None:
    mask = torch.ones(12, dtype=torch.bool)
    for weighted in (False, True):
        rng = np.random.default_rng(int(weighted))
        found = [
            monte_carlo(predictive(rng, values=60, each=3, weighted=weighted), mask, 60)
            for _ in range(300)
        ]
        for value, error in (("total", "total_error"), ("share", "share_error")):
            spread = np.std([getattr(f, value) for f in found], ddof=1)
            told = np.mean([getattr(f, error) for f in found])
            assert abs(told / spread - 1) < 0.15, (weighted, value, told, spread)


def test_values_are_those_of_the_draws_and_blocks_matter() -> None:
    labels = predictive(np.random.default_rng(0), values=20, each=8, weighted=False)
    mask = torch.arange(12) < 7
    found = monte_carlo(labels, mask, 20)
    total = entropy(labels.log_prob)[mask].mean()
    aleatoric = entropy(labels.log_prob_given).mean(0)[mask].mean()
    assert math.isclose(found.total, total, rel_tol=1e-9)
    assert math.isclose(found.share, 1 - aleatoric / total, rel_tol=1e-9)
    taken_as_independent = monte_carlo(labels, mask, 160)
    assert taken_as_independent.share_error < 0.6 * found.share_error
    assert math.isnan(monte_carlo(labels, mask, 1).share_error)


def test_blocks_are_values_of_the_population_or_stretches_of_a_chain() -> None:
    toy = GaussianToy()
    population = toy.fixed_population(4)
    values = {s: v[:1].repeat_interleave(30, 0) for s, v in population.draws.items()}
    sizes = {"class_raw": (1, 2, 4), "video_raw": (1, 2, 3, 4)}
    draws = {**values, **{site: torch.zeros(30, *size) for site, size in sizes.items()}}
    dims = {s: toy.dims[s] for s in draws}
    assert blocks_of(toy, Posterior("exact", draws, dims)) == 30
    assert blocks_of(toy, Posterior("mcmc", draws, dims, chains=2)) == 6
    site = next(iter(values))
    moved = torch.arange(30) // 10
    draws[site] = draws[site] + moved.reshape(-1, *[1] * (draws[site].ndim - 1))
    assert blocks_of(toy, Posterior("mcmc", draws, dims, chains=2)) == 3
    draws[site] = draws[site] + torch.arange(30).reshape(-1, *[1] * (draws[site].ndim - 1))
    assert blocks_of(toy, Posterior("mcmc", draws, dims, chains=2)) == 6
