"""Evaluation on held-out users, whom nothing was learnt from: `HeldOutUsers`."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from bayesfs.data.from_arrays import stack
from bayesfs.data.held_out import check_held_out
from bayesfs.data.open_set import withhold_classes
from bayesfs.data.sampling import population_episodes, sample_episodes
from bayesfs.errors import DataError
from bayesfs.protocols import Evaluation
from bayesfs.types import CONDITIONS, Embeddings, EpisodeBatch


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

    shots: tuple[int, ...] = (1, 5)
    support_conditions: tuple[str, ...] = ("clean",)
    query_conditions: tuple[str, ...] = ("clutter",)
    train_split: str = "train"
    test_split: str = "test"
    frames_per_video: int | None = 8
    query_frames: int | None = None
    train_shots: tuple[int, ...] = (1, 3, 5)
    train_repeats: int = 1
    train_query_frames: int | None = 4
    train_withheld: float = 0.34
    episodes_per_user: int = 1
    drop_flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_increasing("train_shots", self.train_shots)
        self._check_shots()
        for name in ("support_conditions", "query_conditions"):
            _check_conditions(name, getattr(self, name))

    def _check_shots(self) -> None:
        _check_increasing("shots", self.shots)

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
        if not found:
            known = sorted(set(splits.tolist()))
            raise DataError(
                f"expected frames of the split {split!r}, found only {known}; a population is "
                "learnt from several people's videos, in an ORBIT-shaped tree (one person's own "
                "folder is for `bayesfs predict` with a run of such a tree), or from groups of a "
                "data frame whose split column (from_dataframe(..., split=)) says 'train' for "
                "those to learn from and 'test' for those to predict"
            )
        check_held_out(found, user[splits != split].tolist(), split)
        return found


def _check_conditions(name: str, given: tuple[str, ...]) -> None:
    unknown = [one for one in given if one not in CONDITIONS]
    if unknown or not given:
        near = difflib.get_close_matches(unknown[0], CONDITIONS, n=1) if unknown else ()
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"expected {name} out of {CONDITIONS}, one at least, got {given}{hint}")


def _check_increasing(name: str, shots: tuple[int, ...]) -> None:
    if not shots or shots[0] < 1 or list(shots) != sorted(set(shots)):
        raise DataError(f"expected {name} to be positive and increasing, got {shots}")
