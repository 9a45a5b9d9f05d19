"""People who may record more: all their videos, which are taught, and how well that does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bayesfs.data.sampling import population_episodes
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.types import CONDITIONS, Embeddings, EpisodeBatch
from uncertainty_parts.advice import masked_support, nll_and_prob

CLEAN, CLUTTER = range(len(CONDITIONS))


@dataclass(frozen=True)
class Recordings:
    """Everything that some people could teach, and what they ask.

    Attributes:
        tasks: support is all that may be taught, query is asked.
        place: (task, way, shot) place of each support video among those of its object and
            condition, in the order in which they are recorded; -1 where there is none.
    """

    tasks: EpisodeBatch
    place: Tensor

    @classmethod
    def of(cls, data: Embeddings, asked: int, *, seed: int) -> Recordings:
        """Of projected frames: `asked` cluttered videos of each object are asked, at random.

        Args:
            data: labelled frames of some people, in the model's features.
            asked: query videos per object.
            seed: of what is asked and of the order of the others.
        """
        whole = population_episodes(data, frames_per_video=8)
        order = torch.from_numpy(np.random.default_rng(seed).random(whole.shot_mask.shape))
        rank = torch.stack([_rank(order, whole, c) for c in range(len(CONDITIONS))])
        ask = (rank[CLUTTER] >= 0) & (rank[CLUTTER] < asked)
        place = rank.amax(0)
        cluttered = whole.support_condition == CLUTTER
        place = torch.where(cluttered, torch.where(ask, -1, place - asked), place)
        index = ask.flatten(1).to(torch.int8).argsort(dim=1, descending=True, stable=True)
        index = index[:, : int(ask.flatten(1).sum(1).max())]
        taken = ask.flatten(1).gather(1, index)
        way = index // ask.shape[2]

        def moved(value: Tensor | None) -> Tensor | None:
            if value is None:
                return None
            flat = value.flatten(1, 2)
            wide = index.reshape(*index.shape, *[1] * (flat.ndim - 2))
            return flat.gather(1, wide.expand(*index.shape, *flat.shape[2:]))

        mask = moved(whole.support_mask)
        assert mask is not None
        tasks = whole.changed(
            query=moved(whole.support),
            query_mask=mask & taken[..., None],
            query_condition=moved(whole.support_condition),
            query_labels=way.masked_fill(~taken, -1),
            query_quality=moved(whole.support_quality),
            query_frame=None,
            videos=(),
        )
        return cls(tasks, place)

    @property
    def available(self) -> Tensor:
        """(task, way, condition) number of videos that could be taught."""
        return torch.stack(
            [
                ((self.place >= 0) & (self.tasks.support_condition == c)).sum(-1)
                for c in range(len(CONDITIONS))
            ],
            -1,
        )

    def taught(self, count: Tensor) -> EpisodeBatch:
        """The tasks with the first `count` (task, way, condition) videos taught."""
        limit = count.gather(-1, self.tasks.support_condition.clamp(min=0))
        return masked_support(self.tasks, (self.place >= 0) & (self.place < limit))

    def start(self) -> Tensor:
        """(task, way, condition) one clean video of each object."""
        count = torch.zeros_like(self.available)
        count[..., CLEAN] = self.tasks.way_mask
        return count

    def falls(
        self, model: GaussianHierarchy, values: Mapping[str, Tensor], count: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(task,) NLL now, and (task, way, condition) its fall by the next video; -inf for none."""
        now = nll_and_prob(model, self.taught(count), values)[0]
        fall = torch.full(count.shape, -torch.inf, dtype=now.dtype)
        for way in range(count.shape[1]):
            for c in range(count.shape[2]):
                more = count.clone()
                more[:, way, c] += 1
                there = more[:, way, c] <= self.available[:, way, c]
                if there.any():
                    then = nll_and_prob(model, self.taught(more), values)[0]
                    fall[:, way, c] = torch.where(there, now - then, -torch.inf)
        return now, fall


def _rank(order: Tensor, tasks: EpisodeBatch, condition: int) -> Tensor:
    """(task, way, shot) rank of each video among its object's of a condition; -1 for others."""
    own = tasks.shot_mask & (tasks.support_condition == condition)
    rank = order.masked_fill(~own, torch.inf).argsort(-1).argsort(-1)
    return torch.where(own, rank, -1)
