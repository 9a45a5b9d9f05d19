"""Baselines behind the contract of the Bayesian models' predictive: `predictive(episodes)`.

Start with `standard_baselines`, then `fit_temperature` on the train users' episodes. A point
classifier is a posterior of one draw, so its epistemic uncertainty is zero; an ensemble has one
draw per member.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Protocol, Self, TypeVar

import scipy
import torch
from torch import Tensor

from bayesfs._utils.ranges import Count, Positive, check_ranges, inside
from bayesfs.errors import InferenceError, ShapeError
from bayesfs.models.baselines import point_classifiers as point
from bayesfs.types import EpisodeBatch, LabelDraws, Predictive


class Baseline(Protocol):
    """A classifier with frame logits and two temperatures."""

    @property
    def frame_temperature(self) -> float:
        """Divides the logits of a frame."""
        ...

    @property
    def video_temperature(self) -> float:
        """Divides the logarithms of a video's mean probabilities."""
        ...

    def logits(self, episodes: EpisodeBatch) -> Tensor:
        """(member, task, video, frame, way) logits; -inf for padded classes."""
        ...

    def predictive(self, episodes: EpisodeBatch) -> Predictive:
        """Predictive of every query frame and video; query labels are not used."""
        ...

    def with_temperatures(self, frame: float, video: float) -> Self:
        """The same classifier with other temperatures."""
        ...


AnyBaseline = TypeVar("AnyBaseline", bound=Baseline)


@dataclass(frozen=True)
class _Tempered:
    """What every baseline shares.

    A frame has p(y | x) = softmax(logits / frame_temperature). A video has

        p(y | x_1..x_F) proportional to (1/F sum_f p(y | x_f))^(1 / video_temperature):

    frames of a video err together, so their probabilities are averaged, not multiplied; the
    temperature restores the sharpness that averaging loses.
    """

    frame_temperature: Annotated[float, inside(0, math.inf)] = 1.0
    video_temperature: Annotated[float, inside(0, math.inf)] = 1.0

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    def logits(self, episodes: EpisodeBatch) -> Tensor:
        """(member, task, video, frame, way) logits; -inf for padded classes."""
        raise NotImplementedError

    def predictive(self, episodes: EpisodeBatch) -> Predictive:
        """Predictive of every query frame and video; query labels are not used.

        Padded frames and videos get finite values that mean nothing.
        """
        logits = self.logits(episodes)
        frame = (logits / self.frame_temperature).log_softmax(-1)
        pooled = _video_logits(logits, episodes, self.frame_temperature)
        video = (pooled / self.video_temperature).log_softmax(-1)
        return Predictive(frame=_equal_draws(frame), video=_equal_draws(video))

    def with_temperatures(self, frame: float, video: float) -> Self:
        """The same classifier with other temperatures."""
        return replace(self, frame_temperature=frame, video_temperature=video)


@dataclass(frozen=True)
class Prototypes(_Tempered):
    """Nearest class mean.

    Attributes:
        metric: "euclidean" (logit -|z - mean|^2) or "cosine".

    Example:
        >>> baseline = fit_temperature(Prototypes(metric="cosine"), train)  # doctest: +SKIP
    """

    metric: Literal["euclidean", "cosine"] = "euclidean"

    def logits(self, episodes: EpisodeBatch) -> Tensor:
        """(1, task, video, frame, way) logits."""
        score = point.cosine_logits if self.metric == "cosine" else point.prototype_logits
        return score(episodes)[None]


@dataclass(frozen=True)
class NearestNeighbour(_Tempered):
    """Nearest support frame of each class.

    Attributes:
        metric: "euclidean" or "cosine".
    """

    metric: Literal["euclidean", "cosine"] = "cosine"

    def logits(self, episodes: EpisodeBatch) -> Tensor:
        """(1, task, video, frame, way) logits."""
        return point.nearest_logits(episodes, cosine=self.metric == "cosine")[None]


@dataclass(frozen=True)
class Mahalanobis(_Tempered):
    """Simple CNAPs' head on fixed features; see `mahalanobis_logits`.

    Attributes:
        ridge: multiple of the identity added to each class's covariance.
    """

    ridge: Positive = 1.0

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    def logits(self, episodes: EpisodeBatch) -> Tensor:
        """(1, task, video, frame, way) logits."""
        return point.mahalanobis_logits(episodes, ridge=self.ridge)[None]


@dataclass(frozen=True)
class Logistic(_Tempered):
    """scikit-learn's multinomial logistic regression, per task.

    Attributes:
        c: inverse strength of the L2 penalty.
    """

    c: Positive = 1.0

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    def logits(self, episodes: EpisodeBatch) -> Tensor:
        """(1, task, video, frame, way) logits."""
        return point.logistic_logits(episodes, c=self.c)[None]


