"""Frames as inputs of a Gaussian process: `support_points`, `query_points`.

A point is one frame with its video and its recording condition. Support points of a task stand in
one list, first those that exist; a query keeps its axes (video, frame), since the frames of a
query video are scored jointly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from bayesfs._distributions.noise import TaskOrder, from_start
from bayesfs._linalg.cholesky import readable
from bayesfs.types import EpisodeBatch


@dataclass(frozen=True)
class Support:
    """Support frames of each task in one list.

    Attributes:
        x: (task, n, feature) embeddings, zero where padded.
        videos: number of video slots of a task, way x shot.
        video: (task, n) number of the video within the task, below `videos`.
        condition: (task, n) recording condition.
        label: (task, n) class.
        mask: (task, n) bool.
        way_mask: (task, way) bool.
        rank: (task, way) place of each class in an order that does not depend on labels, by which
            random numbers are dealt out; relabelling classes then permutes every result exactly.
    """

    x: Tensor
    videos: int
    video: Tensor
    condition: Tensor
    label: Tensor
    mask: Tensor
    way_mask: Tensor
    rank: Tensor

    @cached_property
    def full(self) -> bool:
        """No point is known to be padding; there is then nothing to mask."""
        return readable(self.mask.all()) is True

    @property
    def one_hot(self) -> Tensor:
        """(task, n, way) in the dtype of x; zero where padded."""
        classes = torch.arange(self.way_mask.shape[1], device=self.x.device)
        return ((self.label[..., None] == classes) & self.mask[..., None]).to(self.x)

    @property
    def pairs(self) -> Tensor:
        """(task, n, n) bool: both points exist."""
        return self.mask[:, :, None] & self.mask[:, None, :]

    @property
    def same_video(self) -> Tensor:
        """(task, n, n) bool: both exist, in one video."""
        return self.pairs & (self.video[:, :, None] == self.video[:, None, :])

    def video_means(self) -> Tensor:
        """(task, videos, n): averages over the frames of each video; zero rows where padded."""
        number = torch.arange(self.videos, device=self.x.device)[:, None]
        member = ((self.video[:, None] == number) & self.mask[:, None]).to(self.x)
        return member / member.sum(-1, keepdim=True).clamp_min(1)

    def mapped(self, z: Tensor) -> Support:
        """The same points with other features z (task, n, latent)."""
        return replace(self, x=z)


@dataclass(frozen=True)
class Query:
    """Query frames, by video.

    Attributes:
        x: (task, video, frame, feature).
        condition: (task, video).
        mask: (task, video, frame) bool.
    """

    x: Tensor
    condition: Tensor
    mask: Tensor

    @cached_property
    def full(self) -> bool:
        """No frame is known to be padding; there is then nothing to mask."""
        return readable(self.mask.all()) is True

    @property
    def pairs(self) -> Tensor:
        """(task, video, frame, frame) bool: both frames exist."""
        return self.mask[..., :, None] & self.mask[..., None, :]

    def mapped(self, z: Tensor) -> Query:
        """The same frames with other features z (task, video, frame, latent)."""
        return replace(self, x=z)

    def videos(self, start: int, stop: int) -> Query:
        """Videos start..stop of every task."""
        return Query(self.x[:, start:stop], self.condition[:, start:stop], self.mask[:, start:stop])


def support_points(episodes: EpisodeBatch) -> Support:
    """All support frames of each task; rows that are padding in every task are dropped.

    Points stand in an order that does not depend on how classes, videos and frames are numbered.
    """
    t, w, s, f, d = episodes.support.shape
    mask = episodes.support_mask.reshape(t, w * s * f)
    position = torch.arange(w * s * f, device=mask.device)
    order = TaskOrder.of(episodes)
    rank = order.rank
    shot, frame = from_start(order.shot)[..., None], from_start(order.frame)
    place = ((rank[..., None, None] * s + shot) * f + frame).reshape(t, w * s * f)
    points = torch.argsort(torch.where(mask, place, w * s * f), dim=1, stable=True)
    points = points[:, : int(mask.sum(1).max())]
    condition = episodes.support_condition.reshape(t, w * s, 1).expand(-1, -1, f).reshape(t, -1)
    return Support(
        x=_rows(episodes.support.reshape(t, -1, d), points),
        videos=w * s,
        video=(position // f)[points],
        condition=condition.gather(1, points),
        label=(position // (s * f))[points],
        mask=mask.gather(1, points),
        way_mask=episodes.way_mask,
        rank=rank,
    )


def by_support_size(episodes: EpisodeBatch) -> list[tuple[list[int], EpisodeBatch]]:
    """Tasks in groups whose numbers of support frames lie within a factor of 1.5.

    The cost of a task grows with the cube of that number, and in one batch the largest counts for
    all. The numbers of the tasks in each group, and the group as a batch.
    """
    count = episodes.support_mask.flatten(1).sum(1).tolist()
    order = sorted(range(len(count)), key=count.__getitem__, reverse=True)
    groups: list[list[int]] = []
    for task in order:
        if groups and count[groups[-1][0]] <= 1.5 * count[task]:
            groups[-1].append(task)
        else:
            groups.append([task])
    if len(groups) == 1:
        return [(list(range(len(count))), episodes)]
    return [(sorted(g), episodes.select(sorted(g))) for g in groups]


def places(groups: list[tuple[list[int], EpisodeBatch]]) -> list[int]:
    """Where each task's result stands when the groups' results are put one after the other."""
    joined = [task for group, _ in groups for task in group]
    return sorted(range(len(joined)), key=joined.__getitem__)


def query_points(episodes: EpisodeBatch) -> Query:
    """The query frames of each task."""
    return Query(episodes.query, episodes.query_condition, episodes.query_mask)


def _rows(x: Tensor, order: Tensor) -> Tensor:
    start = torch.arange(len(x), device=x.device)[:, None] * x.shape[1]
    return x.flatten(0, 1).index_select(0, (start + order).flatten()).reshape(*order.shape, -1)
