"""Frames -> features -> store, resumable: `extract`.

    videos --decode, measure--> batches --backbone--> shards --at the end--> store

Several shards are made at a time, each by one thread that decodes and one that embeds; the cores
are divided among them. So no core waits for another at the end of every layer of the network, as
they do where all of them share a batch.

Unfinished work is kept in STORE.partial, one file a shard, each written under a temporary name and
then renamed; the finished store appears under its name in one step. A killed run goes on where it
was, with the same result; a second run of a finished store does nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from bayesfs._utils.atomic import remove_partial
from bayesfs._utils.threads import blas_threads
from bayesfs.data.sources.video import Skipped, Video
from bayesfs.data.store import open_store
from bayesfs.errors import REFUSALS, DataError
from bayesfs.features.decoding.sampling import Sampling
from bayesfs.features.extraction.batches import batches
from bayesfs.features.extraction.consolidate import consolidate
from bayesfs.features.extraction.job import LOCK, ExtractionJob
from bayesfs.features.extraction.prefetch import Prefetch
from bayesfs.features.extraction.shards import (
    Shard,
    features_of,
    join,
    load_shard,
    plan_shards,
    save_shard,
)
from bayesfs.protocols import Backbone, Progress
from bayesfs.types import Embeddings

MAX_WORKERS = 4
"""Shards made at a time by default, where there are so many cores."""

AHEAD = 4
"""Batches of a shard that may wait for the backbone."""


def extract(
    videos: Sequence[Video],
    backbone: Backbone,
    store_path: str | Path,
    *,
    thumbnails: bool = True,
    sampling: Sampling | None = None,
    skipped: Sequence[Skipped] = (),
    workers: int | None = None,
    progress: Progress | None = None,
) -> Embeddings:
    """Embed and measure every frame of the videos and keep the result in a store.

    Args:
        videos: such as `read_tree(path).videos`.
        backbone: the backbone; several workers call it at the same time.
        store_path: the store to make; an unfinished one goes on, a finished one is opened.
        thumbnails: whether the store gets small pictures of each video; without them, neither the
            store nor a report made from it holds a pixel of the data.
        sampling: which frames; all of them by default.
        skipped: what the reader left out, such as `read_tree(path).skipped`; kept in the store
            together with the frames that cannot be decoded.
        workers: shards made at a time; as many as cores, at most `MAX_WORKERS`, by default.
        progress: called with (frames done, frames expected, message), by one worker at a time.

    Returns:
        The store, opened.

    Raises:
        DataError: the store is of another backbone, size, sampling or list of frames (they are
            never mixed), another run is writing it, the disk refuses, no frame can be decoded, or
            a feature is not finite.

    Example:
        >>> tree = read_tree("videos")  # doctest: +SKIP
        >>> extract(tree.videos, EfficientNetLite0(), "store.zarr")  # doctest: +SKIP
    """
    job = ExtractionJob(videos, backbone, Path(store_path), sampling or Sampling(), thumbnails)
    make_store(job, skipped=skipped, workers=workers, progress=progress)
    return open_store(store_path)


def make_store(
    job: ExtractionJob,
    *,
    skipped: Sequence[Skipped] = (),
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """As `extract`, without loading the result: for stores larger than memory."""
    with _explained(job.store):
        if not job.is_done():
            job.claim()
            with FileLock(job.work / LOCK, timeout=0):
                if not job.is_done():
                    remove_partial(job.work)
                    job.begin()
                    shards = plan_shards(job.videos, job.sampling)
                    _embed_missing(job, shards, workers, progress)
                    consolidate(job, shards, skipped)
        if job.is_claimed():
            with suppress(Timeout), FileLock(job.work / LOCK, timeout=0):
                job.clear()


def _embed_missing(
    job: ExtractionJob, shards: Sequence[Shard], workers: int | None, progress: Progress | None
) -> None:
    """Embed every shard that is not finished, several at a time."""
    missing = [s for s in shards if load_shard(job.file(s), job.backbone.dim) is None]
    if not missing:
        return
    tally = _Tally(sum(s.frames for s in shards), sum(s.frames for s in missing), progress)
    cores = torch.get_num_threads()
    # of all shards, not of the missing ones: rounding depends on how many cores share a pass
    count = min(max(1, workers or min(MAX_WORKERS, os.cpu_count() or 1)), len(shards))
    share = max(1, cores // count)
    pool = ThreadPoolExecutor(count, "embed", torch.set_num_threads, (share,))
    try:
        with blas_threads(share):
            for future in [pool.submit(_embed, job, shard, tally) for shard in missing]:
                future.result()
    finally:
        tally.stop.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)  # its workers' number became that of threads still to come


def _embed(job: ExtractionJob, shard: Shard, tally: _Tally) -> None:
    """Embed one shard and keep it, while its next batches are being decoded."""
    source = batches(
        shard.videos,
        shard.first,
        px=job.backbone.px,
        size=job.backbone.batch,
        sampling=job.sampling,
        thumbnails=job.thumbnails,
    )
    parts = []
    with Prefetch(source, ahead=AHEAD) as decoded:
        for batch in decoded:
            if tally.stop.is_set():
                return
            parts.append((batch, features_of(job.backbone, batch, job.videos)))
            tally.add(len(batch.images))
    save_shard(job.file(shard), join(parts))


class _Tally:
    """Frames embedded by all workers, told to `progress` by one of them at a time."""

    def __init__(self, expected: int, missing: int, progress: Progress | None) -> None:
        self.stop = threading.Event()
        self._expected, self._done, self._progress = expected, expected - missing, progress
        self._lock = threading.Lock()

    def add(self, frames: int) -> None:
        with self._lock:
            self._done += frames
            if self._progress is not None and not self.stop.is_set():
                self._progress(self._done, max(self._done, self._expected), "embedding frames")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Name the store and the likely cause where the disk refuses or another run is at work."""
    try:
        yield
    except Timeout as error:
        raise DataError(f"another run is writing {str(path)!r}; wait for it to end") from error
    except OSError as error:
        reason = REFUSALS.get(error.errno or 0, str(error))
        raise DataError(f"cannot write {error.filename or str(path)!r}: {reason}") from error
