"""A softmax head as logits that are linear in standard normal weights: `linear_logits`.

`bayesfs.models.heads.linear.HierarchicalHead` offers these two as its methods; see there for the
equations. Class k of a task has the weights z_k and the offsets u_k = (z_vk over videos v).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayesfs.protocols import LinearLogits, TaskNormal
from bayesfs.types import EpisodeBatch

if TYPE_CHECKING:
    from bayesfs.models.heads.linear import HierarchicalHead


def linear_logits(
    model: HierarchicalHead, episodes: EpisodeBatch, population: Mapping[str, Tensor]
) -> LinearLogits:
    """Rows are the support frames, class after class; the task's mean cancels and is left out.

    Args:
        model: the head.
        episodes: T tasks.
        population: site -> one value.
    """
    x = episodes.support
    tasks, ways, shots, frames, dim = x.shape
    if model.relevance_spread:
        x = x * population["relevance"].reshape(dim).to(x)
    videos = x.new_zeros(tasks, ways * shots * frames, 0)
    if model.video_scale:
        one = torch.eye(ways * shots, dtype=x.dtype, device=x.device)
        one = one * population["offset_scale"].reshape(()).to(x)
        videos = one.repeat_interleave(frames, 0).expand(tasks, -1, -1)
    mask = episodes.support_mask
    label = torch.arange(ways, device=x.device)[:, None, None].expand(mask.shape)
    return LinearLogits(
        scaled=x.flatten(1, 3) * population["population_scale"].reshape(()).to(x),
        fixed=videos,
        spread=model.scale_spread,
        label=label.flatten(1),
        weight=(model.exponent(mask)[..., None] * mask).flatten(1).to(x),
        exists=episodes.way_mask,
    )


def from_linear(
    model: HierarchicalHead,
    e: Tensor,
    z: Tensor,
    u: Tensor,
    episodes: EpisodeBatch,
    normal: TaskNormal,
) -> dict[str, Tensor]:
    """Draws of the head's task-level sites; see `bayesfs.protocols.LinearHead`."""
    sites = {"task_scale_raw": e, "weight_raw": z}
    if model.video_scale:
        ways, shots = episodes.support.shape[1:3]
        sites["offset_raw"] = (
            u.reshape(*u.shape[:-1], ways, shots).permute(0, 1, 3, 4, 2).contiguous()
        )
    if model.task_mean:
        sites["task_mean_raw"] = normal((len(e), z.shape[-1]), z).movedim(0, 1)
    return sites
