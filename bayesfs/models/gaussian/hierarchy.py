"""The Gaussian hierarchy population -> task -> class -> video -> frame: the yardstick.

Start with `GaussianHierarchy`. Its posterior and predictive are exact for given population
parameters (`bayesfs.models.gaussian.conjugate`, `bayesfs.models.gaussian.labels`); the Pyro program
below is the same model for every other engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesfs._distributions.noise import Noise
from bayesfs.errors import expect_positive
from bayesfs.models.gaussian.conjugate import (
    Levels,
    condition_classes,
    log_evidence,
    support_means,
    support_weights,
)
from bayesfs.models.gaussian.covariance import Diagonal, Operator
from bayesfs.models.gaussian.families import CovarianceFamily, PowerLaw, spectrum_log
from bayesfs.models.gaussian.labels import (
    Queries,
    closed_form,
    frame_queries,
    joint_log_density,
    log_absent_odds,
    mixture_predictive,
    open_predictive,
    video_queries,
)
from bayesfs.models.gaussian.levels import level_entropies
from bayesfs.models.gaussian.videos import sample_task_sites
from bayesfs.models.population_draws import drawn_posterior, each_value
from bayesfs.protocols import Conjugate, Hierarchical, OpenSet, Simulates
from bayesfs.types import CONDITIONS, EpisodeBatch, Posterior, Predictive

ABSENT_SD = 3.0
"""Prior sd of the log odds that a query shows nothing taught: next to nothing is known."""


@dataclass(frozen=True)
class GaussianHierarchy(Conjugate, OpenSet, Hierarchical, Simulates):
    """Gaussian hierarchy with a loading for clutter.

    Frame f of video v of class k in task t, recorded in condition q (clean or clutter):

        x_tkvf = o_q + r_q (a_t + c_tk) + b_tkv + e_tkvf
        a_t ~ N(0, A)      task effect           c_tk   ~ N(0, B)      class effect
        b_tkv ~ N(0, V_q)  video effect          e_tkvf ~ N(0, F_q)    frame noise

    with r_clean = 1 and r_clutter = `loading`: in clutter the object fills a part of the frame, so
    only a part of its deviation from the population mean o_q survives the pooling. Frames of one
    video share b, so that a video of many frames never counts as many videos. With `covariates`,
    measured quality q (standardised, as a `Projection` gives it) widens the frame noise,

        e_tkvf ~ N(0, exp(2 slope_q . q_tkvf) F_q),      slope ~ N(0, slope_sd^2),

    the same for every user. The slopes depend on the condition: sharpness means focus before a
    bare table and texture before a full shelf.

    A query shows none of the taught classes, but a new one of the same user, with log prior odds
    absent_odds ~ N(0, 3^2): see `log_absent_odds`.

    Population sites: `offset_raw` ~ N(0, I) with o = offset_scale s_d offset_raw, `loading` ~
    LogNormal(log loading, loading_sd), and the sites of the covariance family.
    Task sites are non-centred: a = A^(1/2) task_raw, c = B^(1/2) class_raw, b = V^(1/2) video_raw.

    Attributes:
        family: parametrisation and priors of A, B, V and F.
        loading: prior median of the clutter loading.
        loading_sd: prior sd of its log.
        offset_scale: prior sd of the offsets in units of the features' sd; a `Projection` has
            centred the train frames of each condition already.
        covariates: names of the measured qualities that widen the frame noise, all that the
            episodes have, in their order; none for noise that is the same for every frame.
        slope_sd: prior sd of their effects on the log sd of the noise.

    Example:
        >>> model = GaussianHierarchy()
        >>> objective = MarginalLikelihood(model)  # doctest: +SKIP
        >>> population = SVI(steps=300).infer(objective, train, seed=0)  # doctest: +SKIP
    """

    family: CovarianceFamily = field(default_factory=PowerLaw)
    loading: float = 0.5
    loading_sd: float = 0.5
    offset_scale: float = 0.1
    covariates: tuple[str, ...] = ()
    slope_sd: float = 0.5

    def __post_init__(self) -> None:
        expect_positive(self, "loading", "loading_sd", "offset_scale", "slope_sd")

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Site -> axes."""
        return {
            **self.population_dims,
            "task_raw": ("task", "feature"),
            "class_raw": ("task", "way", "feature"),
            "video_raw": ("task", "way", "shot", "feature"),
        }

    @property
    def population_dims(self) -> Mapping[str, tuple[str, ...]]:
        """Population site -> axes."""
        slope = {"quality_slope": ("condition", "covariate")} if self.covariates else {}
        own = {"offset_raw": ("condition", "feature"), "loading": (), "absent_odds": ()}
        return {**own, **slope, **self.family.dims}

    def fit_to(self, spectrum: tuple[float, ...]) -> GaussianHierarchy:
        """The same model for features whose sds over the train frames are `spectrum`."""
        return replace(self, family=self.family.fit_to(spectrum))

    def sample_population(self, like: Tensor) -> dict[str, Tensor]:
        """Pyro program of the population sites; `like` (..., feature) gives size and dtype."""
        wide = like.new_ones(2, like.shape[-1])
        one = like.new_ones(())
        sites = {
            "offset_raw": pyro.sample("offset_raw", dist.Normal(0.0 * wide, wide).to_event(2)),
            "loading": pyro.sample(
                "loading", dist.LogNormal((self.loading * one).log(), self.loading_sd * one)
            ),
            "absent_odds": pyro.sample("absent_odds", dist.Normal(0.0 * one, ABSENT_SD * one)),
        }
        if self.covariates:
            each = like.new_ones(len(CONDITIONS), len(self.covariates))
            law = dist.Normal(0.0 * each, self.slope_sd * each).to_event(2)
            sites["quality_slope"] = pyro.sample("quality_slope", law)
        return {**sites, **self.family.sample(like)}

    def levels(self, population: Mapping[str, Tensor], dim: int) -> Levels:
        """Population parameters of one draw as operators.

        Args:
            population: site -> value without draw axis.
            dim: number of features.
        """
        cov = cast(Diagonal, self.family.build(population, dim))
        raw = population["offset_raw"]
        spectrum = self.family.spectrum
        sd = spectrum_log(spectrum, dim, raw).exp() if spectrum else raw.new_ones(dim) / dim**0.5
        loading = population["loading"]
        return Levels(
            offset=self.offset_scale * sd * raw,
            loading=torch.stack([torch.ones_like(loading), loading]),
            task=cov[0],
            way=cov[1],
            video=cov[2:4],
            frame=cov[4:6],
            slope=population.get("quality_slope"),
            absent=population["absent_odds"],
        )

    def __call__(self, episodes: EpisodeBatch) -> None:
        """The Pyro program over the support."""
        x, condition = episodes.support, episodes.support_condition
        tasks, ways, shots, frames, dim = x.shape
        levels = self.levels(self.sample_population(x), dim)
        precision = support_weights(episodes, levels)
        width = 1.0 / torch.where(episodes.support_mask, precision, 1.0)
        loading, offset = levels.loading[condition][..., None], levels.offset[condition]
        unit = dist.Normal(x.new_zeros(dim), x.new_ones(dim)).to_event(1)
        with pyro.plate("task", tasks, dim=-4):
            task = levels.task.colour(pyro.sample("task_raw", unit)[:, 0, 0, 0])
            with pyro.plate("way", ways, dim=-3):
                way = levels.way.colour(pyro.sample("class_raw", unit)[:, :, 0, 0])
                mean = (task[:, None] + way)[:, :, None]
                with pyro.plate("shot", shots, dim=-2):
                    raw = pyro.sample("video_raw", unit)[:, :, :, 0]
                    video = levels.video[condition].colour(raw)
                    centre = offset + loading * mean + video
                    with pyro.plate("frame", frames, dim=-1):
                        noise = levels.frame[condition].expand_axis(3).scaled(width)
                        law = frame_law(centre[..., None, :], noise)
                        pyro.sample("frames", law.mask(episodes.support_mask), obs=x)

    def class_means(self, draws: Mapping[str, Tensor]) -> Tensor:
        """(draw, task, way, feature) a_t + c_tk of each draw, in the clean condition's units."""
        return torch.stack([mean for _, mean in self._draw_by_draw(draws)])

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
        return log_evidence(episodes, self.levels(population, episodes.dim))

    def log_labels(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Exact log p(y | x, support, population) of frames and videos; no draw axis.

        Returns:
            (task, video, frame, way) and (task, video, way), in nats; -inf for padded classes.
        """
        return closed_form(episodes, self.levels(population, episodes.dim))

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
            levels = self.levels(value, episodes.dim)
            means = support_means(episodes, levels)
            return sample_task_sites(*means, episodes.support_condition, levels, draws, noise)

        return drawn_posterior(
            "exact", self.dims, episodes, population, sample, draws=draws, seed=seed
        )

    def predictive(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> Predictive:
        """Closed-form predictive, averaged over population draws; see `mixture_predictive`."""
        values = self._levels_of_draws(population, episodes.dim)
        return mixture_predictive(episodes, values, draws=draws, seed=seed)

    def open_predictive(
        self,
        episodes: EpisodeBatch,
        population: Mapping[str, Tensor],
        *,
        untaught: int,
        draws: int,
        seed: int,
    ) -> Predictive:
        """The same over taught and `untaught` further classes; see `open_predictive`."""
        values = self._levels_of_draws(population, episodes.dim)
        return open_predictive(episodes, values, untaught=untaught, draws=draws, seed=seed)

    def log_absent_odds(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Log odds of frames and videos that no taught class is shown; no draw axis.

        Returns:
            (task, video, frame) and (task, video).
        """
        return log_absent_odds(episodes, self.levels(population, episodes.dim))

    def simulate_videos(
        self,
        episodes: EpisodeBatch,
        population: Mapping[str, Tensor],
        *,
        condition: int,
        frames: int,
        draws: int,
        seed: int,
    ) -> Tensor:
        """(draw, task, way, frame, feature) one more video of each class, from p(x | support).

        Frames of typical quality scatter about the mean frame, on which alone the class depends:
        the scatter has mean zero, and makes the frames differ, as copies of one would count once.
        """
        levels = self.levels(population, episodes.dim)
        noise = Noise.of(episodes, seed)
        mean = condition_classes(episodes, levels).sample(draws, noise)[1]
        law = levels.video[condition] + levels.frame[condition].scaled(1.0 / frames)
        eps = law.colour(noise.normal(draws, "way", (episodes.dim,), mean))
        video = levels.offset[condition] + levels.loading[condition] * mean + eps
        scatter = noise.normal(draws, "way", (frames, episodes.dim), mean)
        scatter = levels.frame[condition].colour(scatter)
        return video[:, :, :, None] + scatter - scatter.mean(3, keepdim=True)

    def level_entropies(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Expected label entropies as one level after the other becomes known, with errors.

        See `bayesfs.models.gaussian.levels`; `bayesfs.uncertainty.by_level.by_level` makes parts of
        them.
        """
        values = self._levels_of_draws(population, episodes.dim)
        return level_entropies(episodes, values, draws=draws, seed=seed)

    def _levels_of_draws(self, population: Mapping[str, Tensor], dim: int) -> list[Levels]:
        return [self.levels(value, dim) for value in each_value(population)]

    def _draw_by_draw(self, draws: Mapping[str, Tensor]) -> Iterator[tuple[Levels, Tensor]]:
        """Population parameters and class means (task, way, feature) of each draw."""
        for s, raw in enumerate(draws["task_raw"]):
            sites = {site: draws[site][s] for site in self.population_dims}
            levels = self.levels(sites, raw.shape[-1])
            task = levels.task.colour(raw)
            yield levels, task[:, None] + levels.way.colour(draws["class_raw"][s])

    def _log_joint(
        self,
        draws: Mapping[str, Tensor],
        episodes: EpisodeBatch,
        queries: Callable[[EpisodeBatch, Levels], Queries],
    ) -> Tensor:
        values = [
            joint_log_density(queries(episodes, levels), mean, levels)
            for levels, mean in self._draw_by_draw(draws)
        ]
        return torch.stack(values).masked_fill(~episodes.way_mask[:, None], -torch.inf)


def frame_law(centre: Tensor, noise: Operator) -> dist.Distribution:
    """Normal distribution of a frame about its video's centre, one event over features."""
    if isinstance(noise, Diagonal):
        return dist.Normal(centre, noise.d.sqrt()).to_event(1)
    return dist.MultivariateNormal(centre, covariance_matrix=noise.m)  # type: ignore[attr-defined]
