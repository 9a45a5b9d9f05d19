"""Priors are choices: every hyperprior of the shipped models is a field, and places have names."""

from collections.abc import Mapping
from typing import Any

import pyro
import pyro.poutine
import pytest
import torch

from bayesfs.diagnostics.population_prior import population_prior
from bayesfs.models.gaussian.families import (
    COVARIANCE_LEVELS,
    Full,
    LowRankCovariance,
    PerFeature,
    PowerLaw,
)
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.gaussian.robust import RobustHierarchy
from bayesfs.models.gaussian.shared_classes import SharedClasses
from bayesfs.models.gp.covariance import VideoCovariance
from bayesfs.models.gp.deep_kernel_gp import DeepKernelGP
from bayesfs.models.gp.feature_maps import OrderedAxes
from bayesfs.models.gp.kernels import RBF, Cosine, Linear, Matern, Spectral
from bayesfs.models.gp.likelihoods.dirichlet import Dirichlet
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.models.niw.classes import NIWClasses
from bayesfs.models.similarity.heads import HEADS
from bayesfs.models.similarity.pool import SimilarityPool
from bayesfs.recipes.overrides import override
from bayesfs.study import with_coords
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.types import Posterior

EPISODES, _ = synthetic_episodes(users=2, way=2, shots=1, dim=3, seed=0)


def priors(model: Any) -> dict[str, Any]:
    """Population site -> its prior, as the program has it."""
    program = getattr(model, "sample_population", None)
    with pyro.poutine.trace() as trace, torch.no_grad():
        model(EPISODES) if program is None else program(EPISODES.support)
    sites = {n: s for n, s in trace.trace.nodes.items() if s["type"] == "sample"}
    held = {site for site, dims in model.dims.items() if "task" not in dims}
    return {name: site["fn"] for name, site in sites.items() if name in held}


def gp(base: Any) -> DeepKernelGP:
    return DeepKernelGP(
        VideoCovariance(features=OrderedAxes(power_spread=0.1), base=base, constant=0.1),
        Dirichlet(learnt=True),
    )


HIERARCHY = {
    "loading": "loading",
    "loading_sd": "loading",
    "slope_sd": "quality_slope",
    "absent_odds": "absent_odds",
    "absent_odds_sd": "absent_odds",
    "family.scale": "scale",
    "family.exponent": "exponent",
    "family.exponent_sd": "exponent",
}

NIW = ("loading", "clutter", "frame", "kappa", "dof")

FIELDS: list[tuple[Any, Mapping[str, str]]] = [
    (GaussianHierarchy(covariates=("a",)), HIERARCHY),
    (GaussianHierarchy(PerFeature()), {"family.scale": "scale", "family.spread": "relative"}),
    (
        GaussianHierarchy(LowRankCovariance()),
        {"family.scale": "scale", "family.spread": "relative", "family.factor_scale": "factor"},
    ),
    (
        GaussianHierarchy(Full()),
        {
            "family.scale": "scale",
            "family.spread": "relative",
            "family.concentration": "correlation",
        },
    ),
    (RobustHierarchy(), {"absent_prior": "absent", "dof_prior": "dof", "base.loading": "loading"}),
    (SharedClasses(labels=("a",)), {"scale": "scale", "spread": "relative"}),
    (
        NIWClasses(),
        {
            **{name: name for name in NIW},
            **{f"{name}_sd": name for name in NIW},
            "scale": "scale",
            "exponent": "exponent",
            "exponent_sd": "exponent",
        },
    ),
    (
        HierarchicalHead(),
        {
            "weight_scale": "population_scale",
            "weight_scale_sd": "population_scale",
            "relevance_spread": "relevance",
            "video_scale": "offset_scale",
            "mean_sd": "population_mean",
            "mean_scale": "mean_scale",
        },
    ),
    (
        SimilarityPool(),
        {"scale": "scale_mean", "scale_sd": "scale_mean", "head_sd": "head_mean"},
    ),
    *((gp(kernel), {"covariance.base.spread": "signal"}) for kernel in (Linear(), Cosine())),
    *((gp(kernel), {"covariance.base.spread": "lengthscale"}) for kernel in (RBF(), Matern())),
    (
        gp(Spectral()),
        {
            "covariance.base.spread": "spectral_bandwidth",
            "covariance.base.weight_spread": "spectral_weight",
            "covariance.base.frequency": "spectral_frequency",
            "covariance.spread": "frame_scale",
            "covariance.video": "video_scale",
            "covariance.constant": "constant_scale",
            "covariance.shift": "video_shift",
            "covariance.features.power_spread": "whitening",
            "likelihood.spread": "concentration",
        },
    ),
]

