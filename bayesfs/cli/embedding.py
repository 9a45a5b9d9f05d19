"""A tree of recordings as features, with a bar: `embed_tree`.

It stands by itself: to name a video, neither runs nor reports need be imported.
"""

from __future__ import annotations

from pathlib import Path

from bayesfs._utils.progress import bar
from bayesfs.data.sources.video import VideoTree
from bayesfs.features.decoding.sampling import Sampling
from bayesfs.features.extraction.extract import extract
from bayesfs.protocols import Backbone
from bayesfs.types import Embeddings


def embed_tree(
    tree: VideoTree,
    backbone: Backbone,
    store: Path,
    sampling: Sampling,
    *,
    thumbnails: bool,
) -> Embeddings:
    """Embed a tree into a store, with a bar."""
    with bar("features") as progress:
        return extract(
            tree.videos,
            backbone,
            store,
            thumbnails=thumbnails,
            sampling=sampling,
            skipped=tree.skipped,
            progress=progress,
        )
