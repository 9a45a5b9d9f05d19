"""Disentanglement of aleatoric and epistemic uncertainty, by data and by label noise.

Start with `disentanglement_error`. More data should lower epistemic uncertainty as it lowers the
error rate, and leave aleatoric uncertainty alone; noisier labels should raise aleatoric
uncertainty as they raise the error rate, and leave epistemic uncertainty alone. `Relabelled` gives
an evaluation whose labels are partly noise, in learning and in testing alike.

Source: de Jong et al. (2024), How disentangled are your classification uncertainties?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bayesfs.errors import DataError
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.protocols import Evaluation
from bayesfs.types import Embeddings, EpisodeBatch


@dataclass(frozen=True)
class Relabelled(Evaluation):
    """An evaluation whose support and query labels are noise with a given probability.

    Attributes:
        base: draws the tasks.
        share: probability that a video's label is drawn anew, evenly from its task's classes.

    Raises:
        DataError: the share is not between 0 and 1.
    """

    base: HeldOutUsers
    share: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise DataError(f"expected a share between 0 and 1, got {self.share}")

    @property
    def shots(self) -> tuple[int, ...]:
        """Those of the base."""
        return self.base.shots

    def train_episodes(self, embeddings: Embeddings, *, seed: int) -> EpisodeBatch:
        """Those of the base; the evidence of a population does not ask for query labels."""
        return relabel(self.base.train_episodes(embeddings, seed=seed), self.share, seed=seed)

    def train_tasks(self, embeddings: Embeddings, *, seed: int) -> EpisodeBatch:
        """Tasks of the train users with noisy labels."""
        return relabel(self.base.train_tasks(embeddings, seed=seed), self.share, seed=seed)

    def test_episodes(self, embeddings: Embeddings, *, seed: int) -> EpisodeBatch:
        """Tasks of the test users with noisy labels."""
        return relabel(self.base.test_episodes(embeddings, seed=seed), self.share, seed=seed + 1)


def relabel(episodes: EpisodeBatch, share: float, *, seed: int) -> EpisodeBatch:
    """The same tasks with noisy labels of support and query videos.

    Support videos to relabel are permuted among themselves, so that every class keeps its number
    of videos; query videos to relabel get one of the task's classes at random.

    Args:
        episodes: T tasks.
        share: of the videos that are relabelled.
        seed: of the choice.
    """
    noise = torch.Generator().manual_seed(seed)
    source = torch.stack([_permuted(mask, share, noise) for mask in episodes.shot_mask.cpu()]).to(
        episodes.support.device
    )
    names = ("support", "support_mask", "support_condition", "support_quality", "support_frame")
    moved = {n: _taken(getattr(episodes, n), source) for n in names}
    label, exists = episodes.query_labels.cpu(), episodes.way_mask.cpu()
    anew = torch.rand(label.shape, generator=noise) < share
    drawn = torch.multinomial(exists.double(), label.shape[1], replacement=True, generator=noise)
    labels = torch.where(anew & (label >= 0), drawn, label).to(episodes.query_labels.device)
    return episodes.changed(query_labels=labels, **moved)


def _permuted(mask: Tensor, share: float, noise: torch.Generator) -> Tensor:
    """(way * shot,) where each slot's video comes from: a permutation of some existing slots."""
    flat = mask.flatten()
    chosen = (flat & (torch.rand(flat.shape, generator=noise) < share)).nonzero()[:, 0]
    source = torch.arange(len(flat))
    source[chosen] = chosen[torch.randperm(len(chosen), generator=noise)]
    return source


def _taken(value: Tensor | None, source: Tensor) -> Tensor | None:
    """(task, way, shot, ...) with slots taken from `source` (task, way * shot)."""
    if value is None:
        return None
    flat = value.flatten(1, 2)
    task = torch.arange(len(flat), device=flat.device)[:, None]
    return flat[task, source].reshape(value.shape)


def disentanglement_error(
    size: tuple[Sequence[float], Sequence[float], Sequence[float]],
    noise: tuple[Sequence[float], Sequence[float], Sequence[float]],
) -> float:
    """Mean distance of four correlations from what they ought to be; 0 is perfect.

        ( |r(A, size)| + |1 - r(E, size)| + |1 - r(A, noise)| + |r(E, noise)| ) / 4

    with r(U, size) the correlation of uncertainty U with the error rate as the number of support
    videos changes, and r(U, noise) the same as label noise changes.

    Args:
        size: mean aleatoric, mean epistemic, accuracy at each number of support videos.
        noise: the same at each share of label noise.
    """
    a_size, e_size = (correlation(u, size[2]) for u in size[:2])
    a_noise, e_noise = (correlation(u, noise[2]) for u in noise[:2])
    parts = (abs(a_size), abs(1.0 - e_size), abs(1.0 - a_noise), abs(e_noise))
    return float(np.mean(parts))


def correlation(uncertainty: Sequence[float], accuracy: Sequence[float]) -> float:
    """Pearson correlation of uncertainty with the error rate; NaN where one does not vary.

    Raises:
        DataError: fewer than three points, or lengths differ.
    """
    u, error = np.asarray(uncertainty, np.float64), 1.0 - np.asarray(accuracy, np.float64)
    if u.shape != error.shape or len(u) < 3:
        raise DataError(
            f"expected at least 3 pairs of uncertainty and accuracy, got {u.shape}, {error.shape}"
        )
    if np.ptp(u) == 0 or np.ptp(error) == 0:
        return float("nan")
    return float(np.corrcoef(u, error)[0, 1])
