"""Uncertainty by level against importance sampling, another estimator, and what must hold."""

from __future__ import annotations

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from torch.distributions import Categorical

from bayesfs._distributions.noise import Noise
from bayesfs.errors import InferenceError
from bayesfs.inference.exact import Exact
from bayesfs.models.gaussian.conjugate import condition_classes
from bayesfs.models.gaussian.families import PowerLaw
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.gaussian.levels import level_entropies
from bayesfs.prediction import predict
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.synthetic.truth import Population
from bayesfs.types import Posterior
from bayesfs.uncertainty.by_level import by_level
from bayesfs.uncertainty.decompose import decompose
from bayesfs.uncertainty.parts import EPISTEMIC, LEVEL_PARTS, agreeing

MODELS = [GaussianHierarchy(PowerLaw()), GaussianHierarchy(PowerLaw(), covariates=("blur",))]


def tasks(model, **options):
    population = Population.isotropic(3, quality_slope=(0.4,) * len(model.covariates))
    settings = {"users": 2, "way": 3, "shots": 2, "frames": 2, "query_videos": 1, "seed": 0}
    batch, _ = synthetic_episodes(population, **(settings | options))
    return batch.to(torch.float64)


def population_of(model, dim=3, draws=3):
    values = []
    for seed in range(draws):
        with torch.random.fork_rng(), poutine.block():
            pyro.set_rng_seed(seed)
            values.append(model.sample_population(torch.zeros(dim, dtype=torch.float64)))
    stacked = {site: torch.stack([v[site] for v in values]) for site in values[0]}
    stacked["scale"] = stacked["scale"] * 0.0 + torch.tensor([0.5, 1.0, 0.7, 0.8, 0.6, 0.7])
    stacked["scale"] = stacked["scale"] * torch.linspace(0.8, 1.3, draws)[:, None].double()
    return Posterior("exact", stacked, dict(model.population_dims))


@pytest.mark.parametrize("model", MODELS, ids=["plain", "quality"])
def test_stages_equal_importance_sampling(model) -> None:
    """Draws given the support, weighted by how well they explain the query, no Matheron."""
    batch, population = tasks(model), population_of(model, draws=1)
    levels = model.levels({s: v[0] for s, v in population.draws.items()}, 3)
    each = level_entropies(batch, [levels], draws=4000, seed=0)[0][:, 0]
    entropy, error = each.mean(1), each.std(1) / 4000**0.5
    post, noise = condition_classes(batch, levels), Noise.of(batch, 5)
    size = 20_000
    a, mu = post.sample(size, noise)
    q, r = 1, levels.loading[1]
    weight = torch.ones(batch.query_mask.shape, dtype=torch.float64)
    if model.covariates:
        weight = torch.exp(-2.0 * batch.query_quality @ levels.slope[1])
    b = levels.video[q].colour(noise.normal(size, "task", (3,), a)[:, 0])
    for t, v, f in ((0, 0, 0), (1, 2, 1)):
        x = batch.query[t, v, f] - levels.offset[q]
        frame = levels.frame[q].d / weight[t, v, f]
        total = levels.video[q].d + frame
        given_a = r * (post.gain.d[t] * a[:, t, None] + post.pull[t])
        variances = (r**2 * post.given_task.d[t] + total, total, frame)
        centres = (given_a, r * mu[:, t], r * mu[:, t] + b[:, None])
        for stage, (centre, variance) in enumerate(zip(centres, variances, strict=True), start=2):
            log = torch.distributions.Normal(centre, variance.sqrt()).log_prob(x).sum(-1)
            w = log.logsumexp(-1).softmax(0)
            h = Categorical(logits=log).entropy()
            want = float((w * h).sum())
            spread = float((w.square() * (h - want).square()).sum().sqrt())
            got, se = float(entropy[stage, t, v, f]), float(error[stage, t, v, f])
            assert abs(got - want) < 4.5 * (spread**2 + se**2) ** 0.5 + 1e-3


@pytest.mark.parametrize("model", MODELS, ids=["plain", "quality"])
def test_parts_add_up_and_agree_with_the_other_estimate(model) -> None:
    batch, population = tasks(model, ragged=True, users=4, way=4), population_of(model)
    parts = by_level(model, population, batch, draws=300, population_draws=3, seed=0)
    posterior = Exact(draws=900, population_draws=3).infer(model, batch, seed=1, given=population)
    other = decompose(predict(model, posterior, batch), batch)
    for unit, mask in (("frame", batch.query_mask), ("video", batch.video_mask)):
        whole = sum(parts[f"{unit}_{p}"].values for p in LEVEL_PARTS)
        np.testing.assert_allclose(whole[mask], other[f"{unit}_total"].values[mask], atol=1e-5)
        assert np.isnan(whole[~mask.numpy()]).all()
        epistemic = sum(parts[f"{unit}_{p}"].values for p in EPISTEMIC)[mask]
        gap = epistemic - other[f"{unit}_epistemic"].values[mask]
        se = parts[f"{unit}_class_se"].values[mask]
        assert np.abs(gap / (2.0**0.5 * se)).max() < 5
        for part in LEVEL_PARTS:
            low = parts[f"{unit}_{part}"].values + 5 * parts[f"{unit}_{part}_se"].values
            assert (low[mask] > -1e-6).all()


