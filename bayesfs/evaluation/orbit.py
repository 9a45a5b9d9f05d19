"""The ORBIT benchmark's test tasks, drawn from stored embeddings: start with `OrbitProtocol`.

A test task asks for all objects of one user, taught by clean videos. It was written from the
facts of the benchmark's sampler and checked on trees of that shape; random numbers differ, so
tasks agree with the official ones in distribution and not frame by frame.
`bayesfs.evaluation.orbit_scores` has the benchmark's metrics.

Source: Massiceti et al. 2021, and the benchmark's protocol of December 2022.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bayesfs._utils.arrays import Bools, Ints
from bayesfs._utils.ranges import Count, check_ranges
from bayesfs.data.padding import FrameRows, Slots, assemble
from bayesfs.data.video_table import VideoTable, hash_keys, rank_within
from bayesfs.errors import DataError
from bayesfs.types import CONDITIONS, Embeddings, EpisodeBatch

ABSENT = "flag_object_not_present_issue"


@dataclass(frozen=True)
class OrbitProtocol:
    """Which tasks ORBIT's test asks for; the defaults are the benchmark's.

    Attributes:
        query_condition: "clutter": all clean videos teach, cluttered ones are recognised. "clean":
            the first min(5, n - 1) of an object's n clean videos, by name, teach, the rest are
            recognised.
        split: split of the users that are tested.
        tasks_per_user: tasks per user; they differ in the frames (and, with many videos, in the
            videos) that are drawn, and in the order of support videos.
        min_query_frames: a query video needs as many frames after the filter.
        max_frames: only so many first frames of a video are used, counted after the filter.
        support_step: support frames are 0, step, 2 step, ... of a video.
        max_support_frames: at most so many of them per video.
        query_frames: as many random frames of a query video, in order of time; all if fewer.
        max_videos: at most so many random support, and query, videos per object.
        max_objects: at most so many random objects per task.
        drop_flag: coordinate that is 0 in the query frames that count (December 2022:
            frames without the object are dropped, unannotated ones too), or None for no filter.
            Support frames are never filtered.
        seed: of all draws.
    """

    query_condition: Literal["clutter", "clean"] = "clutter"
    split: str = "test"
    tasks_per_user: Count = 50
    min_query_frames: Count = 50
    max_frames: Count = 1000
    support_step: Count = 30
    max_support_frames: Count = 200
    query_frames: Count = 200
    max_videos: Count = 15
    max_objects: Count = 15
    drop_flag: str | None = ABSENT
    seed: int = 1991

    def __post_init__(self) -> None:
        if self.query_condition not in CONDITIONS:
            raise DataError(
                f"expected query_condition out of {CONDITIONS}, got {self.query_condition!r}"
            )
        check_ranges(self, DataError)

    def users(self, embeddings: Embeddings) -> tuple[str, ...]:
        """Users of the split who have at least one task's worth of videos, sorted."""
        return _Pool.of(embeddings, self).user_names()

    def episodes(
        self,
        embeddings: Embeddings,
        *,
        users: Sequence[str] | None = None,
        tasks_per_batch: int = 10,
    ) -> Iterator[EpisodeBatch]:
        """Draw the test tasks, a few at a time, since all of them do not fit into memory.

        What is drawn for a user depends on the seed and on that user's videos only.

        Args:
            embeddings: frames of all videos at their full rate, in order of time.
            users: some of `users(embeddings)`; None takes all.
            tasks_per_batch: tasks of one user per batch; changes no draw.

        Yields:
            Batches of tasks of one user, named "USER#1", "USER#2", ...; rows of `support_frame`
            and `query_frame` are those of `embeddings`. Queries stand by object, then name.

        Raises:
            DataError: no object has a support and a query video, a user has no task, or the
                filter's flag is missing or annotated in no query frame.
        """
        pool = _Pool.of(embeddings, self)
        for name in pool.user_names() if users is None else users:
            objects = pool.of_user(name)
            for start in range(0, self.tasks_per_user, tasks_per_batch):
                tasks = range(start, min(start + tasks_per_batch, self.tasks_per_user))
                yield _draw(pool, self, name, objects, tasks)


@dataclass(frozen=True)
class _Pool:
    """Videos that may teach or be recognised, and the frames of each that may be used."""

    embeddings: Embeddings
    table: VideoTable
    support: Bools  # (video,)
    query: Bools  # (video,)
    kept: Bools  # (frame,) frames that a query may use
    objects: Ints  # objects with both

    @classmethod
    def of(cls, embeddings: Embeddings, protocol: OrbitProtocol) -> _Pool:
        table = VideoTable.of(embeddings)
        in_split = embeddings.coord("split")[table.start] == protocol.split
        support, query = _roles(table, in_split, protocol.query_condition)
        kept = _kept(embeddings, protocol.drop_flag, table, query)
        frames = np.add.reduceat(kept.astype(np.int64), table.start)
        query &= frames >= protocol.min_query_frames
        objects = np.intersect1d(table.object[support], table.object[query])
        if not len(objects):
            raise DataError(
                f"expected objects with a clean support video and a {protocol.query_condition} "
                f"query video of at least {protocol.min_query_frames} frames in split "
                f"{protocol.split!r}, got none; are the videos short, or were frames subsampled?"
            )
        return cls(embeddings, table, support, query, kept, objects)

    def user_names(self) -> tuple[str, ...]:
        """Users who can be tested, sorted."""
        used = np.unique(self.table.owner[self.objects])
        return tuple(str(name) for name in self.table.users[used])

    def of_user(self, name: str) -> Ints:
        """Objects of a user that can be tested, in the order of their names."""
        found: Ints = self.objects[self.table.users[self.table.owner[self.objects]] == name]
        if not len(found):
            raise DataError(f"expected a user with a task, got {name!r}")
        return found


