"""A table of videos behind `Embeddings`, and random orders that do not depend on other users.

`VideoTable.of(embeddings)` is the name to use first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesfs._utils.arrays import Ints
from bayesfs.errors import DataError
from bayesfs.types import CONDITIONS, Embeddings

Keys = NDArray[np.uint64]

Names = NDArray[Any]


@dataclass(frozen=True)
class VideoTable:
    """One entry per video of some Embeddings; frames of a video are consecutive rows.

    Attributes:
        user: (video,) index into `users`.
        object: (video,) index into `objects`; indices of one user's objects are consecutive and
            in the order of their names.
        condition: (video,) index into `CONDITIONS`.
        name: (video,) name.
        start: (video,) first row in the Embeddings.
        count: (video,) number of frames.
        users: names of the users, sorted.
        objects: (object,) name of each object.
        owner: (object,) user of each object.
    """

    user: Ints
    object: Ints
    condition: Ints
    name: Names
    start: Ints
    count: Ints
    users: Names
    objects: Names
    owner: Ints

    @classmethod
    def of(cls, embeddings: Embeddings) -> VideoTable:
        """Tabulate the videos.

        Raises:
            DataError: there are no frames, or the frames of a video are not consecutive.
        """
        if not len(embeddings):
            raise DataError("expected at least one frame, got none; do the filters exclude all?")
        columns = [
            embeddings.coord(c).astype(str) for c in ("user", "object", "video", "condition")
        ]
        start = _run_starts(columns)
        user, thing, name, condition = (column[start] for column in columns)
        _require_unique(user, thing, name)
        users, user_index = np.unique(user, return_inverse=True)
        frame = pd.MultiIndex.from_arrays([user, thing])
        codes, pairs = pd.factorize(frame, sort=True)
        return cls(
            user=user_index.astype(np.int64),
            object=np.asarray(codes, np.int64),
            condition=np.array([CONDITIONS.index(k) for k in condition], np.int64),
            name=name,
            start=start,
            count=np.diff(np.append(start, len(embeddings))),
            users=users,
            objects=np.array([p[1] for p in pairs], dtype=str),
            owner=np.searchsorted(users, np.array([p[0] for p in pairs], dtype=str)),
        )

    def __len__(self) -> int:
        return len(self.name)

    def describe(self, objects: Ints) -> str:
        """The first few of the given objects as "user/object", and how many more there are."""
        names = [f"{self.users[self.owner[o]]}/{self.objects[o]}" for o in objects[:5]]
        more = f" and {len(objects) - 5} more" if len(objects) > 5 else ""
        return ", ".join(repr(n) for n in names) + more


def _run_starts(columns: list[Names]) -> Ints:
    change = np.zeros(len(columns[0]), bool)
    change[0] = True
    for column in columns:
        change[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(change)


def _require_unique(user: Names, thing: Names, name: Names) -> None:
    repeated = pd.MultiIndex.from_arrays([user, thing, name]).duplicated()
    if repeated.any():
        raise DataError(
            f"expected the frames of video {str(name[repeated][0])!r} in consecutive rows and of "
            "one condition, got several runs; were rows shuffled, or are video names not unique?"
        )


def hash_keys(names: Names, *, seed: int, stream: int) -> Keys:
    """Pseudo-random numbers that depend on (name, seed, stream) alone.

    Sorting by them is a uniformly random order in which the presence of other users changes
    nothing, so that episodes drawn in chunks of users equal those drawn at once. A hash of the
    name (SipHash, through pandas) is mixed with seed and stream by the finaliser of SplitMix64
    (Steele, Lea and Flood 2014).
    """
    salt = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0]
    z = pd.util.hash_array(names.astype(object), categorize=False).astype(np.uint64) ^ salt
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


def rank_within(group: NDArray[Any], *keys: NDArray[Any]) -> Ints:
    """(n,) rank of each entry among those of its group, ordered by the keys, the first foremost."""
    if not len(group):
        return np.zeros(0, np.int64)
    order = np.lexsort((*reversed(keys), group))
    ordered = group[order]
    first = np.r_[True, ordered[1:] != ordered[:-1]]
    position = np.arange(len(group))
    rank = np.empty(len(group), np.int64)
    rank[order] = position - np.maximum.accumulate(np.where(first, position, 0))
    return rank
