"""Head scores of a batch of tasks: of their queries, and of each support video left out.

Start with `query_scores`. Both are `bayesfs.models.similarity.heads.head_scores` on the features
at unit length, times powers of `bayesfs.models.similarity.heads.alike_factor`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from bayesfs._linalg.directions import unit
from bayesfs._utils.spacing import evenly_spaced
from bayesfs.errors import ShapeError
from bayesfs.models.per_batch import once_per_batch
from bayesfs.models.similarity.heads import (
    LIKENESS,
    Products,
    WithinScatter,
    alike_factor,
    cosines_about_mean,
    head_scores,
    support_examples,
)
from bayesfs.types import EpisodeBatch

FOLDS = 64
"""Support videos that are left out at most; of more, evenly spaced ones are."""


Scatters = WithinScatter | Mapping[str, WithinScatter] | None
"""Scatter of other people's videos: one for all, one for each user, or none."""


@dataclass(frozen=True)
class LeftOut:
    """Support videos, each asked of the task without it.

    Attributes:
        scores: (task, fold, frame, way, head).
        mask: (task, fold, frame) frames of the video; a fold without any is padding.
        label: (task, fold) its class.
        count: (task, fold, way) videos of each class that are left.
        share: (task,) videos that could be left out, over those that are.
    """

    scores: Tensor
    mask: Tensor
    label: Tensor
    count: Tensor
    share: Tensor


@once_per_batch
def query_scores(episodes: EpisodeBatch, scatter: Scatters) -> Tensor:
    """(task, video, frame, way, head) scores of every query frame."""
    scores = head_scores(*_query_products(episodes, scatter), support_examples(episodes)[1])
    scores = scores.reshape(*episodes.query.shape[:3], *scores.shape[2:])
    return scores * _powers(likeness_factor(episodes, scatter))[:, None, None, None]


@once_per_batch
def likeness_factor(episodes: EpisodeBatch, scatter: Scatters) -> Tensor:
    """(task,) `alike_factor` of what was taught."""
    means, label = support_examples(episodes)
    return alike_factor(means @ means.mT, label, _unlike(means, scatters_of(episodes, scatter)))


@once_per_batch
def left_out_scores(episodes: EpisodeBatch, scatter: Scatters, most: int = FOLDS) -> LeftOut | None:
    """Scores of every support video whose class has another one; None where no class has.

    Args:
        episodes: T tasks; only their support is used.
        scatter: of videos about their objects in other worlds.
        most: videos that are left out at most; of more, evenly spaced ones are.
    """
    if (found := _left_out_products(episodes, scatter, most)) is None:
        return None
    folds, own, foreign = found
    means, _ = support_examples(episodes)
    unlike = _unlike(means, scatters_of(episodes, scatter))
    factor = alike_factor(own.gram, folds.rest, unlike[:, None])
    scores = head_scores(own, foreign, folds.rest)
    return folds.left_out(scores * _powers(factor)[:, :, None, None])


def centred_cosines(
    episodes: EpisodeBatch, scatter: Scatters, most: int = FOLDS
) -> tuple[Tensor, Tensor]:
    """Largest cosine about the taught mean, in the metric of other worlds, over frames and classes.

    Returns:
        (task, video) of queries, and (task, fold) of support videos, each left out of the task,
        whose class has another one; NaN for padding, and where a task has one class.
    """
    several = episodes.way_mask.sum(1) > 1
    _, foreign = _query_products(episodes, scatter)
    cosines = cosines_about_mean(foreign, support_examples(episodes)[1])
    cosines = cosines.reshape(*episodes.query.shape[:3], -1)
    asked = _largest(cosines, episodes.query_mask, episodes)
    asked = torch.where(several[:, None], asked, torch.nan)
    if (found := _left_out_products(episodes, scatter, most)) is None:
        return asked, asked[:, :0]
    folds, _, foreign = found
    return asked, _largest(cosines_about_mean(foreign, folds.rest), folds.mask, episodes)


def _largest(scores: Tensor, mask: Tensor, episodes: EpisodeBatch) -> Tensor:
    """(task, video, frame, way) -> (task, video) largest; NaN where there is no frame."""
    there = mask[..., None] & episodes.way_mask[:, None, None]
    largest = scores.masked_fill(~there, -torch.inf).amax((-2, -1))
    return torch.where(mask.any(-1), largest, torch.nan)


