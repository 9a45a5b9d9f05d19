"""Worlds: labelled videos, and which of them may be taught and which asked: `read_worlds`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from bayesfs._utils.arrays import Bools, Ints
from bayesfs.data.sources.open import read_tree
from bayesfs.data.sources.video import IMAGE_SUFFIXES, UNKNOWN_OBJECT
from bayesfs.data.stills import read_stills
from bayesfs.data.store import open_store
from bayesfs.data.video_table import VideoTable
from bayesfs.errors import DataError
from bayesfs.features.backbones.spec import DEFAULT, backbone_of, remade
from bayesfs.features.extraction.extract import extract
from bayesfs.protocols import Backbone
from bayesfs.types import CONDITIONS, Embeddings

Read = Callable[[Path], Embeddings]


@dataclass(frozen=True, eq=False)
class World:
    """Objects of one place or of one way of recording, all people's objects in one pool.

    Attributes:
        name: of the folder or store.
        embeddings: frames with features of length 1.
        videos: the same by video; an object is one of (user, object name).
        teach: (video,) whether it may be taught from.
        ask: (video,) whether it may be asked.
        rule: in words, what chose these two.
        source: where it was read from; two worlds of one source are the same.
        comparable: whether its features are of the new world's backbone. If not, only scalars may
            be learnt from it, such as a temperature.
    """

    name: str
    embeddings: Embeddings
    videos: VideoTable
    teach: Bools
    ask: Bools
    rule: str
    source: str
    comparable: bool = True

    @classmethod
    def of(
        cls,
        name: str,
        embeddings: Embeddings,
        teach: re.Pattern[str] | None = None,
        ask: re.Pattern[str] | None = None,
        source: str = "",
    ) -> World:
        """A world of these frames; see `choose` for what is taught and asked."""
        x = embeddings.features
        norm = np.linalg.norm(x, axis=1, keepdims=True)
        unit = embeddings.with_features(x / np.where(norm > 0, norm, 1.0))
        table = VideoTable.of(unit)
        may_teach, may_ask, rule = choose(table, names_of(unit, table), teach, ask)
        return cls(name, unit, table, may_teach, may_ask, rule, source or name)

    @property
    def backbone(self) -> str:
        """Name of what made the features; "" where it is not known."""
        return str(self.embeddings.dataset.attrs.get("backbone", ""))

    @property
    def objects(self) -> int:
        """Number of objects."""
        return len(self.videos.objects)

    def only(self, objects: Ints) -> World:
        """The same world with some of its objects."""
        keep = np.isin(self.videos.object, objects)
        rows = np.repeat(keep, self.videos.count)
        part = Embeddings(self.embeddings.dataset.isel(frame=np.flatnonzero(rows)))
        return replace(
            self,
            embeddings=part,
            videos=VideoTable.of(part),
            teach=self.teach[keep],
            ask=self.ask[keep],
        )

    def seen_from(self, other: World) -> World:
        """The same world, comparable or not with another one."""
        return replace(self, comparable=self.backbone == other.backbone)


def names_of(embeddings: Embeddings, table: VideoTable) -> list[str]:
    """Each video's path relative to its tree, or object/video where no path is known."""
    if "path" not in embeddings.dataset.coords:
        return [f"{o}/{n}" for o, n in zip(table.objects[table.object], table.name, strict=True)]
    paths = map(PurePosixPath, embeddings.coord("path")[table.start].astype(str).tolist())
    return [str(p.parent if p.suffix.lower() in IMAGE_SUFFIXES else p) for p in paths]


def choose(
    table: VideoTable,
    names: Sequence[str],
    teach: re.Pattern[str] | None,
    ask: re.Pattern[str] | None,
) -> tuple[Bools, Bools, str]:
    """Which videos may be taught, which may be asked, and why, in words.

    By the patterns, which are searched for in the names, where each that is given is found (one
    alone leaves the other side the rest); else clean videos are taught and cluttered ones asked,
    where there are both; else any video may be either.
    """
    labelled = table.objects[table.object] != UNKNOWN_OBJECT
    found = {
        side: labelled & np.array([bool(pattern.search(name)) for name in names])
        for side, pattern in (("teach", teach), ("ask", ask))
        if pattern is not None
    }
    if found and all(mask.any() for mask in found.values()):
        may_teach = found.get("teach", labelled & ~found.get("ask", labelled))
        may_ask = found.get("ask", labelled & ~may_teach)
        return may_teach, may_ask, "by the names of videos"
    missed = "; no name of a video is of --teach and --ask" if found else ""
    clean, clutter = (labelled & (table.condition == CONDITIONS.index(k)) for k in CONDITIONS)
    if clean.any() and clutter.any():
        return clean, clutter, f"taught clean, asked in clutter{missed}"
    return labelled, labelled, f"at random{missed}"


def read_worlds(
    paths: Sequence[Path],
    read: Read,
    teach: re.Pattern[str] | None = None,
    ask: re.Pattern[str] | None = None,
) -> list[World]:
    """A world of each tree or store, by different names.

    Raises:
        DataError: two have one name, or no world has a video of a pattern's name.
    """
    names = [p.resolve().name.removesuffix(".zarr") for p in paths]
    if len(set(names)) < len(names):
        raise DataError(f"expected worlds of different names, got {names}; rename a folder")
    worlds = [
        World.of(n, read(p), teach, ask, str(p.resolve()))
        for n, p in zip(names, paths, strict=True)
    ]
    if (teach or ask) and not any(w.rule.startswith("by the names") for w in worlds):
        raise DataError(
            "expected --teach and --ask to be found in names of videos of one world at least, such "
            f"as {names_of(worlds[0].embeddings, worlds[0].videos)[0]!r}; got "
            f"{[p.pattern for p in (teach, ask) if p is not None]}"
        )
    return worlds


def photographs(path: Path) -> World:
    """A world of an npz of photographs, each a video of one frame, of an unnamed backbone."""
    stills = read_stills(path).dataset.assign_attrs(backbone=f"that of {path.name}")
    return World.of(path.stem, Embeddings(stills))


def embedder_of(spec: str | None, px: int | None) -> Backbone:
    """The backbone that a person asks for, or of a store's name; the default for None."""
    if spec is not None and spec.endswith("px"):
        return remade(spec)
    return backbone_of(spec or DEFAULT, px=px)


def reader(backbone: Callable[[], Backbone], cache: Path) -> Read:
    """Features of a tree, kept in the cache; those of a store as they are; each path once."""
    read: dict[Path, Embeddings] = {}
    made: list[Backbone] = []

    def features(path: Path) -> Embeddings:
        if (path / "zarr.json").exists():
            return open_store(path)
        made.extend([] if made else [backbone()])
        tree = read_tree(path)
        key = hashlib.sha256(f"{path.resolve()} {made[0].name}".encode()).hexdigest()[:12]
        store = cache / f"{path.resolve().name}-{key}.zarr"
        return extract(tree.videos, made[0], store, skipped=tree.skipped, thumbnails=False)

    def once(path: Path) -> Embeddings:
        where = path.resolve()
        if where not in read:
            read[where] = features(path)
        return read[where]

    return once
