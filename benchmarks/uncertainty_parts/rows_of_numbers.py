"""Row 19: a table of rows and nothing else, scikit-learn's wine, with the estimator as it comes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from bayesfs.benchmark.disentangle import disentanglement_error
from bayesfs.sklearn import BayesianFewShotClassifier
from uncertainty_parts.bench import Floats, Found

STEPS = 10
SHOTS = (1, 2, 3, 5, 10)
Labels = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Parts = tuple[float, float, float]
"""Mean aleatoric and epistemic uncertainty in nats, and accuracy."""


def row_19(repeats: int) -> Found:
    """Disentanglement error as in de Jong et al. (2024), and what one example a class says.

    80 % of wine to learn from, seed 0: shares of it from .01 to 1, at least one row a class; and
    shares from 0 to 1 of the labels shuffled, in learning and in testing. Means over repeats. And
    what share of the doubt that goes away from 1 to 10 examples a class is called epistemic at 1.
    """
    x, y = load_wine(return_X_y=True)
    known, asked, label, truth = train_test_split(x, y, test_size=0.2, random_state=0)
    scale = StandardScaler().fit(known)
    known, asked = scale.transform(known), scale.transform(asked)

    def of_size(share: float, rng: Generator) -> Parts:
        rows = _some(label, max(round(share * len(label)), 3), rng)
        return _said(known[rows], label[rows], asked, truth)

    def of_noise(share: float, rng: Generator) -> Parts:
        return _said(known, _shuffled(label, share, rng), asked, _shuffled(truth, share, rng))

    def of_shots(shots: float, rng: Generator) -> Parts:
        rows = np.concatenate(
            [rng.permutation(np.flatnonzero(label == k))[: int(shots)] for k in range(3)]
        )
        return _said(known[rows], label[rows], asked, truth)

    size = _means(of_size, np.linspace(0.01, 1.0, STEPS), repeats, "share of the rows")
    noise = _means(of_noise, np.linspace(0.0, 1.0, STEPS), repeats, "share of noise")
    shots = _means(of_shots, SHOTS, repeats, "examples a class")
    aleatoric, epistemic, _ = shots
    total = aleatoric + epistemic
    falls = bool((np.diff(epistemic) < 0).all())
    return {
        "wine_disentanglement_error": disentanglement_error(
            (size[0].tolist(), size[1].tolist(), size[2].tolist()),
            (noise[0].tolist(), noise[1].tolist(), noise[2].tolist()),
        ),
        "one_shot_epistemic_share": float(epistemic[0] / (total[0] - total[-1]))
        if falls
        else float("nan"),
    }


def _means(
    of: Callable[[float, Generator], Parts],
    values: Floats | tuple[int, ...],
    repeats: int,
    title: str,
) -> Floats:
    """(part, value) means over repeats, printed."""
    each = [
        [of(float(value), np.random.default_rng([r, i])) for i, value in enumerate(values)]
        for r in range(repeats)
    ]
    mean = np.asarray(each).mean(0)
    print(f"wine, {title}: aleatoric, epistemic, accuracy")
    for value, row in zip(values, mean, strict=True):
        print(f"  {value:6.2f} " + " ".join(f"{v:8.3f}" for v in row))
    return mean.T


def _said(x: Floats, y: Labels, asked: Floats, truth: Labels) -> Parts:
    model = BayesianFewShotClassifier().fit(x, y, groups=range(len(y)))
    said = model.predict_uncertainty(asked)
    right = model.classes_[model.predict_proba(asked).argmax(1)] == truth
    return float(said["aleatoric"].mean()), float(said["epistemic"].mean()), float(right.mean())


def _some(label: Labels, count: int, rng: Generator) -> Labels:
    """So many rows at random, one of each class first."""
    order = rng.permutation(len(label))
    first = [int(order[label[order] == k][0]) for k in np.unique(label)]
    return np.array([*first, *(i for i in order.tolist() if i not in first)])[:count]


def _shuffled(label: Labels, share: float, rng: Generator) -> Labels:
    """Labels, a share of which is permuted."""
    chosen = np.flatnonzero(rng.random(len(label)) < share)
    noisy = label.copy()
    noisy[chosen] = label[rng.permutation(chosen)]
    return noisy
