"""What a likelihood of class functions must offer: `Likelihood` and `Fitted`.

A likelihood turns the support labels of every task into a posterior of the class functions
(`fit`), exactly or approximately; the fitted tasks then score query frames and videos.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Protocol

import torch
from torch import Tensor

from bayesfs.models.gp_gaussian import TaskPrior
from bayesfs.models.gp_points import Query
from bayesfs.models.gp_sites import Site
from bayesfs.types import LabelDraws, Predictive


@dataclass(frozen=True)
class Scores:
    """Log probabilities of classes, draws averaged out.

    Attributes:
        frame: (task, video, frame, way) of each frame by itself.
        running: (task, video, frame, way) of the video given its frames so far.
    """

    frame: Tensor
    running: Tensor

    @property
    def video(self) -> Tensor:
        """(task, video, way): given all frames of the video."""
        return self.running[:, :, -1]


class Fitted(Protocol):
    """Posterior of the class functions of a batch of tasks."""

    @property
    def log_evidence(self) -> Tensor:
        """(task,): log p(support labels), or the stated approximation of it."""
        ...

    def scores(self, query: Query, nodes: int = ...) -> Scores:
        """Class probabilities; differentiable in the hyperparameters, the same at every call.

        Args:
            query: frames of videos.
            nodes: points of the integral over latent values; a closed form ignores it.
        """
        ...

    def predictive(self, query: Query, draws: int, generator: torch.Generator) -> Predictive:
        """Class probabilities with draws of the class functions."""
        ...

    def function(self, draws: int, generator: torch.Generator) -> Tensor:
        """(draw, task, way, n): draws of f + b at the support points."""
        ...


class Likelihood(Protocol):
    """Support labels given class functions."""

    @property
    def sites(self) -> Mapping[str, Site]:
        """Its own hyperparameters."""
        ...

    def fit(self, prior: TaskPrior) -> Fitted:
        """Posterior of the class functions."""
        ...


def normalise(log_weight: Tensor, real: Tensor, axis: int = -1) -> Tensor:
    """Log probabilities over the axis of classes; -inf for padded classes.

    Args:
        log_weight: unnormalised.
        real: bool that broadcasts with it, False for padded classes.
        axis: of the classes.
    """
    return torch.log_softmax(log_weight.masked_fill(~real, -torch.inf), axis)


def equal_weights(log_prob: Tensor, log_prob_given: Tensor) -> LabelDraws:
    """LabelDraws whose draws weigh the same."""
    weight = log_prob_given.new_full(log_prob_given.shape[:-1], -log(len(log_prob_given)))
    return LabelDraws(log_prob, log_prob_given, weight)


def standard_normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers, drawn on the CPU so that a seed means the same everywhere."""
    return torch.randn(shape, generator=generator, dtype=like.dtype).to(like.device)
