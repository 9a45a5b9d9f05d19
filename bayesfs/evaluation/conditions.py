"""Under which conditions tasks are scored: `Condition`, and features with noise.

A sweep changes one thing at a time (`sweeps`): the number of support videos, of classes, or the
noise on the query's features. The queries of a shot sweep are the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bayesfs.errors import DataError
from bayesfs.types import Embeddings, EpisodeBatch


@dataclass(frozen=True, order=True)
class Condition:
    """One cell's worth of conditions.

    Attributes:
        shots: support videos per class.
        way: classes per task; 0 takes all of a user's.
        noise: noise on the query's features, see `noisy`.
    """

    shots: int
    way: int = 0
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.shots < 1 or self.way < 0 or self.way == 1 or not 0 <= self.noise < np.inf:
            raise DataError(
                "expected shots >= 1, way 0 (all) or >= 2 and finite noise >= 0, got "
                f"{self.shots}, {self.way} and {self.noise}"
            )


def sweeps(
    shots: Sequence[int], way: int, ways: Sequence[int] = (), noises: Sequence[float] = ()
) -> tuple[Condition, ...]:
    """Every number of shots; then, at the largest one, every number of classes and every noise.

    Example:
        >>> len(sweeps((1, 5), 5, ways=(2, 10), noises=(0.5,)))
        5
    """
    most = max(shots, default=0)
    found = [Condition(k, way) for k in shots]
    found += [Condition(most, w) for w in ways]
    found += [Condition(most, way, noise) for noise in noises]
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
    return embeddings.with_features((x + level * spread * noise).astype(x.dtype))


def with_query_of(episodes: EpisodeBatch, other: EpisodeBatch) -> EpisodeBatch:
    """The tasks with the query features of the same tasks drawn from other features.

    Raises:
        DataError: the tasks are not the same.
    """
    same = episodes.tasks == other.tasks and episodes.videos == other.videos
    if not same or episodes.query.shape != other.query.shape:
        raise DataError("expected the same tasks drawn from two sets of features, got others")
    return replace(episodes, query=other.query)
