"""Evaluation of a table on groups whom nothing was learnt from: `HeldOutGroups`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from bayesfs._utils.ranges import Count, increasing
from bayesfs.evaluation.held_out_users import Conditions, HeldOutUsers, Withheld
from bayesfs.types import Embeddings, EpisodeBatch


@dataclass(frozen=True)
class HeldOutGroups(HeldOutUsers):
    """Learn the population from some groups of a table, score groups that it has never seen.

    As `HeldOutUsers`, with the choices that suit rows of a table: clusters are recorded in one
    condition only, so that those to teach by and those to ask about are drawn from the same ones,
    and every row counts.

    Attributes:
        shots: numbers of clusters per label to score at; 0 asks what other groups alone teach about
            labels of the same name, and needs a model that knows names, such as `SharedClasses`.

    Example:
        >>> HeldOutGroups(shots=(1, 3, 10)).query_conditions
        ('clean',)
    """

    shots: Annotated[tuple[int, ...], increasing(0)] = (1, 3, 10)
    query_conditions: Conditions = ("clean",)
    frames_per_video: Count | None = None
    train_query_frames: Count | None = None
    train_withheld: Withheld = 0.0

    def test_episodes(self, embeddings: Embeddings, *, seed: int) -> EpisodeBatch:
        """Tasks of the test groups, with max(shots) support clusters per label, 1 at least."""
        if self.shots[-1] < 1:
            return replace(self, shots=(1,)).test_episodes(embeddings, seed=seed)
        return super().test_episodes(embeddings, seed=seed)
