"""What the subcommands do, apart from their options: `bayesfs.cli` calls one function each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bayesfs.data.store import read_skipped, store_attrs
from bayesfs.data.trees import read_tree
from bayesfs.errors import DataError
from bayesfs.features.embed import EfficientNetLite0
from bayesfs.features.extract import extract
from bayesfs.features.video import Sampling
from bayesfs.progress import bar, terminal_safe


def make_features(
    tree: Path, store: Path, *, px: int, device: str | None, sampling: Sampling, thumbnails: bool
) -> None:
    """Read a tree, embed its frames into a store, and say what came of it."""
    found = read_tree(tree)
    with bar("features") as progress:
        embeddings = extract(
            found.videos,
            EfficientNetLite0(px=px, device=usable_device(device)),
            store,
            thumbnails=thumbnails,
            sampling=sampling,
            skipped=found.skipped,
            progress=progress,
        )
    counts = {name: len(np.unique(embeddings.coord(name))) for name in ("user", "video")}
    things = len({*zip(embeddings.coord("user"), embeddings.coord("object"), strict=True)})
    print(
        f"{store}: {len(embeddings)} frames of {counts['video']} videos of {things} objects of "
        f"{counts['user']} users"
    )
    _tell_skipped(store)


def usable_device(name: str | None) -> torch.device | None:
    """The device of that name, None for none.

    Raises:
        DataError: this machine has no such device.
    """
    if name is None:
        return None
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as e:  # torch without CUDA raises the latter
        first = str(e).splitlines()[0]
        raise DataError(f"--device {name}: not usable on this machine ({first})") from e


def _tell_skipped(store: Path, shown: int = 5) -> None:
    attrs = store_attrs(store)
    skipped, count = read_skipped(attrs), int(attrs.get("skipped_count", 0))
    for one in skipped[:shown]:
        print(f"  left out: {terminal_safe(one.path)}: {terminal_safe(one.reason)}")
    if count > shown:
        print(f"  ... and {count - shown} more; the report counts them")
