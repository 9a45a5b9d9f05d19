"""Few-shot episodes drawn from labelled frames: start with `sample_episodes`.

`population_episodes` gives every user one task with all of its videos, which is what learning a
population needs; `make_episode` builds one task from plain arrays; `stack` joins batches.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from bayesfs._utils.arrays import Bools, Ints
from bayesfs.data.held_words import check_flags
from bayesfs.data.padding import Slots, assemble, rows_of_frames
from bayesfs.data.sources.video import UNKNOWN_OBJECT
from bayesfs.data.video_table import VideoTable, hash_keys, rank_within
from bayesfs.errors import DataError
from bayesfs.types import CONDITIONS, UNLABELLED, Embeddings, EpisodeBatch


def sample_episodes(
    embeddings: Embeddings,
    *,
    support_conditions: Sequence[str] = ("clean",),
    query_conditions: Sequence[str] = ("clutter",),
    shots: int | None = 5,
    frames_per_video: int | None = 8,
    query_frames: int | None = None,
    query_videos: int | None = None,
    episodes_per_user: int = 1,
    way: int | None = None,
    users: Sequence[str] | None = None,
    drop_flags: Sequence[str] = (),
    seed: int,
) -> EpisodeBatch:
    """Draw few-shot tasks: some support videos per object, and other videos as query.

    Support and query videos are disjoint. Where both may come from the same videos, one query
    video per object is set aside first. Support videos stand in random order, so that
    `limit_shots` gives nested tasks with the same query. Labels are ranks of the objects' names
    within the task. What is drawn for a user depends on seed and names only, not on which other
    users are there. Videos of `UNKNOWN_OBJECT` are query only, all of them, with the label
    `UNLABELLED`; a user who has such a video needs no other query.

    Args:
        embeddings: labelled frames.
        support_conditions: conditions (of `CONDITIONS`) from which support videos are drawn.
        query_conditions: conditions from which query videos are drawn.
        shots: largest number of support videos per object; None takes all.
        frames_per_video: frames per support video, evenly spaced over it; None takes all.
        query_frames: frames per query video, evenly spaced; None takes all.
        query_videos: largest number of query videos per object; None takes all.
        episodes_per_user: tasks per user.
        way: largest number of objects per task, drawn at random; None takes all.
        users: names of the users; None takes all.
        drop_flags: coordinates such as "flag_object_not_present_issue"; query frames where one
            of them is 1 are left out (ORBIT's protocol of December 2022). Support frames stay.
        seed: the same seed gives the same episodes.

    Returns:
        EpisodeBatch with one task per user and repetition, users in sorted order.

    Raises:
        DataError: no object has both support and query, or a condition, user or flag is unknown.

    Example:
        >>> episodes = sample_episodes(embeddings, shots=5, seed=0)  # doctest: +SKIP
    """
    _require_positive(
        shots=shots,
        frames_per_video=frames_per_video,
        query_frames=query_frames,
        query_videos=query_videos,
        episodes_per_user=episodes_per_user,
        way=way,
    )
    table = VideoTable.of(embeddings)
    keep = _kept_frames(embeddings, drop_flags)
    kept = np.add.reduceat(keep.astype(np.int64), table.start)
    wanted = _of_users(table, users)
    labelled = table.objects[table.object] != UNKNOWN_OBJECT
    support_able = _of_conditions(table, support_conditions) & labelled & wanted
    query_able = _of_conditions(table, query_conditions) & (kept > 0) & wanted
    complete = _complete(table, support_able, query_able)
    _warn_left_out(table, wanted, complete, support_conditions, query_conditions)
    supports, queries = [], []
    for repetition in range(episodes_per_user):
        label = _labels(table, complete, way, seed, stream=repetition)
        s, q = _draw(
            table, support_able, query_able, label, shots, query_videos, seed, stream=repetition
        )
        supports.append(s.of_repetition(repetition, episodes_per_user))
        queries.append(q.of_repetition(repetition, episodes_per_user))
    support, query = Slots.join(supports), Slots.join(queries)
    s_rows = rows_of_frames(table.start, table.count, None, support.video, frames_per_video)
    kept_rows = np.flatnonzero(keep)
    q_rows = rows_of_frames(np.cumsum(kept) - kept, kept, kept_rows, query.video, query_frames)
    found = assemble(embeddings, table, support, query, s_rows, q_rows, episodes_per_user)
    _warn_few(shots, found)
    return found


def population_episodes(
    embeddings: Embeddings,
    *,
    conditions: Sequence[str] = CONDITIONS,
    frames_per_video: int | None = None,
    users: Sequence[str] | None = None,
) -> EpisodeBatch:
    """Every user as one task with all of its videos as support: what a population is learnt from.

    The query is a token: one padded video without a frame.

    Args:
        embeddings: labelled frames.
        conditions: conditions of videos to use.
        frames_per_video: frames per video, evenly spaced; None takes all.
        users: names of the users; None takes all.

    Returns:
        EpisodeBatch with one task per user, users and objects in sorted order, videos in the
        order in which they stand in the Embeddings.

    Raises:
        DataError: there is no labelled video of these conditions, or a condition or user is
            unknown.
    """
    _require_positive(frames_per_video=frames_per_video)
    table = VideoTable.of(embeddings)
    labelled = table.objects[table.object] != UNKNOWN_OBJECT
    video = np.flatnonzero(_of_conditions(table, conditions) & labelled & _of_users(table, users))
    if not len(video):
        raise DataError(f"expected labelled videos of conditions {tuple(conditions)}, got none")
    thing, user = table.object[video], table.user[video]
    present = np.unique(thing)
    label = rank_within(table.owner[present], present)[np.searchsorted(present, thing)]
    support = Slots(video, (user, label, rank_within(thing, video)), label)
    tokens = np.unique(user)
    query = Slots(tokens * 0, (tokens, tokens * 0), tokens * 0 + UNLABELLED)
    empty = np.zeros(0, np.int64)
    rows = rows_of_frames(table.start, table.count, None, video, frames_per_video)
    return assemble(
        embeddings, table, support, query, rows, (empty, empty, empty), token_query=True
    )


def _draw(
    table: VideoTable,
    support_able: Bools,
    query_able: Bools,
    label: Ints,
    shots: int | None,
    query_videos: int | None,
    seed: int,
    stream: int,
) -> tuple[Slots, Slots]:
    """Choose the videos of one task per user, of the objects that have a label."""
    taught = label[table.object] >= 0
    key = hash_keys(table.name, seed=seed, stream=2 * stream)
    aside = np.zeros(len(table), bool)
    q = np.flatnonzero(query_able & taught & ~_has_unlabelled(table, query_able)[table.user])
    aside[q] = rank_within(table.object[q], support_able[q], key[q]) == 0

    s = np.flatnonzero(support_able & taught & ~aside)
    shot = rank_within(table.object[s], key[s])
    few = shot < (shots or len(table))
    s, shot = s[few], shot[few]
    support = Slots(s, (table.user[s], label[table.object[s]], shot), label[table.object[s]])

    rest = query_able & np.isin(table.user, table.user[s])
    rest[s] = False
    unknown = (table.objects == UNKNOWN_OBJECT)[table.object]
    q = np.flatnonzero(rest & (taught | unknown))
    few = rank_within(table.object[q], ~aside[q], key[q]) < (query_videos or len(table))
    q = q[few | unknown[q]]
    slot = rank_within(table.user[q], table.object[q], q)
    return support, Slots(q, (table.user[q], slot), label[table.object[q]])


def _has_unlabelled(table: VideoTable, query_able: Bools) -> Bools:
    """(user,) whether there is a query video without a label."""
    unknown = query_able & (table.objects == UNKNOWN_OBJECT)[table.object]
    return np.isin(np.arange(len(table.users)), table.user[unknown])


def _complete(table: VideoTable, support_able: Bools, query_able: Bools) -> Ints:
    """Objects with a support video and something to ask: another video, or an unlabelled one."""
    thing = np.arange(len(table.objects))
    videos = np.bincount(table.object[support_able | query_able], minlength=len(thing))
    asked = np.isin(thing, table.object[query_able]) & (videos > 1)
    asked |= _has_unlabelled(table, query_able)[table.owner]
    return thing[asked & np.isin(thing, table.object[support_able])]


def _labels(table: VideoTable, complete: Ints, way: int | None, seed: int, stream: int) -> Ints:
    """(object,) label of each chosen object within its user's task, UNLABELLED of the others."""
    names = np.char.add(np.char.add(table.users[table.owner], "/"), table.objects)
    key = hash_keys(names[complete], seed=seed, stream=2 * stream + 1)
    chosen = complete[rank_within(table.owner[complete], key) < (way or len(names))]
    label = np.full(len(table.objects), UNLABELLED, np.int64)
    label[chosen] = rank_within(table.owner[chosen], chosen)
    return label


def _of_users(table: VideoTable, users: Sequence[str] | None) -> Bools:
    if users is None:
        return np.ones(len(table), bool)
    unknown = sorted(set(users) - set(table.users.tolist()))
    if unknown or isinstance(users, str):
        raise DataError(f"expected a list of these embeddings' users, got {unknown or users!r}")
    return np.isin(table.users, list(users))[table.user]


def _of_conditions(table: VideoTable, conditions: Sequence[str]) -> Bools:
    if isinstance(conditions, str) or not set(conditions) <= set(CONDITIONS):
        raise DataError(f"expected a tuple of conditions out of {CONDITIONS}, got {conditions!r}")
    return np.isin(table.condition, [CONDITIONS.index(k) for k in conditions])


def _kept_frames(embeddings: Embeddings, flags: Sequence[str]) -> Bools:
    keep = np.ones(len(embeddings), bool)
    check_flags(flags, {str(c) for c in embeddings.dataset.coords if str(c).startswith("flag_")})
    for flag in flags:
        keep &= embeddings.coord(flag) != 1
    return keep


def _warn_left_out(
    table: VideoTable,
    wanted: Bools,
    complete: Ints,
    support_conditions: Sequence[str],
    query_conditions: Sequence[str],
) -> None:
    named = np.unique(table.object[wanted & (table.objects != UNKNOWN_OBJECT)[table.object]])
    out = np.setdiff1d(named, complete)
    if len(out):
        warnings.warn(
            f"{len(out)} objects are left out because they lack a support video "
            f"({'/'.join(support_conditions)}) or another query video "
            f"({'/'.join(query_conditions)}): "
            f"{table.describe(out)}",
            stacklevel=3,
        )
    ways = np.bincount(table.owner[complete], minlength=len(table.users))
    if (ways == 1).any():
        single = table.users[ways == 1].tolist()
        warnings.warn(
            f"{len(single)} {'user has' if len(single) == 1 else 'users have'} one object only, so "
            f"that every prediction is certain: {single[:5]}",
            stacklevel=3,
        )


def _warn_few(asked: int | None, episodes: EpisodeBatch) -> None:
    """Say it where no object has as many support videos as were asked for."""
    shots = episodes.shot_mask.sum(-1)[episodes.way_mask]
    if asked is not None and len(shots) and int(shots.max()) < asked:
        low, high = int(shots.min()), int(shots.max())
        found = f"{low}" if low == high else f"{low} to {high}"
        warnings.warn(
            f"asked for {asked} support videos of each object, but none has as many: without those "
            f"to ask about there are {found}, and what is said of {asked} is of these",
            stacklevel=3,
        )


def _require_positive(**sizes: int | None) -> None:
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise DataError(f"expected {name} >= 1, got {size}")
