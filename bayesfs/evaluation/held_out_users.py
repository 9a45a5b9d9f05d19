"""Evaluation on held-out users, whom nothing was learnt from: `HeldOutUsers`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from bayesfs._utils.ranges import (
    Count,
    Flags,
    Shots,
    Split,
    among,
    at_least,
    below,
    check_ranges,
)
from bayesfs.data.from_arrays import stack
from bayesfs.data.held_out import check_held_out
from bayesfs.data.held_words import check_split
from bayesfs.data.open_set import withhold_classes
from bayesfs.data.sampling import population_episodes, sample_episodes
from bayesfs.errors import DataError
from bayesfs.protocols import Evaluation
from bayesfs.types import CONDITIONS, Embeddings, EpisodeBatch

Withheld = Annotated[float, at_least(0), below(1)]
Conditions = Annotated[tuple[str, ...], among(CONDITIONS)]


@dataclass(frozen=True)
class HeldOutUsers(Evaluation):
    """Learn the population from some users, score users that it has never seen.

    No frame of a scored user, and no object of theirs, has a part in what the population knows.

    Attributes:
        shots: numbers of support videos per object to score at; the tasks are nested.
        support_conditions: conditions of videos that teach an object.
        query_conditions: conditions of videos to recognise.
        train_split: split of the users that the population is learnt from.
        test_split: split of the users that are scored.
        frames_per_video: frames per support video, evenly spaced; None takes all.
        query_frames: frames per query video, evenly spaced; None takes all.
        train_shots: numbers of support videos per object in the tasks to learn from.
        train_repeats: tasks per train user and number of shots, each with other support videos.
        train_query_frames: frames per query video to learn from; None takes all.
        train_withheld: share of each train user's objects that one more task per user leaves
            untaught, their queries without a label, so that a model learns what it looks like
            when nothing taught is shown.
        episodes_per_user: scored tasks per user, each with other support videos.
        drop_flags: query frames with one of these flags are left out, such as
            "flag_object_not_present_issue" (ORBIT's protocol of December 2022).

    Raises:
        DataError: shots are not increasing and positive, or there is no such condition.

    Example:
        >>> HeldOutUsers(shots=(1, 5)).shots
        (1, 5)
    """

    shots: Shots = (1, 5)
    support_conditions: Conditions = ("clean",)
    query_conditions: Conditions = ("clutter",)
    train_split: Split = "train"
    test_split: Split = "test"
    frames_per_video: Count | None = 8
    query_frames: Count | None = None
    train_shots: Shots = (1, 3, 5)
    train_repeats: Count = 1
    train_query_frames: Count | None = 4
    train_withheld: Withheld = 0.34
    episodes_per_user: Count = 1
    drop_flags: Flags = ()

    def __post_init__(self) -> None:
        check_ranges(self, DataError)

    def train_episodes(self, embeddings: Embeddings, *, seed: int) -> EpisodeBatch:
        """Every train user as one task with all of its videos, of the conditions in use here."""
        used = tuple(dict.fromkeys((*self.support_conditions, *self.query_conditions)))
        return population_episodes(
            embeddings,
            conditions=used,
            frames_per_video=self.frames_per_video,
            users=self._users(embeddings, self.train_split),
        )

    def train_tasks(self, embeddings: Embeddings, *, seed: int) -> EpisodeBatch:
        """Few-shot tasks of the train users, for objectives that learn from labelled queries."""
        drawn = sample_episodes(
            embeddings,
            users=self._users(embeddings, self.train_split),
            support_conditions=self.support_conditions,
            query_conditions=self.query_conditions,
            shots=self.train_shots[-1],
            frames_per_video=self.frames_per_video,
            query_frames=self.train_query_frames,
            episodes_per_user=self.train_repeats,
            seed=seed,
        )
        tasks = [drawn.limit_shots(shots) for shots in self.train_shots]
        if self.train_withheld:
            tasks.append(withhold_classes(drawn, self.train_withheld, seed=seed))
        return stack(tasks)

    def test_episodes(self, embeddings: Embeddings, *, seed: int) -> EpisodeBatch:
        """Tasks of the test users, with max(shots) support videos per object."""
        return sample_episodes(
            embeddings,
            users=self._users(embeddings, self.test_split),
            support_conditions=self.support_conditions,
            query_conditions=self.query_conditions,
            shots=self.shots[-1],
            frames_per_video=self.frames_per_video,
            query_frames=self.query_frames,
            episodes_per_user=self.episodes_per_user,
            drop_flags=self.drop_flags,
            seed=seed,
        )

    def calibration_episodes(self, embeddings: Embeddings, *, seed: int) -> EpisodeBatch:
        """Tasks of the train users, drawn as those of the test users are."""
        mirror = replace(self, test_split=self.train_split)
        return mirror.test_episodes(embeddings, seed=seed)

    def _users(self, embeddings: Embeddings, split: str) -> list[str]:
        """Users of a split. Rows of the episodes stay those of all the embeddings."""
        user, splits = embeddings.coord("user"), embeddings.coord("split")
        found = sorted(set(user[splits == split].tolist()))
        check_split(split, set(splits.tolist()))
        check_held_out(found, user[splits != split].tolist(), split)
        return found
