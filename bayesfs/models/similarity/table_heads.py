"""Two classifiers of a table of rows, each one a score of every class: `table_query_scores`.

Rows are few and columns may be many. With the support videos z_i (the mean rows of each, centred
and divided by their root mean square, so that no unit matters) and their one-hot labels Y,

    logistic   L a,  a = Y - softmax(L a),  L_ij = STRENGTH (<z_i, z_j> + 1): the mode of Bayesian
               logistic regression whose weights are N(0, STRENGTH)
    kernel     k(z)' (K + NOISE I)^-1 (Y - 1 / way),  k(z, z') = exp(-|z - z'|^2 / m), m the mean
               square distance of two videos: the mean of a Gaussian process on the labels

The first does what rows that a line separates allow; the second bends, and knows that a row far
from all others says nothing. Each is multiplied by the inverse temperature at which it did best on
average, so that equal weights are a fair start.

Source: Böhning (1992) for the bound that steps towards the mode are made on; Nesterov (1983) for
their momentum; Rasmussen and Williams (2006), equation 2.25, for the Gaussian process. refs.bib:
bohning1992, nesterov1983, rasmussen2006.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bayesfs.models.per_batch import once_per_batch
from bayesfs.models.similarity.heads import examples
from bayesfs.models.similarity.scores import FOLDS, Folds, LeftOut
from bayesfs.types import EpisodeBatch

TABLE_HEADS = ("logistic", "kernel")
"""Names of the heads, in order."""

UNIT = (1.2, 8.0)
"""Inverse temperatures at which each head alone did best on average over development tables."""

STRENGTH = 16.0
"""Prior variance of a logistic weight, where rows have a mean square of 1."""

NOISE = 0.3
"""Noise variance of the kernel in units of its diagonal."""

STEPS = 100, 20
"""Steps towards the mode of logistic regression; from there to that without one video."""


@once_per_batch
def table_query_scores(episodes: EpisodeBatch) -> Tensor:
    """(task, video, frame, way, head) scores of every query frame."""
    table, place = TaughtTable.of(episodes)
    rows = place(episodes.query)
    weights = tuple(each[:, :, 0] for each in table.weights())
    scores = table.scores(rows.flatten(1, 2), *weights)
    return scores.reshape(*rows.shape[:3], *scores.shape[2:])


@once_per_batch
def table_left_out_scores(episodes: EpisodeBatch, most: int = FOLDS) -> LeftOut | None:
    """Scores of every support video whose class has another one; None where no class has.

    A video that is left out still counts in the centre and the size of all, which know no labels.
    """
    table, place = TaughtTable.of(episodes)
    if (folds := Folds.of(episodes, table.label, most)) is None:
        return None
    rows = folds.frames(place(episodes.support))  # (task, fold, frame, feature)
    scores = [
        table.scores(rows[:, f], *(each[:, :, f] for each in weights))
        for weights in [table.weights_without(folds.index)]
        for f in range(rows.shape[1])
    ]
    return folds.left_out(torch.stack(scores, 1))


@dataclass(frozen=True)
class TaughtTable:
    """The support videos of a batch of tasks, and the matrices of both classifiers.

    Attributes:
        x: (task, example, feature) standardised; zero for padding.
        label: (task, example, way) one-hot; zero for padding.
        near: (task, 1, 1) the kernel's 1 / m.
    """

    x: Tensor
    label: Tensor
    near: Tensor

    @classmethod
    def of(cls, episodes: EpisodeBatch) -> tuple[TaughtTable, Callable[[Tensor], Tensor]]:
        """The table, and the map that centres and scales other features of the tasks alike."""
        raw, label = examples(episodes.support, episodes)
        present = label.sum(-1, keepdim=True)
        count = present.sum(1, keepdim=True).clamp(min=1)
        peak = _or_one((raw * present).abs().amax((1, 2), keepdim=True))  # no square overflows
        centre = (raw / peak * present).sum(1, keepdim=True) / count
        x = (raw / peak - centre) * present
        noise = torch.finfo(x.dtype).eps * 8  # what is left of an offset that all share
        size = (x.square().sum(-1, keepdim=True).sum(1, keepdim=True) / count).sqrt()
        size = torch.where(size > noise, size, 1.0)

        def place(value: Tensor) -> Tensor:
            more = (slice(None), *[None] * (value.ndim - 3), slice(None), slice(None))
            placed: Tensor = (value / peak[more] - centre[more]) / size[more]
            return placed

        near = 0.5 * (count - 1.0).clamp(min=1.0) / count  # the mean of |x|^2 is 1
        return cls(x / size, label, near), place

    @property
    def present(self) -> Tensor:
        """(task, example) 1 where there is a video."""
        return self.label.sum(-1)

    @property
    def exists(self) -> Tensor:
        """(task, way) whether a class was taught."""
        return self.label.sum(1) > 0

    def linear(self, rows: Tensor) -> Tensor:
        """(task, row, example) L of other rows."""
        return STRENGTH * (rows @ self.x.mT + 1.0) * self.present[:, None]

    def kernel(self, rows: Tensor) -> Tensor:
        """(task, row, example) k of other rows."""
        apart = rows.square().sum(-1)[..., None] + self.x.square().sum(-1)[:, None]
        apart = (apart - 2.0 * rows @ self.x.mT).clamp(min=0.0)
        return (-self.near * apart).exp() * self.present[:, None]

    def scores(self, rows: Tensor, logistic: Tensor, kernel: Tensor) -> Tensor:
        """(task, row, way, head) of rows (task, row, feature) by weights (task, example, way)."""
        both = torch.stack([self.linear(rows) @ logistic, self.kernel(rows) @ kernel], -1)
        return both * torch.tensor(UNIT).to(both)

    def weights(self) -> tuple[Tensor, Tensor]:
        """(task, example, 1, way) weights of the examples in each head."""
        linear, inverse = self._of_logistic
        keep = self.present[..., None]
        start = torch.zeros_like(self.label)[:, :, None]
        found = self._towards_mode(linear, inverse, None, keep, start, STEPS[0])
        return found, (self._of_kernel @ self._target())[:, :, None]

    def weights_without(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """(task, example, fold, way) weights without example `index` (task, fold).

        With Q = (K + NOISE I)^-1 and w = Q target, those of the kernel are w - Q_i w_i / Q_ii.
        """
        linear, inverse = self._of_logistic
        places = torch.arange(self.x.shape[1], device=index.device)
        keep = self.present[..., None] * (places[:, None] != index[:, None])
        start, kernel = self.weights()
        start = start * keep[..., None]
        logistic = self._towards_mode(linear, inverse, index, keep, start, STEPS[1])
        return logistic, _without(kernel.expand_as(start), self._of_kernel, index)

    def _target(self) -> Tensor:
        even = self.exists / self.exists.sum(-1, keepdim=True)
        return (self.label - even[:, None]) * self.present[..., None]

    @cached_property
    def _of_kernel(self) -> Tensor:
        """Q: (task, example, example)."""
        inner = self.kernel(self.x) * self.present[..., None]
        inverse: Tensor = torch.linalg.inv(inner + NOISE * _eye(inner))
        return inverse

    @cached_property
    def _of_logistic(self) -> tuple[Tensor, Tensor]:
        """L, and (I + L / 2)^-1."""
        linear = self.linear(self.x) * self.present[..., None]
        return linear, torch.linalg.inv(_eye(linear) + 0.5 * linear)

    def _towards_mode(
        self,
        linear: Tensor,
        inverse: Tensor,
        without: Tensor | None,
        keep: Tensor,
        start: Tensor,
        steps: int,
    ) -> Tensor:
        """(task, example, fold, way) steps from `start` towards a = Y - softmax(L a).

        The curvature of each example's loss is at most 1 / 2, so that a step

            (I + L / 2) a' = Y - softmax(L a) + L a / 2

        never goes too far; its momentum is k / (k + 3).

        Args:
            linear: L.
            inverse: (I + L / 2)^-1.
            without: (task, fold) example that each fold is without; None for none.
            keep: (task, example, fold) 1 for the examples of a fold.
            start: (task, example, fold, way).
            steps: how many.
        """
        shape, keep = start.shape, keep[..., None]
        missing, label = ~self.exists[:, None, None], self.label[:, :, None]

        def times(matrix: Tensor, value: Tensor) -> Tensor:
            return (matrix @ value.flatten(2)).reshape(shape)

        weight = before = start
        for step in range(steps):
            ahead = weight + step / (step + 3.0) * (weight - before)
            score = times(linear, ahead)
            chance = score.masked_fill(missing, -torch.inf).softmax(-1)
            solved = times(inverse, (label - chance + 0.5 * score) * keep)
            if without is not None:
                solved = _without(solved, inverse, without)
            before, weight = weight, solved * keep
        return weight


def _without(solution: Tensor, inverse: Tensor, index: Tensor) -> Tensor:
    """Solutions M^-1 r (task, example, fold, way) -> those of the equations without one example.

    Without row and column i, M^-1 r becomes s - M^-1_i s_i / M^-1_ii, where r_i is whatever it is.
    """
    tasks, _, folds, ways = solution.shape
    column = inverse.gather(2, index[:, None].expand(-1, inverse.shape[1], -1))
    at = index[:, None, :, None].expand(tasks, 1, folds, ways)
    own = column.gather(1, index[:, None])  # M^-1_ii
    return solution - (column / own)[..., None] * solution.gather(1, at)


def _eye(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)


def _or_one(value: Tensor) -> Tensor:
    return torch.where(value > 0, value, 1.0)
