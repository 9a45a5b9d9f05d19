"""Users of a large store and where their frames are: `user_rows`, then `read_rows`.

A store larger than memory is looked through once, its labels only; after that each user's frames
are read by themselves, by whichever process works on them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import xarray as xr
import zarr

from bayesfs.data.people import check_held_out
from bayesfs.data.store import load_frames, named_store, store_attrs
from bayesfs.data.zarrfile import CHECKSUM, as_text
from bayesfs.types import Embeddings

Ranges = tuple[tuple[int, int], ...]
"""Half-open ranges of frames, ascending."""

PIECE = 2**20
"""Frames whose labels are read at a time."""


def user_rows(path: str | Path, split: str | None = None) -> Mapping[str, Ranges]:
    """Where each user's frames are, users in sorted order; memory goes with the users.

    Args:
        path: the store.
        split: only users with frames of this split, and only these frames; all by default.

    Raises:
        DataError: no store, or damaged, or one of the split's users has frames in another split.
    """
    found: dict[str, list[tuple[int, int]]] = {}
    others: set[str] = set()
    with named_store(path):
        store_attrs(path)
        group = zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False)
        for start in range(0, group["user"].shape[0], PIECE):
            user = as_text(group["user"][start : start + PIECE])
            kept = np.ones(len(user), bool)
            if split is not None:
                kept = as_text(group["split"][start : start + PIECE]) == split
                others.update(np.unique(user[~kept]).tolist())
            edges = np.flatnonzero((user[1:] != user[:-1]) | (kept[1:] != kept[:-1])) + 1
            bounds = [0, *edges.tolist(), len(user)]
            for low, high in pairwise(bounds):
                if kept[low]:
                    _extend(found.setdefault(str(user[low]), []), start + low, start + high)
        check_held_out(found, others, split or "")
    return {name: tuple(found[name]) for name in sorted(found)}


def read_rows(path: str | Path, ranges: Iterable[tuple[int, int]]) -> Embeddings:
    """Frames of these ranges, in order; the store was checked by `user_rows` already.

    Every chunk that is read is still held against its checksum.

    Raises:
        DataError: the store has changed since.
    """
    with named_store(path):
        rows = np.concatenate([np.arange(low, high) for low, high in sorted(ranges)])
        ds: xr.Dataset = xr.open_zarr(path, chunks=None, consolidated=False, zarr_format=3)
        return load_frames(ds, rows)


def batches_of(users: Mapping[str, Ranges], size: int) -> Sequence[tuple[tuple[str, ...], Ranges]]:
    """Users in groups of `size`, with the frames of each group."""
    names = list(users)
    groups = [tuple(names[i : i + size]) for i in range(0, len(names), size)]
    return [(g, tuple(r for name in g for r in users[name])) for g in groups]


def quick_fingerprint(path: str | Path) -> str:
    """SHA-256 over name, size and checksum of every chunk, without reading the chunks.

    Raises:
        DataError: no store, or damaged.
    """
    digest = hashlib.sha256()
    with named_store(path):
        store_attrs(path)
        for file in sorted(p for p in Path(path).rglob("*") if p.is_file()):
            with file.open("rb") as opened:
                if file.name == "zarr.json":
                    text = opened.read()
                else:
                    opened.seek(-CHECKSUM, 2)
                    text = opened.read()
            name = file.relative_to(path).as_posix()
            digest.update(f"{name} {file.stat().st_size} {text.hex()}\n".encode())
    return digest.hexdigest()


def _extend(ranges: list[tuple[int, int]], low: int, high: int) -> None:
    """Add a range, joined to the last one where they touch."""
    if ranges and ranges[-1][1] == low:
        low = ranges.pop()[0]
    ranges.append((low, high))
