"""Under which conditions tasks are scored: `Condition`, and features with noise.

A sweep changes one thing at a time (`sweeps`): the number of support videos, of classes, the noise
on the query's features, or what is wrong with its pictures. The queries of a shot sweep are the
same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bayesfs.benchmark.corruptions import SEVERITIES, check_corruption
from bayesfs.errors import DataError
from bayesfs.types import UNLABELLED, Embeddings, EpisodeBatch

UNCORRUPTED = "none"
"""Corruption of severity 0, to compare the others with."""


@dataclass(frozen=True, order=True)
class Condition:
    """One cell's worth of conditions.

    Attributes:
        shots: support videos per class.
        way: classes per task; 0 takes all of a user's.
        noise: noise on the query's features, see `noisy`.
        corruption: what is wrong with the query's pictures, one of
            `bayesfs.benchmark.corruptions.CORRUPTIONS` or `UNCORRUPTED`; "" outside such a sweep.
        severity: of the corruption, 1 to 5; 0 without.
    """

    shots: int
    way: int = 0
    noise: float = 0.0
    corruption: str = ""
    severity: int = 0

    def __post_init__(self) -> None:
        if self.shots < 1 or self.way < 0 or self.way == 1 or not 0 <= self.noise < np.inf:
            raise DataError(
                "expected shots >= 1, way 0 (all) or >= 2 and finite noise >= 0, got "
                f"{self.shots}, {self.way} and {self.noise}"
            )
        if self.corruption not in ("", UNCORRUPTED):
            check_corruption(self.corruption, self.severity)


def sweeps(
    shots: Sequence[int],
    way: int,
    ways: Sequence[int] = (),
    noises: Sequence[float] = (),
    corruptions: Sequence[str] = (),
    severities: Sequence[int] = SEVERITIES,
) -> tuple[Condition, ...]:
    """Every number of shots; then, at the largest one, every other thing that may change.

    Those are every number of classes, every noise, and every corruption at every severity, with
    `UNCORRUPTED` before them.

    Example:
        >>> len(sweeps((1, 5), 5, ways=(2, 10), noises=(0.5,)))
        5
    """
    most = max(shots, default=0)
    found = [Condition(k, way) for k in shots]
    found += [Condition(most, w) for w in ways]
    found += [Condition(most, way, noise) for noise in noises]
    found += [Condition(most, way, 0.0, UNCORRUPTED)] * bool(corruptions)
    found += [Condition(most, way, 0.0, c, level) for c in corruptions for level in severities]
    return tuple(dict.fromkeys(found))


def noisy(embeddings: Embeddings, level: float, *, seed: int) -> Embeddings:
    """Features plus isotropic Gaussian noise: what a worse camera or a worse backbone would give.

    x + level s e with e ~ N(0, I / feature) and s the root mean square distance of the features
    from their mean: at level 1 the noise is as large as what tells pictures apart.

    Args:
        embeddings: backbone features, not yet projected.
        level: of the noise; 0 changes nothing.
        seed: of the noise.
    """
    if level == 0:
        return embeddings
    x = embeddings.features
    spread = np.sqrt(np.square(x - x.mean(0)).sum(1).mean())
    noise = np.random.default_rng(seed).normal(size=x.shape) / np.sqrt(x.shape[1])
    noisy = (x + level * spread * noise).astype(x.dtype)
    return embeddings.with_features(noisy, embeddings.columns)


def with_query_of(episodes: EpisodeBatch, other: EpisodeBatch) -> EpisodeBatch:
    """The tasks with the query features of the same tasks drawn from other features.

    Raises:
        DataError: the tasks are not the same.
    """
    same = episodes.tasks == other.tasks and episodes.videos == other.videos
    if not same or episodes.query.shape != other.query.shape:
        raise DataError("expected the same tasks drawn from two sets of features, got others")
    return episodes.changed(query=other.query, query_quality=other.query_quality)


def with_queries_of_others(episodes: EpisodeBatch) -> EpisodeBatch:
    """The tasks, asked besides about videos of objects that nobody taught in them.

    Every task gets the query videos of the next task of another user, unlabelled. The other user
    may have taught a thing of the same name: it is another thing.

    Args:
        episodes: T tasks, with names; of two users or more, otherwise nothing is added.
    """
    users = episodes.users
    if len(set(users)) < 2:
        return episodes
    order = [
        next(j for j in [*range(t, len(users)), *range(t)] if users[j] != user)
        for t, user in enumerate(users)
    ]
    other = episodes.select(order)
    joined: dict[str, Any] = {
        name: torch.cat([getattr(episodes, name), getattr(other, name)], 1)
        for name in ("query", "query_mask", "query_condition", "query_quality", "query_frame")
        if getattr(episodes, name) is not None
    }
    unknown = torch.full_like(other.query_labels, UNLABELLED)
    joined["query_labels"] = torch.cat([episodes.query_labels, unknown], 1)
    if episodes.videos:
        size = episodes.query.shape[1]
        own = [(*names, *[""] * (size - len(names))) for names in episodes.videos]
        joined["videos"] = tuple(a + b for a, b in zip(own, other.videos, strict=True))
    return episodes.changed(**joined)
