"""Frames -> features -> store, resumable: `extract`.

    videos --decode, measure (threads)--> batches --backbone--> shards --at the end--> store

Unfinished work is kept in STORE.partial, one file a shard, each written under a temporary name and
then renamed; the finished store appears under its name in one step. A killed run goes on where it
was, with the same result; a second run of a finished store does nothing.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from bayesfs.contracts import Progress
from bayesfs.data.atomic import sweep
from bayesfs.data.store import open_store
from bayesfs.data.videos import Skipped, Video
from bayesfs.errors import REFUSALS, DataError
from bayesfs.features.batches import Batch, batches
from bayesfs.features.consolidate import consolidate
from bayesfs.features.embed import SizedEmbedder
from bayesfs.features.job import Job
from bayesfs.features.prefetch import Prefetch
from bayesfs.features.shards import (
    SHARD_FRAMES,
    Shard,
    check_features,
    join,
    load_shard,
    plan_shards,
    save_shard,
)
from bayesfs.features.video import Sampling
from bayesfs.types import Embeddings

MAX_WORKERS = 4
"""Decoding threads by default, where there are so many cores."""


def extract(
    videos: Sequence[Video],
    embedder: SizedEmbedder,
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
        embedder: the backbone.
        store_path: the store to make; an unfinished one goes on, a finished one is opened.
        thumbnails: whether the store gets small pictures of each video; without them, neither the
            store nor a report made from it holds a pixel of the data.
        sampling: which frames; all of them by default.
        skipped: what the reader left out, such as `read_tree(path).skipped`; kept in the store
            together with the frames that cannot be decoded.
        workers: decoding threads; as many as cores, at most `MAX_WORKERS`, by default.
        progress: called with (frames done, frames expected, message).

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
    job = Job(videos, embedder, Path(store_path), sampling or Sampling(), thumbnails)
    make_store(job, skipped=skipped, workers=workers, progress=progress)
    return open_store(store_path)


def make_store(
    job: Job,
    *,
    skipped: Sequence[Skipped] = (),
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """As `extract`, without loading the result: for stores larger than memory."""
    with _explained(job.store):
        if not job.is_done():
            job.work.mkdir(parents=True, exist_ok=True)
            with FileLock(job.work / "lock", timeout=0):
                if not job.is_done():
                    sweep(job.work)
                    job.begin()
                    shards = plan_shards(job.videos, job.sampling)
                    _embed_missing(job, shards, workers, progress)
                    consolidate(job, shards, skipped)
        if job.work.exists():
            with suppress(Timeout), FileLock(job.work / "lock", timeout=0):
                shutil.rmtree(job.work, ignore_errors=True)


def _embed_missing(
    job: Job, shards: Sequence[Shard], workers: int | None, progress: Progress | None
) -> None:
    """Embed every shard that is not finished."""
    missing = [s for s in shards if load_shard(job.file(s), job.embedder.dim) is None]
    total = sum(s.frames for s in shards)
    done = total - sum(s.frames for s in missing)
    count = min(MAX_WORKERS, os.cpu_count() or 1) if workers is None else workers
    with closing(_decoded(job, missing, count)) as stream:
        for shard, source in stream:
            parts = []
            for batch in source:
                features = job.embedder(batch.images)
                check_features(features, batch, job.videos)
                parts.append((batch, features))
                done += len(batch.images)
                if progress is not None:
                    progress(done, max(done, total), "embedding frames")
            save_shard(job.file(shard), join(parts))


def _decoded(
    job: Job, shards: Sequence[Shard], workers: int
) -> Generator[tuple[Shard, Prefetch[Batch]], None, None]:
    """Each shard with its batches, being decoded while the shards before it are used."""
    waiting: deque[tuple[Shard, Prefetch[Batch]]] = deque()
    coming = iter(shards)
    try:
        while True:
            for shard in coming:
                waiting.append((shard, _start(job, shard)))
                if len(waiting) >= max(1, workers):
                    break
            if not waiting:
                return
            yield waiting[0]
            waiting.popleft()[1].close()
    finally:
        for _, source in waiting:
            source.close()


def _start(job: Job, shard: Shard) -> Prefetch[Batch]:
    source = batches(
        shard.videos,
        shard.first,
        px=job.embedder.px,
        size=job.embedder.batch,
        sampling=job.sampling,
        thumbnails=job.thumbnails,
    )
    return Prefetch(source, ahead=SHARD_FRAMES // job.embedder.batch + 1)


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
