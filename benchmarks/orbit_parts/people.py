"""Whose videos the ORBIT benchmark reads, one person at a time: `People`, `stored`.

The benchmark has 2.7 million frames, 14 GB of features: only the train users' frames that are
learnt from are kept, and the videos of the one user who is tested.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from bayesfs._utils.spacing import spaced
from bayesfs.data.store import iter_store, open_store, store_attrs
from bayesfs.data.video_table import VideoTable
from bayesfs.errors import DataError
from bayesfs.types import Embeddings

TRAIN_FRAMES = 16
"""Of a train user's video, evenly spaced; their neighbours are near copies."""


@dataclass(frozen=True)
class People:
    """Train users' frames, and the frames of each test user when they are asked for.

    Attributes:
        backbone: name of what made the features.
        train: frames of the train users, thinned.
        users: names of those who are tested.
        of_user: name -> all frames of that user's videos, in order of time.
    """

    backbone: str
    train: Embeddings
    users: tuple[str, ...]
    of_user: Callable[[str], Embeddings]


def stored(path: Path, split: str) -> People:
    """People of a feature store, which is passed through once in pieces of whole videos.

    Args:
        path: the store.
        split: of the users who are tested.

    Raises:
        DataError: no user is of the split, or none is to be learnt from.
    """
    train: list[Embeddings] = []
    users: set[str] = set()
    for piece in iter_store(path):
        part = piece.coord("split")
        users |= {*piece.coord("user")[part == split].tolist()}
        if (part == "train").any():
            train.append(thinned(_rows(piece, np.flatnonzero(part == "train"))))
    if not users or not train:
        raise DataError(f"{path}: expected users of the splits 'train' and {split!r}")
    name = str(store_attrs(path).get("backbone", "unknown"))
    return People(
        name,
        joined_frames(train),
        tuple(sorted(users)),
        lambda user: open_store(path, users=[user]),
    )


def thinned(embeddings: Embeddings, frames: int = TRAIN_FRAMES) -> Embeddings:
    """At most so many frames of every video, evenly spaced."""
    table = VideoTable.of(embeddings)
    video, position = spaced(table.count, frames)
    return _rows(embeddings, table.start[video] + position)


def joined_frames(parts: Sequence[Embeddings]) -> Embeddings:
    """Frames of several, one after the other."""
    sets = [part.dataset for part in parts]
    return Embeddings.of_own(xr.concat(sets, "frame", combine_attrs="override"))


def _rows(embeddings: Embeddings, rows: np.ndarray) -> Embeddings:
    return Embeddings.of_own(embeddings.dataset.isel(frame=rows))
