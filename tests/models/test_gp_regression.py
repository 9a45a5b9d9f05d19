"""Regression on labels against dense solves, SciPy densities and unbatched GPyTorch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from bayesfs._distributions.categorical import systematic
from bayesfs._distributions.noise import Noise
from bayesfs.models.gp.covariance import VideoCovariance
from bayesfs.models.gp.deep_kernel_gp import DeepKernelGP
from bayesfs.models.gp.feature_maps import Identity
from bayesfs.models.gp.gpytorch import exact_gp, gp_inputs
from bayesfs.models.gp.hyperparameters import sample_hyperparameters
from bayesfs.models.gp.kernels import RBF, Linear
from bayesfs.models.gp.likelihoods.regression import FittedRegression, LabelRegression
from bayesfs.models.gp.points import query_points, support_points
from bayesfs.types import EpisodeBatch

COVARIANCES = {
    "linear": VideoCovariance(Identity(), Linear(signal=0.8), constant=0.3),
    "rbf": VideoCovariance(Identity(), RBF(), constant=None, shift=None),
    "scaled video": VideoCovariance(Identity(), RBF(), scaled_video=True),
    "frames independent": VideoCovariance(Identity(), Linear(), video=None, shift=None),
}


def ragged(dtype: torch.dtype = torch.float64, seed: int = 0) -> EpisodeBatch:
    """Two tasks of unequal way, shots and frames."""
    g = torch.Generator().manual_seed(seed)
    support = torch.randn(2, 3, 2, 3, 5, generator=g, dtype=dtype)
    mask = torch.ones(2, 3, 2, 3, dtype=torch.bool)
    mask[0, 2] = False
    mask[0, 1, 1] = False
    mask[1, 0, 0, 2] = False
    query = torch.randn(2, 4, 3, 5, generator=g, dtype=dtype)
    query_mask = torch.ones(2, 4, 3, dtype=torch.bool)
    query_mask[0, 1, 1:] = False
    query_mask[1, 3] = False
    return EpisodeBatch(
        support=support * mask[..., None],
        support_mask=mask,
        support_condition=torch.tensor([[[0, 1], [0, 0], [0, 0]], [[0, 0], [1, 0], [0, 1]]]),
        query=query * query_mask[..., None],
        query_mask=query_mask,
        query_condition=torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0]]),
        query_labels=torch.tensor([[0, 1, 1, 0], [2, 0, 1, -1]]),
    )


def fitted(name: str, episodes: EpisodeBatch) -> tuple[FittedRegression, dict[str, torch.Tensor]]:
    model = DeepKernelGP(COVARIANCES[name])
    torch.manual_seed(2)
    values = sample_hyperparameters(model.sites, episodes.support)
    result = model.fit(episodes, values)
    assert isinstance(result, FittedRegression)
    return result, values


def by_hand(name: str, episodes: EpisodeBatch, values: dict[str, torch.Tensor], t: int, v: int):
    """Dense predictive of one query video: (way, frame) mean, (way, frame, frame) covariance."""
    c = COVARIANCES[name]
    s = episodes.support_mask[t]
    x, (label, shot, _) = episodes.support[t][s], s.nonzero().T
    condition, video = episodes.support_condition[t][label, shot], label * 10 + shot
    x = x / x.norm(dim=1, keepdim=True)
    q = episodes.query[t, v][episodes.query_mask[t, v]]
    q, qk = q / q.norm(dim=1, keepdim=True), episodes.query_condition[t, v]
    level = 0 if c.constant is None else values["constant_scale"] ** 2

    def k(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if isinstance(c.base, Linear):
            return values["signal"] ** 2 * a @ b.T
        d = torch.cdist(a, b) / values["lengthscale"]
        return values["signal"] ** 2 * torch.exp(-(d**2) / 2)

    def own(scale: torch.Tensor | float, a: torch.Tensor) -> torch.Tensor | float:
        return scale * k(a, a) if c.scaled_video else scale

    prior = k(x, x) + level + torch.diag(values["frame_scale"][condition] ** 2)
    if c.video is not None:
        same = (video[:, None] == video).double() * values["video_scale"][condition] ** 2
        prior = prior + own(same, x)
    way = int(episodes.way_mask[t].sum())
    code = torch.eye(way, dtype=x.dtype)[label] - 1 / way
    weight = torch.linalg.solve(prior, code)
    cross = k(q, x) + level
    n = len(q)
    cov = k(q, q) + level - cross @ torch.linalg.solve(prior, cross.T)
    cov = cov + values["frame_scale"][qk] ** 2 * torch.eye(n)
    if c.video is not None:
        cov = cov + own(values["video_scale"][qk] ** 2, q)
    cov = cov.expand(way, n, n)
    if c.shift is not None:
        norm = (weight * (k(x, x) @ weight)).sum(0)[:, None, None]
        shift = values["video_shift"][qk] ** 2 + values["frame_shift"][qk] ** 2 * torch.eye(n)
        cov = cov + norm * shift
    return (cross @ weight).T, cov


@pytest.mark.parametrize("name", COVARIANCES)
def test_latent_equals_dense_solve_task_by_task(name: str) -> None:
    episodes = ragged()
    fit, values = fitted(name, episodes)
    latent = fit.conditioned.latent(query_points(episodes))
    for t, v in [(0, 0), (0, 1), (0, 3), (1, 0), (1, 2)]:
        mean, cov = by_hand(name, episodes, values, t, v)
        way, n = mean.shape
        torch.testing.assert_close(latent.mean[t, :way, v, :n], mean, rtol=1e-6, atol=1e-8)
        total = latent.total[t, :, v, :n, :n].expand(latent.mean.shape[1], n, n)[:way]
        torch.testing.assert_close(total, cov, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", COVARIANCES)
def test_probabilities_are_densities_of_the_codes(name: str) -> None:
    episodes = ragged()
    fit, values = fitted(name, episodes)
    scores = fit.scores(query_points(episodes))
    for t, v in [(0, 0), (0, 1), (1, 2)]:
        mean, cov = (a.numpy() for a in by_hand(name, episodes, values, t, v))
        way, n = mean.shape
        code = np.eye(way) - 1 / way

        def log_prob(frames: slice, mean=mean, cov=cov, way=way, code=code) -> np.ndarray:
            density = [
                sum(
                    multivariate_normal(mean[k, frames], cov[k, frames, frames]).logpdf(
                        np.full(len(mean[k, frames]), code[c, k])
                    )
                    for k in range(way)
                )
                for c in range(way)
            ]
            return np.array(density) - logsumexp(density)

        np.testing.assert_allclose(scores.video[t, v, :way], log_prob(slice(0, n)), atol=1e-8)
        for f in range(n):
            alone = log_prob(slice(f, f + 1))
            np.testing.assert_allclose(scores.frame[t, v, f, :way], alone, atol=1e-8)
            so_far = log_prob(slice(0, f + 1))
            np.testing.assert_allclose(scores.running[t, v, f, :way], so_far, atol=1e-8)
        assert (scores.video[t, v, way:] == -torch.inf).all()


@pytest.mark.parametrize("name", ["linear", "rbf", "scaled video", "frames independent"])
def test_latent_equals_unbatched_gpytorch(name: str) -> None:
    episodes = ragged()
    fit, values = fitted(name, episodes)
    if name == "scaled video":  # level zero, so that GPyTorch's product is with the base kernel
        values = {**values}
    latent = fit.conditioned.latent(query_points(episodes))
    mapped = COVARIANCES[name].map_query(values, query_points(episodes))
    t, n = 1, 3
    for label in range(3):
        theirs = exact_gp(fit.conditioned, t, label)
        with torch.no_grad():
            predicted = theirs(gp_inputs(mapped, t))
        mean = predicted.mean.reshape(4, n)
        torch.testing.assert_close(latent.mean[t, label, :3], mean[:3], rtol=1e-5, atol=1e-6)
        block = predicted.covariance_matrix.reshape(4, n, 4, n)
        for v in range(3):
            own = torch.zeros(n, n, dtype=torch.float64)
            if COVARIANCES[name].video is not None:
                own = values["video_scale"][episodes.query_condition[t, v]] ** 2 * torch.ones_like(
                    own
                )
            if COVARIANCES[name].scaled_video:
                own = own * COVARIANCES[name].base(values, mapped.x[t, v], mapped.x[t, v])
            signal = block[v, :, v] - own
            torch.testing.assert_close(latent.signal[t, 0, v], signal, rtol=1e-4, atol=1e-6)


def test_evidence_is_the_density_of_video_means() -> None:
    episodes = ragged()
    fit, values = fitted("rbf", episodes)
    t = 1
    s = episodes.support_mask[t]
    x, (label, shot, _) = episodes.support[t][s], s.nonzero().T
    x = x / x.norm(dim=1, keepdim=True)
    condition, video = episodes.support_condition[t][label, shot], label * 2 + shot
    k = values["signal"] ** 2 * torch.exp(-((torch.cdist(x, x) / values["lengthscale"]) ** 2) / 2)
    k = k + torch.diag(values["frame_scale"][condition] ** 2)
    k = k + (video[:, None] == video) * values["video_scale"][condition] ** 2
    mean = (video == torch.arange(6)[:, None]).double()
    mean = mean / mean.sum(1, keepdim=True)
    normal = multivariate_normal(np.zeros(6), (mean @ k @ mean.T).numpy())
    code = (torch.eye(3, dtype=x.dtype)[torch.arange(6) // 2] - 1 / 3).numpy()
    expected = sum(normal.logpdf(code[:, c]) for c in range(3))
    assert float(fit.log_evidence[t]) == pytest.approx(expected, abs=1e-9)


def test_evidence_without_a_video_kernel_is_that_of_every_frame() -> None:
    episodes = ragged()
    fit, values = fitted("frames independent", episodes)
    t = 1
    s = episodes.support_mask[t]
    x, (label, shot, _) = episodes.support[t][s], s.nonzero().T
    x = x / x.norm(dim=1, keepdim=True)
    noise = torch.diag(values["frame_scale"][episodes.support_condition[t][label, shot]] ** 2)
    k = (values["signal"] ** 2 * x @ x.T + noise).numpy()
    code = (torch.eye(3, dtype=x.dtype)[label] - 1 / 3).numpy()
    expected = sum(multivariate_normal(np.zeros(len(k)), k).logpdf(code[:, c]) for c in range(3))
    assert float(fit.log_evidence[t]) == pytest.approx(expected, abs=1e-9)


def test_draws_average_to_the_closed_form() -> None:
    episodes = ragged()
    fit, _ = fitted("linear", episodes)
    predictive = fit.predictive(query_points(episodes), 4000, Noise.of(episodes, 0))
    for part, mask in (
        (predictive.frame, episodes.query_mask),
        (predictive.video, episodes.video_mask),
    ):
        mean = part.log_prob_given.exp().mean(0)
        torch.testing.assert_close(mean[mask], part.prob[mask], atol=0.02, rtol=0)
        assert part.log_weight.logsumexp(0).abs().max() < 1e-9


def test_function_draws_have_the_posterior_moments() -> None:
    episodes = ragged()
    fit, _ = fitted("rbf", episodes)
    draws = fit.function(20_000, Noise.of(episodes, 0))
    prior = fit.conditioned.prior
    signal = prior.covariance.signal(prior.values, prior.support.x, prior.support.x)
    signal = signal * prior.support.pairs
    gain = signal @ torch.linalg.inv(prior.matrix)
    mean = fit.conditioned.targets @ gain.mT
    torch.testing.assert_close(draws.mean(0), mean, atol=0.02, rtol=0)
    cov = signal - gain @ signal
    centred = draws[:, 1, 0] - mean[1, 0]
    torch.testing.assert_close(centred.T @ centred / len(draws), cov[1], atol=0.02, rtol=0)


def test_systematic_classes_come_up_as_often_as_they_should() -> None:
    prob = torch.tensor([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]], dtype=torch.float64)
    chosen = systematic(prob, 40, torch.Generator().manual_seed(0))
    counts = torch.stack([(chosen == k).sum(0) for k in range(3)], -1)
    assert ((counts - 40 * prob).abs() <= 1).all()


def test_the_two_codings_share_one_factor_and_sign_is_minus_plus_one() -> None:
    episodes = ragged()
    model = DeepKernelGP(COVARIANCES["rbf"], likelihood=LabelRegression("sign"))
    torch.manual_seed(2)
    values = sample_hyperparameters(model.sites, episodes.support)
    fit = model.fit(episodes, values)
    assert isinstance(fit, FittedRegression)
    real = fit.conditioned.prior.support.mask[1]
    assert set(fit.conditioned.targets[1][:, real].flatten().tolist()) == {-1.0, 1.0}
    assert fit.conditioned.factor.shape[1] == 1


def test_support_points_drop_common_padding_and_keep_the_rest() -> None:
    episodes = ragged()
    points = support_points(episodes)
    assert points.x.shape[1] == int(episodes.support_mask.flatten(1).sum(1).max())
    for t in range(2):
        ours = points.x[t][points.mask[t]]
        theirs = episodes.support[t][episodes.support_mask[t]]
        torch.testing.assert_close(ours[ours[:, 0].argsort()], theirs[theirs[:, 0].argsort()])


def test_wide_predictive_flattens() -> None:
    episodes = ragged()
    model = DeepKernelGP(COVARIANCES["linear"])
    torch.manual_seed(2)
    values = sample_hyperparameters(model.sites, episodes.support)
    wide = {**values, "frame_scale": values["frame_scale"] * torch.tensor([1.0, 10.0])}
    narrow, flat = (model.fit(episodes, v).scores(query_points(episodes)) for v in (values, wide))
    cluttered = replace(episodes, query_condition=torch.ones_like(episodes.query_condition))
    assert torch.isfinite(model.fit(cluttered, wide).scores(query_points(cluttered)).frame[1]).all()
    top = [s.frame[1, :2].exp().max(-1).values.mean() for s in (narrow, flat)]
    assert top[1] < top[0]
