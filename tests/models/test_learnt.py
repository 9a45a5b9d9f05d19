"""A learnt map of the features, and its score."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bayesfs.errors import InferenceError
from bayesfs.inference.program.potential import potential
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.learned_map import LearnedLinearMap, MapScore
from bayesfs.models.objectives import label_score
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.types import EpisodeBatch

SPECTRUM = (0.8, 0.5, 0.3, 0.1)


def unit_episodes() -> EpisodeBatch:
    """Tasks with features of length 1, as a projection gives them."""
    drawn, _ = synthetic_episodes(users=3, way=3, shots=2, frames=2, dim=4, ragged=True, seed=1)
    sites = {"map_raw": torch.zeros(4, 4, dtype=torch.float64)}
    return MapScore(GaussianHierarchy(), LearnedLinearMap(), SPECTRUM).mapped(
        drawn.to(torch.float64), sites
    )


def random_map(seed: int = 0) -> dict[str, Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return {"map_raw": torch.randn(4, 4, generator=noise, dtype=torch.float64)}


def test_zero_is_the_identity_and_lengths_stay_one() -> None:
    z, spectrum = unit_episodes().query, torch.tensor(SPECTRUM).double()
    same = LearnedLinearMap().apply(z, {"map_raw": torch.zeros(4, 4).double()}, spectrum)
    torch.testing.assert_close(same, z)
    length = LearnedLinearMap(2.0).apply(z, random_map(), spectrum).norm(dim=-1)
    exists = z.norm(dim=-1) > 0
    torch.testing.assert_close(length, exists.double())
    assert not exists.all(), "some padding should be here"


def test_spread_is_the_change_of_a_feature_relative_to_its_sd() -> None:
    noise = torch.Generator().manual_seed(0)
    z = torch.nn.functional.normalize(torch.randn(500, 4, generator=noise).double(), dim=-1)
    spectrum = torch.tensor(SPECTRUM).double()
    changes = [
        (z @ LearnedLinearMap(0.2).matrix(random_map(s), spectrum) - z).square().mean(0)
        for s in range(200)
    ]
    size = torch.stack(changes).mean(0).sqrt() / spectrum
    torch.testing.assert_close(size, torch.full((4,), 0.2).double(), rtol=0.1, atol=0)


def test_without_a_map_the_score_is_that_of_the_labels() -> None:
    episodes, model = unit_episodes(), GaussianHierarchy().fit_to(SPECTRUM)
    program = MapScore(model, LearnedLinearMap(0.0), SPECTRUM)
    density = potential(program, episodes)
    z = density.prior(1, seed=0)
    sites = {site: value[0] for site, value in density.constrain(z).items()}
    score = label_score(*model.log_labels(episodes, sites), episodes).sum()
    torch.testing.assert_close(program.score(sites, episodes), score)
    other = z.clone()
    block = density.blocks["map_raw"]
    other[..., block.start : block.stop] = 0.0
    prior = -0.5 * sites["map_raw"].square().sum()
    torch.testing.assert_close(
        density.log_density(z) - density.log_density(other), prior[None, None]
    )


def test_the_gradient_reaches_the_map() -> None:
    episodes = unit_episodes()
    density = potential(
        MapScore(GaussianHierarchy().fit_to(SPECTRUM), LearnedLinearMap(0.5), SPECTRUM),
        episodes,
    )
    z = density.prior(2, seed=0)
    _, gradient = density.value_and_gradient(z)
    direction = torch.zeros_like(z)
    block = density.blocks["map_raw"]
    direction[..., block.start : block.stop] = 1e-5
    slope = density.log_density(z + direction) - density.log_density(z - direction)
    torch.testing.assert_close(slope, 2 * (gradient * direction).sum(-1), rtol=1e-4, atol=1e-9)


def test_it_is_no_model_of_a_task() -> None:
    with pytest.raises(InferenceError, match="learns a map alone"):
        MapScore(GaussianHierarchy(), LearnedLinearMap(), SPECTRUM).log_joint_frame(
            {}, unit_episodes()
        )
