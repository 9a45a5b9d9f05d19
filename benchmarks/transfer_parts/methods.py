"""What is compared: start with `Method`; `METHODS` are those of the library.

To add one, write a factory `make(people) -> Method` and name it in `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bayesfs.data.worlds import together
from bayesfs.decisions.prediction_sets import credible_set, open_set
from bayesfs.errors import ShapeError
from bayesfs.models.similarity.pool import SimilarityPool
from bayesfs.prediction import predict
from bayesfs.sklearn import BayesianFewShotClassifier
from bayesfs.study import scatter_of
from bayesfs.training.shared_population import BACKBONES, ENGINE, default_population
from bayesfs.types import EpisodeBatch, Posterior
from transfer_parts.worlds import World

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

LEVEL = 0.9
"""Of the prediction sets."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a method says of the query videos of one task.

    Attributes:
        prob: (query, way) probability of each taught object.
        in_set: (query, way) whether it is in the 90 % set, or None.
        novelty: (query,) high where the object was not taught; one minus a p-value, so that a
            share .05 of taught videos lies above .95; or None.
        borrowed: share of other people's population that was kept, 0 to 1, or None.
    """

    prob: Floats
    in_set: Bools | None = None
    novelty: Floats | None = None
    borrowed: float | None = None

    def checked(self, task: EpisodeBatch, name: str) -> Answer:
        """Itself, if it fits the task.

        Raises:
            ShapeError: a shape is another, or rows are no probabilities.
        """
        videos, way = task.query.shape[1], task.way
        got = {"prob": self.prob, "in_set": self.in_set, "novelty": self.novelty}
        wanted = {"prob": (videos, way), "in_set": (videos, way), "novelty": (videos,)}
        for field, value in got.items():
            if value is not None and value.shape != wanted[field]:
                raise ShapeError(
                    f"{name}: expected {field} of shape {wanted[field]}, got {value.shape}"
                )
        if not ((self.prob >= 0).all() and np.allclose(self.prob.sum(1), 1, atol=1e-6)):
            raise ShapeError(
                f"{name}: expected rows of prob that sum to 1, got sums from "
                f"{self.prob.sum(1).min()} to {self.prob.sum(1).max()}"
            )
        return self


class Method(Protocol):
    """Answers one task at a time."""

    @property
    def name(self) -> str:
        """Of the figures, without a dot."""
        ...

    def answer(self, task: EpisodeBatch) -> Answer:
        """Answer a batch of one task: support (1, way, shot, frame, feature) of length 1."""
        ...


Make = Callable[[Sequence[World]], Method]
"""The people's worlds, none for what the library ships -> a method that may have learnt there."""


@dataclass(frozen=True)
class SupportOnly:
    """The estimator with the task's own videos alone; what is new is where no class is likely.

    Its sets are credible sets, and its novelty, 1 - max p, is no p-value.
    """

    name: str = "support_only"

    def answer(self, task: EpisodeBatch) -> Answer:
        """Fit the estimator to the support and ask it for the videos."""
        label, shot, _ = (axis.numpy() for axis in task.support_mask[0].nonzero(as_tuple=True))
        mask = task.query_mask[0]
        known = BayesianFewShotClassifier().fit(
            task.support[0][task.support_mask[0]].numpy(), label, label * 1000 + shot
        )
        asked = known.answer(task.query[0][mask].numpy(), mask.nonzero()[:, 0].numpy())
        prob = asked.predictive.video.prob[0].double().cpu().numpy()
        prob = prob / prob.sum(1, keepdims=True)
        return Answer(prob, credible_set(prob, LEVEL), 1 - prob.max(1))


@dataclass(frozen=True)
class Pool:
    """The default: pooled similarities, corrected by the person's own videos.

    Attributes:
        model: with the scatter of the people's videos, or of the population that comes along.
        population: of its sites; None for the prior.
        name: of its figures.
    """

    model: SimilarityPool
    population: Posterior | None = None
    name: str = "bayesfs"

    @classmethod
    def of(cls, people: Sequence[World], backbone: str = BACKBONES[0]) -> Pool:
        """What videos of a thing vary in, in the people's worlds of the same backbone.

        Without people, the population that comes with bayesfs for the backbone.
        """
        if not people:
            box = default_population(backbone)
            return cls(box.model, box.population)
        usable = [world.embeddings for world in people if world.comparable]
        return cls(SimilarityPool(scatter_of(together(usable)) if usable else None))

    def answer(self, task: EpisodeBatch) -> Answer:
        """Infer the person's scale and weights, and ask for the videos."""
        task = task.to(torch.float64)
        given = self.population or self.model.default_population(task.dim)
        posterior = ENGINE.infer(self.model, task, seed=0, given=given)
        prob = predict(self.model, posterior, task, given=given).video.prob[0].numpy()
        typical = self.model.typicality(task)[0].numpy()
        borrowed = float(posterior.sample_stats["borrowed"][0])
        return Answer(prob, open_set(prob, typical, level=LEVEL), 1 - typical, borrowed)


METHODS: Mapping[str, Make] = {"bayesfs": Pool.of, "support_only": lambda people: SupportOnly()}
"""By name; a factory is called once for each set of people's worlds."""

DEFAULT = "bayesfs"
"""The method that the bars are for."""
