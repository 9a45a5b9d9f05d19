"""What a model, an engine, a backbone and an evaluation must offer, and what they may besides.

A model or engine is finished when it passes `bayesfs.testing.ModelContract` or
`bayesfs.testing.EngineContract`. Models and engines know each other only through this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayesfs.types import Embeddings, EpisodeBatch, Posterior, Predictive

Progress = Callable[[int, int, str], None]
"""Callback (done, total, message) that engines call now and then; the command shows a bar."""


@runtime_checkable
class Model(Protocol):
    """A Pyro program over the support of a batch of tasks, and its label likelihood.

    `dims` maps every latent site to its axes; an event axis over the classes is called "logit".
    Sites without "task" are population sites. Inside
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
class ClosedLabels(Protocol):
    """A model with label predictives in closed form, given the population."""

    def log_labels(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """(task, video, frame, way) and (task, video, way) log p(y | x, support, population)."""
        ...


@dataclass(frozen=True)
class LinearLogits:
    """A head given its population: logits that are linear in standard normal weights.

        logit_rk = exp(spread e) scaled_r . z_k + fixed_r . u_k,    e, z_k, u_k ~ N(0, I),

    with likelihood prod_r p(label_r | logits_r)^weight_r over the rows (support frames) of a task.

    Attributes:
        scaled: (task, row, p).
        fixed: (task, row, q); q may be 0.
        spread: of the log scale of a task; 0 fixes it.
        label: (task, row) class of each row.
        weight: (task, row) exponent; 0 for padding.
        exists: (task, way) bool.
        link: "softmax", or "one_vs_each": the product over c != y of sigmoid(logit_y - logit_c).
    """

    scaled: Tensor
    fixed: Tensor
    spread: float
    label: Tensor
    weight: Tensor
    exists: Tensor
    link: Literal["softmax", "one_vs_each"] = "softmax"


@runtime_checkable
class LinearHead(Model, Protocol):
    """A model that is conditionally Gaussian given Pólya-Gamma variables, for Gibbs sampling."""

    def linear_logits(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor]
    ) -> LinearLogits:
        """The task level of the model, given one value of every population site."""
        ...

    def from_linear(
        self,
        e: Tensor,
        z: Tensor,
        u: Tensor,
        episodes: EpisodeBatch,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Draws of every task-level site; sites outside the logits come from their prior.

        Args:
            e: (draw, task).
            z: (draw, task, way, p).
            u: (draw, task, way, q).
            episodes: T tasks.
            generator: for sites that the logits do not hold.
        """
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


@runtime_checkable
class ChecksModel(Protocol):
    """An engine that is for some models only, and says so before anything is learnt."""

    def check_model(self, model: Model) -> None:
        """Raise an InferenceError that says what the engine needs, if the model lacks it."""
        ...


class Backbone(Protocol):
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


@runtime_checkable
class Approximable(Model, Protocol):
    """A model with an approximation of its task-level posterior, given the population."""

    def approximate(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> Posterior:
        """Independent draws of every site, `draws` for each population draw; kind "variational"."""
        ...


@runtime_checkable
class QualityAware(Protocol):
    """A model in closed form whose frame noise depends on measured quality."""

    @property
    def covariates(self) -> tuple[str, ...]:
        """Names of the qualities, in the order of the episodes' columns."""
        ...

    def predictive(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> Predictive:
        """See `bayesfs.protocols.ConjugateModel`."""
        ...

    def log_absent_odds(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Log odds of frames and videos that nothing taught is shown; no draw axis."""
        ...


@runtime_checkable
class Hierarchical(Protocol):
    """A model that knows the expected label entropy as its levels become known."""

    def level_entropies(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """For frames and videos: entropies and standard errors, (stage, task, video[, frame]).

        The stages are nothing but the data, then population, task, class and video known too.
        """
        ...


@runtime_checkable
class Simulates(ClosedLabels, Protocol):
    """A model that labels in closed form and simulates further support videos."""

    def simulate_videos(
        self,
        episodes: EpisodeBatch,
        population: Mapping[str, Tensor],
        *,
        condition: int,
        frames: int,
        draws: int,
        seed: int,
    ) -> Tensor:
        """(draw, task, way, frame, feature) one more support video of each class."""
        ...


@runtime_checkable
class OpenSet(Protocol):
    """A model that knows the odds that a query shows none of the taught classes."""

    def log_absent_odds(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Log odds, given the support: (task, video, frame) and (task, video)."""
        ...


@runtime_checkable
class TakesScatter(Protocol):
    """A model that asks how videos scatter about their object in other people's data."""

    def with_scatter(self, axes: NDArray[np.float32], excess: NDArray[np.float32]) -> Model:
        """The model with a metric (I + F)^-1 of other people's scatter F.

        Args:
            axes: (feature, axis) orthonormal.
            excess: (axis,) eigenvalues of F.
        """
        ...

    def with_scatters(
        self, scatters: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    ) -> Model:
        """The model with axes and eigenvalues for each user, learnt without that user."""
        ...


class Collapsible(Protocol):
    """A model whose task-level sites can be integrated out exactly, given the population."""

    @property
    def population_dims(self) -> Mapping[str, tuple[str, ...]]:
        """Population site -> axes."""
        ...

    def sample_population(self, like: Tensor) -> Mapping[str, Tensor]:
        """Pyro program of the population sites; `like` (..., feature) gives size and dtype."""
        ...

    def log_evidence(self, episodes: EpisodeBatch, population: Mapping[str, Tensor]) -> Tensor:
        """(task,) log p(support | population)."""
        ...

    def log_labels(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Log p(y | x, support, population): (task, video, frame, way) and (task, video, way)."""
        ...

    def log_joint_frame(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """See `bayesfs.protocols.Model`."""
        ...

    def log_joint_video(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """See `bayesfs.protocols.Model`."""
        ...


Lift = Callable[[Mapping[str, Tensor], torch.Generator], dict[str, Tensor]]
"""Draws of the smaller model -> draws of the full one."""


@runtime_checkable
class Reducible(Protocol):
    """A model that knows which of its latents the support informs."""

    def informed(
        self, episodes: EpisodeBatch, given: Posterior
    ) -> tuple[Model, EpisodeBatch, Posterior, Lift] | None:
        """(smaller model, its episodes, its population, map of its draws), or None."""
        ...


class SizedBackbone(Backbone, Protocol):
    """A backbone that says which size of frame it takes, and how many at a time."""

    @property
    def px(self) -> int:
        """Side of the square frames in pixels."""
        ...

    @property
    def batch(self) -> int:
        """Frames per pass through the backbone."""
        ...
