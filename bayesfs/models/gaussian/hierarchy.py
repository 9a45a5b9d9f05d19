"""The Gaussian hierarchy population -> task -> class -> video -> frame: `GaussianHierarchy`.

Start with `GaussianHierarchy`. Its posterior and predictive are exact for given population
parameters, and its Pyro program serves every other engine (`bayesfs.models.gaussian.level_model`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesfs._utils.ranges import Positive, check_ranges
from bayesfs.errors import ShapeError
from bayesfs.models.gaussian.conjugate import Levels
from bayesfs.models.gaussian.covariance import Diagonal
from bayesfs.models.gaussian.families import CovarianceFamily, PowerLaw, spectrum_log
from bayesfs.models.gaussian.labels import open_labels, open_predictive
from bayesfs.models.gaussian.level_model import LevelModel
from bayesfs.protocols import OpenSet
from bayesfs.types import CONDITIONS, EpisodeBatch, Predictive


@dataclass(frozen=True)
class GaussianHierarchy(LevelModel, OpenSet):
    """Gaussian hierarchy with a loading for clutter.

    Frame f of video v of class k in task t, recorded in condition q (clean or clutter):

        x_tkvf = o_q + r_q (a_t + c_tk) + b_tkv + e_tkvf
        a_t ~ N(0, A)      task effect           c_tk   ~ N(0, B)      class effect
        b_tkv ~ N(0, V_q)  video effect          e_tkvf ~ N(0, F_q)    frame noise

    with r_clean = 1 and r_clutter = `loading`: in clutter the object fills a part of the frame, so
    only a part of its deviation from the population mean o_q survives the pooling. Frames of one
    video share b, so that a video of many frames never counts as many videos. With `covariates`,
    measured quality q (standardised, as a `Projection` gives it) widens the frame noise,

        e_tkvf ~ N(0, exp(2 slope_q . q_tkvf) F_q),      slope ~ N(slope_mean, slope_sd^2),

    the same for every user. The slopes depend on the condition: focus means that of a lens before a
    bare table and texture before a full shelf.

    A query shows none of the taught classes, but a new one of the same user, with log prior odds
    `absent_odds` ~ N(absent_odds, absent_odds_sd^2): see `open_labels`.

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
        slope_mean: prior mean of each of these effects; none for 0.
        absent_odds: prior mean of the log odds that a query shows nothing taught.
        absent_odds_sd: prior sd of these: next to nothing is known.

    Example:
        >>> model = GaussianHierarchy()
        >>> objective = MarginalLikelihood(model)  # doctest: +SKIP
        >>> population = SVI(steps=300).infer(objective, train, seed=0)  # doctest: +SKIP
    """

    family: CovarianceFamily = field(default_factory=PowerLaw)
    loading: Positive = 0.5
    loading_sd: Positive = 0.5
    offset_scale: Positive = 0.1
    covariates: tuple[str, ...] = ()
    slope_sd: Positive = 0.5
    slope_mean: tuple[float, ...] = ()
    absent_odds: float = 0.0
    absent_odds_sd: Positive = 3.0

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)
        if len(self.slope_mean) not in (0, len(self.covariates)):
            raise ShapeError(
                f"expected slope_mean for each of the covariates {self.covariates}, or none, got "
                f"{self.slope_mean}"
            )

    @property
    def coords(self) -> Mapping[str, tuple[str, ...]]:
        """Axis -> names; those of the levels that have a covariance too."""
        return {**super().coords, **self.family.coords}

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
            "absent_odds": pyro.sample(
                "absent_odds", dist.Normal(self.absent_odds * one, self.absent_odds_sd * one)
            ),
        }
        if self.covariates:
            each = like.new_ones(len(CONDITIONS), len(self.covariates))
            mean = each.new_tensor(self.slope_mean or [0.0] * len(self.covariates))
            law = dist.Normal(mean * each, self.slope_sd * each).to_event(2)
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

    def task_levels(self, population: Mapping[str, Tensor], episodes: EpisodeBatch) -> Levels:
        """`levels`, which no task has a part in."""
        return self.levels(population, episodes.dim)

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
        values = self.levels_of_draws(population, episodes)
        return open_predictive(episodes, values, untaught=untaught, draws=draws, seed=seed)

    def log_absent_odds(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Log odds of frames and videos that no taught class is shown; no draw axis.

        Returns:
            (task, video, frame) and (task, video).
        """
        return self.log_open_labels(episodes, population)[1]

    def log_open_labels(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor]
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """`log_labels` and `log_absent_odds`, from one posterior of the classes."""
        return open_labels(episodes, self.levels(population, episodes.dim))