def _roles(table: VideoTable, in_split: Bools, query_condition: str) -> tuple[Bools, Bools]:
    """(video,) may teach, (video,) may be recognised; before frames are counted."""
    named = in_split & (table.objects[table.object] != "")
    clean = named & (table.condition == CONDITIONS.index("clean"))
    if query_condition != "clean":
        return clean, named & (table.condition == CONDITIONS.index(query_condition))
    videos = np.flatnonzero(clean)
    rank = rank_within(table.object[videos], table.name[videos])
    count = np.bincount(table.object[videos], minlength=len(table.objects))[table.object[videos]]
    first = np.zeros(len(table), bool)
    first[videos] = rank < np.minimum(5, count - 1)
    return first, clean & ~first


def _kept(embeddings: Embeddings, flag: str | None, table: VideoTable, query: Bools) -> Bools:
    """(frame,) bool: frames that the filter leaves to a query."""
    if flag is None:
        return np.ones(len(embeddings), bool)
    hint = "pass drop_flag=None to keep all frames, which is not the protocol of December 2022"
    if flag not in embeddings.dataset.coords:
        raise DataError(f"expected a coordinate {flag!r} over frames; {hint}")
    values = embeddings.coord(flag)
    in_query = np.repeat(query, table.count)
    if in_query.any() and (values[in_query] < 0).all():
        raise DataError(f"{flag!r} is annotated in no query frame; {hint}")
    return np.asarray(values == 0, np.bool_)


def _draw(
    pool: _Pool, protocol: OrbitProtocol, user: str, objects: Ints, tasks: range
) -> EpisodeBatch:
    """Tasks number `tasks` of one user."""
    number = int(np.flatnonzero(pool.table.users == user)[0])
    support, query = [], []
    support_rows, query_rows = [], []
    for task in tasks:
        rng = np.random.default_rng(
            int(hash_keys(np.array([user]), seed=protocol.seed, stream=task)[0])
        )
        where = number * protocol.tasks_per_user + task
        chosen = _choose(objects, protocol.max_objects, rng)
        s, q = _task_slots(pool, protocol, chosen, where, rng)
        support.append(s)
        query.append(q)
        support_rows.append([_support_rows(pool.table, protocol, v) for v in s.video])
        query_rows.append([_query_rows(pool, protocol, v, rng) for v in q.video])
    return assemble(
        pool.embeddings,
        pool.table,
        Slots.join(support),
        Slots.join(query),
        _frame_rows([r for rows in support_rows for r in rows]),
        _frame_rows([r for rows in query_rows for r in rows]),
        protocol.tasks_per_user,
    )


def _task_slots(
    pool: _Pool, protocol: OrbitProtocol, objects: Ints, task: int, rng: np.random.Generator
) -> tuple[Slots, Slots]:
    """Support videos in random order, query videos by object and name."""
    support: list[tuple[int, int, int]] = []  # video, label, shot
    query: list[tuple[int, int]] = []  # video, label
    for label, thing in enumerate(objects):
        mine = pool.table.object == thing
        taught = rng.permutation(np.flatnonzero(pool.support & mine))[: protocol.max_videos]
        support += [(int(v), label, shot) for shot, v in enumerate(taught)]
        asked = _choose(np.flatnonzero(pool.query & mine), protocol.max_videos, rng)
        asked = asked[np.argsort(pool.table.name[asked])]
        query += [(int(v), label) for v in asked]
    video, label, shot = np.array(support).T
    queried, answer = np.array(query).T
    slot = np.arange(len(queried))
    return (
        Slots(video, (np.full_like(video, task), label, shot), label),
        Slots(queried, (np.full_like(queried, task), slot), answer),
    )


def _choose(values: Ints, most: int, rng: np.random.Generator) -> Ints:
    """At most `most` of the values, at random, in their order."""
    if len(values) <= most:
        return values
    return values[np.sort(rng.choice(len(values), most, replace=False))]


def _support_rows(table: VideoTable, protocol: OrbitProtocol, video: int) -> Ints:
    n = min(int(table.count[video]), protocol.max_frames)
    return (
        int(table.start[video])
        + np.arange(n)[:: protocol.support_step][: protocol.max_support_frames]
    )


def _query_rows(pool: _Pool, protocol: OrbitProtocol, video: int, rng: np.random.Generator) -> Ints:
    start, count = int(pool.table.start[video]), int(pool.table.count[video])
    rows = start + np.flatnonzero(pool.kept[start : start + count])[: protocol.max_frames]
    return _choose(rows, protocol.query_frames, rng)


def _frame_rows(rows: Sequence[Ints]) -> FrameRows:
    """(slot, frame, row) of the rows of each slot."""
    slot = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    return slot, rank_within(slot, np.arange(len(slot))), np.concatenate(rows)