@pytest.mark.parametrize("model", MODELS[:1])
def test_parts_move_to_the_kinds_by_their_errors(model) -> None:
    """Least squares with the sums as constraints, by NumPy; and the means' errors are small."""
    batch, population = tasks(model, ragged=True), population_of(model)
    parts = by_level(model, population, batch, draws=20, population_draws=3, seed=0)
    posterior = Exact(draws=60, population_draws=3).infer(model, batch, seed=1, given=population)
    kinds = decompose(predict(model, posterior, batch), batch)
    moved = agreeing(parts, kinds)
    for unit, mask in (("frame", batch.query_mask), ("video", batch.video_mask)):
        at = tuple(mask.nonzero()[0].tolist())
        for kind, names in (("epistemic", EPISTEMIC), ("aleatoric", LEVEL_PARTS[3:])):
            whole = sum(moved[f"{unit}_{part}"] for part in names)
            np.testing.assert_allclose(whole, kinds[f"{unit}_{kind}"], atol=1e-9)
            start = np.array([float(parts[f"{unit}_{part}"][at]) for part in names])
            error = np.array([float(parts[f"{unit}_{part}_se"][at]) for part in names])
            system = np.block(
                [[np.diag(error**-2), np.ones((len(names), 1))], [np.ones(len(names)), 0]]
            )
            right = np.append(start / error**2, float(kinds[f"{unit}_{kind}"][at]))
            wanted = np.linalg.solve(system, right)[:-1]
            got = [float(moved[f"{unit}_{part}"][at]) for part in names]
            np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert 0 < float(parts["video_class_mean_se"]) < np.nanmax(parts["video_class_se"])


class Noisy(GaussianHierarchy):
    """Levels whose entropies a generator draws, a value of the population at a time."""

    def level_entropies(self, episodes, population, *, draws, seed):
        rng = np.random.default_rng(seed)
        values = len(population["scale"])
        scale = rng.gamma(4.0, size=(values, 1, 1, 1))
        parts = scale * rng.gamma(5.0, size=(5, values, draws, *episodes.video_mask.shape))
        stages = torch.from_numpy(parts).flip(0).cumsum(0).flip(0)
        frames = stages[..., None].expand(*stages.shape, episodes.query_mask.shape[2])
        return frames, stages


def test_errors_of_means_and_shares_are_the_spread_over_seeds() -> None:
    """The total varies with the population's value, the shares hardly do."""
    model = Noisy(PowerLaw())
    batch, population = tasks(model), population_of(model, draws=40)
    found = [by_level(model, population, batch, population_draws=40, seed=s) for s in range(150)]
    means = {
        part: np.array([np.nanmean(f[f"video_{part}"]) for f in found]) for part in LEVEL_PARTS
    }
    total = sum(means.values())
    for part in LEVEL_PARTS:
        for values, name in ((means[part], "mean_se"), (means[part] / total, "share_se")):
            told = np.mean([float(f[f"video_{part}_{name}"]) for f in found])
            assert told == pytest.approx(values.std(ddof=1), rel=0.2)
        shares = float(found[0][f"video_{part}_share_se"])
        assert shares < 0.5 * float(found[0][f"video_{part}_mean_se"]) / total.mean()


def test_each_remedy_lowers_its_own_part() -> None:
    """More videos lower `class`; one population draw leaves nothing to learn about people."""
    model = MODELS[0]
    batch, population = tasks(model, users=12, shots=8), population_of(model)
    few = by_level(model, population, batch.limit_shots(1), draws=32, seed=0)
    many = by_level(model, population, batch, draws=32, seed=0)
    assert float(many["video_class"].mean()) < 0.6 * float(few["video_class"].mean())
    one = by_level(model, population_of(model, draws=1), batch, draws=4, seed=0)
    assert float(np.abs(one["frame_population"]).max()) < 1e-12
    assert float(few["frame_population"].mean()) > 0


def test_a_model_without_levels_is_refused() -> None:
    with pytest.raises(InferenceError, match="expected a model with level_entropies, got object"):
        by_level(object(), population_of(MODELS[0]), tasks(MODELS[0]), seed=0)  # type: ignore[arg-type]
