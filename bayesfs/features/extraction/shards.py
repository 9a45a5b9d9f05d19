"""Resumable pieces of an extraction: whole videos, embedded together, kept in one file.

Videos are grouped into shards by their list alone, and batches never cross a shard. So a run that
was killed and goes on computes, batch by batch, exactly what an undisturbed run computes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesfs._utils.atomic import write_whole
from bayesfs._utils.guarded_files import opened_npz
from bayesfs.data.sources.video import Skipped, Video
from bayesfs.errors import DataError
from bayesfs.features.decoding.sampling import Sampling
from bayesfs.features.decoding.video import frame_count
from bayesfs.features.extraction.batches import Batch, Picture
from bayesfs.protocols import Backbone, NamesFrames

SHARD_FRAMES = 256
"""A shard is full when it has at least so many frames: what a kill can cost a worker."""

FEWEST_SHARDS = 16
"""Shards that a small set is divided into where it can, so that each worker has some."""

LEAST_FRAMES = 32
"""Frames of a shard at least, but for the last."""


@dataclass(frozen=True)
class Shard:
    """Consecutive videos that are extracted together.

    Attributes:
        index: number of the shard.
        first: position of its first video in the whole list.
        videos: its videos.
        frames: frames expected, if all that are there can be decoded.
    """

    index: int
    first: int
    videos: tuple[Video, ...]
    frames: int


@dataclass(frozen=True, eq=False)
class ShardRows:
    """What one shard gave.

    Attributes:
        features: (frame, feature) float32.
        quality: (frame, covariate) float32.
        rows: (frame, 3) position of the video in the list, position in the video, frame number.
        pictures: thumbnails.
        skipped: what could not be decoded.
    """

    features: NDArray[np.float32]
    quality: NDArray[np.float32]
    rows: NDArray[np.int64]
    pictures: tuple[Picture, ...]
    skipped: tuple[Skipped, ...]


def plan_shards(videos: Sequence[Video], sampling: Sampling) -> list[Shard]:
    """Group consecutive videos until each group has at least `SHARD_FRAMES` frames.

    In a small set a group has fewer, but at least `LEAST_FRAMES`. The groups depend on the list
    alone, not on the machine.
    """
    counts = [frame_count(video, sampling) for video in videos]
    least = min(max(sum(counts) // FEWEST_SHARDS, LEAST_FRAMES), SHARD_FRAMES)
    shards: list[Shard] = []
    start = frames = 0
    for stop, count in enumerate(counts, 1):
        frames += count
        if frames >= least or stop == len(videos):
            shards.append(Shard(len(shards), start, tuple(videos[start:stop]), frames))
            start, frames = stop, 0
    return shards


def join(parts: Sequence[tuple[Batch, NDArray[np.float32]]]) -> ShardRows:
    """The batches of a shard and their features, as one."""
    return ShardRows(
        features=np.concatenate([features for _, features in parts]),
        quality=np.concatenate([batch.quality for batch, _ in parts]),
        rows=np.concatenate([batch.rows for batch, _ in parts]),
        pictures=tuple(p for batch, _ in parts for p in batch.pictures),
        skipped=tuple(s for batch, _ in parts for s in batch.skipped),
    )


def save_shard(path: Path, rows: ShardRows) -> None:
    """Write a shard under a temporary name, then rename it.

    Raises:
        OSError: the disk refuses.
    """
    jpegs = [jpeg for _, _, jpeg in rows.pictures]
    notes = json.dumps([asdict(s) for s in rows.skipped]).encode()
    arrays: dict[str, Any] = {
        "features": rows.features,
        "quality": rows.quality,
        "rows": rows.rows,
        "pictures": np.array([p[:2] for p in rows.pictures], np.int64).reshape(-1, 2),
        "sizes": np.array([len(j) for j in jpegs], np.int64),
        "jpeg": np.frombuffer(b"".join(jpegs), np.uint8),
        "skipped": np.frombuffer(notes, np.uint8),
    }
    write_whole(path, lambda temporary: np.savez(temporary, allow_pickle=False, **arrays))


def load_shard(path: Path, dim: int) -> ShardRows | None:
    """A finished shard, or None where there is none that is whole.

    Each array carries the CRC-32 of its zip entry, so a torn file is not taken for whole.

    Args:
        path: the shard's file.
        dim: number of features expected.
    """
    try:
        with opened_npz(path) as data:
            a = {name: np.asarray(data[name]) for name in data.files}
        notes = json.loads(a["skipped"].tobytes())
        parts = np.split(a["jpeg"], np.cumsum(a["sizes"]))[:-1]
        pictures = tuple(
            (int(v), int(n), part.tobytes())
            for (v, n), part in zip(a["pictures"].tolist(), parts, strict=True)
        )
        skipped = tuple(Skipped(**note) for note in notes)
    except Exception:  # a damaged archive fails in zipfile, zlib, NumPy and json in many ways
        return None
    if a["features"].shape != (len(a["rows"]), dim) or len(a["quality"]) != len(a["rows"]):
        return None
    return ShardRows(a["features"], a["quality"], a["rows"], pictures, skipped)


def features_of(backbone: Backbone, batch: Batch, videos: Sequence[Video]) -> NDArray[np.float32]:
    """(frame, feature) of a batch, by its pictures, or by its frames' names if these are enough.

    Args:
        backbone: the backbone.
        batch: decoded frames.
        videos: the whole list that `Batch.rows` counts in.

    Raises:
        DataError: the features are not one finite row a frame, or those of a frame are missing.
    """
    if isinstance(backbone, NamesFrames):
        at = [(videos[v], index, number) for v, index, number in batch.rows.tolist()]
        features = backbone.of_frames(
            [frame_path(video, index) for video, index, _ in at], [number for *_, number in at]
        )
    else:
        features = backbone(batch.images)
    check_features(features, batch, videos)
    return features


def frame_path(video: Video, index: int) -> str:
    """Where a frame, or the video file that it is of, lies in its tree."""
    return f"{video.path}/{video.files[index]}" if video.files else video.path


def check_features(features: NDArray[np.float32], batch: Batch, videos: Sequence[Video]) -> None:
    """Refuse features that are not one finite row a frame.

    Raises:
        DataError: a wrong shape, or NaN or infinite values; the first such frame is named.
    """
    if features.ndim != 2 or len(features) != len(batch.rows):
        raise DataError(f"the backbone gave {features.shape} for {len(batch.rows)} frames")
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        video, _, number = batch.rows[bad[0]].tolist()
        raise DataError(
            f"the backbone gave NaN or infinite features for {len(bad)} frames, first frame "
            f"{number} of {videos[video].path!r}; an overflow in half precision, or wrong weights?"
        )
