"""Data in other units than a prior is made for are told, and not fit for use."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

from bayesfs.contracts import Model
from bayesfs.data.synthetic import synthetic_episodes
from bayesfs.evaluation.datatree import to_datatree
from bayesfs.evaluation.diagnostics import diagnose
from bayesfs.inference.svi import SVI
from bayesfs.inference.units import data_length
from bayesfs.models.gaussian import GaussianHierarchy
from bayesfs.models.linear_head import HierarchicalHead
from bayesfs.models.niw import NIWClasses
from bayesfs.models.objectives import Evidence, PredictiveScore
from bayesfs.models.robust import RobustHierarchy
from bayesfs.predict import predict
from bayesfs.types import EpisodeBatch
from bayesfs.uncertainty import decompose

MODELS: list[Model] = [
    GaussianHierarchy(),
    RobustHierarchy(),
    NIWClasses(),
    Evidence(GaussianHierarchy()),
    PredictiveScore(GaussianHierarchy()),
]
name = pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)


def tasks(factor: float = 1.0, shift: float = 0.0) -> EpisodeBatch:
    """Features of about unit length, times a factor and then moved."""
    drawn, _ = synthetic_episodes(
        users=3, way=3, shots=3, frames=2, query_videos=1, dim=4, ragged=True, seed=0
    )
    scale = float(drawn.support[drawn.support_mask].square().sum(-1).mean().sqrt())
    there, asked = drawn.support_mask[..., None], drawn.query_mask[..., None]
    return replace(
        drawn.to(torch.float64),
        support=(factor / scale * drawn.support.double() + shift) * there,
        query=(factor / scale * drawn.query.double() + shift) * asked,
    )


def test_length_is_that_of_the_frames() -> None:
    """The root mean square over existing frames, also where squares would overflow."""
    assert data_length(GaussianHierarchy(), tasks(100.0)) == pytest.approx(100.0)
    assert data_length(GaussianHierarchy(), tasks(1e70)) == pytest.approx(1e70)


@name
def test_unit_length_is_no_matter(model: Model) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="expected data of root mean square length")
        posterior = SVI(steps=3, draws=4).infer(model, tasks(), seed=0)
    assert float(posterior.sample_stats["units"]) <= 1


@name
@pytest.mark.parametrize("change", [{"factor": 100.0}, {"shift": 50.0}])
def test_other_units_and_means_are_told(model: Model, change: dict[str, float]) -> None:
    with pytest.warns(UserWarning, match="expected data of root mean square length"):
        posterior = SVI(steps=3, draws=4).infer(model, tasks(**change), seed=0)
    assert float(posterior.sample_stats["units"]) > 1


def test_data_that_are_far_too_small_are_told() -> None:
    with pytest.warns(UserWarning, match="expected data of root mean square length"):
        SVI(steps=3, draws=4).infer(GaussianHierarchy(), tasks(1e-4), seed=0)


@pytest.mark.filterwarnings("ignore:expected data of root mean square length")
@pytest.mark.parametrize(("factor", "found"), [(1.0, False), (100.0, True)])
def test_data_times_100_are_not_fit_for_use(factor: float, found: bool) -> None:
    """A joint fit: tasks and population at once."""
    model, episodes = GaussianHierarchy(), tasks(factor)
    posterior = SVI(steps=60, draws=16).infer(model, episodes, seed=0)
    predictive = predict(model, posterior, episodes)
    tree = to_datatree(posterior, predictive, decompose(predictive, episodes), episodes)
    said = diagnose(tree)
    assert ("units of the data" in {check.name for check in said.failed}) == found
    if found:
        assert "fit for use" not in said.verdict
        assert "units of the data" in said.verdict


def test_a_program_of_labels_says_nothing_of_units() -> None:
    posterior = SVI(steps=3, draws=4).infer(HierarchicalHead(), tasks(100.0), seed=0)
    assert "units" not in posterior.sample_stats
