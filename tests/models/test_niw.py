"""NIW classes against SciPy's multivariate t, sequential prediction, and sampling."""

from __future__ import annotations

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from scipy import stats
from torch import Tensor

from bayesfs.inference.exact import Exact
from bayesfs.inference.program.potential import potential
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.niw.classes import NIWClasses, NIWMode, class_mean, precision_root, raw_sites
from bayesfs.models.niw.posterior import (
    ClassPrior,
    condition_niw,
    query_videos,
    student_density,
    support_frames,
)
from bayesfs.models.objectives import MarginalLikelihood, PredictiveScore
from bayesfs.prediction import predict
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing import ModelContract
from bayesfs.types import EpisodeBatch, Posterior
from bayesfs.uncertainty.decompose import decompose

MODELS = [NIWClasses(spectrum=(0.9, 0.5, 0.3)), NIWMode(spectrum=(0.9, 0.5, 0.3))]


class TestNIWClasses(ModelContract):
    def make_model(self) -> NIWClasses:
        return NIWClasses(spectrum=(0.9, 0.5, 0.3))


class TestNIWMode(ModelContract):
    has_epistemic = False

    def make_model(self) -> NIWMode:
        return NIWMode()


def episodes(**options: object) -> EpisodeBatch:
    settings = {"users": 2, "way": 3, "shots": 3, "frames": 2, "dim": 3, "seed": 0} | options
    batch, _ = synthetic_episodes(**settings)  # type: ignore[arg-type]
    return batch.to(torch.float64)


def population(model: NIWClasses, dim: int = 3, seed: int = 0) -> dict[str, Tensor]:
    with torch.random.fork_rng(), poutine.block():
        pyro.set_rng_seed(seed)
        return dict(model.sample_population(torch.zeros(dim, dtype=torch.float64)))


def given(model: NIWClasses, values: dict[str, Tensor]) -> Posterior:
    draws = {site: value[None] for site, value in values.items()}
    return Posterior("exact", draws, dict(model.population_dims))


def scipy_density(prior: ClassPrior, y: list, g: list, x: np.ndarray, r: float, s: float) -> float:
    """Predictive by the textbook's formulas, in NumPy, for one class."""
    kappa, nu = float(prior.kappa), float(prior.nu)
    psi, pull = np.diag(prior.psi.numpy()), np.zeros(len(x))
    for value, slope in zip(y, g, strict=True):
        kappa, nu = kappa + slope**2, nu + 1
        psi, pull = psi + np.outer(value, value), pull + slope * value
    mean = pull / kappa
    psi = psi - kappa * np.outer(mean, mean)
    df = nu - len(x) + 1
    shape = psi * (r**2 / kappa + s**2) / df
    return float(stats.multivariate_t(r * mean, shape, df=df).logpdf(x))


def test_predictive_density_is_scipys_multivariate_t() -> None:
    model, batch = NIWClasses(), episodes(ragged=True, way=4)
    prior = model.prior(population(model), 3)
    query, seen = query_videos(batch, prior), support_frames(batch, prior)
    got = student_density(condition_niw(batch, prior), query)
    for t, v in batch.video_mask.nonzero().tolist():
        for k in batch.way_mask[t].nonzero()[:, 0].tolist():
            here = seen.exists[t, k]
            y = (seen.centred / seen.size[..., None])[t, k][here].numpy()
            g = (seen.loading / seen.size)[t, k][here].tolist()
            r, s = float(query.loading[t, v]), float(query.size[t, v])
            want = scipy_density(prior, list(y), g, query.centred[t, v].numpy(), r, s)
            assert float(got[t, v, k]) == pytest.approx(want, abs=1e-5)


def test_evidence_is_the_product_of_one_step_predictives() -> None:
    model, batch = NIWClasses(), episodes(ragged=True, way=4)
    values = population(model)
    prior = model.prior(values, 3)
    seen = support_frames(batch, prior)
    evidence = model.log_evidence(batch, values)
    for t in range(len(batch)):
        want = 0.0
        for k in range(batch.way):
            y, g = [], []
            for v in seen.exists[t, k].nonzero()[:, 0].tolist():
                x, r, s = (a[t, k, v].numpy() for a in (seen.centred, seen.loading, seen.size))
                want += scipy_density(prior, y, g, x, float(r), float(s))
                y, g = [*y, x / s], [*g, float(r / s)]
        assert float(evidence[t]) == pytest.approx(want, abs=1e-5)


