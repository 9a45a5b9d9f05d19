"""Summary statistics of a support set, per task: `support_quantities`.

They are what predictive checks compare between the data and a model's replicates. None of them is
fitted by any model directly, and each speaks about one level of the hierarchy.
"""

from __future__ import annotations

import torch
from torch import Tensor

NAMES = (
    "within-video scatter",
    "between-video scatter",
    "nearest-class distance",
    "nearest-class accuracy",
)
"""Quantities of `support_quantities`, in this order."""


def support_quantities(support: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Scatter within and between videos, distance and confusability of the classes.

    With v the mean frame of a video and c the mean of a class's videos, per task:

        within-video scatter    sqrt{sum ||x - v||^2 / sum (frames - 1)}, over all videos
        between-video scatter   sqrt{sum ||v - c||^2 / sum (videos - 1)}, over all classes
        nearest-class distance  mean over classes of min_j ||c - c_j||
        nearest-class accuracy  share of videos whose mean frame is nearest to their own class,
                                whose mean is then of its other videos

    Args:
        support: (..., task, way, shot, frame, feature).
        mask: (task, way, shot, frame) bool.

    Returns:
        Quantity -> (..., task), in units of the features; nan where a task has too few frames,
        videos or classes for it.
    """
    weight = mask.to(support)[..., None]
    frames = weight.sum(-2).clamp(min=1)
    video = (support * weight).sum(-2) / frames
    there = mask.any(-1).to(support)
    within = ((support - video[..., None, :]).square() * weight).sum((-1, -2, -3, -4))
    videos = there.sum(-1)
    centre = (video * there[..., None]).sum(-2) / videos.clamp(min=1)[..., None]
    between = ((video - centre[..., None, :]).square() * there[..., None]).sum((-1, -2, -3))
    exists = videos > 0
    spare_frames = (mask.sum(-1) - 1).clamp(min=0).sum((-1, -2))
    spare_videos = (videos - 1).clamp(min=0).sum(-1)
    return {
        NAMES[0]: (within / _or_nan(spare_frames.to(support))).sqrt(),
        NAMES[1]: (between / _or_nan(spare_videos)).sqrt(),
        NAMES[2]: _nearest_distance(centre, exists),
        NAMES[3]: _nearest_accuracy(video, there, centre, exists),
    }


def _or_nan(count: Tensor) -> Tensor:
    return torch.where(count > 0, count, torch.nan)


def _nearest_distance(centre: Tensor, exists: Tensor) -> Tensor:
    """(..., task): mean over classes of the distance to the nearest other one."""
    gap = torch.cdist(centre, centre, compute_mode="donot_use_mm_for_euclid_dist")
    pair = (
        exists[..., None]
        & exists[..., None, :]
        & ~torch.eye(exists.shape[-1], dtype=torch.bool, device=exists.device)
    )
    nearest = gap.masked_fill(~pair, torch.inf).amin(-1)
    has_other = pair.any(-1)
    return torch.where(has_other, nearest, 0.0).sum(-1) / _or_nan(has_other.sum(-1).to(gap))


def _nearest_accuracy(video: Tensor, there: Tensor, centre: Tensor, exists: Tensor) -> Tensor:
    """(..., task): leave-one-video-out accuracy of the nearest class mean."""
    count = there.sum(-1)
    rest = (count[..., None] - 1).clamp(min=1)[..., None]
    own = (count[..., None, None] * centre[..., None, :] - video) / rest
    to_own = (video - own).norm(dim=-1)
    to_all = torch.cdist(video.flatten(-3, -2), centre)
    to_all = to_all.reshape(*video.shape[:-1], centre.shape[-2])
    same = torch.eye(exists.shape[-1], dtype=torch.bool, device=exists.device)[:, None]
    other = to_all.masked_fill(same | ~exists[:, None, None], torch.inf).amin(-1)
    asked = (there > 0) & (count[..., None] > 1) & (exists.sum(-1) > 1)[:, None, None]
    right = ((to_own < other) & asked).to(video)
    share: Tensor = right.sum((-1, -2)) / _or_nan(asked.sum((-1, -2)).to(video))
    return share
