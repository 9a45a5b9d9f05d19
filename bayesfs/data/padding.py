"""From chosen videos to a padded `EpisodeBatch`: where each video and each frame stands.

`Slots` says which video stands where, `assemble` gathers the frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bayesfs._utils.arrays import Ints
from bayesfs._utils.spacing import spaced
from bayesfs.data.video_table import Names, VideoTable, rank_within
from bayesfs.errors import DataError
from bayesfs.types import UNLABELLED, Embeddings, EpisodeBatch

FrameRows = tuple[Ints, Ints, Ints]
"""(slot, frame, row): the row of the Embeddings for each frame of each slot."""


@dataclass(frozen=True)
class Slots:
    """Chosen videos and their places, one entry per video.

    Attributes:
        video: (n,) index into a VideoTable.
        where: axes of the place, each (n,): task, way, shot for support; task, slot for query.
        label: (n,) class index within the task, or `UNLABELLED`.
    """

    video: Ints
    where: tuple[Ints, ...]
    label: Ints

    @classmethod
    def join(cls, parts: Sequence[Slots]) -> Slots:
        """All entries of several."""
        where = tuple(np.concatenate(axes) for axes in zip(*(p.where for p in parts), strict=True))
        video = np.concatenate([p.video for p in parts])
        return cls(video, where, np.concatenate([p.label for p in parts]))

    def of_repetition(self, repetition: int, repetitions: int) -> Slots:
        """The same, with tasks numbered user-major over several repetitions per user."""
        user, *rest = self.where
        return Slots(self.video, (user * repetitions + repetition, *rest), self.label)

    def compact(self, tasks: Ints) -> Slots:
        """The same, with tasks renumbered to their rank among the sorted `tasks`."""
        task, *rest = self.where
        return Slots(self.video, (np.searchsorted(tasks, task), *rest), self.label)


def rows_of_frames(
    start: Ints, count: Ints, rows: Ints | None, video: Ints, frames: int | None
) -> FrameRows:
    """(slot, frame, row) of every chosen frame; `rows` maps positions to rows of the Embeddings."""
    slot, position = spaced(count[video], frames)
    at = start[video][slot] + position
    return slot, rank_within(slot, position), at if rows is None else rows[at]


def assemble(
    embeddings: Embeddings,
    table: VideoTable,
    support: Slots,
    query: Slots,
    support_rows: FrameRows,
    query_rows: FrameRows,
    repetitions: int = 1,
    token_query: bool = False,
) -> EpisodeBatch:
    """Gather the frames of the chosen videos into padded tensors.

    Args:
        embeddings: the frames.
        table: their videos.
        support: places over (task, way, shot); tasks may be numbered with gaps.
        query: places over (task, slot).
        support_rows: rows of the support frames, from `rows_of_frames`.
        query_rows: rows of the query frames.
        repetitions: tasks per user; task = user x repetitions + repetition.
        token_query: the query slots hold no video.

    Raises:
        DataError: there is no support video.
    """
    if not len(support.video):
        raise DataError(
            "expected at least one object with a support and a query video, got none; are the "
            "conditions, the users or the dropped flags the intended ones?"
        )
    tasks = np.unique(support.where[0])
    support, query = support.compact(tasks), query.compact(tasks)
    support_frame = _row_table(support, support_rows)
    query_frame = _row_table(query, query_rows)
    quality = embeddings.dataset.get("quality")
    table_quality = None if quality is None else np.asarray(quality.values)
    shown = query if not token_query else Slots(query.video[:0], (), query.label[:0])
    return EpisodeBatch.of_own(
        support=_gather(embeddings.features, support_frame),
        support_mask=torch.from_numpy(support_frame >= 0),
        support_condition=_fill(support, table.condition[support.video], 0),
        query=_gather(embeddings.features, query_frame),
        query_mask=torch.from_numpy(query_frame >= 0),
        query_condition=_fill(query, table.condition[query.video], 0),
        query_labels=_fill(query, query.label, UNLABELLED),
        support_quality=None if table_quality is None else _gather(table_quality, support_frame),
        query_quality=None if table_quality is None else _gather(table_quality, query_frame),
        support_frame=torch.from_numpy(support_frame),
        query_frame=torch.from_numpy(query_frame),
        tasks=_task_names(table, tasks, repetitions),
        classes=_class_names(table, support, len(tasks)),
        videos=_video_names(table, shown, len(tasks)),
        levels=embeddings.levels,
        columns=embeddings.columns,
    )


def _row_table(slots: Slots, rows: FrameRows) -> Ints:
    slot, frame, row = rows
    shape = [int(axis.max()) + 1 for axis in slots.where]
    out = np.full([*shape, int(frame.max(initial=0)) + 1], -1, np.int64)
    out[(*(axis[slot] for axis in slots.where), frame)] = row
    return out


def _gather(table: Names, rows: Ints) -> Tensor:
    out = np.zeros((*rows.shape, table.shape[1]), table.dtype)
    out[rows >= 0] = table[rows[rows >= 0]]
    return torch.from_numpy(out)


def _fill(slots: Slots, values: Ints, pad: int) -> Tensor:
    out = np.full([int(axis.max()) + 1 for axis in slots.where], pad, np.int64)
    out[slots.where] = values
    return torch.from_numpy(out)


def _task_names(table: VideoTable, tasks: Ints, repetitions: int) -> tuple[str, ...]:
    """The users' names, numbered where a user has several tasks or a "#" in the name itself.

    So `bayesfs.types.user_of` gives the user back, whatever people are called.
    """
    user, repetition = np.divmod(tasks, repetitions)
    pairs = zip(table.users[user].tolist(), repetition.tolist(), strict=True)
    return tuple(f"{n}#{r + 1}" if repetitions > 1 or "#" in n else n for n, r in pairs)


def _class_names(table: VideoTable, support: Slots, tasks: int) -> tuple[tuple[str, ...], ...]:
    names: list[list[str]] = [[] for _ in range(tasks)]
    first = np.flatnonzero(support.where[2] == 0)
    order = first[np.lexsort((support.label[first], support.where[0][first]))]
    things = table.objects[table.object[support.video[order]]].tolist()
    for task, name in zip(support.where[0][order].tolist(), things, strict=True):
        names[task].append(name)
    return tuple(tuple(n) for n in names)


def _video_names(table: VideoTable, query: Slots, tasks: int) -> tuple[tuple[str, ...], ...]:
    names: list[list[str]] = [[] for _ in range(tasks)]
    if len(query.video):
        order = np.lexsort((query.where[1], query.where[0]))
        videos = table.name[query.video[order]].tolist()
        for task, name in zip(query.where[0][order].tolist(), videos, strict=True):
            names[task].append(name)
    return tuple(tuple(n) for n in names)
