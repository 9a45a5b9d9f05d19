"""Largest difference between single and double precision, model by model, on one small task each.

Only models whose predictive is a closed form: with the same seed, draws of another precision are
other draws.
"""

from __future__ import annotations

import pyro
import torch

from bayesfs.data.synthetic import synthetic_episodes
from bayesfs.models.baselines import standard_baselines
from bayesfs.models.deep_kernel_gp import DeepKernelGP
from bayesfs.models.gaussian import GaussianHierarchy
from bayesfs.models.gp_regression import LabelRegression
from bayesfs.models.gp_transfer import SigmoidOfMean
from bayesfs.models.niw import NIWClasses
from bayesfs.types import EpisodeBatch, Predictive

MODELS = {
    "gaussian": GaussianHierarchy(),
    "niw": NIWClasses(),
    "gp_regression": DeepKernelGP(likelihood=LabelRegression()),
    "gp_sigmoid": DeepKernelGP(likelihood=SigmoidOfMean()),
}


def differences(dim: int = 32) -> dict[str, float]:
    """Model -> largest |p_32 - p_64| over query frames and videos of 16 tasks of six objects."""
    size = {"users": 16, "way": 6, "shots": 5, "frames": 8, "dim": dim}
    episodes = synthetic_episodes(seed=0, **size)[0]
    found = {}
    for name, model in MODELS.items():
        found[f"float32.{name}"] = _gap(
            *(_conjugate(model, episodes.to(kind)) for kind in (torch.float64, torch.float32))
        )
    for name, baseline in standard_baselines().items():
        if "ensemble" not in name:
            pair = (baseline.predictive(episodes.to(k)) for k in (torch.float64, torch.float32))
            found[f"float32.{name.replace(' ', '_')}"] = _gap(*pair)
    return found


def _conjugate(
    model: GaussianHierarchy | DeepKernelGP | NIWClasses, episodes: EpisodeBatch
) -> Predictive:
    """At one draw of the population from its prior."""
    with torch.random.fork_rng():
        pyro.set_rng_seed(1)
        sites = model.sample_population(torch.zeros(1, episodes.dim, dtype=torch.float64))
    values = {s: v.detach()[None].to(episodes.support) for s, v in sites.items()}
    return model.predictive(episodes, values, draws=4, seed=0)


def _gap(one: Predictive, two: Predictive) -> float:
    gaps = [
        (getattr(one, unit).prob.double() - getattr(two, unit).prob.double()).abs().max()
        for unit in ("frame", "video")
    ]
    return float(torch.stack(gaps).max())
