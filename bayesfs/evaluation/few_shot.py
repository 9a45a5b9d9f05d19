"""N-way K-shot episodes of still pictures, as in the few-shot literature: `FewShotProtocol`.

    pictures = read_stills("features.npz")                        # bayesfs.data.stills
    train, test = split_classes(pictures, 50, seed=0)
    for batch in FewShotProtocol(shots=5).episodes(pictures, test): ...

`bayesfs.evaluation.few_shot_scores` scores them.

Source: Patacchiola et al. 2020 and Snell and Zemel 2021 (600 episodes x 5 seeds, 15 queries per
class, as many queries of other classes for the out-of-episode task).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayesfs._utils.arrays import Ints
from bayesfs._utils.ranges import Count, Natural, check_ranges
from bayesfs.errors import DataError
from bayesfs.types import CONDITIONS, UNLABELLED, Embeddings, EpisodeBatch


@dataclass(frozen=True)
class FewShotProtocol:
    """Which episodes to draw; the defaults are the literature's.

    Attributes:
        way: classes per episode, drawn without replacement.
        shots: support pictures per class.
        queries: query pictures per class; all there are where a class has fewer.
        outside: query pictures of other classes than the episode's, labelled `UNLABELLED`; 0 for
            none, None for as many as way x queries.
        episodes_per_seed: episodes per seed.
        seeds: each gives a batch of its own; their spread is what the literature reports.
        support_split: split of the support pictures.
        query_split: split of the query pictures; where it is the same, none is in both.
    """

    way: Count = 5
    shots: Count = 1
    queries: Count = 15
    outside: Natural | None = None
    episodes_per_seed: Count = 600
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    support_split: str = "train"
    query_split: str = "test"

    def __post_init__(self) -> None:
        check_ranges(self, DataError)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise DataError(f"expected distinct seeds, got {self.seeds}")

    def episodes(
        self, pictures: Embeddings, classes: Sequence[str], *, episodes_per_batch: int = 100
    ) -> Iterator[EpisodeBatch]:
        """Draw the episodes, some at a time.

        Support pictures stand in random order, so that `EpisodeBatch.limit_shots` gives nested
        episodes with the same queries. An episode depends on its seed and number only.

        Args:
            pictures: stills, from `bayesfs.data.stills.read_stills`.
            classes: classes to draw from: the test classes, or the meta-train classes.
            episodes_per_batch: episodes of one seed per batch; changes no draw.

        Yields:
            Batches of episodes named "SEED#1", "SEED#2", ...; a query is a video of one frame,
            classes in the order in which they were drawn.

        Raises:
            DataError: fewer than `way` classes have enough pictures, or a class is unknown.
        """
        pool = _Pool.of(pictures, classes, self)
        for seed in self.seeds:
            for start in range(0, self.episodes_per_seed, episodes_per_batch):
                stop = min(start + episodes_per_batch, self.episodes_per_seed)
                yield _batch(pool, self, seed, range(start, stop))


@dataclass(frozen=True)
class _Pool:
    """Rows of the pictures of every class that has enough of them."""

    pictures: Embeddings
    names: tuple[str, ...]
    support: tuple[Ints, ...]  # per class, rows
    query: tuple[Ints, ...]

    @classmethod
    def of(cls, pictures: Embeddings, classes: Sequence[str], protocol: FewShotProtocol) -> _Pool:
        thing, split = pictures.coord("object"), pictures.coord("split")
        unknown = sorted(set(classes) - set(np.unique(thing).tolist()))
        if unknown:
            raise DataError(f"expected classes of these pictures, got unknown {unknown[:10]}")
        found = []
        needed = protocol.shots + (protocol.support_split == protocol.query_split)
        for name in sorted(set(classes)):
            support = np.flatnonzero((thing == name) & (split == protocol.support_split))
            query = np.flatnonzero((thing == name) & (split == protocol.query_split))
            if len(support) >= needed and len(query):
                found.append((name, support, query))
        if len(found) < protocol.way:
            raise DataError(
                f"expected at least {protocol.way} classes with {needed} pictures of split "
                f"{protocol.support_split!r} and one of {protocol.query_split!r}, got "
                f"{len(found)} of {len(classes)}"
            )
        names, support_rows, query_rows = zip(*found, strict=True)
        return cls(pictures, names, support_rows, query_rows)


def _batch(pool: _Pool, protocol: FewShotProtocol, seed: int, numbers: range) -> EpisodeBatch:
    drawn = [_draw(pool, protocol, np.random.default_rng([seed, i])) for i in numbers]
    support = np.stack([d[1] for d in drawn])[..., None]  # (task, way, shot, frame)
    size = max(len(d[2]) for d in drawn)
    query = np.stack([_padded(d[2], size, -1) for d in drawn])[..., None]
    labels = np.stack([_padded(d[3], size, UNLABELLED) for d in drawn])
    video = pool.pictures.coord("video")
    clean = CONDITIONS.index("clean")
    return EpisodeBatch.of_own(
        support=_gather(pool.pictures.features, support),
        support_mask=torch.from_numpy(support >= 0),
        support_condition=torch.full(support.shape[:3], clean),
        query=_gather(pool.pictures.features, query),
        query_mask=torch.from_numpy(query >= 0),
        query_condition=torch.full(query.shape[:2], clean),
        query_labels=torch.from_numpy(labels),
        support_frame=torch.from_numpy(support),
        query_frame=torch.from_numpy(query),
        tasks=tuple(f"{seed}#{i + 1}" for i in numbers),
        classes=tuple(tuple(pool.names[k] for k in d[0]) for d in drawn),
        videos=tuple(tuple(video[d[2]].tolist()) for d in drawn),
    )


def _draw(
    pool: _Pool, protocol: FewShotProtocol, rng: np.random.Generator
) -> tuple[Ints, Ints, Ints, Ints]:
    """Classes (way,), support rows (way, shot), query rows and labels (video,) of one episode."""
    classes = rng.choice(len(pool.names), protocol.way, replace=False)
    shared = protocol.support_split == protocol.query_split
    support, query, labels = [], [], []
    for label, k in enumerate(classes):
        chosen = rng.choice(pool.support[k], protocol.shots, replace=False)
        asked = np.setdiff1d(pool.query[k], chosen) if shared else pool.query[k]
        asked = rng.permutation(asked)[: protocol.queries]
        support.append(chosen)
        query.append(asked)
        labels.append(np.full(len(asked), label))
    outside = _outside(pool, protocol, classes, rng)
    labels.append(np.full(len(outside), UNLABELLED))
    return classes, np.stack(support), np.concatenate([*query, outside]), np.concatenate(labels)


def _outside(
    pool: _Pool, protocol: FewShotProtocol, classes: Ints, rng: np.random.Generator
) -> Ints:
    """Rows of query pictures of other classes, each class equally likely."""
    count = protocol.way * protocol.queries if protocol.outside is None else protocol.outside
    others = np.setdiff1d(np.arange(len(pool.names)), classes)
    if not count or not len(others):
        return np.zeros(0, np.int64)
    rows = [rng.permutation(pool.query[k]) for k in rng.permutation(others)]
    turns = np.concatenate([np.arange(len(r)) for r in rows])
    return np.concatenate(rows)[np.argsort(turns, kind="stable")[:count]]


def _padded(values: Ints, size: int, fill: int) -> Ints:
    return np.pad(values, (0, size - len(values)), constant_values=fill)


def _gather(features: NDArray[Any], rows: Ints) -> Tensor:
    out = features[np.maximum(rows, 0)]
    out[rows < 0] = 0
    return torch.from_numpy(out)
