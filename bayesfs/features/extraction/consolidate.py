"""Finished shards -> one labelled store: `consolidate`, in memory of about one shard."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesfs._utils.atomic import write_whole
from bayesfs.data.sources.video import (
    FLAGS,
    UNKNOWN_OBJECT,
    NothingDecoded,
    Skipped,
    Video,
)
from bayesfs.data.store import Thumbnail, skipped_attrs, write_store
from bayesfs.errors import DataError
from bayesfs.features.extraction.job import ExtractionJob
from bayesfs.features.extraction.shards import Shard, ShardRows, frame_path, load_shard
from bayesfs.features.quality import COVARIATES

PACKAGES = (
    "bayesfs", "torch", "numpy", "pillow", "zarr", "av", "timm", "open_clip_torch", "onnxruntime",
)  # fmt: skip
"""Packages whose versions a store notes."""


def consolidate(job: ExtractionJob, shards: Sequence[Shard], skipped: Sequence[Skipped]) -> None:
    """Write the store of finished shards into the work folder, and move it to its name.

    Args:
        job: what was extracted.
        shards: all of its shards, each of them finished.
        skipped: what the reader left out.

    Raises:
        DataError: no frame at all could be decoded, or a shard was changed meanwhile.
    """
    left_out, frames = list(skipped), 0
    read: set[int] = set()
    for rows in _finished(job, shards):
        frames += len(rows.rows)
        left_out += rows.skipped
        read.update(rows.rows[:, 0].tolist())
    left_out += lost_objects(job.videos, read)
    if not frames:
        raise NothingDecoded(len(job.videos), left_out)
    attrs = {**job.identity, **skipped_attrs(left_out), "versions": json.dumps(versions())}
    blocks = (labelled(rows, job.videos) for rows in _finished(job, shards) if len(rows.rows))
    pictures = _pictures(job, shards) if job.thumbnails else None
    write_whole(
        job.store,
        lambda path: write_store(path, blocks, frames, attrs, pictures),
        staging=job.work,
    )


def lost_objects(videos: Sequence[Video], read: set[int]) -> list[Skipped]:
    """Objects of which no frame at all could be decoded.

    Args:
        videos: what was to be read.
        read: positions of those of which a frame could be decoded.
    """
    left = {(videos[i].user, videos[i].object) for i in read}
    lost: dict[tuple[str, str], str] = {}
    for video in videos:
        if video.object != UNKNOWN_OBJECT and (video.user, video.object) not in left:
            folder = PurePosixPath(video.path).parent
            in_kind = folder.name == video.condition and folder.parent.name == video.object
            place = str(folder.parent if in_kind else folder)
            lost.setdefault((video.user, video.object), place)
    why = "an object of which no frame could be decoded"
    return [Skipped(place, why, "object") for place in lost.values()]


def labelled(rows: ShardRows, videos: Sequence[Video]) -> xr.Dataset:
    """Features and quality of a shard, with the labels of their frames as coordinates."""
    source = [(videos[v], index) for v, index, _ in rows.rows.tolist()]
    text = {
        "user": [v.user for v, _ in source],
        "object": [v.object for v, _ in source],
        "video": [v.name for v, _ in source],
        "condition": [v.condition for v, _ in source],
        "split": [v.split for v, _ in source],
        "path": [frame_path(v, i) for v, i in source],
    }
    columns: dict[str, NDArray[Any]] = {n: np.array(t, np.str_) for n, t in text.items()}
    for flag in FLAGS:
        values = [v.flags[flag][i] if flag in v.flags else -1 for v, i in source]
        columns[f"flag_{flag}"] = np.array(values, np.int8)
    boxes = np.array([v.boxes[i] if v.files else [np.nan] * 4 for v, i in source], np.float32)
    sides = ("box_x", "box_y", "box_width", "box_height")
    columns |= dict(zip(sides, boxes.reshape(-1, 4).T, strict=True))
    columns["frame_number"] = rows.rows[:, 2].astype(np.int32)
    data = {
        "features": (("frame", "feature"), rows.features),
        "quality": (("frame", "covariate"), rows.quality),
    }
    coords = {name: ("frame", column) for name, column in columns.items()}
    return xr.Dataset(data, {**coords, "covariate": ("covariate", np.array(COVARIATES))})


def versions() -> dict[str, str]:
    """Installed versions of the packages that make the features."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _finished(job: ExtractionJob, shards: Sequence[Shard]) -> Iterator[ShardRows]:
    for shard in shards:
        rows = load_shard(job.file(shard), job.backbone.dim)
        if rows is None:
            raise DataError(f"{str(job.file(shard))!r} was changed while the store was made")
        yield rows


def _pictures(job: ExtractionJob, shards: Sequence[Shard]) -> Iterator[Thumbnail]:
    for rows in _finished(job, shards):
        for video, number, jpeg in rows.pictures:
            yield Thumbnail(job.videos[video].name, number, jpeg)
