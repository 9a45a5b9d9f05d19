"""ORBIT's own evaluator on random videos.

Source: microsoft/ORBIT-Dataset, utils/eval_metrics.py at 97ccae1 (August 2024, MIT). Its
`TestEvaluator` was run on the videos that `videos` makes; the means over videos and half-widths
that it printed are below. `video_acc` is from its `get_video_accuracy` per video, since its
`get_mean_stats` fails for that metric (docs/upstream.md).
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from bayesfs.evaluation.orbit_scores import METRICS, orbit_metrics

PRINTED = {
    0: [(0.5652963906, 0.0918872382), (0.0245441677, 0.03447421), (0.8888888889, 0.1451851852)],
    1: [(0.4678562974, 0.0936910038), (0.0355890631, 0.0183875775), (0.8333333333, 0.1721684504)],
    2: [(0.4680773787, 0.0943586119), (0.0326839082, 0.0201855525), (0.7777777778, 0.192061947)],
}
"""seed -> (mean, half-width) of frame accuracy, frames to recognition, video accuracy."""


def videos(seed: int) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """User, video, label and predicted class of every frame."""
    rng = np.random.default_rng(seed)
    for user in range(4):
        for video in range(3 + user):
            n, label, skill = int(rng.integers(5, 60)), int(rng.integers(0, 5)), rng.random() * 0.8
            yield user, video, label, np.where(rng.random(n) < skill, label, rng.integers(0, 5, n))


@pytest.mark.parametrize("seed", PRINTED)
def test_metrics_are_those_of_its_evaluator(seed: int) -> None:
    rows = [
        pd.DataFrame(
            {
                "user": f"P{user}",
                "task": f"P{user}/0",
                "video": f"P{user}-{video}",
                "object": str(label),
                "frame": np.arange(len(predicted)),
                "label": label,
                "prediction": predicted,
            }
        )
        for user, video, label, predicted in videos(seed)
    ]
    found = orbit_metrics(pd.concat(rows), draws=100)
    for metric, (mean, half) in zip(METRICS, PRINTED[seed], strict=True):
        assert found.loc[metric, "mean"] == pytest.approx(mean, abs=1e-9)
        assert found.loc[metric, "orbit_ci"] == pytest.approx(half, abs=1e-9)
