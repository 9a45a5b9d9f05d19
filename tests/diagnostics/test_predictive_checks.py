"""Predictive checks against plain loops, SciPy, and data that a model did or did not make."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import kstest

from bayesfs.diagnostics.predictive_checks import (
    label_check,
    posterior_check,
    prior_check,
    prior_label_prob,
    prior_predictive,
)
from bayesfs.diagnostics.support_quantities import NAMES, support_quantities
from bayesfs.errors import DataError
from bayesfs.inference.exact import Exact
from bayesfs.inference.program.simulation import Simulator
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.gp.deep_kernel_gp import DeepKernelGP
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing.toy import GaussianToy
from bayesfs.types import EpisodeBatch, Posterior


@pytest.fixture(scope="module")
def template() -> EpisodeBatch:
    sizes = {"way": 4, "shots": 3, "frames": 3, "query_videos": 1, "dim": 3}
    return synthetic_episodes(users=40, ragged=True, seed=1, **sizes)[0].to(torch.float64)


def population_draw(model, episodes: EpisodeBatch, seed: int = 3) -> Posterior:
    draws = Simulator(model, episodes).draw(seed=seed).draws
    dims = {s: a for s, a in model.dims.items() if "task" not in a}
    return Posterior("exact", {s: draws[s][None] for s in dims}, dims)


def made_by(model, template: EpisodeBatch, given: Posterior) -> EpisodeBatch:
    held = {s: v[0] for s, v in given.population.items()}
    x = Simulator(model, template).draw(seed=7, held=held).observed["frames"]
    return replace(template, support=x * template.support_mask[..., None])


def slow_quantities(x: np.ndarray, mask: np.ndarray) -> list[float]:
    """One task, frame by frame."""
    videos = [
        [x[k, s][mask[k, s]] for s in range(mask.shape[1]) if mask[k, s].any()]
        for k in range(mask.shape[0])
    ]
    videos = [v for v in videos if v]
    every = [v for of_class in videos for v in of_class]
    spare = sum(len(v) - 1 for v in every)
    within = sum(((v - v.mean(0)) ** 2).sum() for v in every) / spare if spare else np.nan
    means = [np.stack([v.mean(0) for v in of_class]) for of_class in videos]
    spare = sum(len(m) - 1 for m in means)
    between = sum(((m - m.mean(0)) ** 2).sum() for m in means) / spare if spare else np.nan
    centre = np.stack([m.mean(0) for m in means])
    gap = cdist(centre, centre)
    np.fill_diagonal(gap, np.inf)
    right = []
    for k, m in enumerate(means):
        for i in range(len(m)) if len(m) > 1 else ():
            alone = centre.copy()
            alone[k] = np.delete(m, i, 0).mean(0)
            right.append(np.linalg.norm(alone - m[i], axis=1).argmin() == k)
    accuracy = np.mean(right) if right else np.nan
    return [np.sqrt(within), np.sqrt(between), gap.min(1).mean(), accuracy]


def test_quantities_are_those_of_a_plain_loop(template: EpisodeBatch) -> None:
    found = support_quantities(template.support, template.support_mask)
    table = torch.stack([found[name] for name in NAMES], -1).numpy()
    expected = [
        slow_quantities(x, m)
        for x, m in zip(template.support.numpy(), template.support_mask.numpy(), strict=True)
    ]
    np.testing.assert_allclose(table, expected, rtol=1e-9)
    padding = ~template.support_mask[..., None]
    other = support_quantities(template.support + 5.0 * padding, template.support_mask)
    for name in NAMES:
        torch.testing.assert_close(other[name], found[name], equal_nan=True)


def test_a_model_finds_its_own_data_ordinary(template: EpisodeBatch) -> None:
    model = GaussianHierarchy()
    given = population_draw(model, template)
    episodes = made_by(model, template, given)
    prior = prior_check(model, episodes, given=given)
    for name in NAMES[:3]:
        p = prior["p"].sel(quantity=name).to_numpy()
        assert kstest(p[np.isfinite(p)], "uniform").pvalue > 0.005, name
        at = prior.sel(quantity=name)
        assert at["mean_low"] <= at["observed"].mean() <= at["mean_high"], name
        mean, whole = at["mean_high"] - at["mean_low"], (at["high"] - at["low"]).mean()
        assert 0 < mean < whole, name
    posterior = Exact(draws=100).infer(model, episodes, seed=0, given=given)
    checked = posterior_check(model, posterior, episodes, given=given)
    extreme = (checked["p"] < 0.01) | (checked["p"] > 0.99)
    assert float(extreme.mean()) < 0.05


@pytest.mark.parametrize(("name", "scale"), [("video_scale", 0.5), ("frame_scale", 0.7)])
def test_scatter_that_a_model_does_not_expect_is_told(name: str, scale: float) -> None:
    """Data of `GaussianToy`, checked with one of its scales a third."""
    sizes = {"way": 4, "shots": 4, "frames": 4, "query_videos": 1, "dim": 4}
    template, _ = synthetic_episodes(users=6, seed=2, **sizes)
    truth = GaussianToy()
    given = truth.fixed_population(4)
    x = Simulator(truth, template).draw(seed=1, held={"mean": torch.zeros(4)}).observed["x"]
    episodes = replace(template, support=x)
    wrong = GaussianToy(**{name: scale / 3})
    checked = prior_check(wrong, episodes, given=given)
    quantity = {"video_scale": "between-video scatter", "frame_scale": "within-video scatter"}[name]
    assert (checked["p"].sel(quantity=quantity) == 0).all()
    right = prior_check(truth, episodes, given=given)["p"].sel(quantity=quantity)
    assert ((right > 0.005) & (right < 0.995)).all()


def test_prior_predictive_has_the_models_moments() -> None:
    template, _ = synthetic_episodes(users=2, way=2, shots=2, frames=2, dim=2, ragged=True, seed=5)
    model = GaussianToy()
    drawn = prior_predictive(model, template, draws=400, seed=1)["support"]
    assert drawn.dims == ("draw", "task", "way", "shot", "frame", "feature")
    there = template.support_mask.numpy()
    assert (np.isfinite(drawn.to_numpy()).all((0, -1)) == there).all()
    variance = float(drawn.var(("draw"), skipna=True).mean())
    assert variance == pytest.approx(1 + 1 + 0.25 + 0.49, rel=0.1)


def test_log_densities_are_those_of_the_distributions(template: EpisodeBatch) -> None:
    model = GaussianToy()
    draws = {s: v[None] for s, v in Simulator(model, template).draw(seed=2).draws.items()}
    found = Simulator(model, template).log_densities(draws)
    normal = torch.distributions.Normal(0.0, 1.0)
    assert float(found["mean"]) == pytest.approx(float(normal.log_prob(draws["mean"]).sum()))
    rows = normal.log_prob(draws["video_raw"]).sum(-1) * template.shot_mask
    torch.testing.assert_close(found["video_raw"], rows.sum((-1, -2)))
    centre = draws["mean"] + draws["class_raw"][:, :, :, None] + 0.5 * draws["video_raw"]
    x = torch.distributions.Normal(centre[0, ..., None, :], 0.7).log_prob(template.support)
    expected = (x.sum(-1) * template.support_mask).sum((-1, -2, -3))
    torch.testing.assert_close(found["x"][0], expected)


def test_a_head_says_that_it_has_no_features(template: EpisodeBatch) -> None:
    head = HierarchicalHead()
    given = head.default_population(template.dim)
    assert "draws no frames" in prior_check(head, template, given=given).attrs["reason"]
    with pytest.raises(DataError, match="draws no frames"):
        prior_predictive(head, template, given=given)


def test_the_prior_of_a_head_is_surer_the_wider_its_weights(template: EpisodeBatch) -> None:
    sure = {}
    for scale in (0.1, 30.0):
        head = HierarchicalHead(weight_scale=scale, video_scale=0.0)
        given = head.default_population(template.dim)
        found = prior_label_prob(head, template, given=given, draws=60)
        total = found["video_prob"].sum("way", skipna=True, min_count=1).to_numpy()
        np.testing.assert_allclose(total[np.isfinite(total)], 1.0)
        sure[scale] = float(found["confidence"].mean())
        balance = float(found["video_prob"].isel(task=0).mean(("draw", "video")).std("way"))
        assert balance < 0.1, "no class is preferred beforehand"
    assert sure[0.1] < 0.5
    assert sure[30.0] > 0.9


def test_a_process_of_labels_has_a_prior_too(template: EpisodeBatch) -> None:
    few = template.select(range(3))
    found = prior_label_prob(DeepKernelGP(), few, draws=4)
    assert found["video_prob"].sizes["draw"] == 4
    assert float(found["confidence"].min()) > 0.2


def test_labels_are_right_as_often_as_expected(report_data) -> None:
    tree = report_data.trees[5]
    checked = label_check(tree, draws=4000).sel(quantity="label accuracy")
    prob = tree["uncertainty"]["video_prob"].to_numpy()
    label = tree["observed_data"]["label"].to_numpy()
    for t in range(len(label)):
        known = ~np.isnan(label[t])
        right = (prob[t].argmax(-1) == label[t])[known].mean()
        assert float(checked["observed"][t]) == pytest.approx(right)
        assert float(checked["mean"][t]) == pytest.approx(prob[t][known].max(-1).mean(), abs=0.02)
