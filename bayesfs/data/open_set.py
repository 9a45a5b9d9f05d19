"""Open-set tasks, in which some objects are left untaught: `withhold_classes`."""

from __future__ import annotations

import torch

from bayesfs.errors import DataError
from bayesfs.types import UNLABELLED, EpisodeBatch


def withhold_classes(episodes: EpisodeBatch, share: float, *, seed: int) -> EpisodeBatch:
    """The same tasks with some classes untaught: no support, and queries without a label.

    Args:
        episodes: T tasks.
        share: of each task's classes that are withheld, at random; at least one class and at most
            all but one, where a task has two or more.
        seed: of the choice.

    Returns:
        EpisodeBatch; withheld classes are padding, and lose their names with all others.

    Raises:
        DataError: the share is not between 0 and 1.
    """
    if not 0.0 < share < 1.0:
        raise DataError(f"expected a share of classes between 0 and 1, got {share}")
    exists = episodes.way_mask
    noise = torch.Generator().manual_seed(seed)
    order = torch.rand(exists.shape, generator=noise).to(exists.device).masked_fill(~exists, 2.0)
    rank = order.argsort(-1).argsort(-1)
    ways = exists.sum(-1)
    count = (share * ways).round().long().clamp(min=1).minimum(ways - 1)
    gone = (rank < count[:, None]) & exists
    label = episodes.query_labels
    hidden = (label >= 0) & gone.gather(1, label.clamp(min=0))
    mask = episodes.support_mask & ~gone[:, :, None, None]
    return episodes.changed(
        support=episodes.support * mask[..., None],
        support_mask=mask,
        query_labels=torch.where(hidden, UNLABELLED, label),
        classes=(),
    )
