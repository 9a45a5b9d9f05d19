"""Largest difference between single and double precision, model by model, on 16 small tasks.

Normal numbers are drawn in single precision and widened where need be, so that both precisions see
the same draws. What remains are rounding, and choices that rounding turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pyro
import torch
from torch import Tensor

from bayesfs.inference.laplace.laplace import Laplace
from bayesfs.inference.own_approximation import OwnApproximation
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.baselines.classifiers import standard_baselines
from bayesfs.models.gaussian.families import Full, LowRankCovariance, PerFeature
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.gaussian.robust import RobustHierarchy
from bayesfs.models.gp.deep_kernel_gp import DeepKernelGP
from bayesfs.models.gp.likelihoods.dirichlet import Dirichlet
from bayesfs.models.gp.likelihoods.laplace_softmax import LaplaceSoftmax
from bayesfs.models.gp.likelihoods.logistic_softmax import LogisticSoftmax
from bayesfs.models.gp.likelihoods.one_vs_each import OneVsEach
from bayesfs.models.gp.likelihoods.regression import LabelRegression
from bayesfs.models.gp.likelihoods.sigmoid_of_mean import SigmoidOfMean
from bayesfs.models.gp.likelihoods.softmax import Softmax
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.models.niw.classes import NIWClasses, NIWMode
from bayesfs.prediction import predict
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.types import EpisodeBatch, Posterior, Predictive

Ask = Callable[[EpisodeBatch], Predictive]
Closed = GaussianHierarchy | DeepKernelGP | NIWClasses
DRAWS = 100


def conjugate(model: Closed) -> Ask:
    """At one draw of the population from its prior."""
    return lambda e: model.predictive(e, _population(model, e), draws=DRAWS, seed=0)


def robust(episodes: EpisodeBatch) -> Predictive:
    """Robust frames by their own approximation."""
    model = RobustHierarchy()
    draws = _population(model, episodes)
    given = Posterior("variational", draws, {s: model.population_dims[s] for s in draws})
    posterior = OwnApproximation(draws=DRAWS).infer(model, episodes, seed=0, given=given)
    return predict(model, posterior, episodes, given=given)


def head(engine: SVI | Laplace) -> Ask:
    """The softmax head at its default population."""
    model = HierarchicalHead()

    def ask(episodes: EpisodeBatch) -> Predictive:
        given = model.default_population(episodes.dim)
        given = replace(given, draws={s: v.to(episodes.support) for s, v in given.draws.items()})
        posterior = engine.infer(model, episodes, seed=0, given=given)
        return predict(model, posterior, episodes, given=given)

    return ask


MODELS: dict[str, Ask] = {
    "gaussian": conjugate(GaussianHierarchy()),
    "gaussian_per_feature": conjugate(GaussianHierarchy(PerFeature())),
    "gaussian_low_rank": conjugate(GaussianHierarchy(LowRankCovariance())),
    "gaussian_full": conjugate(GaussianHierarchy(Full())),
    "gaussian_quality": conjugate(GaussianHierarchy(covariates=("a", "b"))),
    "robust_own": robust,
    "niw": conjugate(NIWClasses()),
    "niw_mode": conjugate(NIWMode()),
    "gp_regression": conjugate(DeepKernelGP(likelihood=LabelRegression())),
    "gp_sigmoid": conjugate(DeepKernelGP(likelihood=SigmoidOfMean())),
    "gp_dirichlet": conjugate(DeepKernelGP(likelihood=Dirichlet())),
    "gp_one_vs_each": conjugate(DeepKernelGP(likelihood=OneVsEach(steps=4))),
    "gp_logistic_softmax": conjugate(DeepKernelGP(likelihood=LogisticSoftmax(steps=4))),
    "gp_softmax": conjugate(DeepKernelGP(likelihood=Softmax(steps=4))),
    "gp_laplace": conjugate(DeepKernelGP(likelihood=LaplaceSoftmax(steps=8))),
    "head_svi": head(SVI(steps=50, draws=DRAWS)),
    "head_laplace": head(Laplace(draws=DRAWS)),
    **{n.replace(" ", "_"): b.predictive for n, b in standard_baselines().items()},
}


def differences(users: int = 16, way: int = 6, dim: int = 32) -> dict[str, float]:
    """Model -> largest |p_32 - p_64| over query frames and videos of tasks of 5 videos a class."""
    size = {"users": users, "way": way, "shots": 5, "frames": 8, "dim": dim}
    episodes = synthetic_episodes(seed=0, **size)[0]
    found = {}
    for name, ask in MODELS.items():
        asked = _with_quality(episodes) if "quality" in name else episodes
        with same_draws():
            pair = [ask(asked.to(kind)) for kind in (torch.float64, torch.float32)]
        found[f"float32.{name}"] = _gap(*pair)
        print(f"  {name}: {found[f'float32.{name}']:.1e}", flush=True)
    return found


@contextmanager
def same_draws() -> Iterator[None]:
    """Draw normal and uniform numbers in single precision, whatever is asked for."""

    def narrow(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def drawn(*shape: Any, dtype: torch.dtype | None = None, **rest: Any) -> Tensor:
            out = draw(*shape, dtype=torch.float32, **rest)
            return out.to(dtype or torch.get_default_dtype())

        return drawn

    with (
        patch.object(torch, "randn", narrow(torch.randn)),
        patch.object(torch, "rand", narrow(torch.rand)),
    ):
        yield


def _population(model: Closed | RobustHierarchy, episodes: EpisodeBatch) -> dict[str, Tensor]:
    with torch.random.fork_rng():
        pyro.set_rng_seed(1)
        sites = model.sample_population(torch.zeros(1, episodes.dim, dtype=torch.float64))
    return {s: v.detach()[None].to(episodes.support) for s, v in sites.items()}


def _with_quality(episodes: EpisodeBatch) -> EpisodeBatch:
    noise = torch.Generator().manual_seed(0)
    support, query = (
        torch.randn(*mask.shape, 2, generator=noise) * mask[..., None]
        for mask in (episodes.support_mask, episodes.query_mask)
    )
    return replace(episodes, support_quality=support, query_quality=query)


def _gap(one: Predictive, two: Predictive) -> float:
    gaps = [
        (getattr(one, unit).prob.double() - getattr(two, unit).prob.double()).abs().max()
        for unit in ("frame", "video")
    ]
    return float(torch.stack(gaps).max())