@dataclass(frozen=True)
class HeadEnsemble(_Tempered):
    """Deep ensemble of small networks on fixed features; see `ensemble_logits`.

    Attributes:
        members: number of networks.
        hidden: width of their hidden layer.
        steps: steps of AdamW.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        seed: of the random starts.
    """

    members: Count = 5
    hidden: Count = 32
    steps: Count = 100
    learning_rate: Positive = 0.01
    weight_decay: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    def logits(self, episodes: EpisodeBatch) -> Tensor:
        """(member, task, video, frame, way) logits."""
        return point.ensemble_logits(
            episodes,
            members=self.members,
            hidden=self.hidden,
            steps=self.steps,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            seed=self.seed,
        )


def standard_baselines(*, seed: int = 0) -> dict[str, Baseline]:
    """Every baseline with its defaults, by the name used in tables; temperatures not yet learnt."""
    return {
        "prototypes": Prototypes(),
        "cosine prototypes": Prototypes(metric="cosine"),
        "Simple CNAPs head": Mahalanobis(),
        "logistic regression": Logistic(),
        "nearest neighbour": NearestNeighbour(),
        "head ensemble": HeadEnsemble(seed=seed),
    }


def fit_temperature(baseline: AnyBaseline, train_episodes: EpisodeBatch) -> AnyBaseline:
    """Learn both temperatures on the query of train users' episodes.

    The frame temperature minimises the mean negative log-likelihood over labelled query frames;
    then the video temperature minimises that over labelled query videos. Neither the support nor
    the labels of the users who are predicted later enter.

    Args:
        baseline: the classifier; its own temperatures do not matter.
        train_episodes: tasks of train users with labelled query.

    Returns:
        The classifier with learnt temperatures.

    Raises:
        InferenceError: no query video has a label, or no task has two classes.

    Source: Guo, Pleiss, Sun and Weinberger 2017, On calibration of modern neural networks.
    """
    labels = train_episodes.query_labels
    several = train_episodes.way_mask.sum(-1) > 1
    known = (labels >= 0) & train_episodes.video_mask & several[:, None]
    if not known.any():
        raise InferenceError(
            "expected labelled query videos of tasks with two classes or more to learn a "
            "temperature from, got none; are these `population_episodes`, whose query is empty?"
        )
    logits = baseline.logits(train_episodes)
    frames = known[..., None] & train_episodes.query_mask
    frame_labels = labels[..., None].expand_as(frames)[frames]
    frame = _best_temperature(logits[:, frames], frame_labels)
    pooled = _video_logits(logits, train_episodes, frame)
    video = _best_temperature(pooled[:, known], labels[known])
    return baseline.with_temperatures(frame, video)


def _best_temperature(logits: Tensor, labels: Tensor) -> float:
    """Minimise the mean NLL over log temperature; logits (member, item, way), labels (item,)."""
    scores = logits.double()
    spread = scores.masked_fill(scores.isinf(), 0).abs().amax().item() or 1.0

    def nll(log_temperature: float) -> float:
        log_prob = _mixture((scores / math.exp(log_temperature)).log_softmax(-1))
        return -log_prob.gather(-1, labels[:, None]).clamp(min=-1e4).mean().item()

    centre = math.log(spread)
    search: Callable[..., object] = scipy.optimize.minimize_scalar
    found = search(nll, bounds=(centre - 12.0, centre + 5.0), method="bounded")
    return math.exp(float(found.x))  # type: ignore[attr-defined]


def _video_logits(logits: Tensor, episodes: EpisodeBatch, temperature: float) -> Tensor:
    """(member, task, video, way) log of the mean of the frames' probabilities."""
    log_prob = (logits / temperature).log_softmax(-1)
    mask = episodes.query_mask
    shown = mask | ~mask.any(-1, keepdim=True)
    log_prob = log_prob.masked_fill(~shown[..., None], -torch.inf)
    return log_prob.logsumexp(-2) - shown.sum(-1).to(log_prob).log()[..., None]


def _mixture(log_prob: Tensor) -> Tensor:
    """Log of the mean over members of probabilities (member, ..., way)."""
    return log_prob.logsumexp(0) - math.log(len(log_prob))


def _equal_draws(log_prob_given: Tensor) -> LabelDraws:
    weight = torch.full_like(log_prob_given[..., 0], -math.log(len(log_prob_given)))
    return LabelDraws(_mixture(log_prob_given), log_prob_given, weight)
