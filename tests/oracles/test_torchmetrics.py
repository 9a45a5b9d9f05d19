"""Calibration errors that TorchMetrics prints.

Source: Lightning-AI/torchmetrics (Apache-2.0), documentation of `BinaryCalibrationError` and
`MulticlassCalibrationError`: .2000 (l1), .2082 (l2) and .2333 (max) with 3 bins for four items of
three classes, .2900, .2918 and .3167 with 2 bins for a binary forecast. The binary one takes the
stated probability of class 1 as the confidence, also below a half, which ours does not; its items
enter here as top labels among many.
"""

import numpy as np
import pytest

from bayesfs.metrics.calibration import binned_gaps, ece, equal_width_bins, mce
from bayesfs.metrics.scores import top_label

THREE = [[0.25, 0.20, 0.55], [0.55, 0.05, 0.40], [0.10, 0.30, 0.60], [0.90, 0.05, 0.05]]
LABELS = [0, 1, 2, 0]
BINARY = np.array([0.25, 0.25, 0.55, 0.75, 0.75])
HAPPENED = np.array([0.0, 0.0, 1.0, 1.0, 1.0])


def test_multiclass_example() -> None:
    logp = np.log(THREE)
    assert ece(logp, LABELS, bins=3) == pytest.approx(0.2000, abs=5e-5)
    assert mce(logp, LABELS, bins=3) == pytest.approx(0.2333, abs=5e-5)
    confidence, correct = top_label(logp, LABELS)
    share, gap = binned_gaps(confidence, correct, equal_width_bins(confidence, 3))
    assert np.sqrt(share @ gap**2) == pytest.approx(0.2082, abs=5e-5)


def test_binary_example() -> None:
    share, gap = binned_gaps(BINARY, HAPPENED, equal_width_bins(BINARY, 2))
    found = (share @ gap, np.sqrt(share @ gap**2), gap.max())
    assert found == pytest.approx((0.2900, 0.2918, 0.3167), abs=5e-5)


def test_binary_example_as_top_labels_among_many() -> None:
    others = 20
    rest = np.repeat(((1 - BINARY) / others)[:, None], others, 1)
    logp = np.log(np.concatenate([BINARY[:, None], rest], 1))
    labels = np.where(HAPPENED > 0, 0, 1)
    assert ece(logp, labels, bins=2) == pytest.approx(0.2900, abs=5e-5)
    assert mce(logp, labels, bins=2) == pytest.approx(0.3167, abs=5e-5)
