"""What all rows share: data, a study, sizes; and means over what was predicted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesfs.benchmark.disentangle import Relabelled
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.metrics.selective import auroc
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.study import Answer, Learnt, Study
from bayesfs.training.flat_aleatoric import flat_aleatoric
from bayesfs.types import Embeddings

Floats = NDArray[np.float64]
Found = dict[str, float]
SHOTS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Bench:
    """What every row is measured with.

    Attributes:
        data: labelled frames of train and test users.
        base: model, engines, objective and reduction; its evaluation is not used.
        repeats: tasks per test user.
        draws: for what is computed beside the study's own engine.
    """

    data: Embeddings
    base: Study
    repeats: int
    draws: int

    def study(self, evaluation: Any) -> Study:
        """The same study with another evaluation."""
        return replace(self.base, evaluation=evaluation)

    def straight(self, learnt: Learnt, noise: float = 0.0) -> Learnt:
        """What was learnt; of a hierarchy, with kinds of uncertainty that mean what they say.

        Args:
            learnt: from the train users, with this share of noise in the labels.
            noise: the share.
        """
        if self.hierarchy(learnt) is None:
            return learnt
        study = self.study(Relabelled(self.held_out(), noise))
        return flat_aleatoric(study, learnt, self.data, draws=16, population_draws=2, seed=0)

    def held_out(self, **options: Any) -> HeldOutUsers:
        """Users not seen before, several tasks each."""
        settings = {"shots": SHOTS, "episodes_per_user": self.repeats}
        return HeldOutUsers(**(settings | options))

    def hierarchy(self, learnt: Learnt) -> GaussianHierarchy | None:
        """The model, if it is one that by_level, gain and the open world are known for."""
        model = self.base.model_of(learnt)
        return model if isinstance(model, GaussianHierarchy) else None


def mean_of(answer: Answer, name: str) -> float:
    """Mean over the frames or videos that exist."""
    return float(np.nanmean(answer.uncertainty[name].values))


def accuracy_of(answer: Answer) -> float:
    """Share of frames whose likeliest label is right."""
    label = answer.episodes.query_labels[..., None]
    mask = answer.episodes.query_mask & (label >= 0)
    right = answer.predictive.frame.log_prob.argmax(-1) == label
    return float(right[mask].double().mean())


def area(positive: Floats, negative: Floats) -> float:
    """Area under the ROC curve of a score, from its values on either side."""
    truth = np.r_[np.ones(len(positive), bool), np.zeros(len(negative), bool)]
    return auroc(np.r_[positive, negative], truth)