def test_program_and_closed_form_agree_on_the_evidence() -> None:
    """Bayes' theorem at any point: p(theta) p(D | theta) / p(theta | D) = p(D)."""
    model, batch = NIWClasses(), episodes(users=1, way=1, shots=2, dim=2)
    values = population(model, 2)
    joint = potential(model, batch, given(model, values))
    draws = model.condition(batch, {s: v[None] for s, v in values.items()}, draws=4, seed=0).draws
    z = joint.unconstrain({s: draws[s] for s in joint.blocks})
    prior = model.prior(values, 2)
    post = condition_niw(batch, prior)
    log_posterior = posterior_density(draws, prior, post)
    got = joint.log_density(z)[0] - log_posterior
    np.testing.assert_allclose(got, float(model.log_evidence(batch, values)), rtol=1e-8)


def posterior_density(draws: dict[str, Tensor], prior: ClassPrior, post: object) -> np.ndarray:
    """Log density of the unconstrained task sites under the exact posterior, by SciPy (D = 2)."""
    out = []
    for s in range(len(draws["mean_raw"])):
        chi, lower, raw = (
            draws[site][s, 0, 0] for site in ("precision_raw", "lower_raw", "mean_raw")
        )
        root = precision_root(chi, lower, prior).numpy()
        precision, mean = root @ root.T, class_mean(raw, torch.from_numpy(root), prior).numpy()
        factor = post.root[0, 0].numpy()  # type: ignore[attr-defined]
        nu, kappa = float(post.nu[0, 0]), float(post.kappa[0, 0])  # type: ignore[attr-defined]
        centre = post.mean[0, 0].numpy()  # type: ignore[attr-defined]
        value = stats.wishart(nu, np.linalg.inv(factor @ factor.T)).logpdf(precision)
        value += stats.multivariate_normal(centre, np.linalg.inv(precision) / kappa).logpdf(mean)
        # Jacobian from (log chi, lower, raw) to (precision, mean)
        psi, a = prior.psi.numpy(), np.sqrt(prior.psi.numpy())[:, None] * root
        to_precision = (
            np.log(2**2) + 2 * np.log(a[0, 0]) + np.log(a[1, 1]) - 1.5 * np.log(psi).sum()
        )
        to_log = np.log(a.diagonal() / 2).sum()
        to_mean = -np.log(root.diagonal()).sum() - np.log(float(prior.kappa))
        out.append(value + to_precision + to_log + to_mean)
    return np.array(out)


def test_sites_and_classes_are_two_names_of_the_same_thing() -> None:
    model, batch = NIWClasses(), episodes()
    values = population(model)
    prior = model.prior(values, 3)
    draws = model.condition(batch, {s: v[None] for s, v in values.items()}, draws=5, seed=0).draws
    root = precision_root(draws["precision_raw"], draws["lower_raw"], prior)
    mean = class_mean(draws["mean_raw"], root, prior)
    for site, value in raw_sites(mean, root, prior).items():
        torch.testing.assert_close(value, draws[site])


def test_exact_draws_predict_as_the_closed_form_does() -> None:
    """Two routes to p(y | x, D) and its parts: rotated Wisharts, importance-weighted draws."""
    model, batch = NIWClasses(), episodes(ragged=True)
    plain = {"loading": 0.8, "clutter": 1.3, "kappa": 0.7, "dof": 4.0, "scale": 1.5}
    values = population(model) | {s: torch.tensor(v).double() for s, v in plain.items()}
    posterior = Exact(draws=4000).infer(model, batch, seed=0, given=given(model, values))
    closed = predict(model, posterior, batch)
    sampled = predict(model, posterior, batch, exact=False)
    for a, b in ((closed.frame, sampled.frame), (closed.video, sampled.video)):
        size = 1.0 / b.log_weight.exp().square().sum(0)
        assert ((a.prob - b.prob).abs().amax(-1) < 2.5 / size.sqrt()).all()
        average = (a.log_prob_given + a.log_weight[..., None]).logsumexp(0).exp()
        assert (average - a.prob).abs().max() < 0.03
    one, two = decompose(closed, batch), decompose(sampled, batch)
    for name in ("frame_epistemic", "video_epistemic", "video_aleatoric"):
        assert abs(float(one[name].mean() - two[name].mean())) < 0.015


