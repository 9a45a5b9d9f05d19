"""What every Gaussian hierarchy does with its levels' values: `LevelModel`.

A model says what its population sites are and how their values become `Levels`; the Pyro program,
the exact posterior, the closed-form predictive, the evidence, simulation and the entropies by level
are the same for all of them (`bayesfs.models.gaussian.conjugate`, `.labels`, `.levels`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesfs._distributions.noise import Noise
from bayesfs.models.gaussian.conjugate import (
    Levels,
    log_evidence,
    support_means,
    support_weights,
)
from bayesfs.models.gaussian.covariance import Diagonal, Operator
from bayesfs.models.gaussian.further_round import labels_after_round
from bayesfs.models.gaussian.further_video import labels_after_video
from bayesfs.models.gaussian.labels import (
    Queries,
    closed_form,
    frame_queries,
    joint_log_density,
    mixture_predictive,
    video_queries,
)
from bayesfs.models.gaussian.levels import level_entropies
from bayesfs.models.gaussian.videos import sample_task_sites
from bayesfs.models.population_draws import drawn_posterior, each_value
from bayesfs.protocols import Conjugate, Hierarchical, Simulates
from bayesfs.types import EpisodeBatch, Posterior, Predictive


class LevelModel(Conjugate, Hierarchical, Simulates):
    """A hierarchy that is Gaussian given its population.

    Frame f of video v of class k in task t, recorded in condition q:

        x_tkvf = o_q + r_q (a_t + m_tk + c_tk) + b_tkv + e_tkvf,

    with a ~ N(0, A), c ~ N(0, B_tk), b ~ N(0, V_q) and e ~ N(0, F_q); the values of all of them are
    `Levels`. Task sites are non-centred: a = A^(1/2) task_raw, c = B^(1/2) class_raw,
    b = V^(1/2) video_raw.
    """

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Site -> axes."""
        return {
            **self.population_dims,
            "task_raw": ("task", "feature"),
            "class_raw": ("task", "way", "feature"),
            "video_raw": ("task", "way", "shot", "feature"),
        }

    @abstractmethod
    def task_levels(self, population: Mapping[str, Tensor], episodes: EpisodeBatch) -> Levels:
        """Population parameters of one draw as operators, for the given tasks.

        Args:
            population: site -> value without draw axis.
            episodes: the tasks.
        """

    def __call__(self, episodes: EpisodeBatch) -> None:
        """The Pyro program over the support."""
        x, condition = episodes.support, episodes.support_condition
        tasks, ways, shots, frames, dim = x.shape
        levels = self.task_levels(self.sample_population(x), episodes)
        precision = support_weights(episodes, levels)
        width = 1.0 / torch.where(episodes.support_mask, precision, 1.0)
        loading, offset = levels.loading[condition][..., None], levels.offset[condition]
        unit = dist.Normal(x.new_zeros(dim), x.new_ones(dim)).to_event(1)
        with pyro.plate("task", tasks, dim=-4):
            task = levels.task.colour(pyro.sample("task_raw", unit)[:, 0, 0, 0])
            with pyro.plate("way", ways, dim=-3):
                way = levels.way.colour(pyro.sample("class_raw", unit)[:, :, 0, 0])
                way = way if levels.centre is None else levels.centre + way
                mean = (task[:, None] + way)[:, :, None]
                with pyro.plate("shot", shots, dim=-2):
                    raw = pyro.sample("video_raw", unit)[:, :, :, 0]
                    video = levels.video[condition].colour(raw)
                    centre = offset + loading * mean + video
                    with pyro.plate("frame", frames, dim=-1):
                        noise = levels.frame[condition].expand_axis(3).scaled(width)
                        law = frame_law(centre[..., None, :], noise)
                        pyro.sample("frames", law.mask(episodes.support_mask), obs=x)

    def class_means(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, way, feature) class means of each draw, in the clean condition's units."""
        return torch.stack([mean for _, mean in self._draw_by_draw(draws, episodes)])

    def log_joint_frame(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, frame, way) log p(x | y, theta_s), video effect integrated."""
        log_p = self._log_joint(draws, episodes, frame_queries)
        return log_p.reshape(-1, *episodes.query.shape[:3], episodes.way)

    def log_joint_video(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, way) log p(mean frame | y, theta_s): the frames share one effect.

        The mean frame is sufficient for the class; the frames' scatter about it is left out.
        """
        return self._log_joint(draws, episodes, video_queries)

    def log_evidence(self, episodes: EpisodeBatch, population: Mapping[str, Tensor]) -> Tensor:
        """(task,) log p(support | population), in nats; population without draw axis."""
        return log_evidence(episodes, self.task_levels(population, episodes))

    def log_labels(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Exact log p(y | x, support, population) of frames and videos; no draw axis.

        Returns:
            (task, video, frame, way) and (task, video, way), in nats; -inf for padded classes.
        """
        return closed_form(episodes, self.task_levels(population, episodes))

    def condition(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> Posterior:
        """Exact posterior: independent draws of every site, for each population draw in turn.

        Args:
            episodes: T tasks.
            population: site -> (population draw, ...).
            draws: number of draws for each population draw.
            seed: of the draws.
        """

        def sample(value: dict[str, Tensor], noise: Noise) -> dict[str, Tensor]:
            levels = self.task_levels(value, episodes)
            means = support_means(episodes, levels)
            return sample_task_sites(*means, episodes.support_condition, levels, draws, noise)

        return drawn_posterior(
            "exact", self.dims, episodes, population, sample, draws=draws, seed=seed
        )

    def predictive(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> Predictive:
        """Closed-form predictive, averaged over population draws; see `mixture_predictive`."""
        values = self.levels_of_draws(population, episodes)
        return mixture_predictive(episodes, values, draws=draws, seed=seed)

    def labels_after_video(
        self,
        episodes: EpisodeBatch,
        population: Mapping[str, Tensor],
        *,
        condition: int,
        frames: int,
        draws: int,
        seed: int,
    ) -> tuple[Tensor, Tensor]:
        """Label laws of each query after one more video of each class; see `further_video`."""
        levels = self.task_levels(population, episodes)
        return labels_after_video(
            episodes, levels, condition=condition, frames=frames, draws=draws, seed=seed
        )

    def labels_after_round(
        self,
        episodes: EpisodeBatch,
        population: Mapping[str, Tensor],
        *,
        count: Tensor,
        frames: int,
        draws: int,
        seed: int,
    ) -> tuple[Tensor, Tensor]:
        """Label laws of each query after a round of further videos; see `further_round`."""
        levels = self.task_levels(population, episodes)
        return labels_after_round(
            episodes, levels, count=count, frames=frames, draws=draws, seed=seed
        )

    def level_entropies(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Label entropies as one level after the other becomes known, at every draw.

        See `bayesfs.models.gaussian.levels`; `bayesfs.uncertainty.by_level.by_level` makes parts of
        them.
        """
        values = self.levels_of_draws(population, episodes)
        return level_entropies(episodes, values, draws=draws, seed=seed)

    def levels_of_draws(
        self, population: Mapping[str, Tensor], episodes: EpisodeBatch
    ) -> list[Levels]:
        """Population parameters of each draw, for the tasks."""
        return [self.task_levels(value, episodes) for value in each_value(population)]

    def _draw_by_draw(
        self, draws: Mapping[str, Tensor], episodes: EpisodeBatch
    ) -> Iterator[tuple[Levels, Tensor]]:
        """Population parameters and class means (task, way, feature) of each draw."""
        for s, raw in enumerate(draws["task_raw"]):
            sites = {site: draws[site][s] for site in self.population_dims}
            levels = self.task_levels(sites, episodes)
            mean = levels.task.colour(raw)[:, None] + levels.way.colour(draws["class_raw"][s])
            yield levels, mean if levels.centre is None else mean + levels.centre

    def _log_joint(
        self,
        draws: Mapping[str, Tensor],
        episodes: EpisodeBatch,
        queries: Callable[[EpisodeBatch, Levels], Queries],
    ) -> Tensor:
        values = [
            joint_log_density(queries(episodes, levels), mean, levels)
            for levels, mean in self._draw_by_draw(draws, episodes)
        ]
        return torch.stack(values).masked_fill(~episodes.way_mask[:, None], -torch.inf)


def frame_law(centre: Tensor, noise: Operator) -> dist.Distribution:
    """Normal distribution of a frame about its video's centre, one event over features."""
    if isinstance(noise, Diagonal):
        return dist.Normal(centre, noise.d.sqrt()).to_event(1)
    return dist.MultivariateNormal(centre, covariance_matrix=noise.m)  # type: ignore[attr-defined]
