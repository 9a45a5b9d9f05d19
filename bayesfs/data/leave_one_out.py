"""Leave-one-video-out: tasks whose own support videos are asked in turn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bayesfs.data.from_arrays import stack
from bayesfs.errors import DataError
from bayesfs.types import UNLABELLED, EpisodeBatch


def leave_one_video_out(episodes: EpisodeBatch, shots: Sequence[int] | None = None) -> EpisodeBatch:
    """Ask each support video of a task from the task's other support videos.

    Fold s of a task moves shot s of every class that has another video from support to query; a
    class with one video keeps it. The video is the unit, since frames of a video tell each other's
    label. The query of `episodes` is not used.

    Args:
        episodes: tasks; some class must have two support videos.
        shots: the folds to make, each a copy of the whole support; all of them by default.

    Returns:
        EpisodeBatch with the folds of all tasks, fold by fold; a fold with nothing to ask is left
        out. Query videos are named after class and shot.

    Raises:
        DataError: no class has two support videos.

    Example:
        >>> folds = leave_one_video_out(episodes)  # doctest: +SKIP
    """
    shots = range(episodes.support.shape[2]) if shots is None else shots
    folds = [_fold(episodes, shot) for shot in shots]
    asked = [(f, f.video_mask.any(1).nonzero()[:, 0].tolist()) for f in folds]
    kept = [fold.select(tasks) for fold, tasks in asked if tasks]
    if not kept:
        raise DataError(
            "expected a class with two support videos or more, got at most one per class; nothing "
            "can be left out"
        )
    return stack(kept)


def _fold(episodes: EpisodeBatch, shot: int) -> EpisodeBatch:
    several = episodes.shot_mask.sum(-1) > 1
    moved = episodes.support_mask[:, :, shot] & several[..., None]
    mask = episodes.support_mask.clone()
    mask[:, :, shot] &= ~moved
    label = torch.arange(episodes.way, device=mask.device).expand(len(episodes), -1)

    def query(value: Tensor | None, pad: int = 0) -> Tensor | None:
        return None if value is None else _keep(value[:, :, shot], moved, pad)

    def support(value: Tensor | None, pad: int = 0) -> Tensor | None:
        return None if value is None else _keep(value, mask, pad)

    names = tuple(episodes.task_name(t) for t in range(len(episodes)))
    classes = episodes.classes or tuple(
        tuple(str(k) for k in range(episodes.way)) for _ in range(len(episodes))
    )
    return episodes.changed(
        support=_keep(episodes.support, mask),
        support_mask=mask,
        support_quality=support(episodes.support_quality),
        support_frame=support(episodes.support_frame, -1),
        query=_keep(episodes.support[:, :, shot], moved),
        query_mask=moved,
        query_condition=episodes.support_condition[:, :, shot],
        query_labels=torch.where(moved.any(-1), label, UNLABELLED),
        query_quality=query(episodes.support_quality),
        query_frame=query(episodes.support_frame, -1),
        tasks=tuple(f"{name} without video {shot + 1}" for name in names),
        videos=tuple(tuple(f"{name}, video {shot + 1}" for name in own) for own in classes),
    )


def _keep(value: Tensor, mask: Tensor, pad: int = 0) -> Tensor:
    """Values where the mask holds, else the padding; value may have one more axis."""
    wide = mask[..., None] if value.ndim > mask.ndim else mask
    return torch.where(wide, value, pad)


def without_videos(episodes: EpisodeBatch, places: Tensor) -> EpisodeBatch:
    """One task for each place, without the support video there.

    Args:
        episodes: T tasks.
        places: (place, 3) task, way and shot of the video that is left out.
    """
    wide = episodes.select(places[:, 0].tolist())
    mask = wide.support_mask.clone()
    row = torch.arange(len(places), device=places.device)
    mask[row, places[:, 1], places[:, 2]] = False
    return wide.changed(support=wide.support * mask[..., None], support_mask=mask)


def removable(episodes: EpisodeBatch) -> Tensor:
    """(place, 3) support videos whose object has another one."""
    several = episodes.shot_mask.sum(-1, keepdim=True) > 1
    return (episodes.shot_mask & several).nonzero()
