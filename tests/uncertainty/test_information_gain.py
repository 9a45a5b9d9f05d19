"""The expected gain of one more video against simulation by another route, and its order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.distributions import Categorical

from bayesfs.errors import InferenceError
from bayesfs.inference.exact import Exact
from bayesfs.models.gaussian.families import PerFeature
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.synthetic.truth import Population
from bayesfs.types import Posterior
from bayesfs.uncertainty.information_gain import expected_gain, with_video

DIM = 6
MODEL = GaussianHierarchy(PerFeature())


def tasks(**options):
    truth = Population.isotropic(DIM, offset=0.0, dtype=torch.float64)
    settings = {"users": 6, "way": 3, "shots": 4, "query_videos": 4, "seed": 0}
    return synthetic_episodes(truth, **(settings | options))[0]


def known_population() -> Posterior:
    scale = torch.tensor([0.5, 1.0, 0.4, 0.6, 0.4, 0.6], dtype=torch.float64) * DIM**0.5
    draws = {
        "offset_raw": torch.zeros(1, 2, DIM, dtype=torch.float64),
        "loading": torch.ones(1, dtype=torch.float64),
        "absent_odds": torch.full((1,), -3.0, dtype=torch.float64),
        "scale": scale[None],
        "relative": torch.ones(1, 6, DIM, dtype=torch.float64),
    }
    return Posterior("exact", draws, dict(MODEL.population_dims))


def keep_shots(batch, shots):
    """Class k keeps shots[k] videos."""
    mask = batch.support_mask.clone()
    for way, count in enumerate(shots):
        mask[:, way, count:] = False
    return replace(batch, support=batch.support * mask[..., None], support_mask=mask)


def test_gain_equals_the_mean_over_videos_drawn_by_hand() -> None:
    batch, population = keep_shots(tasks(users=2), (1, 2, 1)), known_population()
    gain = expected_gain(MODEL, population, batch, simulated_videos=150, seed=0)
    posterior = Exact(draws=150).infer(MODEL, batch, seed=7, given=population)
    means = MODEL.class_means(posterior.draws, batch)
    rng, frames = np.random.default_rng(3), 8
    sd = (0.4**2 + 0.4**2 / frames) ** 0.5
    value = {site: v[0] for site, v in population.draws.items()}
    for way in range(batch.way):
        probs = []
        for mean in means:
            mean_frame = mean[:, way] + sd * torch.from_numpy(rng.normal(size=(2, DIM)))
            scatter = torch.from_numpy(0.4 * rng.normal(size=(2, frames, DIM)))
            video = mean_frame[:, None] + scatter - scatter.mean(1, keepdim=True)
            grown = with_video(batch, way, video, "clean")
            probs.append([labels.exp() for labels in MODEL.log_labels(grown, value)])
        frame, whole = (torch.stack(part) for part in zip(*probs, strict=True))
        each = [Categorical(p).entropy() for p in (frame, whole)]
        mixed = [Categorical(p.mean(0)).entropy() for p in (frame, whole)]
        falls = [m - e.mean(0) for m, e in zip(mixed, each, strict=True)]
        want = 0.5 * (falls[0].mean((-1, -2)) + falls[1].mean(-1))
        torch.testing.assert_close(gain[:, way], want, rtol=0.25, atol=1e-3)


def test_the_object_with_fewest_videos_gains_most() -> None:
    batch = keep_shots(tasks(users=24), (1, 4, 4))
    gain = expected_gain(MODEL, known_population(), batch, simulated_videos=16, seed=0)
    assert (gain.argmax(-1) == 0).float().mean() > 0.8
    assert float(gain[:, 0].mean()) > 2 * float(gain[:, 1:].mean())


def test_what_is_known_already_gains_nothing() -> None:
    many = tasks(users=4, shots=40)
    gain = expected_gain(MODEL, known_population(), many, simulated_videos=32, seed=0)
    few = expected_gain(MODEL, known_population(), many.limit_shots(1), simulated_videos=32, seed=0)
    assert float(gain.abs().mean()) < 0.15 * float(few.mean())


def test_padded_classes_have_no_gain_and_quality_is_typical() -> None:
    truth = Population.isotropic(DIM, offset=0.0, quality_slope=(0.3,), dtype=torch.float64)
    batch, _ = synthetic_episodes(truth, users=3, way=4, ragged=True, seed=2)
    model = GaussianHierarchy(PerFeature(), covariates=("blur",))
    population = known_population()
    draws = {**population.draws, "quality_slope": torch.full((1, 2, 1), 0.3, dtype=torch.float64)}
    wide = Posterior("exact", draws, dict(model.population_dims))
    gain = expected_gain(model, wide, batch, simulated_videos=2, seed=0)
    assert (gain.isnan() == ~batch.way_mask).all()
    frames = torch.arange(20.0, dtype=torch.float64)[:, None].expand(3, 20, DIM)
    longer = with_video(batch, 0, frames, "clean")
    assert longer.support_quality[:, 0, -1].abs().max() == 0
    assert longer.support_mask[:, 0, -1].sum() == 20 * batch.way_mask[:, 0].sum()


def test_unknown_conditions_and_models_are_refused() -> None:
    with pytest.raises(InferenceError, match="expected condition to be one of"):
        expected_gain(MODEL, known_population(), tasks(), condition="dark", seed=0)
    with pytest.raises(InferenceError, match="simulate_videos, got object"):
        expected_gain(object(), known_population(), tasks(), seed=0)  # type: ignore[arg-type]


def test_a_simulated_video_counts_with_all_its_frames() -> None:
    """Copies of its mean frame would count once, and its worth would come out too small."""
    batch, population = tasks(users=2), known_population()
    value = {site: v[0] for site, v in population.draws.items()}
    video = MODEL.simulate_videos(batch, value, condition=0, frames=8, draws=1, seed=0)[0]
    grown = with_video(batch, 0, video[:, 0], "clean")
    assert grown.support_mask[:, 0].sum((-1, -2)).tolist() == [
        8 + int(n) for n in batch.support_mask[:, 0].sum((-1, -2))
    ]
