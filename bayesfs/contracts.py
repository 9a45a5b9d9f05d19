"""The verbs' contracts: what a model, an engine, an embedder and an evaluation must offer.

A model or engine is finished when it passes `bayesfs.testing.ModelContract` or
`bayesfs.testing.EngineContract`. Models and engines know each other only through this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bayesfs.types import Embeddings, EpisodeBatch, Posterior, Predictive

Progress = Callable[[int, int, str], None]
"""Callback (done, total, message) that engines call now and then; the command shows a bar."""


@runtime_checkable
class Model(Protocol):
    """A Pyro program over the support of a batch of tasks, and its label likelihood.

    `dims` maps every latent site to its axes. Sites without "task" are population sites. Inside
    the program, the plates are named as the axes are ("task", "way", "shot", "frame"); "task" is
    the outermost. The query never enters the program.
    """

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Site -> axes, such as {"class_mean": ("task", "way", "feature")}."""
        ...

    def __call__(self, episodes: EpisodeBatch) -> None:
        """Run the Pyro program: sample every site of `dims`, observe the support."""
        ...

    def log_joint_frame(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, frame, way): log p(y, x | theta_s) of each query frame.

        Up to a constant that depends on neither draw nor class. A discriminative model returns
        log p(y | x, theta_s), normalised over way. Padded classes get -inf.
        """
        ...

    def log_joint_video(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, way): the same for a whole query video, its frames jointly."""
        ...


@runtime_checkable
class ConjugateModel(Model, Protocol):
    """A model whose task-level posterior and predictive are known exactly, given the population."""

    def condition(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> Posterior:
        """Exact posterior of the task-level sites, as independent draws of kind "exact"."""
        ...

    def log_evidence(self, episodes: EpisodeBatch, population: Mapping[str, Tensor]) -> Tensor:
        """(task,): log p(support | population), every lower level integrated out."""
        ...

    def predictive(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> Predictive:
        """Closed-form predictive, with draws theta_s ~ p(theta | x, D) of equal weight."""
        ...


@runtime_checkable
class Engine(Protocol):
    """An inference algorithm: (model, support of a batch of tasks) -> Posterior."""

    def infer(
        self, model: Model, episodes: EpisodeBatch, *, seed: int, given: Posterior | None = None
    ) -> Posterior:
        """Posterior of every site of the model, or of the rest when `given` holds the population.

        Args:
            model: the Pyro program.
            episodes: T tasks; only their support is used.
            seed: the same seed gives the same draws on a CPU.
            given: posterior whose population sites are conditioned on.
        """
        ...


class Embedder(Protocol):
    """A frozen backbone: images -> features."""

    @property
    def name(self) -> str:
        """Identifies backbone, weights and input size; stored with the features."""
        ...

    @property
    def dim(self) -> int:
        """Number of features."""
        ...

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(frame, height, width, 3) uint8 -> (frame, feature) float32."""
        ...


class Evaluation(Protocol):
    """Which episodes to draw from which frames, and at how many shots to score them."""

    @property
    def shots(self) -> tuple[int, ...]:
        """Numbers of support videos per class to evaluate."""
        ...

    def train_episodes(self, embeddings: Embeddings, *, seed: int) -> EpisodeBatch:
        """Episodes of the train users from which the population is learnt."""
        ...

    def test_episodes(self, embeddings: Embeddings, *, seed: int) -> EpisodeBatch:
        """Episodes to score; support holds max(shots) videos per class."""
        ...
