"""Parameters and latent values of the Gaussian hierarchy from which synthetic tasks are drawn.

`Population.isotropic` is the constructor to use first; `Truth` comes with the drawn tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesfs.errors import ShapeError
from bayesfs.types import CONDITIONS


@dataclass(frozen=True)
class Population:
    """Parameters of the hierarchy: known when data are synthetic, learnt otherwise.

    Attributes:
        mean: (feature,).
        offset: (condition, feature) shift of a recording condition.
        task_scale: (feature,) standard deviation of task effects.
        class_scale: (feature,) standard deviation of class effects.
        video_scale: (condition, feature) standard deviation of video effects.
        frame_scale: (condition, feature) scale of the frame noise.
        dof: degrees of freedom of the frame noise; infinity makes it Gaussian.
        absent: (condition,) probability that a frame does not show its object.
        quality_slope: (covariate,) effect of each covariate on the log scale of the frame noise.

    Raises:
        ShapeError: sizes disagree.
    """

    mean: Tensor
    offset: Tensor
    task_scale: Tensor
    class_scale: Tensor
    video_scale: Tensor
    frame_scale: Tensor
    dof: float
    absent: Tensor
    quality_slope: Tensor

    def __post_init__(self) -> None:
        d, k = len(self.mean), len(CONDITIONS)
        shapes = {name: (d,) for name in ("task_scale", "class_scale")}
        rows = {name: (k, d) for name in ("offset", "video_scale", "frame_scale")}
        for name, shape in {**shapes, **rows, "absent": (k,)}.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ShapeError(
                    f"expected {name} of shape {shape}, got {tuple(getattr(self, name).shape)}"
                )

    @classmethod
    def isotropic(
        cls,
        dim: int,
        *,
        task_scale: float = 0.5,
        class_scale: float = 1.0,
        video_scale: tuple[float, float] = (0.4, 0.6),
        frame_scale: tuple[float, float] = (0.4, 0.6),
        offset: float = 0.5,
        dof: float = math.inf,
        absent: tuple[float, float] = (0.0, 0.0),
        quality_slope: Sequence[float] = (),
        dtype: torch.dtype = torch.float32,
    ) -> Population:
        """Equal scales in every dimension; pairs are (clean, clutter); `offset` is clutter's."""

        def rows(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=dtype)[:, None].repeat(1, dim)

        return cls(
            mean=torch.zeros(dim, dtype=dtype),
            offset=rows((0.0, offset)),
            task_scale=torch.full((dim,), task_scale, dtype=dtype),
            class_scale=torch.full((dim,), class_scale, dtype=dtype),
            video_scale=rows(video_scale),
            frame_scale=rows(frame_scale),
            dof=dof,
            absent=torch.tensor(absent, dtype=dtype),
            quality_slope=torch.tensor(list(quality_slope), dtype=dtype),
        )


@dataclass(frozen=True)
class Truth:
    """Every latent value behind synthetic episodes, in the axes of their EpisodeBatch.

    Attributes:
        population: the parameters.
        task_effect: (task, feature) a.
        class_effect: (task, way, feature) c.
        support_video_effect: (task, way, shot, feature) v of support videos.
        query_video_effect: (task, video, feature) v of query videos.
        support_absent: (task, way, shot, frame) bool, True where another object is shown.
        query_absent: (task, video, frame) bool.
        query_labels: (task, video) class of each query video, padded ones too.
    """

    population: Population
    task_effect: Tensor
    class_effect: Tensor
    support_video_effect: Tensor
    query_video_effect: Tensor
    support_absent: Tensor
    query_absent: Tensor
    query_labels: Tensor

    @property
    def class_mean(self) -> Tensor:
        """(task, way, feature): mean + a + c, where a class is before any condition's offset."""
        return self.population.mean + self.task_effect[:, None] + self.class_effect
