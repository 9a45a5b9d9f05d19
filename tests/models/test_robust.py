"""Robust frames against SciPy, brute-force Monte Carlo and the Gaussian hierarchy."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from scipy import stats
from torch import Tensor

from bayesfs.errors import InferenceError, ShapeError
from bayesfs.inference.exact import Exact
from bayesfs.inference.own_approximation import OwnApproximation
from bayesfs.inference.svi.guides import FullRank
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.gaussian.families import LowRankCovariance, PerFeature
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.gaussian.robust import RobustHierarchy
from bayesfs.models.gaussian.robust_frames import (
    RobustFrame,
    robust_frame_weights,
    scale_mixture,
    student_log,
    video_log_density,
)
from bayesfs.models.objectives import PredictiveScore
from bayesfs.prediction import predict
from bayesfs.protocols import Model
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.synthetic.truth import Population
from bayesfs.testing import ModelContract
from bayesfs.types import EpisodeBatch, Posterior


class TestRobustHierarchy(ModelContract):
    repetition_gain = 0.1

    def make_model(self) -> RobustHierarchy:
        return RobustHierarchy(GaussianHierarchy(PerFeature()))

    def infer(self, model: Model, episodes: EpisodeBatch, given: Posterior | None) -> Posterior:
        return OwnApproximation(draws=40).infer(model, episodes, seed=0, given=given)


def episodes(**options: object) -> EpisodeBatch:
    settings = {"users": 2, "way": 3, "shots": 2, "frames": 4, "dim": 3, "seed": 0} | options
    batch, _ = synthetic_episodes(**settings)  # type: ignore[arg-type]
    return batch.to(torch.float64)


def population(dim: int = 3, **values: float | list[float]) -> dict[str, Tensor]:
    with torch.random.fork_rng(), poutine.block():
        pyro.set_rng_seed(0)
        drawn = RobustHierarchy().sample_population(torch.zeros(dim, dtype=torch.float64))
    set_to = {name: torch.tensor(v, dtype=torch.float64) for name, v in values.items()}
    return {**drawn, **set_to}


def as_posterior(model: RobustHierarchy, values: dict[str, Tensor]) -> Posterior:
    draws = {site: value[None] for site, value in values.items()}
    return Posterior("exact", draws, dict(model.population_dims))


def task_draws(batch: EpisodeBatch, values: dict[str, Tensor], draws: int) -> dict[str, Tensor]:
    noise = torch.Generator().manual_seed(0)
    tasks, ways, shots, _, dim = batch.support.shape
    shapes = {"task_raw": (tasks, dim), "class_raw": (tasks, ways, dim)}
    shapes["video_raw"] = (tasks, ways, shots, dim)
    raw = {
        site: torch.randn(draws, *shape, generator=noise, dtype=torch.float64)
        for site, shape in shapes.items()
    }
    return {**{site: v.expand(draws, *v.shape) for site, v in values.items()}, **raw}


def test_student_density_is_scipys() -> None:
    x = np.random.default_rng(0).normal(size=(5, 3))
    want = stats.multivariate_t(shape=np.eye(3), df=3.5).logpdf(x)
    square = torch.from_numpy(x).square().sum(-1)
    got = student_log(square, torch.tensor(3.5, dtype=torch.float64), 3)
    np.testing.assert_allclose(got, want, rtol=1e-10)


@pytest.mark.parametrize(("dim", "dof"), [(1, 2.0), (3, 4.0), (40, 8.0), (300, 30.0)])
def test_scale_mixture_without_spread_is_the_student_density(dim: int, dof: float) -> None:
    d = 2 * torch.from_numpy(np.random.default_rng(1).normal(size=(4, dim)))
    nu = torch.tensor(dof, dtype=torch.float64)
    want = student_log(d.square().sum(-1), nu, dim)
    got = scale_mixture(d, torch.full_like(d, 1e-9), nu)
    np.testing.assert_allclose(got, want, atol=2e-3)


@pytest.mark.parametrize("dim", [2, 60])
def test_scale_mixture_equals_an_integral_over_the_gamma_law(dim: int) -> None:
    """Quadrature over the quantiles of w: another route, also where the centre is uncertain."""
    rng = np.random.default_rng(2)
    d, v, dof = rng.normal(size=dim) * 2, rng.uniform(0.5, 2, dim), 5.0
    w = stats.gamma(dof / 2, scale=2 / dof).ppf((np.arange(200000) + 0.5) / 200000)
    total = v + 1 / w[:, None]
    log_p = -0.5 * (d**2 / total + np.log(2 * math.pi * total)).sum(-1)
    want = np.logaddexp.reduce(log_p) - math.log(len(w))
    got = scale_mixture(*(torch.tensor(a, dtype=torch.float64) for a in (d, v, dof)))
    assert float(got) == pytest.approx(want, abs=2e-3)


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("dof", [4.0, 100.0])
def test_video_density_is_near_brute_force(frames: int, dof: float) -> None:
    """A shared effect drawn 200 000 times; one frame exactly, more to a few per cent."""
    noise = torch.Generator().manual_seed(3)
    like = {"generator": noise, "dtype": torch.float64}
    v, absent = torch.tensor([0.5, 2.0], dtype=torch.float64), torch.tensor([0.15]).double()
    nu = torch.tensor(dof, dtype=torch.float64)
    centre = 1.5 * torch.randn(3, 1, 2, **like)
    x = centre[0] + v.sqrt() * torch.randn(1, 2, **like) + torch.randn(frames, 2, **like)
    if frames > 1:
        x[0] += 5.0
    background = torch.distributions.Normal(0.0, 2.0).log_prob(x).sum(-1)
    d = x - centre
    got = video_log_density(
        d,
        v.expand(3, 2),
        torch.ones(3, frames, dtype=torch.bool),
        background.expand(3, frames),
        absent,
        nu,
    )
    effect = v.sqrt() * torch.randn(200000, 1, 2, **like)
    brute = []
    for k in range(3):
        taught = torch.log1p(-absent) + student_log((d[k] - effect).square().sum(-1), nu, 2)
        joint = torch.logaddexp(taught, absent.log() + background).sum(-1)
        brute.append(joint.logsumexp(0) - math.log(len(effect)))
    want = torch.stack(brute)
    np.testing.assert_allclose(got, want, atol=0.01 if frames == 1 else 0.25)
    np.testing.assert_allclose(got.softmax(0), want.softmax(0), atol=0.003 if frames == 1 else 0.04)


def test_without_tails_and_absence_it_is_the_gaussian_hierarchy() -> None:
    batch, model = episodes(ragged=True, way=4), RobustHierarchy()
    values = population(dof=1e6, absent=[1e-100, 1e-100])
    draws = task_draws(batch, values, 3)
    frame, video = model.log_labels(batch, values)
    gauss_frame, gauss_video = model.base.log_labels(batch, values)
    pairs = (
        (model.log_joint_frame(draws, batch), model.base.log_joint_frame(draws, batch)),
        (model.log_joint_video(draws, batch), model.base.log_joint_video(draws, batch)),
        (frame[None], gauss_frame[None]),
        (video[None], gauss_video[None]),
    )
    for mine, theirs in pairs:
        exists = batch.query_mask if mine.ndim == 5 else batch.video_mask
        np.testing.assert_allclose(
            mine.softmax(-1)[:, exists], theirs.softmax(-1)[:, exists], atol=1e-3
        )


def test_without_tails_and_absence_its_own_approximation_is_the_exact_posterior() -> None:
    batch, model = episodes(), RobustHierarchy()
    given = as_posterior(model, population(dof=1e6, absent=[1e-100, 1e-100]))
    own = OwnApproximation(draws=20000).infer(model, batch, seed=0, given=given)
    exact = Exact(draws=20000).infer(model.base, batch, seed=1, given=given)
    assert own.kind == "variational"
    for site in ("task_raw", "class_raw", "video_raw"):
        a, b = own.draws[site], exact.draws[site]
        np.testing.assert_allclose(a.mean(0), b.mean(0), atol=0.05)
        np.testing.assert_allclose(a.std(0), b.std(0), rtol=0.05)


def test_its_own_approximation_is_near_a_full_rank_guide_where_a_frame_is_an_outlier() -> None:
    batch, model = episodes(users=1, shots=3, frames=5), RobustHierarchy()
    batch.support[:, 0, 0, 1] += 8.0
    given = as_posterior(model, population(dof=5.0, absent=[0.1, 0.1], loading=1.0))
    own = OwnApproximation(draws=100).infer(model, batch, seed=0, given=given)
    guide = SVI(FullRank(), steps=200, draws=100, khat_draws=0)
    fitted = guide.infer(model, batch, seed=0, given=given)
    near, wrong = (
        predict(m, p, batch, given=given).video.prob
        for m, p in (
            (model, own),
            (model.base, Exact(100).infer(model.base, batch, seed=0, given=given)),
        )
    )
    want = predict(model, fitted, batch, given=given).video.prob
    assert (near - want).abs().max() < 0.1
    assert (near - want).abs().mean() < 0.5 * (wrong - want).abs().mean()


def test_other_models_bring_no_approximation() -> None:
    batch, model = episodes(), RobustHierarchy()
    given = as_posterior(model, population())
    with pytest.raises(InferenceError, match="which lacks approximate"):
        OwnApproximation().infer(model.base, batch, seed=0, given=given)
    with pytest.raises(InferenceError, match="given="):
        OwnApproximation().infer(model, batch, seed=0)


def test_the_law_of_a_frame_is_the_mixture_and_samples_follow_it() -> None:
    like = {"dtype": torch.float64}
    centre, scale = torch.tensor([1.0, -1.0], **like), torch.tensor([0.5, 2.0], **like)
    other = pyro.distributions.Normal(torch.zeros(2, **like), 3 * torch.ones(2, **like))
    far = pyro.distributions.Normal(torch.full((2,), -4.0, **like), torch.ones(2, **like))
    law = RobustFrame(
        centre,
        scale,
        torch.tensor(5.0, **like),
        [other.to_event(1), far.to_event(1)],
        torch.tensor(0.3, **like),
    )
    x = np.random.default_rng(0).normal(size=(6, 2))
    taught = stats.multivariate_t(centre.numpy(), np.diag(scale.numpy() ** 2), df=5).pdf(x)
    away = stats.norm(scale=3).pdf(x).prod(-1) + stats.norm(-4).pdf(x).prod(-1)
    want = np.log(0.7 * taught + 0.15 * away)
    np.testing.assert_allclose(law.log_prob(torch.from_numpy(x)), want, rtol=1e-9)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = law.sample(torch.Size([20000]))
    first = drawn[:, 0].numpy()
    t = stats.t(df=5, loc=1.0, scale=0.5)
    grid = np.array([-3.0, 0.0, 1.0, 1.5, 4.0])
    want = 0.7 * t.cdf(grid) + 0.15 * (stats.norm(scale=3).cdf(grid) + stats.norm(-4).cdf(grid))
    got = (first[:, None] < grid).mean(0)
    np.testing.assert_allclose(got, want, atol=4 * 0.5 / math.sqrt(20000))


def test_an_outlying_frame_is_given_no_weight_and_the_others_keep_theirs() -> None:
    noise = torch.Generator().manual_seed(0)
    d = torch.randn(1, 8, 20, generator=noise, dtype=torch.float64) + 1.0
    d[0, 3] += 30.0
    background = torch.distributions.Normal(0.0, 10.0).log_prob(d).sum(-1)
    weight = robust_frame_weights(
        d,
        torch.ones(1, 20, dtype=torch.float64),
        torch.ones(1, 8, dtype=torch.bool),
        background,
        torch.tensor([[0.1]], dtype=torch.float64),
        torch.tensor(8.0, dtype=torch.float64),
    )
    assert float(weight[0, 3]) < 0.01
    rest = weight[0, [0, 1, 2, 4, 5, 6, 7]]
    assert ((rest > 0.5) & (rest < 2.0)).all()


def test_inferred_by_svi_it_reports_frames_without_the_object() -> None:
    """Absent frames of simulated tasks get a higher probability than others; ties count half."""
    truth_of = Population.isotropic(8, absent=(0.0, 0.3))
    drawn, truth = synthetic_episodes(
        truth_of, users=6, way=3, shots=3, frames=4, query_videos=2, seed=1
    )
    batch, model = drawn.to(torch.float64), RobustHierarchy()
    values = population(8, absent=[0.01, 0.3], dof=50.0, loading=1.0)
    values["scale"] = torch.tensor([0.3, 1.5, 0.5, 0.5, 0.5, 0.5], dtype=torch.float64)
    given = as_posterior(model, values)
    posterior = SVI(steps=150, draws=20, khat_draws=0).infer(model, batch, seed=0, given=given)
    predictive = predict(model, posterior, batch, given=given)
    assert predictive.absent is not None
    assert ((predictive.absent >= 0) & (predictive.absent <= 1)).all()
    away = truth.query_absent
    above = predictive.absent[away][:, None] > predictive.absent[~away]
    assert away.any()
    assert above.double().mean() > 0.6


def test_the_population_is_learnt_from_labels() -> None:
    batch = episodes(users=4)
    engine = SVI(steps=20, draws=10, khat_draws=0)
    program = PredictiveScore(RobustHierarchy())
    posterior = engine.infer(program, batch, seed=0)
    assert set(posterior.draws) == set(RobustHierarchy().population_dims)
    elbo = posterior.sample_stats["elbo"]
    assert torch.isfinite(elbo).all()
    assert elbo[-5:].mean() > elbo[:5].mean()


def test_full_covariances_and_covariates_are_refused() -> None:
    with pytest.raises(ShapeError, match="without covariates"):
        RobustHierarchy(GaussianHierarchy(covariates=("sharpness",)))
    with pytest.raises(ShapeError, match="diagonal family"):
        RobustHierarchy(GaussianHierarchy(LowRankCovariance(rank=1)))
