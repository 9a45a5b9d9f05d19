"""Exact draws of the hierarchy's task-level sites, given the mean frame of every support video."""

from __future__ import annotations

from torch import Tensor

from bayesfs._distributions.noise import Noise
from bayesfs.models.gaussian.conjugate import Levels, condition_on_videos


def sample_task_sites(
    mean: Tensor,  # (task, way, shot, feature) mean frames
    count: Tensor,  # (task, way, shot) effective numbers of frames
    condition: Tensor,  # (task, way, shot) recording conditions
    levels: Levels,
    draws: int,
    noise: Noise,
) -> dict[str, Tensor]:
    """Draws of task_raw, class_raw and video_raw, (draw, task, ...)."""
    task, classes = condition_on_videos(mean, count, condition, levels).sample(draws, noise)
    effect = classes - task[:, :, None]
    video = sample_video_effects(mean, count, condition, levels, classes, noise)
    return {
        "task_raw": levels.task.whiten(task),
        "class_raw": levels.way.whiten(effect if levels.centre is None else effect - levels.centre),
        "video_raw": levels.video[condition].whiten(video),
    }


def sample_video_effects(
    mean: Tensor,
    count: Tensor,
    condition: Tensor,
    levels: Levels,
    class_means: Tensor,  # (draw, task, way, feature)
    noise: Noise,
) -> Tensor:
    """Draws b | mu, D of every support video; other arguments as for `sample_task_sites`.

        b | mu, D ~ N(C n F^-1 (xbar - o - r mu), C),     C = (V^-1 + n F^-1)^-1.

    with n the effective number of frames. Padded videos follow their prior N(0, V).

    Returns:
        (draw, task, way, shot, feature).
    """
    loading = levels.loading[condition][..., None]
    frames = levels.frame[condition].inverse().scaled(count)
    cov = (levels.video[condition].inverse() + frames).inverse()
    rest = mean - levels.offset[condition] - loading * class_means[:, :, :, None]
    eps = noise.normal(len(rest), "shot", (rest.shape[-1],), rest)
    return cov.apply(frames.apply(rest)) + cov.colour(eps)
