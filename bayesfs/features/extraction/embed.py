"""Frames -> features in memory, without a store: `embed`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bayesfs.data.sources.open import read_tree
from bayesfs.data.sources.video import NothingDecoded, Skipped, Video
from bayesfs.data.store import skipped_attrs
from bayesfs.features.decoding.sampling import Sampling
from bayesfs.features.decoding.video import frame_count
from bayesfs.features.extraction.batches import batches
from bayesfs.features.extraction.consolidate import labelled, lost_objects
from bayesfs.features.extraction.extract import AHEAD
from bayesfs.features.extraction.job import attrs_of
from bayesfs.features.extraction.prefetch import Prefetch
from bayesfs.features.extraction.shards import features_of, join
from bayesfs.protocols import Backbone, Progress
from bayesfs.types import Embeddings


def embed(
    videos: str | Path | Sequence[Video],
    backbone: Backbone,
    *,
    sampling: Sampling | None = None,
    skipped: Sequence[Skipped] = (),
    progress: Progress | None = None,
) -> Embeddings:
    """Embed and measure every frame of some videos, in memory.

    For more frames than memory holds, or to go on after an interruption, use
    `bayesfs.features.extraction.extract.extract`, which keeps a store and has the same numbers.

    Args:
        videos: a folder of recordings, or some videos, such as `read_tree(path).videos`.
        backbone: such as `bayesfs.features.backbones.spec.backbone_of("efficientnet-lite0")`.
        sampling: which frames; all of them by default.
        skipped: what the reader left out, of videos; told among the attributes.
        progress: called with (frames done, frames expected, message).

    Returns:
        Embeddings with labels, measured quality, and the backbone's name, pixels and what was left
        out as attributes.

    Raises:
        DataError: no frame can be decoded, or a feature is not finite.

    Example:
        >>> embed("videos", backbone_of("efficientnet-lite0"))  # doctest: +SKIP
    """
    if isinstance(videos, str | Path):
        tree = read_tree(videos)
        videos, skipped = tree.videos, tree.skipped
    listed, left_out = tuple(videos), list(skipped)
    chosen = sampling or Sampling()
    expected = sum(frame_count(video, chosen) for video in listed) if progress else 0
    source = batches(
        listed, 0, px=backbone.px, size=backbone.batch, sampling=chosen, thumbnails=False
    )
    parts, done = [], 0
    with Prefetch(source, ahead=AHEAD) as decoded:
        for batch in decoded:
            parts.append((batch, features_of(backbone, batch, listed)))
            done += len(batch.images)
            if progress is not None:
                progress(done, max(done, expected), "embedding frames")
    rows = join(parts)
    left_out += [*rows.skipped, *lost_objects(listed, set(rows.rows[:, 0].tolist()))]
    if not len(rows.rows):
        raise NothingDecoded(len(listed), left_out)
    attrs = {**attrs_of(backbone, chosen), **skipped_attrs(left_out)}
    return Embeddings.of_own(labelled(rows, listed).assign_attrs(attrs))
