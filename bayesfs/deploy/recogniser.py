"""A taught recogniser for a device: whatever does not depend on the query is made once.

Start with `teach`: backbone features of a few videos of each object in, a `Recogniser` out, whose
`frame` and `video` say which object a query shows and how unsure that is, of which kind. The
answers are those of `GaussianHierarchy.predictive`, in the closed form of
`bayesfs.models.gaussian.labels`, as a few products (`bayesfs.deploy.products`).

What was taught can be changed: `add`, `correct`, `forget`, `rename` and `merge` give the recogniser
that would have been taught so from the start, to the last digit, as the posterior is exact; `save`
and `recall` keep it. Recordings that were asked about, and are added as such, tell how this person
asks (`bayesfs.models.gaussian.asking`); until then asking is taken for what it is said to be.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayesfs._distributions.noise import Noise, TaskOrder
from bayesfs.deploy.memory import Memory
from bayesfs.deploy.products import Prepared, in_single, labels_of, labels_of_many, prepare
from bayesfs.errors import DataError, InferenceError
from bayesfs.features.projection import Projection
from bayesfs.models.gaussian.asking import Asking, weighed_asking
from bayesfs.models.gaussian.conjugate import (
    ClassPosterior,
    Levels,
    condition_classes,
    evidence_in,
)
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.population_draws import each_value
from bayesfs.study import Learnt, Study
from bayesfs.types import CONDITIONS, LabelDraws
from bayesfs.uncertainty.decompose import decompose_draws, decompose_query

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


LEVELS: tuple[Literal["task", "way"], ...] = ("task", "way")
"""Of the draws of class means, in the order in which each draw of the population asks for them."""

KEPT = 4
"""Conditions and lengths of query whose products are kept: 10 objects take 13 MB each."""


@dataclass(frozen=True)
class Teaching:
    """What teaching needs of a study, made once.

    Attributes:
        model: the hierarchy, fitted to the features.
        projection: from backbone features to those of the model.
        population: site -> (population draw, ...).
        draws: label draws for each of these.
        dtype: of the inference.
        ready_for: condition of the frames to recognise, which is prepared at once.
        seed: of the draws.
    """

    model: GaussianHierarchy
    projection: Projection
    population: Mapping[str, Tensor]
    draws: int
    dtype: torch.dtype
    ready_for: str
    seed: int

    @classmethod
    def of(cls, study: Study, learnt: Learnt, *, ready_for: str, seed: int) -> Teaching:
        """Of a study and what holds for every user; see `teach`."""
        model, engine = study.model_of(learnt), study.engine
        if model.covariates:
            raise InferenceError(
                "a model with covariates of quality is not taught here; use predict"
            )
        closed = None
        if isinstance(model, GaussianHierarchy):
            closed = engine.closed_form(model, learnt.population)
        if not isinstance(model, GaussianHierarchy) or closed is None:
            raise InferenceError(
                "expected a GaussianHierarchy and the engine Exact, got "
                f"{type(model).__name__} and {type(engine).__name__}; use bayesfs.predict for "
                "others"
            )
        drawn, draws = closed
        population = {site: v.to(study.dtype) for site, v in drawn.items()}
        return cls(model, learnt.projection, population, draws, study.dtype, ready_for, seed)

    def values(self) -> list[Levels]:
        """Population parameters of each draw of the population."""
        dim = self.projection.dim
        return [self.model.levels(value, dim) for value in each_value(self.population)]

    @cached_property
    def levels(self) -> Levels:
        """Population parameters, of the draws of the population as tasks."""
        return Levels.of_each(self.values())

    @cached_property
    def scatter(self) -> Tensor:
        """(feature,) square of what clutter shifts each feature by, and a thousandth of their mean.

        It is the prior variance of the offset of how a person asks.
        """
        clean, clutter = self.projection.means
        shift = clutter - clean
        if self.projection.axes is not None:
            shift = shift @ self.projection.axes
        square = torch.from_numpy(np.square(shift)).to(self.dtype)
        return square + 1e-3 * square.mean() + torch.finfo(self.dtype).eps

    def taught(self, memory: Memory) -> Recogniser:
        """The recogniser of what was taught."""
        support, asked = memory.episode(self.dtype), memory.asked
        order = TaskOrder.of(support)
        noise = Noise(self.seed, order, even=True)
        asking = None
        with torch.no_grad():
            if asked.any():
                asking = weighed_asking(support, asked, self.levels, self.scatter)
            post = condition_classes(support, self.levels) if asking is None else asking.classes
            law = in_single(post)
            levels = LEVELS * len(post.pull)
            white = noise.normals(self.draws, levels, (support.dim,), law.pull)
            task, way = torch.cat(white[::2], 1), torch.cat(white[1::2], 1)
            means = law.coloured(task, way)[1].transpose(0, 1).contiguous()
        made = Recogniser(self, memory, post, asking, means, order)
        made.prepare(self.ready_for)
        return made

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the projection and the population's draws: what a memory's features are of."""
        parts = [self.projection.means, self.projection.axes, *self.population.values()]
        found = hashlib.sha256()
        for part in parts:
            found.update(np.ascontiguousarray(part).tobytes() if part is not None else b"none")
        return found.hexdigest()


