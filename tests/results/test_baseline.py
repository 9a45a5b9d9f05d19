"""The simplest classifier and chance: against simulation, a bootstrap, and words of a formula."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from bayesfs.metrics.reference import chance_scores, paired_gain
from bayesfs.metrics.selective import aurc
from bayesfs.results.baseline import BASELINE, baseline_group
from bayesfs.synthetic.tasks import synthetic_episodes


def test_probabilities_are_a_softmax_of_cosines() -> None:
    """One frame and one video, by hand."""
    batch, _ = synthetic_episodes(users=2, way=3, shots=2, frames=3, dim=4, ragged=True, seed=1)
    found = baseline_group(batch)
    task, video = batch.video_mask.nonzero()[-1].tolist()
    there = batch.query_mask[task, video]
    rows = []
    for frame in batch.query[task, video][there]:
        logits = []
        for way in range(int(batch.way_mask[task].sum())):
            taught = batch.support[task, way][batch.support_mask[task, way]]
            mean = torch.nn.functional.normalize(taught, dim=-1).mean(0)
            logits.append(torch.cosine_similarity(frame, mean, dim=0) / BASELINE.frame_temperature)
        rows.append(torch.stack(logits).softmax(0).double())
    said = found["video_prob"].values[task, video]
    np.testing.assert_allclose(said[: len(logits)], torch.stack(rows).mean(0), atol=1e-5)
    assert np.isnan(found["video_prob"].values[~batch.video_mask.numpy()]).all()
    assert np.isnan(found["frame_prob"].values[~batch.query_mask.numpy()]).all()


def test_chance_is_what_guessing_scores() -> None:
    rng = np.random.default_rng(0)
    ways = rng.integers(2, 7, 60_000)
    labels = rng.integers(0, ways)
    found = chance_scores(ways)
    guess = rng.integers(0, ways) == labels
    assert found["accuracy"] == pytest.approx(guess.mean(), abs=0.01)
    assert found["nll"] == pytest.approx(np.log(ways).mean())
    squares = (1 - 1 / ways) ** 2 + (ways - 1) / ways**2
    assert found["brier"] == pytest.approx(squares.mean())
    prob = np.full((4000, 4), 0.25)
    drawn = rng.integers(0, 4, 4000)
    risk = aurc(np.log(prob + 1e-9 * rng.random(prob.shape)), drawn)
    assert chance_scores(np.full(4000, 4))["aurc"] == pytest.approx(risk, abs=0.05)


def test_the_error_of_a_gain_is_that_of_a_bootstrap_over_people() -> None:
    rng = np.random.default_rng(1)
    user = np.repeat([f"u{i}" for i in range(40)], rng.integers(3, 12, 40))
    by_user = dict(zip(np.unique(user), rng.normal(0.2, 0.5, 40), strict=True))
    gain = np.array([by_user[u] for u in user]) + rng.normal(0, 0.3, len(user))
    rows = pd.DataFrame({"user": user, "nll": 1.0})
    mean, error = paired_gain(rows, rows.assign(nll=1.0 + gain))
    assert mean == pytest.approx(gain.mean())
    groups = [gain[user == u] for u in np.unique(user)]
    samples = [
        np.concatenate([groups[i] for i in rng.integers(0, 40, 40)]).mean() for _ in range(2000)
    ]
    assert error == pytest.approx(np.std(samples), rel=0.1)
    assert math.isnan(paired_gain(rows[:3].assign(user="u"), rows[:3])[1])
