"""What hyperparameters are learnt from: `GPMarginalLikelihood` (ML) or `HeldOutScore` (PL).

Both are functions of the support only, so that a model's Pyro program may use them and query
labels cannot leak. With the users' videos as support, `HeldOutScore` predicts some of the videos
from the others at several numbers of videos per class: a composite (generalised Bayesian)
likelihood that rewards what the model is for, where the evidence of coded labels rewards
explaining labels that are already known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bayesfs.models.gp.approximations.latent import LEARNING_NODES
from bayesfs.models.gp.conditioning import TaskPrior
from bayesfs.models.gp.covariance import VideoCovariance
from bayesfs.models.gp.hyperparameters import Values
from bayesfs.models.gp.likelihood import Fitted, Scores
from bayesfs.models.gp.points import query_points
from bayesfs.types import UNLABELLED, EpisodeBatch

Fit = Callable[[TaskPrior], Fitted]


class HyperparameterObjective(Protocol):
    """(task,) log density of the support, in which the hyperparameters are scored."""

    def __call__(
        self, fit: Fit, covariance: VideoCovariance, values: Values, episodes: EpisodeBatch
    ) -> Tensor:
        """(task,) nats."""
        ...


@dataclass(frozen=True)
class GPMarginalLikelihood:
    """log p(support labels | hyperparameters), exact or the likelihood's stated approximation."""

    def __call__(
        self, fit: Fit, covariance: VideoCovariance, values: Values, episodes: EpisodeBatch
    ) -> Tensor:
        """(task,) nats."""
        return fit(TaskPrior.of(covariance, values, episodes)).log_evidence


@dataclass(frozen=True)
class HeldOutScore:
    """Mean log probability of held-out support videos, times their number.

    For every n in `shots` the class functions are taught by n videos of each class, of the first
    recording condition that the task has, and score the task's videos of the other conditions;
    a task with one condition scores its remaining videos. Each held-out video counts

        log p(y | video) + mean over frames of log p(y | frame).

    Attributes:
        shots: numbers of videos per class to learn from; a number that would leave nothing to
            score counts as one less.
        rotations: how many choices of the videos are taken for each number.

    Source: predictive log likelihood (PL) of Snell and Zemel 2021, section 4.3, with the video as
    the unit and within the support.
    """

    shots: tuple[int, ...] = (1, 2, 5)
    rotations: int = 1

    def __call__(
        self, fit: Fit, covariance: VideoCovariance, values: Values, episodes: EpisodeBatch
    ) -> Tensor:
        """(task,) nats, averaged over `shots` and rotations."""
        terms = [
            held_out_score(
                fit(TaskPrior.of(covariance, values, part)).scores(
                    query_points(part), LEARNING_NODES
                ),
                part,
            )
            for part in self.parts(episodes)
        ]
        return torch.stack(terms).mean(0)

    def parts(self, episodes: EpisodeBatch) -> Iterator[EpisodeBatch]:
        """Few-shot tasks within the support: some videos as support, others as query."""
        for shots in self.shots:
            for rotation in range(self.rotations):
                yield hold_out(episodes, shots, rotation)


def hold_out(episodes: EpisodeBatch, shots: int, rotation: int = 0) -> EpisodeBatch:
    """Tasks that learn from `shots` support videos per class and are asked for the others.

    Args:
        episodes: tasks; only their support is used.
        shots: videos per class to learn from.
        rotation: start at this video (cyclically).

    Returns:
        EpisodeBatch whose query are the held-out videos, labelled with their class. A task in
        which nothing can be held out has an empty query.
    """
    teach = _taught(episodes, shots, rotation)
    ask = episodes.shot_mask & ~teach & _asked(episodes)
    mask = episodes.support_mask & teach[..., None]
    asked = ask.flatten(1)  # (task, way x shot): held-out videos first, the rest dropped
    order = torch.argsort((~asked).long(), dim=1, stable=True)[:, : max(1, int(asked.sum(1).max()))]
    row = torch.arange(len(order), device=order.device)[:, None]
    asked = asked[row, order]
    query_mask = episodes.support_mask.flatten(1, 2)[row, order] & asked[..., None]
    return EpisodeBatch.of_own(
        support=episodes.support * mask[..., None],
        support_mask=mask,
        support_condition=episodes.support_condition,
        query=episodes.support.flatten(1, 2)[row, order] * query_mask[..., None],
        query_mask=query_mask,
        query_condition=episodes.support_condition.flatten(1)[row, order],
        query_labels=torch.where(asked, order // episodes.shot_mask.shape[2], UNLABELLED),
        tasks=episodes.tasks,
    )


def _first_condition(episodes: EpisodeBatch) -> Tensor:
    """(task,) recording condition that is learnt from: the first that every class has."""
    conditions = torch.arange(2, device=episodes.support.device)
    has = (episodes.support_condition[..., None] == conditions) & episodes.shot_mask[..., None]
    missing = (episodes.way_mask[..., None] & ~has.any(2)).any(1)
    return torch.where(missing[:, 0] & ~missing[:, 1], 1, 0)


def _asked(episodes: EpisodeBatch) -> Tensor:
    """(task, way, shot): videos of the other conditions, or all where there is one condition."""
    other = (
        episodes.support_condition != _first_condition(episodes)[:, None, None]
    ) & episodes.shot_mask
    return torch.where(other.any((1, 2), keepdim=True), other, episodes.shot_mask)


def _taught(episodes: EpisodeBatch, shots: int, rotation: int) -> Tensor:
    """(task, way, shot): the videos to learn from."""
    first = episodes.support_condition == _first_condition(episodes)[:, None, None]
    able = episodes.shot_mask & (first | ~first.any(2, keepdim=True))
    count = able.sum(2, keepdim=True)
    rank = torch.where(able, able.long().cumsum(2) - 1, 0)
    rank = (rank - rotation) % count.clamp_min(1)
    one_condition = (able == episodes.shot_mask).all(2, keepdim=True)
    limit = torch.where(one_condition, count - 1, count).clamp(min=1, max=shots)
    return able & (rank < limit)


def held_out_score(scores: Scores, episodes: EpisodeBatch) -> Tensor:
    """(task,): sum over query videos of log p(y | video) + mean over frames log p(y | frame)."""
    label = episodes.query_labels.clamp_min(0)
    known = (episodes.query_labels >= 0) & episodes.video_mask
    video = scores.video.gather(-1, label[..., None])[..., 0]
    frames = scores.frame.gather(-1, label[..., None, None].expand(*scores.frame.shape[:3], 1))
    mask = episodes.query_mask
    frame = torch.where(mask, frames[..., 0], 0.0).sum(-1) / mask.sum(-1).clamp_min(1)
    return torch.where(known, video + frame, 0.0).sum(-1)
