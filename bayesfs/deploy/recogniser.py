"""A taught recogniser for a device: whatever does not depend on the query is made once.

Start with `teach`: backbone features of a few videos of each object in, a `Recogniser` out, whose
`frame` and `video` say which object a query shows and how unsure that is, of which kind. The
answers are those of `GaussianHierarchy.predictive`, in the closed form of
`bayesfs.models.gaussian.labels`, as a few products (`bayesfs.deploy.products`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayesfs._distributions.noise import Noise, TaskOrder
from bayesfs.deploy.products import Prepared, in_single, labels_of, labels_of_many, prepare
from bayesfs.errors import DataError, InferenceError
from bayesfs.features.projection import Projection
from bayesfs.models.gaussian.conjugate import ClassPosterior, Levels, condition_classes
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.study import Learnt, Study
from bayesfs.types import CONDITIONS, EpisodeBatch, LabelDraws
from bayesfs.uncertainty.decompose import decompose_draws

Array = NDArray[Any]


@dataclass(frozen=True)
class Recognition:
    """What is said of one frame or video.

    Attributes:
        prob: (way,) p(y | x, D).
        total: entropy of `prob`, in nats.
        aleatoric: the part that more teaching would not remove.
        epistemic: the part that it would.
        labels: the draws behind the decomposition, (draw, way).
    """

    prob: Tensor
    total: float
    aleatoric: float
    epistemic: float
    labels: LabelDraws


@dataclass(frozen=True)
class RecognitionScores:
    """What is said of many frames, each by itself.

    Attributes:
        prob: (frame, way) p(y | x, D).
        total: (frame,) entropy of `prob`, in nats.
        aleatoric: (frame,) the part that more teaching would not remove.
        epistemic: (frame,) the part that it would.
    """

    prob: Tensor
    total: Tensor
    aleatoric: Tensor
    epistemic: Tensor


KEPT = 4
"""Conditions and lengths of query whose products are kept: 10 objects take 13 MB each."""


@dataclass(frozen=True)
class Recogniser:
    """A person's objects, taught; see `teach`.

    Attributes:
        classes: names of the objects, in the order of the probabilities.
        projection: from backbone features to those of the model.
        levels: population parameters of each draw of the population.
        posteriors: exact posterior of the class means, for each of these.
        means: for each, (draw, 1, way, feature) draws of the class means, in single precision.
        order: of the objects and their videos, by content; draws go by it.
        seed: of the draws.
    """

    classes: tuple[str, ...]
    projection: Projection
    levels: tuple[Levels, ...]
    posteriors: tuple[ClassPosterior, ...]
    means: tuple[Tensor, ...]
    order: TaskOrder
    seed: int
    _made: dict[tuple[int, int], Prepared] = field(default_factory=dict, repr=False)

    def prepare(self, condition: str = "clutter", frames: int = 1) -> Prepared:
        """Products for queries of a condition with so many frames; the last `KEPT` are kept.

        Raises:
            DataError: an unknown condition.
        """
        if condition not in CONDITIONS:
            raise DataError(f"expected a recording condition of {CONDITIONS}, got {condition!r}")
        key = CONDITIONS.index(condition), frames
        made = self._made.pop(key, None)
        if made is None:
            noise = Noise(self.seed, self.order, 1, even=True)
            made = prepare(self.levels, self.posteriors, self.means, *key, noise)
        self._made[key] = made  # the last asked for comes last
        while len(self._made) > KEPT:
            self._made.pop(next(iter(self._made)))
        return made

    def frame(self, features: Array, condition: str = "clutter") -> Recognition:
        """Recognise one frame by itself.

        Args:
            features: (input feature,) of the backbone.
            condition: condition that it was recorded in.

        Raises:
            DataError: another number of features, or one that is not finite.
        """
        return self.video(np.asarray(features)[None], condition)

    def video(self, features: Array, condition: str = "clutter") -> Recognition:
        """Recognise a whole video, its frames jointly: they share the video's own deviation.

        Args:
            features: (frame, input feature) of the backbone.
            condition: condition that it was recorded in.
        """
        z = self.projection.of_features(features, condition)
        made = self.prepare(condition, len(z))
        x = torch.from_numpy(z.mean(0, dtype=np.float64)).to(made.offset) - made.offset
        return _recognition(labels_of(x, made))

    def stream(
        self, pieces: Iterable[Array], condition: str = "clutter", *, at_once: int = 256
    ) -> Iterator[RecognitionScores]:
        """Recognise the frames of a long recording, each by itself, as they come.

        Memory goes with `at_once`, not with the recording: a million frames need what a thousand
        do.

        Args:
            pieces: (frame, input feature) features of the backbone, piece by piece.
            condition: condition that they were recorded in.
            at_once: frames in one matrix product.

        Yields:
            What is said of each piece, or part of it.
        """
        made = self.prepare(condition)
        for piece in pieces:
            for start in range(0, len(piece), at_once):
                z = self.projection.of_features(piece[start : start + at_once], condition)
                x = torch.from_numpy(z).to(made.offset)[None] - made.offset[:, None]
                labels = labels_of_many(x, made)
                yield RecognitionScores(labels.prob, *decompose_draws(labels))


def teach(
    study: Study,
    learnt: Learnt,
    videos: Mapping[str, Sequence[Array]],
    *,
    condition: str = "clean",
    ready_for: str = "clutter",
    seed: int = 0,
) -> Recogniser:
    """Teach a person's objects: the exact posterior, ready to recognise frames.

    Args:
        study: its model must be a `GaussianHierarchy` without covariates, its engine `Exact`.
        learnt: what holds for every user.
        videos: object -> its videos, each (frame, input feature) of backbone features.
        condition: condition that they were recorded in.
        ready_for: condition of the frames to recognise, which is prepared at once.
        seed: of the draws.

    Raises:
        DataError: no object, an object without a frame, or features of another backbone.
        InferenceError: another model or engine.

    Example:
        >>> mine = teach(study, learnt, {"mug": [a, b], "keys": [c]})  # doctest: +SKIP
        >>> mine.frame(features).prob  # doctest: +SKIP
    """
    model, engine = study.model_of(learnt), study.engine
    if model.covariates:
        raise InferenceError("a model with covariates of quality is not taught here; use predict")
    closed = None
    if isinstance(model, GaussianHierarchy):
        closed = engine.closed_form(model, learnt.population)
    if not isinstance(model, GaussianHierarchy) or closed is None:
        raise InferenceError(
            "expected a GaussianHierarchy and the engine Exact, got "
            f"{type(model).__name__} and {type(engine).__name__}; use bayesfs.predict for others"
        )
    support = _episode(learnt.projection, videos, condition).to(study.dtype)
    population, draws = closed
    count = len(next(iter(population.values())))
    order = TaskOrder.of(support)
    noise = Noise(seed, order, even=True)
    with torch.no_grad():
        levels = [
            model.levels({s: v[p].to(study.dtype) for s, v in population.items()}, support.dim)
            for p in range(count)
        ]
        posts = [condition_classes(support, values) for values in levels]
        means = [in_single(p).sample(draws, noise)[1] for p in posts]
    names = tuple(videos)
    taught = Recogniser(
        names, learnt.projection, tuple(levels), tuple(posts), tuple(means), order, seed
    )
    taught.prepare(ready_for)
    return taught


def _episode(
    projection: Projection, videos: Mapping[str, Sequence[Array]], condition: str
) -> EpisodeBatch:
    """One task of these videos, padded; its query is a token."""
    ways, shots = len(videos), max((len(v) for v in videos.values()), default=0)
    frames = {name: [np.atleast_2d(v) for v in each] for name, each in videos.items()}
    empty = [name for name, each in frames.items() if not sum(map(len, each))]
    if not shots or empty:
        raise DataError(
            f"expected at least one video, with a frame, of each object; got none of {empty}"
        )
    flat = [(w, s, v) for w, each in enumerate(frames.values()) for s, v in enumerate(each)]
    rows = projection.of_features(np.concatenate([v for _, _, v in flat]), condition)
    longest = max(len(v) for _, _, v in flat)
    support = np.zeros((1, ways, shots, longest, rows.shape[1]), np.float32)
    mask, start = np.zeros(support.shape[:-1], bool), 0
    for w, s, video in flat:
        support[0, w, s, : len(video)] = rows[start : start + len(video)]
        mask[0, w, s, : len(video)] = True
        start += len(video)
    where = torch.full((1, ways, shots), CONDITIONS.index(condition))
    token = torch.zeros(1, 1, 1, rows.shape[1])
    return EpisodeBatch.of_own(
        torch.from_numpy(support),
        torch.from_numpy(mask),
        where,
        token,
        torch.zeros(1, 1, 1, dtype=torch.bool),
        torch.zeros(1, 1, dtype=torch.long),
        torch.full((1, 1), -1),
    )


def _recognition(labels: LabelDraws) -> Recognition:
    total, aleatoric, epistemic = (float(v) for v in decompose_draws(labels))
    return Recognition(labels.prob, total, aleatoric, epistemic, labels)
