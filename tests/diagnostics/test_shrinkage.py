"""Pooling against the textbook factor of balanced normal classes."""

import numpy as np
import pytest
import torch

from bayesfs.diagnostics.shrinkage import shrinkage
from bayesfs.inference.exact import Exact
from bayesfs.models.gaussian.families import PowerLaw
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.prediction import complete_draws
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing.toy import GaussianToy
from bayesfs.types import Posterior

SDS = {"task": 0.5, "class": 1.0, "video": 0.9, "frame": 0.8}


def population(model: GaussianHierarchy) -> Posterior:
    """Two equal draws of fixed scales, the clutter's as the clean ones'."""
    names = ("task", "class", "video", "video", "frame", "frame")
    value = model.sample_population(torch.zeros(3, dtype=torch.float64))
    draws = {site: v.expand(2, *v.shape) for site, v in value.items()}
    draws["scale"] = torch.tensor([SDS[name] for name in names]).double().expand(2, -1)
    return Posterior("exact", draws, dict(model.population_dims))


@pytest.mark.parametrize("shots", [1, 4])
def test_the_weight_is_that_of_balanced_normal_classes(shots: int) -> None:
    """B / (B + (V + F / frames) / shots); what the classes share cancels."""
    model = GaussianHierarchy(PowerLaw())
    batch, _ = synthetic_episodes(users=3, way=4, shots=shots, frames=2, dim=3, seed=0)
    batch = batch.to(torch.float64)
    given = population(model)
    posterior = Exact(draws=2000, population_draws=1).infer(model, batch, seed=0, given=given)
    found = shrinkage(model, complete_draws(model, posterior, given), batch)
    noise = (SDS["video"] ** 2 + SDS["frame"] ** 2 / 2) / shots
    wanted = SDS["class"] ** 2 / (SDS["class"] ** 2 + noise)
    assert found["weight"].shape == (3, 4)
    np.testing.assert_allclose(found["weight"], wanted, atol=0.06)
    assert float(found["weight"].mean()) == pytest.approx(wanted, abs=0.015)


def test_padding_is_nan_and_other_models_have_none() -> None:
    model = GaussianHierarchy(PowerLaw())
    batch, _ = synthetic_episodes(users=3, way=4, shots=2, dim=3, seed=0, ragged=True)
    batch = batch.to(torch.float64)
    given = population(model)
    posterior = Exact(draws=8, population_draws=1).infer(model, batch, seed=0, given=given)
    found = shrinkage(model, complete_draws(model, posterior, given), batch)
    assert (np.isnan(found["weight"].values) == ~batch.way_mask.numpy()).all()
    assert shrinkage(GaussianToy(), {}, batch) is None
