"""Exact draws of the support videos' effects, given the class means."""

from __future__ import annotations

import torch
from torch import Tensor

from bayesfs.models.conjugate import Levels, normal, support_means
from bayesfs.types import EpisodeBatch


def sample_video_effects(
    episodes: EpisodeBatch,
    levels: Levels,
    class_means: Tensor,  # (draw, task, way, feature)
    noise: torch.Generator,
) -> Tensor:
    """Draws b | mu, D of every support video.

        b | mu, D ~ N(C n F^-1 (xbar - o - r mu), C),     C = (V^-1 + n F^-1)^-1.

    with n the effective number of frames. Padded videos follow their prior N(0, V).

    Returns:
        (draw, task, way, shot, feature).
    """
    mean, count = support_means(episodes, levels)
    kind = episodes.support_kind
    loading = levels.loading[kind][..., None]
    frames = levels.frame[kind].inverse().scaled(count)
    cov = (levels.video[kind].inverse() + frames).inverse()
    rest = mean - levels.offset[kind] - loading * class_means[:, :, :, None]
    eps = normal(tuple(rest.shape), rest, noise)
    return cov.apply(frames.apply(rest)) + cov.colour(eps)
