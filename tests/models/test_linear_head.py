import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from bayesfs.errors import ShapeError
from bayesfs.inference.program.potential import potential
from bayesfs.models.heads.linear import HierarchicalHead, normal_nodes
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing import ModelContract


class TestHierarchicalHead(ModelContract):
    class_axes = ("way", "logit")
    frames_are_redundant = True

    def make_model(self):
        return HierarchicalHead(weight_scale=2.0)


class TestHeadForStills(ModelContract):
    frames_are_redundant = True

    def make_model(self):
        return HierarchicalHead(video_scale=0.0, relevance_spread=0.0, task_mean=False)


class TestHeadWithSeveralFramesPerVideo(ModelContract):
    class_axes = ("way", "logit")

    def make_model(self):
        return HierarchicalHead(effective_frames=2.0)


def make_episodes(**sizes):
    settings = {"users": 2, "way": 3, "shots": 2, "frames": 2, "dim": 3, "seed": 0}
    episodes, _ = synthetic_episodes(**{**settings, **sizes})
    return episodes.to(torch.float64)


def population_of(model, dim, draws=1):
    values = model.default_population(dim).draws
    return {name: v.double().expand(draws, *v.shape[1:]) for name, v in values.items()}


def head_draws(model, episodes, draws=3):
    density = potential(model, episodes, model.default_population(episodes.dim))
    sites = density.constrain(density.prior(draws, seed=0))
    return {**sites, **population_of(model, episodes.dim, draws)}


def test_density_is_the_written_equation():
    """Against SciPy's normal and a softmax in NumPy, site by site."""
    model = HierarchicalHead(weight_scale=3.0, effective_frames=1.5)
    episodes = make_episodes(ragged=True, way=4)
    density = potential(model, episodes, model.default_population(episodes.dim))
    z = density.prior(1, seed=4)
    d = {name: v[0].numpy() for name, v in density.constrain(z).items()}
    expected = np.zeros(len(episodes))
    for t in range(len(episodes)):
        expected[t] = sum(stats.norm.logpdf(v[t]).sum() for v in d.values())
        scale = 3.0 * math.exp(0.5 * d["task_scale_raw"][t])
        w = scale * d["weight_raw"][t] + 0.6745 * d["task_mean_raw"][t]
        ways = episodes.way_mask[t].numpy()
        for k, v in np.argwhere(episodes.shot_mask[t].numpy()):
            offset = 0.6745 * d["offset_raw"][t, k, v]
            frames = episodes.support[t, k, v][episodes.support_mask[t, k, v]].numpy()
            logits = (frames @ w.T + offset)[:, ways]
            log_prob = logits - np.log(np.exp(logits).sum(1, keepdims=True))
            power = min(len(frames), 1.5) / len(frames)
            expected[t] += power * log_prob[:, np.flatnonzero(ways).tolist().index(k)].sum()
    np.testing.assert_allclose(density.log_density(z)[:, 0].numpy(), expected, rtol=1e-6)


def test_offset_of_a_query_video_is_integrated_out():
    """Two classes: the offset difference is one Gaussian, integrated by SciPy's quadrature."""
    model = HierarchicalHead(nodes=256, task_mean=False)
    episodes = make_episodes(way=2, frames=3, query_frames=3)
    draws = head_draws(model, episodes)
    got = model.log_joint_video(draws, episodes).exp()
    w = model.weights(draws)
    for v in range(2):
        gap = episodes.query[0, v].numpy() @ (w[0, 0, 0] - w[0, 0, 1]).numpy()

        def evidence(sign, gap=gap):
            def at(u):
                log_prob = -np.logaddexp(0, -sign * (gap + u)).mean()
                return np.exp(log_prob) * stats.norm.pdf(u, scale=math.sqrt(2) * 0.6745)

            return integrate.quad(at, -8, 8)[0]

        expected = evidence(1) / (evidence(1) + evidence(-1))
        assert float(got[0, 0, v, 0]) == pytest.approx(expected, abs=2e-3)


def test_default_nodes_are_accurate_enough():
    episodes = make_episodes(way=5, frames=2, query_frames=2, users=4, dim=8)
    coarse, fine = HierarchicalHead(), HierarchicalHead(nodes=4096)
    draws = head_draws(coarse, episodes)
    p, q = (m.log_joint_frame(draws, episodes).exp() for m in (coarse, fine))
    assert (p - q).abs().max() < 0.02
    assert (p - q).abs().mean() < 0.003


def test_larger_offset_makes_a_video_less_certain():
    """Frames of one video share the offset, so they cannot average it away."""
    model = HierarchicalHead()
    episodes = make_episodes(way=3, query_frames=8)
    draws = head_draws(model, episodes)
    entropies = []
    for scale in (0.0, 1.0, 3.0):
        scaled = {**draws, "offset_scale": torch.full_like(draws["offset_scale"], scale)}
        log_prob = model.log_joint_video(scaled, episodes)
        entropies.append(float(-(log_prob.exp() * log_prob).sum(-1).mean()))
    assert entropies[0] < entropies[1] < entropies[2]


def test_task_mean_never_changes_a_prediction():
    model = HierarchicalHead()
    episodes = make_episodes()
    draws = head_draws(model, episodes)
    moved = {**draws, "task_mean_raw": draws["task_mean_raw"] + 3.0}
    torch.testing.assert_close(
        model.log_joint_video(moved, episodes), model.log_joint_video(draws, episodes)
    )


def test_nodes_have_the_moments_of_a_normal():
    nodes = normal_nodes(64, 5)
    torch.testing.assert_close(nodes.mean(0), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(nodes.square().mean(0), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(normal_nodes(64, 7)[:, :5], nodes)


def test_missing_population_is_named():
    model = HierarchicalHead()
    episodes = make_episodes()
    draws = head_draws(model, episodes)
    del draws["relevance"]
    with pytest.raises(ShapeError, match=r"relevance.*population left out"):
        model.log_joint_frame(draws, episodes)


@pytest.mark.parametrize(
    "wrong", [{"weight_scale": 0.0}, {"video_scale": -1.0}, {"nodes": 3}, {"effective_frames": 0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ShapeError, match="expected"):
        HierarchicalHead(**wrong)


def test_single_precision_stays_single():
    model = HierarchicalHead()
    episodes = make_episodes().to(torch.float32)
    density = potential(model, episodes, model.default_population(3))
    assert density.log_density(density.prior(2, seed=0)).dtype == torch.float32
    draws = {**density.constrain(density.prior(2, seed=0)), **population_of(model, 3, 2)}
    assert model.log_joint_frame(draws, episodes).dtype == torch.float32


def test_padded_query_video_stays_finite():
    model = HierarchicalHead()
    episodes = make_episodes()
    mask = episodes.query_mask.clone()
    mask[:, -1] = False
    log_prob = model.log_joint_video(
        head_draws(model, episodes), replace(episodes, query_mask=mask)
    )
    assert torch.isfinite(log_prob).all()