UNIT = {"offset_raw", "mean_raw", "shared_raw"}
"""Standardised sites, whose scale is a field that multiplies them."""

CASES = [(model, field, site) for model, fields in FIELDS for field, site in fields.items()]


@pytest.mark.parametrize(
    ("model", "field", "site"), CASES, ids=lambda v: v if isinstance(v, str) else type(v).__name__
)
def test_a_hyperprior_is_a_field_by_its_name(model: Any, field: str, site: str) -> None:
    """Another value changes the prior of its site, and no other site's but for a shared field."""
    held = model
    for name in field.split("."):
        held = getattr(held, name)
    text = "(3.0, 4.0)" if isinstance(held, tuple) else str(1.5 * held + 0.25)
    changed = override({"model": model}, [f"model.{field}={text}"])["model"]
    before, after = priors(model), priors(changed)
    value = before[site].sample()
    assert not torch.allclose(before[site].log_prob(value), after[site].log_prob(value))


@pytest.mark.parametrize(
    ("model", "fields"), FIELDS[:1] + FIELDS[4:9], ids=lambda v: type(v).__name__
)
def test_every_population_site_has_a_field(model: Any, fields: Mapping[str, str]) -> None:
    base = set(HIERARCHY.values()) if isinstance(model, RobustHierarchy) else set()
    assert set(priors(model)) <= set(fields.values()) | UNIT | base


def test_places_along_axes_have_names_in_what_is_learnt() -> None:
    dims = {"scale": ("level",), "frame": ("condition",), "free": ("axis",)}
    draws = {"scale": torch.ones(2, 6), "frame": torch.ones(2, 2), "free": torch.ones(2, 1)}
    found = with_coords(GaussianHierarchy(), Posterior("exact", draws, dims)).coords
    assert found == {"level": COVARIANCE_LEVELS, "condition": ("clean", "clutter")}
    assert SimilarityPool().coords["head"] == HEADS
    assert GaussianHierarchy(covariates=("a",)).coords["covariate"] == ("a",)


def test_a_family_hands_its_scale_on() -> None:
    for family in (PowerLaw(scale=3.0), PerFeature(scale=3.0), Full(scale=3.0)):
        law = priors(GaussianHierarchy(family))["scale"].base_dist
        assert law.scale.unique().tolist() == [3.0]


def test_draws_of_the_prior_are_those_of_the_program() -> None:
    """Numbers that have names, with the mean and sd that the fields say."""
    model = GaussianHierarchy(PowerLaw(scale=2.0), absent_odds=1.0)
    found = population_prior(model, EPISODES, draws=4000)
    assert found is not None
    assert found.coords == {"level": COVARIANCE_LEVELS}
    assert set(found.draws) == {"loading", "absent_odds", "scale", "exponent"}
    scale, odds = found.draws["scale"], found.draws["absent_odds"]
    assert scale.mean(0).sub(2.0 * (2.0 / torch.pi) ** 0.5).abs().max() < 0.1
    assert (odds.mean() - 1.0).abs() < 0.2
    assert (odds.std() - 3.0).abs() < 0.2
    again = population_prior(model, EPISODES, draws=4000)
    assert again is not None
    assert torch.equal(again.draws["scale"], scale)
    assert population_prior(HierarchicalHead(), EPISODES) is None
