"""A small linear Gaussian model with a closed-form posterior: the yardstick of `EngineContract`.

It is also the shortest complete example of a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from bayesfs.protocols import Model
from bayesfs.types import EpisodeBatch, Posterior


@dataclass(frozen=True)
class GaussianToy(Model):
    """Classes and videos scatter about one population mean; non-centred, known scales.

        x_tkvf = m + class_scale c_tk + video_scale v_tkv + frame_scale e_tkvf,

    with m, c, v and e standard normal in every feature.

    Attributes:
        class_scale: standard deviation of class means about m.
        video_scale: standard deviation of a video about its class.
        frame_scale: standard deviation of a frame about its video.
    """

    class_scale: float = 1.0
    video_scale: float = 0.5
    frame_scale: float = 0.7

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Site -> axes."""
        return {
            "mean": ("feature",),
            "class_raw": ("task", "way", "feature"),
            "video_raw": ("task", "way", "shot", "feature"),
        }

    def __call__(self, episodes: EpisodeBatch) -> None:
        """The Pyro program over the support."""
        x = episodes.support
        tasks, ways, shots, frames, dim = x.shape
        unit = dist.Normal(x.new_zeros(dim), x.new_ones(dim)).to_event(1)
        mean = pyro.sample("mean", unit)
        with pyro.plate("task", tasks, dim=-4), pyro.plate("way", ways, dim=-3):
            center = mean + self.class_scale * pyro.sample("class_raw", unit)
            with pyro.plate("shot", shots, dim=-2):
                center = center + self.video_scale * pyro.sample("video_raw", unit)
                with pyro.plate("frame", frames, dim=-1), poutine.mask(mask=episodes.support_mask):
                    noise = dist.Normal(center, self.frame_scale).to_event(1)
                    pyro.sample("x", noise, obs=x)

    def log_joint_frame(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, frame, way): each frame as a video of its own."""
        one_frame = episodes.query.flatten(1, 2).unsqueeze(2)
        mask = torch.ones(one_frame.shape[:-1], dtype=torch.bool, device=one_frame.device)
        log_prob = self._log_joint(draws, one_frame, mask, episodes.way_mask)
        return log_prob.reshape(len(log_prob), *episodes.query.shape[:3], -1)

    def log_joint_video(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, way): the frames of a video share its deviation."""
        return self._log_joint(draws, episodes.query, episodes.query_mask, episodes.way_mask)

    def _log_joint(
        self, draws: Mapping[str, Tensor], x: Tensor, mask: Tensor, ways: Tensor
    ) -> Tensor:
        """Gaussian with covariance frame_scale^2 I + video_scale^2 11^T within each feature."""
        center = draws["mean"][:, None, None] + self.class_scale * draws["class_raw"]
        residual = x[None, :, :, :, None] - center[:, :, None, None]
        residual = residual * mask[..., None, None]
        frames = mask.sum(-1)[..., None, None]
        noise, shared = self.frame_scale**2, self.video_scale**2
        shrink = shared / (noise + frames * shared)
        quadratic = residual.square().sum(3) - shrink * residual.sum(3).square()
        log_det = (frames - 1) * math.log(noise) + (noise + frames * shared).log()
        log_prob = -0.5 * (quadratic / noise + log_det).sum(-1)
        return log_prob.masked_fill(~ways[:, None], -math.inf)

    def fixed_population(self, dim: int) -> Posterior:
        """The population mean 0 as a posterior of one draw."""
        return Posterior("exact", {"mean": torch.zeros(1, dim)}, {"mean": ("feature",)})

    def exact(
        self, episodes: EpisodeBatch, *, joint: bool = False
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Posterior mean and sd of every site, by one dense solve in double precision.

        Args:
            episodes: the tasks.
            joint: whether the population mean is unknown; else it is 0.

        Returns:
            Site -> (mean, sd), each with the axes of `dims`.
        """
        design = self._design(episodes)[..., 0 if joint else 1 :]
        observed = episodes.support_mask
        rows = design[observed].double()
        x = episodes.support[observed].double()
        precision = torch.eye(rows.shape[-1], dtype=torch.float64)
        precision = precision + rows.mT @ rows / self.frame_scale**2
        covariance = torch.linalg.inv(precision)
        mean = covariance @ rows.mT @ x / self.frame_scale**2
        sd = covariance.diagonal().sqrt().unsqueeze(-1).expand_as(mean)
        return self._unpack(mean, sd, episodes, joint)

    def _design(self, episodes: EpisodeBatch) -> Tensor:
        """(task, way, shot, frame, latent): x = design @ latents + noise, in each feature."""
        tasks, ways, shots, frames, _ = episodes.support.shape
        classes = torch.eye(tasks * ways).reshape(tasks, ways, 1, 1, -1)
        videos = torch.eye(tasks * ways * shots).reshape(tasks, ways, shots, 1, -1)
        cells = (tasks, ways, shots, frames, -1)
        parts = (
            torch.ones(tasks, ways, shots, frames, 1),
            (self.class_scale * classes).expand(cells),
            (self.video_scale * videos).expand(cells),
        )
        return torch.cat(parts, -1)

    def _unpack(
        self, mean: Tensor, sd: Tensor, episodes: EpisodeBatch, joint: bool
    ) -> dict[str, tuple[Tensor, Tensor]]:
        tasks, ways, shots = episodes.support.shape[:3]
        sizes = [1] * joint + [tasks * ways, tasks * ways * shots]
        shapes = [(-1,)] * joint + [(tasks, ways, -1), (tasks, ways, shots, -1)]
        names = list(self.dims)[0 if joint else 1 :]
        pairs = zip(torch.split(mean, sizes), torch.split(sd, sizes), shapes, strict=True)
        return {
            name: (m.reshape(shape), s.reshape(shape))
            for name, (m, s, shape) in zip(names, pairs, strict=True)
        }
