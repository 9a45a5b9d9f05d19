"""What a person has taught, video by video, and how it is changed: `Memory`.

A memory is a value: each change gives another one, and a recogniser that is made of it is the one
that would have been taught so from the start. It holds the model's features of every frame, no
pictures.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bayesfs._utils.guarded_files import kept_npz
from bayesfs.errors import DataError
from bayesfs.features.projection import Projection
from bayesfs.types import CONDITIONS, EpisodeBatch

Array = NDArray[Any]

LARGEST = 2**28
"""Most bytes that a file of a memory, or its arrays, take: some 200,000 frames."""


@dataclass(frozen=True, eq=False)
class TaughtVideo:
    """One video that was taught.

    Attributes:
        name: of the video, unlike that of any other.
        object: what it shows.
        condition: that it was recorded in.
        frames: (frame, feature) float32 features of the model.
        asked: whether it was asked about before it was taught, and so filmed as this person asks.
    """

    name: str
    object: str
    condition: str
    frames: NDArray[np.float32]
    asked: bool = False


@dataclass(frozen=True)
class Memory:
    """The videos that a person has taught, the oldest first.

    Example:
        >>> Memory().objects
        ()
    """

    videos: tuple[TaughtVideo, ...] = ()

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the objects, in the order in which they came."""
        return tuple(dict.fromkeys(video.object for video in self.videos))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the videos."""
        return tuple(video.name for video in self.videos)

    def added(
        self,
        videos: Mapping[str, Sequence[Array]],
        projection: Projection,
        condition: str,
        asked: bool = False,
    ) -> Memory:
        """With further videos, of objects that are known or new.

        The n-th video of an object is called "object/n", n counting up where that is taken.

        Args:
            videos: object -> its videos, each (frame, input feature) of backbone features.
            projection: from backbone features to those of the model.
            condition: that they were recorded in.
            asked: whether they were asked about before.

        Raises:
            DataError: an object without a frame, no name, or features of another backbone.
        """
        frames = {name: [np.atleast_2d(v) for v in each] for name, each in videos.items()}
        empty = [name for name, each in frames.items() if not name or not sum(map(len, each))]
        if empty or not frames:
            raise DataError(
                f"expected at least one video, with a frame, of each object; got none of {empty}"
            )
        taken, found = set(self.names), list(self.videos)
        count = Counter(video.object for video in found)
        flat = [(name, v) for name, each in frames.items() for v in each if len(v)]
        rows = projection.of_features(np.concatenate([v for _, v in flat]), condition)
        start = 0
        for name, video in flat:
            count[name] += 1
            number = count[name]
            while f"{name}/{number}" in taken:
                number += 1
            taken.add(f"{name}/{number}")
            own = rows[start : start + len(video)]
            found.append(TaughtVideo(f"{name}/{number}", name, condition, own, asked))
            start += len(video)
        return Memory(tuple(found))

    def corrected(self, video: str, object: str) -> Memory:
        """With one video shown to be of another object, which may be new.

        Raises:
            DataError: there is no such video, or the object has no name.
        """
        self._known(video, self.names, "a video")
        if not object:
            raise DataError("expected the name of an object, got none")
        return Memory(
            tuple(replace(v, object=object) if v.name == video else v for v in self.videos)
        )

    def forgotten(self, name: str) -> Memory:
        """Without an object or a video.

        Raises:
            DataError: there is none of that name, or nothing would be left.
        """
        self._known(name, (*self.objects, *self.names), "an object or a video")
        rest = tuple(v for v in self.videos if name not in (v.object, v.name))
        if not rest:
            raise DataError(f"expected something to be left, but {name!r} is all that was taught")
        return Memory(rest)

    def renamed(self, old: str, new: str) -> Memory:
        """With another name of an object; videos keep theirs.

        Raises:
            DataError: there is no such object, or one of the new name.
        """
        self._known(old, self.objects, "an object")
        if not new or new in self.objects:
            raise DataError(
                f"expected a new name, got {new!r}; objects are {list(self.objects)} (to make one "
                "of two, correct the videos of one)"
            )
        return Memory(tuple(replace(v, object=new) if v.object == old else v for v in self.videos))

    def merged(self, other: Memory) -> Memory:
        """With another memory's videos; objects of one name are one.

        Videos that both have, frame for frame, count once; others of a name that is taken get a
        free one.

        Raises:
            DataError: the features are of another number.
        """
        found = list(self.videos)
        if len({v.frames.shape[1] for v in (*self.videos, *other.videos)}) > 1:
            raise DataError("expected memories of the same features; were they taught by one run?")
        for video in other.videos:
            twin = [v for v in found if v.object == video.object]
            if any(np.array_equal(v.frames, video.frames) for v in twin):
                continue
            taken, number, name = {v.name for v in found}, 1, video.name
            while name in taken:
                number += 1
                name = f"{video.object}/{number}"
            found.append(replace(video, name=name))
        return Memory(tuple(found))

    def episode(self, dtype: torch.dtype = torch.float32) -> EpisodeBatch:
        """All of it as the support of one task, padded; its query is a token."""
        objects = self.objects
        each = [[v for v in self.videos if v.object == name] for name in objects]
        ways, shots = len(objects), max(map(len, each))
        longest, width = max(len(v.frames) for v in self.videos), self.videos[0].frames.shape[1]
        support = np.zeros((1, ways, shots, longest, width), np.float32)
        mask = np.zeros(support.shape[:-1], bool)
        condition = np.full((1, ways, shots), CONDITIONS.index(self.videos[0].condition))
        for w, videos in enumerate(each):
            for s, video in enumerate(videos):
                support[0, w, s, : len(video.frames)] = video.frames
                mask[0, w, s, : len(video.frames)] = True
                condition[0, w, s] = CONDITIONS.index(video.condition)
        return EpisodeBatch.of_own(
            torch.from_numpy(support).to(dtype),
            torch.from_numpy(mask),
            torch.from_numpy(condition),
            torch.zeros(1, 1, 1, width, dtype=dtype),
            torch.zeros(1, 1, 1, dtype=torch.bool),
            torch.zeros(1, 1, dtype=torch.long),
            torch.full((1, 1), -1),
        )

    @property
    def asked(self) -> Tensor:
        """(1, way, shot) which videos of `episode` were asked about before they were taught."""
        each = [torch.tensor([v.asked for v in self.videos if v.object == o]) for o in self.objects]
        return pad_sequence(each, batch_first=True)[None]

    def save(self, path: Path, of: str) -> None:
        """Write it to an npz file; nothing in it is code.

        Args:
            path: a file name ending in `.npz`.
            of: what tells the features that it is of; `load` asks for the same.
        """
        table = [[v.name, v.object, v.condition, len(v.frames), v.asked] for v in self.videos]
        header = np.frombuffer(json.dumps({"of": of, "videos": table}).encode(), np.uint8)
        frames = np.concatenate([v.frames for v in self.videos])
        with path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, header=header, frames=frames)

    @classmethod
    def load(cls, path: Path, of: str) -> Memory:
        """Read what `save` wrote.

        Raises:
            DataError: no such file, one of something else, damaged, or of other features.
        """
        with kept_npz(path, "no memory that bayesfs wrote", LARGEST) as archive:
            header = json.loads(archive["header"].tobytes())
            frames = np.asarray(archive["frames"], np.float32)
            table = [
                (str(n), str(o), str(c), int(k), bool(a)) for n, o, c, k, a in header["videos"]
            ]
            sizes = [count for *_, count, _ in table]
            names = [name for name, *_ in table]
            sound = frames.ndim == 2 and np.isfinite(frames).all() and sum(sizes) == len(frames)
            if not sound or min(sizes) < 1 or len(set(names)) < len(names):
                raise ValueError("its parts disagree")
            if not {c for _, _, c, *_ in table} <= {*CONDITIONS}:
                raise ValueError("an unknown condition")
            made = str(header["of"])
        if made != of:
            raise DataError(
                f"{path}: was taught with another run, whose features are others; teach it anew "
                "from the videos"
            )
        ends = np.cumsum(sizes)
        parts = zip(table, ends.tolist(), strict=True)
        return cls(
            tuple(TaughtVideo(n, o, c, frames[e - k : e], a) for (n, o, c, k, a), e in parts)
        )

    def _known(self, name: str, known: Sequence[str], what: str) -> None:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {list(known)}"
            raise DataError(f"expected {what} that was taught, got {name!r}{hint}")