@dataclass(frozen=True)
class Recogniser:
    """A person's objects, taught; see `teach`.

    Attributes:
        teacher: what it was taught with.
        memory: what it was taught.
        posterior: exact posterior of the class means, its tasks the draws of the population.
        asking: how the person asks, if recordings that were asked about tell; `posterior` is then
            that of an offset of zero.
        means: (population, draw, way, feature) draws of the class means, in single precision.
        order: of the objects and their videos, by content; draws go by it.
    """

    teacher: Teaching
    memory: Memory
    posterior: ClassPosterior
    asking: Asking | None
    means: Tensor
    order: TaskOrder
    _made: dict[tuple[int, int], Prepared] = field(default_factory=dict, repr=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the objects, in the order of the probabilities."""
        return self.memory.objects

    @cached_property
    def log_evidence(self) -> float:
        """Log p(what was taught), in nats: the mean over the population's draws."""
        if self.asking is not None:
            each = self.asking.log_evidence
        else:
            support, levels = self.memory.episode(self.teacher.dtype), self.teacher.levels
            with torch.no_grad():
                each = evidence_in(support, support.support_condition, levels, self.posterior)
        return float(each.logsumexp(0)) - math.log(len(each))

    def add(
        self,
        videos: Mapping[str, Sequence[Array]],
        condition: str = "clean",
        *,
        asked: bool = False,
    ) -> Recogniser:
        """Teach further videos, of objects that are known or new.

        Args:
            videos: object -> its videos, each (frame, input feature) of backbone features.
            condition: condition that they were recorded in.
            asked: whether they were asked about before, and so tell how this person asks: what is
                asked next is taken to be recorded like them, whatever its condition is said to be.
        """
        projection = self.teacher.projection
        return self.teacher.taught(self.memory.added(videos, projection, condition, asked))

    def correct(self, video: str, object: str) -> Recogniser:
        """Say that a taught video, by its name in `memory`, shows another object.

        One that was named wrongly when it was asked about is added under that name, `asked`, first.
        """
        return self.teacher.taught(self.memory.corrected(video, object))

    def forget(self, name: str) -> Recogniser:
        """Forget an object or a video."""
        return self.teacher.taught(self.memory.forgotten(name))

    def rename(self, old: str, new: str) -> Recogniser:
        """Give an object another name."""
        return self.teacher.taught(self.memory.renamed(old, new))

    def merge(self, other: Recogniser) -> Recogniser:
        """Add what another recogniser of the same run was taught; objects of one name are one.

        Raises:
            DataError: it was taught with another run.
        """
        if other.teacher.fingerprint != self.teacher.fingerprint:
            raise DataError("expected a recogniser of the same run, whose features are the same")
        return self.teacher.taught(self.memory.merged(other.memory))

    def save(self, path: Path) -> None:
        """Keep what was taught in an npz file; `recall` reads it."""
        self.memory.save(path, self.teacher.fingerprint)

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
            noise = Noise(self.teacher.seed, self.order, 1, even=True)
            with torch.no_grad():
                made = self._prepared(*key, noise)
        self._made[key] = made  # the last asked for comes last
        while len(self._made) > KEPT:
            self._made.pop(next(iter(self._made)))
        return made

    def _prepared(self, condition: int, frames: int, noise: Noise) -> Prepared:
        """Products that are not kept yet; of how this person asks, where that is known."""
        if self.asking is None:
            levels = self.teacher.levels
            return prepare(levels, self.posterior, self.means, condition, frames, noise)
        as_asked = condition + len(CONDITIONS)
        found = self.asking.of(as_asked)
        law, count = in_single(found), len(self.means)
        white = noise.normals(
            self.means.shape[1], ["task"] * count, self.means.shape[-1:], law.pull
        )
        offset = law.offset + law.offset_cov.colour(torch.cat(white, 1))
        moved = law.lean.expand_axis(1).apply(offset.transpose(0, 1)[:, :, None])
        return prepare(self.asking.levels, found, self.means + moved, as_asked, frames, noise)

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
        z = self.teacher.projection.of_features(features, condition)
        made = self.prepare(condition, len(z))
        offset = made.offset.numpy()
        log_prob, given = labels_of(z.astype(offset.dtype).mean(0) - offset, made)
        weight = np.full(len(given), -math.log(len(given)), given.dtype)
        labels = LabelDraws(*(torch.from_numpy(v) for v in (log_prob, given, weight)))
        return Recognition(labels.prob, *decompose_query(log_prob, given), labels)

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
                z = self.teacher.projection.of_features(piece[start : start + at_once], condition)
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
    teacher = Teaching.of(study, learnt, ready_for=ready_for, seed=seed)
    return teacher.taught(Memory().added(videos, learnt.projection, condition))


def recall(
    study: Study, learnt: Learnt, path: Path, *, ready_for: str = "clutter", seed: int = 0
) -> Recogniser:
    """The recogniser that `Recogniser.save` kept, with the study that it was taught with.

    Raises:
        DataError: no such file, a damaged one, or one that was taught with another run.
        InferenceError: as `teach`.
    """
    teacher = Teaching.of(study, learnt, ready_for=ready_for, seed=seed)
    return teacher.taught(Memory.load(path, teacher.fingerprint))
