"""Levels of doubt of the similarity pool, against quadrature in SciPy and against its own draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss
from scipy.special import expit, softmax, xlogy

from bayesfs.inference.own_approximation import OwnApproximation
from bayesfs.models.similarity.levels import Drawn, entropies, foreseen_gain
from bayesfs.models.similarity.pool import SimilarityPool
from bayesfs.prediction import predict
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.types import EpisodeBatch
from bayesfs.uncertainty.by_level import by_level
from bayesfs.uncertainty.decompose import decompose
from bayesfs.uncertainty.decompositions import FORESEEN
from bayesfs.uncertainty.parts import EPISTEMIC, LEVEL_PARTS


def drawn(logits: np.ndarray, sd: list[float], draws: int = 20_000, share: float = 0.4) -> Drawn:
    """Two or more classes, one draw of the person, whose (frame, way) logits are known.

    The heads' share of the biases makes up for their sd, which is one over the share too large.
    """
    frames = torch.from_numpy(logits)[None, None, None, None]
    rank = torch.arange(draws, dtype=torch.float64)
    shuffled = [torch.randperm(draws, generator=torch.Generator().manual_seed(k)) for k in range(9)]
    z = torch.special.ndtri((rank + 0.5) / draws)
    bias = torch.stack([z[shuffled[k]] for k in range(len(sd))], -1)[:, None]
    return Drawn(
        frames,
        bias,
        torch.tensor([sd], dtype=torch.float64) / share,
        torch.full((1, 1, 1), share, dtype=torch.float64),
        torch.ones(1, len(sd), dtype=torch.bool),
    )


def binary_entropy(p: np.ndarray) -> np.ndarray:
    return np.asarray(-xlogy(p, p) - xlogy(1 - p, 1 - p))


def test_two_classes_by_quadrature() -> None:
    """The difference of two biases is one normal: a one-dimensional integral."""
    delta, sd = 0.7, [1.2, 0.8]
    x, w = hermegauss(80)
    p = expit(delta + np.hypot(*sd) * x)
    w = w / w.sum()
    found = entropies(drawn(np.array([[delta, 0.0]]), sd))[:, 0, 0]
    expected = [binary_entropy(w @ p)] * 3 + [w @ binary_entropy(p)] * 2
    np.testing.assert_allclose(found[:, 0, 0].numpy(), expected, atol=3e-3)


def test_the_frame_that_shows_it() -> None:
    """Knowing the frame leaves the mean entropy of the frames' own labels, by their evidence."""
    u = np.array([[3.0, 0.0, 0.0], [0.0, 0.5, -1.0]])
    found = entropies(drawn(u, [1e-9] * 3, draws=4))[:, 0, 0]
    p = softmax(u, -1)
    weight = softmax(np.log(np.exp(u).sum(-1)))
    mixture = np.exp(u).mean(0) / np.exp(u).mean(0).sum()
    each = -xlogy(p, p).sum(-1)
    np.testing.assert_allclose(found[3, 0, 0].item(), -xlogy(mixture, mixture).sum(), atol=1e-7)
    np.testing.assert_allclose(found[4, 0, 0].item(), weight @ each, atol=1e-7)


def test_gain_by_quadrature() -> None:
    """I(y; m), with m what one more video of the first class tells of its bias."""
    delta, sd, count = 0.4, [1.5, 1.5 / np.sqrt(2)], [1.0, 2.0]
    x, w = hermegauss(60)
    w = w / w.sum()
    expected = []
    for way in range(2):
        told = sd[way] ** 2 / (count[way] + 1)
        rest = sd[0] ** 2 + sd[1] ** 2 - told
        p = expit(delta + np.sqrt(told) * x[:, None] + np.sqrt(rest) * x) @ w
        expected.append(binary_entropy(w @ p) - w @ binary_entropy(p))
    found = foreseen_gain(drawn(np.array([[delta, 0.0]]), sd), torch.tensor([count]).double())
    np.testing.assert_allclose(found[0, 0].numpy(), expected, rtol=0.08)


@pytest.fixture(scope="module")
def batch() -> EpisodeBatch:
    episodes, _ = synthetic_episodes(users=2, way=3, shots=3, frames=4, dim=7, seed=0, ragged=True)
    return episodes.to(torch.float64)


def test_parts_are_those_of_the_draws(batch: EpisodeBatch) -> None:
    """They sum to the entropy of the prediction, and the first three to the epistemic part."""
    model = SimilarityPool()
    given = model.default_population(batch.dim)
    engine = OwnApproximation(draws=512, population_draws=16)
    posterior = engine.infer(model, batch, seed=0, given=given)
    kinds = decompose(predict(model, posterior, batch, given=given), batch)
    parts = by_level(model, given, batch, draws=32, population_draws=16, seed=0)
    for unit in ("frame", "video"):
        whole = sum(parts[f"{unit}_{part}"] for part in LEVEL_PARTS)
        epistemic = sum(parts[f"{unit}_{part}"] for part in EPISTEMIC)
        assert abs(whole - kinds[f"{unit}_total"]).max() < 0.04
        assert abs(epistemic - kinds[f"{unit}_epistemic"]).max() < 0.04
    assert np.nanmax(abs(parts["frame_video"])) < 1e-9  # a frame by itself is that frame


def test_a_class_that_is_well_known_gains_nothing(batch: EpisodeBatch) -> None:
    given = SimilarityPool().default_population(batch.dim)
    by_sd = {}
    for sd in (1e-6, 1.5):
        model = replace(SimilarityPool(), class_sd=sd)
        answer = predict(
            model,
            OwnApproximation(draws=8).infer(model, batch, seed=0, given=given),
            batch,
            given=given,
        )
        found = FORESEEN(model, given, batch, answer, seed=0)
        assert found is not None
        by_sd[sd] = found["video_gain"].values
    exists = (batch.video_mask[..., None] & batch.way_mask[:, None]).numpy()
    assert (np.isfinite(by_sd[1.5]).all(-1) == exists).all()
    assert np.nanmax(by_sd[1e-6]) < 1e-9
    assert np.nanmin(by_sd[1.5]) >= 0.0
    assert np.nanmean(by_sd[1.5]) > 0.005