@dataclass(frozen=True)
class Folds:
    """Which support videos are left out, one at a time.

    Attributes:
        index: (task, fold) example that is left out.
        rest: (task, fold, example, way) one-hot classes of the others.
        label: (task, fold) class of the one that is left out.
        mask: (task, fold, frame) its frames; a fold without any is padding.
        share: (task,) videos that could be left out, over those that are.
    """

    index: Tensor
    rest: Tensor
    label: Tensor
    mask: Tensor
    share: Tensor

    @classmethod
    def of(cls, episodes: EpisodeBatch, label: Tensor, most: int) -> Folds | None:
        """Videos whose class has another one, evenly spaced if there are more than `most`.

        Args:
            episodes: T tasks.
            label: (task, example, way) from `bayesfs.models.similarity.heads.examples`.
            most: videos that are left out at most.
        """
        tasks, _, _, frames, _ = episodes.support.shape
        count = label.sum(1)
        several = (label * (count > 1)[:, None]).sum(-1) > 0  # (task, example)
        several = several & ((count > 0).sum(-1) > 1)[:, None]
        if not several.any():
            return None
        folds = [each.nonzero()[:, 0].tolist() for each in several]
        could = several.sum(-1).clamp(min=1)
        folds = [[own[i] for i in evenly_spaced(len(own), min(most, len(own)))] for own in folds]
        longest = max(map(len, folds))
        index = torch.tensor([own + [0] * (longest - len(own)) for own in folds])
        real = torch.tensor([[i < len(own) for i in range(longest)] for own in folds])
        index, real = index.to(label.device), real.to(label.device)
        task = torch.arange(tasks, device=label.device)[:, None]
        out = torch.arange(label.shape[1], device=label.device) == index[..., None]
        rest = label[:, None].masked_fill(out[..., None], 0.0)
        mask = episodes.support_mask.reshape(tasks, -1, frames)[task, index] & real[..., None]
        share = could / real.sum(-1).clamp(min=1)
        return cls(index, rest, label[task, index].argmax(-1), mask, share)

    def frames(self, support: Tensor) -> Tensor:
        """(task, way, shot, frame, feature) -> (task, fold, frame, feature) that are left out."""
        task = torch.arange(len(self.index), device=self.index.device)[:, None]
        return support.flatten(1, 2)[task, self.index]

    def products(self, products: Products) -> Products:
        """Products with all left-out frames (task, fold x frame), by fold."""
        return Products(
            products.gram[:, None],
            products.cross.reshape(*self.mask.shape, -1),
            products.square.reshape(self.mask.shape),
        )

    def left_out(self, scores: Tensor) -> LeftOut:
        """With their scores (task, fold, frame, way, head)."""
        return LeftOut(scores, self.mask, self.label, self.rest.sum(2), self.share)


def scatters_of(episodes: EpisodeBatch, scatter: Scatters) -> list[WithinScatter] | None:
    """The scatter of each task; None for none.

    Raises:
        ShapeError: a user has none, or one of other features.
    """
    if scatter is None:
        return None
    if isinstance(scatter, WithinScatter):
        found = [scatter] * len(episodes)
    else:
        missing = sorted({*episodes.users} - {*scatter})
        if missing:
            raise ShapeError(f"expected a scatter for each user, missing that of {missing[:5]}")
        found = [scatter[user] for user in episodes.users]
    for each in found:
        if len(each.axes) != episodes.dim:
            raise ShapeError(
                f"expected {len(each.axes)} features, as the scatter of other worlds has, got "
                f"{episodes.dim}; was another backbone used, or are the features projected?"
            )
    return found


def _unlike(means: Tensor, scatters: list[WithinScatter] | None) -> Tensor:
    """(task,) mean cosine of two objects of other people; NaN where it is not known."""
    if scatters is None:
        return means.new_full((len(means),), torch.nan)
    return means.new_tensor([each.unlike for each in scatters])


def _powers(factor: Tensor) -> Tensor:
    """(...) `alike_factor` -> (..., head)."""
    return factor[..., None].pow(torch.tensor(LIKENESS).to(factor))


@once_per_batch
def _query_products(episodes: EpisodeBatch, scatter: Scatters) -> tuple[Products, Products]:
    """Products of all query frames (task, video x frame), as `_products` has them."""
    query = unit(episodes.query).flatten(1, 2)
    return _products(support_examples(episodes)[0], query, scatters_of(episodes, scatter))


@once_per_batch
def _left_out_products(
    episodes: EpisodeBatch, scatter: Scatters, most: int
) -> tuple[Folds, Products, Products] | None:
    """The same of support videos that are left out, by fold; None where none can be."""
    means, label = support_examples(episodes)
    if (folds := Folds.of(episodes, label, most)) is None:
        return None
    query = folds.frames(unit(episodes.support)).flatten(1, 2)
    own, foreign = _products(means, query, scatters_of(episodes, scatter))
    return folds, folds.products(own), folds.products(foreign)


def _products(
    means: Tensor, query: Tensor, scatters: list[WithinScatter] | None
) -> tuple[Products, Products]:
    """Products in the features' own metric and in that of other worlds, each task's own."""
    own = Products(means @ means.mT, query @ means.mT, query.square().sum(-1))
    if scatters is None:
        return own, own
    rank = max((len(each.excess) for each in scatters), default=0)

    def padded(values: list[Tensor]) -> Tensor:
        return torch.stack([pad(value, (0, rank - value.shape[-1])) for value in values])

    axes = [torch.from_numpy(each.axes).to(means) for each in scatters]
    support = padded([x @ along for x, along in zip(means, axes, strict=True)])
    asked = padded([x @ along for x, along in zip(query, axes, strict=True)])
    excess = [torch.from_numpy(each.excess).to(means) for each in scatters]
    factor = padded([1.0 / (1.0 + value) - 1.0 for value in excess])
    return own, own.stretched(support, asked, factor)
