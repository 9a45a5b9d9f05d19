"""Frames of a store, corrupted and embedded again: `Frames`.

A corruption of features (`bayesfs.benchmark.conditions.noisy`) knows nothing of pictures. This one
goes back to the recordings that a store was made from, spoils frames, and lets backbone and
quality measures see what a bad recording would have shown them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesfs._utils.arrays import Ints
from bayesfs.benchmark.corruptions import corrupt
from bayesfs.data.sources.open import read_tree
from bayesfs.data.sources.video import Video
from bayesfs.data.store import store_attrs
from bayesfs.errors import DataError
from bayesfs.features.backbones.spec import remade
from bayesfs.features.decoding.video import Frame, decode
from bayesfs.features.extraction.job import video_fingerprint
from bayesfs.features.quality import quality
from bayesfs.protocols import Backbone, Progress
from bayesfs.types import Embeddings


@dataclass(frozen=True, eq=False)
class Frames:
    """Some frames of a store, where their pictures are, and the backbone that embedded them.

    Attributes:
        embeddings: the store, with the coordinate `frame_number`.
        rows: (n,) rows of the frames.
        videos: name -> recording.
        backbone: the store's backbone.

    Raises:
        DataError: the store does not number its frames, or a video is missing.
    """

    embeddings: Embeddings
    rows: Ints
    videos: Mapping[str, Video]
    backbone: Backbone

    def __post_init__(self) -> None:
        if "frame_number" not in self.embeddings.dataset.coords:
            raise DataError("the store does not number its frames; it is not of `bayesfs features`")
        missing = sorted(set(self._names) - set(self.videos))
        if missing:
            raise DataError(f"{len(missing)} videos of the store are not among these: {missing[0]}")

    @property
    def _names(self) -> list[str]:
        return [str(name) for name in self.embeddings.coord("video")[self.rows]]

    def measured(
        self, name: str, severity: int, *, seed: int, progress: Progress | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features (n, feature) and quality (n, covariate) of the corrupted frames.

        Args:
            name: of the corruption, see `bayesfs.benchmark.corruptions.CORRUPTIONS`.
            severity: 1 to 5.
            seed: of the corruption; a frame has the same noise, or hand before it, at any severity.
            progress: called with (videos done, videos, name).

        Raises:
            DataError: there is no such corruption, or a frame cannot be decoded.
        """
        names = np.array(self._names)
        parts: list[tuple[Any, Any]] = []
        order: list[Ints] = []
        shown = list(dict.fromkeys(names.tolist()))
        for done, video in enumerate(shown):
            at = np.flatnonzero(names == video)
            images = self._images(video, self.rows[at])
            rows = self.rows[at].tolist()
            worse = corrupt(images, name, severity, frames=rows, seed=seed)
            parts.append((self.backbone(worse), quality(worse)))
            order.append(at)
            if progress is not None:
                progress(done + 1, len(shown), f"{name} {severity}")
        back = np.argsort(np.concatenate(order))
        features, measures = (np.concatenate(p)[back] for p in zip(*parts, strict=True))
        return features, measures

    def replaced(self, features: NDArray[np.float32], measures: NDArray[np.float32]) -> Embeddings:
        """The store with other features and quality of these frames.

        Args:
            features: (n, feature).
            measures: (n, covariate).
        """
        dataset = self.embeddings.dataset
        changed = {"features": features, "quality": measures}
        changes = {}
        for variable, values in changed.items():
            if variable in dataset:
                whole = dataset[variable].values.copy()
                whole[self.rows] = values
                changes[variable] = (dataset[variable].dims, whole)
        return Embeddings.of_own(dataset.assign(changes))

    def _images(self, video: str, rows: Ints) -> NDArray[np.uint8]:
        """(frame, px, px, 3) of one video's frames."""
        numbers = self.embeddings.coord("frame_number")[rows].tolist()
        recording, wanted = only(self.videos[video], numbers), set(numbers)
        found = {
            item.number: item.image
            for item in decode(recording, self.backbone.px)
            if isinstance(item, Frame) and item.number in wanted
        }
        missing = sorted(wanted - set(found))
        if missing:
            raise DataError(f"{recording.location}: frame {missing[0]} cannot be decoded any more")
        return np.stack([found[n] for n in numbers])


def only(video: Video, numbers: Sequence[int]) -> Video:
    """The video with these frames only; a video file is left whole."""
    if video.is_file:
        return video
    at = np.flatnonzero(np.isin(video.numbers, numbers))
    return replace(
        video,
        files=tuple(video.files[i] for i in at),
        numbers=video.numbers[at],
        flags={},
        boxes=video.boxes[at],
    )


def frames_of_tree(
    embeddings: Embeddings, rows: Ints, store: Path, tree: Path, *, device: Any = None
) -> Frames:
    """Frames of a store that was made from a tree, and the backbone that made it.

    Args:
        embeddings: the store, opened.
        rows: (n,) rows of the frames.
        store: the store's folder.
        tree: the recordings that it was made from.
        device: where the backbone runs; the best there is by default.

    Raises:
        DataError: the store is of other recordings, or of a backbone that cannot be made here.
    """
    attrs = store_attrs(store)
    videos = read_tree(tree).videos
    if attrs.get("fingerprint") != video_fingerprint(videos):
        raise DataError(
            f"{str(tree)!r} does not hold the recordings that {str(store)!r} was made from; "
            "name the tree that was given to `bayesfs features`, unchanged since"
        )
    backbone = remade(str(attrs.get("backbone")), device)
    return Frames(embeddings, rows, {v.name: v for v in videos}, backbone)