def test_the_mode_is_that_of_the_posterior_density() -> None:
    """No point near it has a higher normal-inverse-Wishart density (SciPy's)."""
    model, batch = NIWMode(), episodes(users=1)
    values = population(model)
    prior = model.prior(values, 3)
    post = condition_niw(batch, prior)
    mean, root = model.sample_classes(post, 1, torch.Generator())
    centre, precision = mean[0, 0, 0].numpy(), (root @ root.mT)[0, 0, 0].numpy()
    factor = post.root[0, 0].numpy()
    nu, kappa = float(post.nu[0, 0]), float(post.kappa[0, 0])

    def density(mu: np.ndarray, cov: np.ndarray) -> float:
        prior_cov = stats.invwishart(nu, factor @ factor.T).logpdf(cov)
        at = stats.multivariate_normal(post.mean[0, 0].numpy(), cov / kappa).logpdf(mu)
        return float(prior_cov + at)

    best = density(centre, np.linalg.inv(precision))
    rng = np.random.default_rng(0)
    for _ in range(50):
        step = np.eye(3) + 0.02 * rng.normal(size=(3, 3))
        cov = step @ np.linalg.inv(precision) @ step.T
        assert density(centre + 0.02 * rng.normal(size=3), cov) < best


def test_a_mode_has_no_epistemic_uncertainty_and_its_draw_predicts_the_same() -> None:
    model, batch = NIWMode(), episodes(ragged=True)
    posterior = Exact(draws=2).infer(model, batch, seed=0, given=given(model, population(model)))
    closed, drawn = predict(model, posterior, batch), predict(model, posterior, batch, exact=False)
    exists = batch.video_mask
    torch.testing.assert_close(closed.video.prob[exists], drawn.video.prob[exists])
    table = decompose(closed, batch)
    assert np.nanmax(np.abs(table["video_epistemic"].values)) < 1e-9


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_the_population_is_learnt(model: NIWClasses) -> None:
    batch = episodes(users=6)
    for objective in (MarginalLikelihood, PredictiveScore):
        engine = SVI(steps=60, draws=4, khat_draws=0)
        elbo = engine.infer(objective(model), batch, seed=0).sample_stats["elbo"]
        assert torch.isfinite(elbo).all()
        assert elbo[-10:].mean() > elbo[:10].mean()


def test_with_many_degrees_of_freedom_the_covariance_is_known() -> None:
    """Student t and plugged-in Gaussian agree, and equal the Gaussian with covariance S."""
    batch = episodes()
    values = population(NIWClasses()) | {"dof": torch.tensor(1e7, dtype=torch.float64)}
    values |= {"kappa": torch.tensor(1e-3, dtype=torch.float64)}
    bayes, mode = NIWClasses().log_labels(batch, values), NIWMode().log_labels(batch, values)
    prior = NIWClasses().prior(values, 3)
    seen, query = support_frames(batch, prior), query_videos(batch, prior)
    weight = (seen.loading / seen.size).square()
    kappa = prior.kappa + weight.sum(-1)
    mean = (seen.loading / seen.size.square())[..., None] * seen.centred
    mean = mean.sum(2) / kappa[..., None]
    cov = prior.psi / values["dof"]
    gap = query.centred[:, :, None] - query.loading[..., None, None] * mean[:, None]
    total = query.loading.square()[..., None] / kappa[:, None] + query.size.square()[..., None]
    want = -0.5 * (gap.square() / cov / total[..., None] + total.log()[..., None]).sum(-1)
    torch.testing.assert_close(bayes[1], want.log_softmax(-1), atol=1e-4, rtol=1e-4)
    within = -0.5 * (gap.square() / cov / query.size.square()[..., None, None]).sum(-1)
    torch.testing.assert_close(mode[1], within.log_softmax(-1), atol=1e-4, rtol=1e-4)
