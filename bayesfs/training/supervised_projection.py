"""A projection learned from the train users' labels: `LearnedProjection`, a reduction of `Study`.

A linear map of the principal axes is trained jointly with the population parameters, by the
predictive log score of `MapScore`, at the mode. Its prior keeps it close to the axes; the number of
steps and the number of axes are those that predict left-out train users best. The map is folded
into a `Projection`, so that nothing downstream knows of it, and the population is then learnt anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesfs._utils.ranges import Count, Several, check_ranges
from bayesfs._utils.threads import blas_threads
from bayesfs.errors import ShapeError
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.features.projection import Projection, condition_index, fit_projection, unit_norm
from bayesfs.features.reduction import PrincipalAxes, left_out
from bayesfs.inference.program.potential import potential
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.learned_map import LearnedLinearMap, MapScore
from bayesfs.types import Embeddings, EpisodeBatch

Sites = Mapping[str, Tensor]


@dataclass(frozen=True)
class LearnedProjection(PrincipalAxes):
    """Principal axes, and a map of them that is learnt from labels.

    Attributes:
        dim: not used; see `dims`.
        dims: numbers of axes to choose from.
        feature_map: the map and its prior.
        model: whose population is trained along.
        evaluation: which tasks to train on and to validate with.
        folds: groups that the train users are parted into; each is left out once.
        steps: steps of Adam at most.
        check_every: steps between two looks at the left-out users.
        learning_rate: of Adam, in units of prior sds.
        seed: of the tasks.

    Raises:
        ShapeError: a number is below 1.
    """

    dims: tuple[Count, ...] = (256,)
    feature_map: LearnedLinearMap = field(default_factory=LearnedLinearMap)
    model: GaussianHierarchy = field(default_factory=GaussianHierarchy)
    evaluation: HeldOutUsers = field(default_factory=HeldOutUsers)
    folds: Several = 3
    steps: Count = 100
    check_every: Count = 10
    learning_rate: float = 0.03
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    def fit(self, embeddings: Embeddings) -> Projection:
        """The projection of the given frames, which must be of train users only.

        With a single user nobody can be left out, and the principal axes stay as they are.
        """
        if len(users_of(embeddings)) < 2:
            return fit_projection(embeddings, self.dims[-1])
        best = self.validate(embeddings)
        return self._at(embeddings, best.dim, best.steps)

    def cross_fit(self, embeddings: Embeddings, dim: int) -> Embeddings:
        """Every user's frames projected by what was learnt without their fold.

        Args:
            embeddings: frames of the train users; a single user is projected by his own axes.
            dim: number of features; missing ones are zero.
        """
        if len(users_of(embeddings)) < 2:
            return self.fit(embeddings)(embeddings)
        best = self.validate(embeddings)
        fit = partial(self._at, dim=best.dim, steps=best.steps)
        return left_out(embeddings, self._parts(embeddings), fit, dim)

    def validate(self, embeddings: Embeddings) -> Validation:
        """Score of left-out train users for every number of axes and steps.

        Args:
            embeddings: frames of two train users or more.
        """
        curves = []
        for dim in self.dims:
            each = [self._curve(embeddings, fold, dim) for fold in self._parts(embeddings)]
            curves.append(np.mean(each, 0))
        return Validation(self.dims, self.check_every, np.stack(curves))

    def _parts(self, embeddings: Embeddings) -> list[list[str]]:
        users = users_of(embeddings)
        folds = min(self.folds, len(users))
        return [users[f::folds] for f in range(folds)]

    def _curve(self, embeddings: Embeddings, fold: list[str], dim: int) -> list[float]:
        """Mean log score of a left-out video, in nats, at every look."""
        rest = embeddings.where(user=[u for u in users_of(embeddings) if u not in fold])
        projection = fit_projection(rest, dim)
        tasks = self._tasks(projection(embeddings.where(user=fold)))
        videos = float(tasks.video_mask.sum()) * len(set(tasks.users)) / len(tasks)
        with torch.no_grad():
            return [
                float(program.score(sites, tasks)) / videos
                for program, sites in self._train(rest, projection, self.steps)
            ]

    def _at(self, embeddings: Embeddings, dim: int, steps: int) -> Projection:
        """The projection after so many steps on all of these users."""
        projection = fit_projection(embeddings, dim)
        *_, (program, sites) = self._train(embeddings, projection, steps)
        spectrum = torch.tensor(program.spectrum)
        matrix = self.feature_map.matrix(sites, spectrum).double().cpu().numpy()
        return turned(projection, matrix, embeddings)

    def _train(
        self, embeddings: Embeddings, projection: Projection, steps: int
    ) -> Iterator[tuple[MapScore, Sites]]:
        """Ascend the joint log density of map and population; its sites at every look."""
        spectrum = tuple(projection.spectrum.tolist())
        program = MapScore(self.model.fit_to(spectrum), self.feature_map, spectrum)
        tasks = self._tasks(aligned(embeddings, projection))
        density = potential(program, tasks)
        z = tasks.support.new_zeros(1, 1, density.size)
        optimiser = torch.optim.Adam([z], lr=self.learning_rate)
        for step in range(steps + 1):
            if step % self.check_every == 0:
                yield program, {s: v[0].clone() for s, v in density.constrain(z).items()}
            z.grad = -density.value_and_gradient(z)[1]
            optimiser.step()

    def _tasks(self, embeddings: Embeddings) -> EpisodeBatch:
        return self.evaluation.train_tasks(embeddings, seed=self.seed).to(torch.float32)


@dataclass(frozen=True)
class Validation:
    """How left-out users were predicted.

    Attributes:
        dims: numbers of axes.
        check_every: steps between two columns of `scores`.
        scores: (dim, look) mean log score of a left-out video, in nats; look 0 is before training.
    """

    dims: tuple[int, ...]
    check_every: int
    scores: np.ndarray[Any, Any]

    @property
    def dim(self) -> int:
        """The best number of axes."""
        return self.dims[int(self.scores.max(1).argmax())]

    @property
    def steps(self) -> int:
        """The best number of steps at that number of axes."""
        return int(self.scores[self.scores.max(1).argmax()].argmax()) * self.check_every


def users_of(embeddings: Embeddings) -> list[str]:
    """Users in order of their names."""
    return sorted(set(embeddings.coord("user").tolist()))


def aligned(embeddings: Embeddings, projection: Projection) -> Embeddings:
    """Every user's frames by axes of the other users, rotated towards common axes.

    Axes that a user's own frames had a part in make their objects lie further apart than a new
    user's will. Axes of the others differ from user to user, and a map needs common ones: each set
    is turned by the rotation that brings it closest to `projection` (orthogonal Procrustes), which
    changes no distance within a task.

    Source: Schönemann (1966), Psychometrika 31.
    """

    def fit(others: Embeddings) -> Callable[[Embeddings], Embeddings]:
        own = fit_projection(others, projection.dim)
        with blas_threads(1):
            left, _, right = np.linalg.svd(_unit(_axes(own)).T @ _unit(_axes(projection)))
        rank = min(left.shape[0], right.shape[0])
        rotation = left[:, :rank] @ right[:rank]

        def project(frames: Embeddings) -> Embeddings:
            made = own(frames)
            return made.with_features(made.features @ rotation)

        return project

    return left_out(embeddings, [[u] for u in users_of(embeddings)], fit, projection.dim)


def turned(
    projection: Projection, matrix: np.ndarray[Any, Any], embeddings: Embeddings
) -> Projection:
    """The projection followed by a linear map of its features, with its own spectrum.

    Args:
        projection: of `embeddings`.
        matrix: (feature, output).
        embeddings: train frames, for the spectrum.
    """
    axes = _axes(projection) @ matrix
    sd = ((unit_norm(embeddings) - projection.means[condition_index(embeddings)]) @ axes).std(0)
    total = float(np.sqrt(np.square(sd).sum()))
    return replace(projection, axes=axes / total, spectrum=sd / total)


def _axes(projection: Projection) -> np.ndarray[Any, Any]:
    return np.eye(projection.dim) if projection.axes is None else projection.axes


def _unit(axes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(axes / np.linalg.norm(axes, axis=0))
