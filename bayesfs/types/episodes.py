"""Few-shot tasks, padded and with masks: `EpisodeBatch`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from bayesfs._utils.display import Card, Shown
from bayesfs.errors import ShapeError
from bayesfs.types.labels import CONDITIONS, UNLABELLED, user_of
from bayesfs.types.level_names import VIDEOS, LevelNames
from bayesfs.types.owned import ours, owned

PAIRS = 2**14
"""Pairs of frames that are compared at a time."""

NAMES = ("tasks", "classes", "videos")
"""Attributes that name something of each task."""


@dataclass(frozen=True, repr=False)
class EpisodeBatch(Shown):
    """T few-shot tasks, padded to common sizes, with masks; one task is a batch of one.

    The tensors are copied: what the caller does to his own afterwards changes nothing here.

    A query label belongs to the whole video. Padded entries are zero in the data and False in
    the masks; a class with no support frame is padding. So is an exact copy of an earlier frame of
    its support video: features are continuous, so it is that frame read twice (a paused camera, a
    raised frame rate) and tells nothing new.

    Attributes:
        support: (task, way, shot, frame, feature) embeddings of the support videos.
        support_mask: (task, way, shot, frame) bool, True where there is a frame.
        support_condition: (task, way, shot) index into `CONDITIONS`.
        query: (task, video, frame, feature) embeddings of the query videos.
        query_mask: (task, video, frame) bool.
        query_condition: (task, video) index into `CONDITIONS`.
        query_labels: (task, video) class index, or `UNLABELLED`.
        support_quality: (task, way, shot, frame, covariate), or None.
        query_quality: (task, video, frame, covariate), or None.
        support_frame: (task, way, shot, frame) row of the Embeddings, -1 for padding, or None.
        query_frame: (task, video, frame) row of the Embeddings, -1 for padding, or None.
        untaught: (task, way) bool, classes that exist though no support video shows them, for a
            model that knows them by their names; or None.
        tasks: name of each task (the user, with a suffix where a user has several).
        classes: class names of each task, in label order.
        videos: query video names of each task.
        levels: what the data call the levels.
        columns: names of the features, where they are columns of a table; or ().

    Raises:
        ShapeError: sizes disagree, a label is not a class of its task, a value is not finite, or so
            large that its square overflows.
    """

    support: Tensor
    support_mask: Tensor
    support_condition: Tensor
    query: Tensor
    query_mask: Tensor
    query_condition: Tensor
    query_labels: Tensor
    support_quality: Tensor | None = None
    query_quality: Tensor | None = None
    support_frame: Tensor | None = None
    query_frame: Tensor | None = None
    untaught: Tensor | None = None
    tasks: tuple[str, ...] = ()
    classes: tuple[tuple[str, ...], ...] = ()
    videos: tuple[tuple[str, ...], ...] = ()
    levels: LevelNames = VIDEOS
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.support.ndim != 5 or self.query.ndim != 4:
            raise ShapeError(
                "expected support (task, way, shot, frame, feature) and query (task, video, frame, "
                f"feature), got {tuple(self.support.shape)} and {tuple(self.query.shape)}"
            )
        t, w, s, f, d = self.support.shape
        _, v, g, _ = self.query.shape
        expected = {
            "support_mask": (t, w, s, f),
            "support_condition": (t, w, s),
            "query": (t, v, g, d),
            "query_mask": (t, v, g),
            "query_condition": (t, v),
            "query_labels": (t, v),
            "support_frame": (t, w, s, f),
            "query_frame": (t, v, g),
            "untaught": (t, w),
        }
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise ShapeError(f"expected {name} of shape {shape}, got {tuple(value.shape)}")
        for name, lead in (("support_quality", (t, w, s, f)), ("query_quality", (t, v, g))):
            value = getattr(self, name)
            if value is not None and tuple(value.shape[:-1]) != lead:
                raise ShapeError(
                    f"expected {name} of shape {lead} + (covariate,), got {tuple(value.shape)}"
                )
        self._check_names()
        self._check_values()
        for attribute in fields(self):
            object.__setattr__(self, attribute.name, owned(getattr(self, attribute.name)))
        copies = _copies(self.support, self.support_mask)
        if copies is not None:
            object.__setattr__(self, "support_mask", ours(self.support_mask & ~copies))

    @classmethod
    def of_own(cls, *values: Any, **named: Any) -> EpisodeBatch:
        """A batch of tensors that nobody else holds, which are not copied."""
        for value in (*values, *named.values()):
            ours(value)
        return cls(*values, **named)

    def changed(self, **values: Any) -> EpisodeBatch:
        """The batch with other values of some attributes, which nobody else holds either."""
        return replace(self, **ours(values))

    def _check_values(self) -> None:
        limit = torch.finfo(self.support.dtype).max ** 0.25
        for unit, value in (("support", self.support), ("query", self.query)):
            largest = float(value.abs().max()) if value.numel() else 0.0  # NaN where one is
            if not math.isfinite(largest):
                raise ShapeError(
                    "support or query holds NaN or infinite features; was a frame corrupt?"
                )
            if largest > limit:
                raise ShapeError(
                    f"expected features of at most {limit:.1e} in {value.dtype}, so that squares "
                    f"and their ratios do not overflow, got {largest:.1e} in the {unit}; are they "
                    "in other units than the rest, or was a frame corrupt?"
                )
        for unit, mask in (("support", self.support_mask), ("query", self.query_mask)):
            quality = getattr(self, f"{unit}_quality")
            if quality is not None and not torch.isfinite(quality[mask]).all():
                raise ShapeError(
                    f"{unit}_quality holds NaN or infinite values; was a covariate not measured?"
                )
        ways = self.way_mask.sum(-1)
        if (ways == 0).any():
            raise ShapeError(
                f"task {self.task_name(int((ways == 0).nonzero()[0]))!r} has no support frame"
            )
        known = self.query_labels >= 0
        inside = (self.query_labels < self.way).all() and bool(
            self.way_mask.gather(1, self.query_labels.clamp(0, self.way - 1))[known].all()
        )
        if not inside or (self.query_labels < UNLABELLED).any():
            raise ShapeError(
                f"query_labels hold {sorted(set(self.query_labels.flatten().tolist()))} but "
                f"support has way={ways.tolist()}; was the episode relabelled?"
            )
        for condition in (self.support_condition, self.query_condition):
            if ((condition < 0) | (condition >= len(CONDITIONS))).any():
                raise ShapeError(
                    f"expected conditions 0..{len(CONDITIONS) - 1} ({CONDITIONS}), got "
                    f"{condition.flatten().tolist()}"
                )

    def _check_names(self) -> None:
        if self.columns and len(self.columns) != self.dim:
            raise ShapeError(f"expected {self.dim} columns, one a feature, got {self.columns[:8]}")
        for name in NAMES:
            own = getattr(self, name)
            if own and len(own) != len(self):
                raise ShapeError(f"expected {name} of {len(self)} tasks, got {len(own)}")
        for name, present in (("classes", self.way_mask), ("videos", self.video_mask)):
            for t, own in enumerate(getattr(self, name)):
                if len(own) > present.shape[1] or present[t, len(own) :].any():
                    raise ShapeError(
                        f"expected {name} to name each of the {int(present[t].sum())} of task "
                        f"{self.task_name(t)!r}, got {len(own)} names"
                    )

    def __len__(self) -> int:
        return self.support.shape[0]

    @property
    def way(self) -> int:
        """Largest number of classes of any task in the batch."""
        return self.support.shape[1]

    @property
    def dim(self) -> int:
        """Number of features."""
        return self.support.shape[-1]

    @property
    def way_mask(self) -> Tensor:
        """(task, way) bool: classes that exist."""
        taught = self.support_mask.flatten(2).any(-1)
        return taught if self.untaught is None else taught | self.untaught

    @property
    def shot_mask(self) -> Tensor:
        """(task, way, shot) bool: support videos that exist."""
        return self.support_mask.any(-1)

    @property
    def video_mask(self) -> Tensor:
        """(task, video) bool: query videos that exist."""
        return self.query_mask.any(-1)

    def task_name(self, task: int) -> str:
        """Name of a task, or its number where tasks have no names."""
        return self.tasks[task] if self.tasks else str(task)

    @property
    def users(self) -> tuple[str, ...]:
        """User of each task; tasks without names are each a user of their own."""
        return tuple(user_of(self.task_name(t)) for t in range(len(self)))

    def to(self, target: torch.dtype | torch.device | str) -> EpisodeBatch:
        """The batch on another device, or with its floating-point tensors in another dtype."""
        changed: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                is_index = isinstance(target, torch.dtype) and not value.is_floating_point()
                changed[f.name] = value if is_index else value.to(target)
        return self.changed(**changed)

    def select(self, tasks: Sequence[int]) -> EpisodeBatch:
        """The batch of the given tasks, in the given order."""
        index = torch.as_tensor(list(tasks), dtype=torch.long, device=self.support.device)
        changed: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                changed[f.name] = value[index]
            elif value and f.name in NAMES:
                changed[f.name] = tuple(value[i] for i in tasks)
        return self.changed(**changed)

    def limit_shots(self, shots: int) -> EpisodeBatch:
        """The same tasks with only the first `shots` support videos of each class.

        With 0 no class is taught: all of them are `untaught`, and known by their names at most.
        """
        if shots < 0:
            raise ShapeError(f"expected shots >= 0, got {shots}")
        names = ("support", "support_mask", "support_condition", "support_quality", "support_frame")
        there = {n: getattr(self, n) for n in names if getattr(self, n) is not None}
        if shots:
            return self.changed(**{n: value[:, :, :shots] for n, value in there.items()})
        empty = {n: torch.zeros_like(value[:, :, :1]) for n, value in there.items()}
        if "support_frame" in empty:
            empty["support_frame"] = empty["support_frame"] - 1
        return self.changed(**empty, untaught=self.way_mask)

    def permute_classes(self, order: Sequence[int]) -> EpisodeBatch:
        """Relabel classes: new class j is old class `order[j]`, in every task of the batch.

        A task with fewer classes than the batch has empty names where its padding goes.
        """
        index = torch.as_tensor(list(order), device=self.support.device)
        inverse = torch.argsort(index)
        names = ("support", "support_mask", "support_condition", "support_quality", "support_frame")
        changed: dict[str, Any] = {
            n: getattr(self, n)[:, index]
            for n in (*names, "untaught")
            if getattr(self, n) is not None
        }
        known = self.query_labels >= 0
        changed["query_labels"] = torch.where(
            known, inverse[self.query_labels.clamp(min=0)], self.query_labels
        )
        padded = [(*c, *[""] * (self.way - len(c))) for c in self.classes]
        changed["classes"] = tuple(tuple(c[i] for i in order) for c in padded)
        return self.changed(**changed)

    def _card(self) -> Card:
        """One line a task, the first twenty."""
        known = self.query_labels >= 0
        rows = [
            (
                self.task_name(t),
                ", ".join(self.classes[t]) if self.classes else int(self.way_mask[t].sum()),
                int(self.shot_mask[t].sum()),
                int(self.support_mask[t].sum()),
                int(self.video_mask[t].sum()),
                int(known[t].sum()),
            )
            for t in range(min(len(self), 20))
        ]
        words = ("task", "objects", "support videos", "frames", "query videos", "labelled")
        columns = tuple(self.levels.in_words(word) for word in words)
        facts = [("tasks", len(self)), ("features", self.dim), ("dtype", self.support.dtype)]
        return Card("EpisodeBatch", facts, columns, rows)


def _copies(frames: Tensor, mask: Tensor) -> Tensor | None:
    """(..., frame) bool: frames that equal an earlier one of their video; None if there are none.

    Args:
        frames: (..., frame, feature).
        mask: (..., frame).
    """
    total = frames.sum(-1)  # copies share it, and hardly any other frames do
    alike = (total.unsqueeze(-1) == total.unsqueeze(-2)) & mask.unsqueeze(-1) & mask.unsqueeze(-2)
    alike = alike.tril(-1)
    if not alike.any():
        return None
    copy = torch.zeros_like(mask)
    pairs = alike.nonzero()
    for start in range(0, len(pairs), PAIRS):
        *lead, later, earlier = pairs[start : start + PAIRS].T
        same = (frames[(*lead, later)] == frames[(*lead, earlier)]).all(-1)
        copy[tuple(place[same] for place in (*lead, later))] = True
    return copy
