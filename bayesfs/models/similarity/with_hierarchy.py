"""The pool of similarities and the Gaussian hierarchy together: `PoolWithHierarchy`.

Similarities carry over to any world, the hierarchy knows what people's objects, videos and frames
vary in where others of that world were learnt from. Their log-linear pool has

    log p(y | x) = log p_pool(y | x; a + log s_p) + s_h log p_hierarchy(y | x, D, phi) + const

for single frames and for whole videos, each by its own rule: a the person's log scale, s_p and s_h
the shares that the two have. The hierarchy's task and classes are integrated out exactly given its
population phi, which is learnt together with everything else by the score of the labels. The
hierarchy sees principal axes of other people's frames, the pool all features.

A person who is not of the population (see `LogLinearPool.vague`) has nothing of its hierarchy: log
s_p and s_h are multiplied by the probability that he is, given his scale a.

Source: Genest and Zidek (1986) for logarithmic pools; Yao et al. (2022) for weights that are learnt
by the score of predictions, and shared among tasks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesfs._linalg.directions import unit
from bayesfs.errors import ShapeError, expect_positive
from bayesfs.features.projection import Projection
from bayesfs.features.reduction import PrincipalAxes
from bayesfs.models.gaussian.conjugate import condition_classes
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.gaussian.labels import (
    frame_queries,
    log_labels_of,
    taught_prior,
    video_queries,
)
from bayesfs.models.heads.linear import normal_nodes
from bayesfs.models.per_batch import once_per_batch
from bayesfs.models.population_draws import distinct_rows
from bayesfs.models.similarity.pool import Draws, SimilarityPool, Unit
from bayesfs.protocols import OpenSet, TakesAxes
from bayesfs.types import EpisodeBatch, Posterior

Axes = Projection | Mapping[str, Projection] | None
"""Principal axes of other people's frames: one for all, one for each user, or none."""

SHARES = ("pool_share", "hierarchy_share")


@dataclass(frozen=True)
class PoolWithHierarchy(SimilarityPool, OpenSet, TakesAxes):
    """Log-linear pool of the similarities and of a Gaussian hierarchy.

    Further population sites: those of the hierarchy, and `pool_share`, `hierarchy_share` ~
    LogNormal(log share, share_sd^2).

    Attributes:
        hierarchy: the other member, of principal axes; it has no covariates of quality.
        reduction: the axes.
        axes: as they were fitted to other people; without them it is the pool alone.
        share: prior median of either share.
        share_sd: prior sd of its log.
    """

    hierarchy: GaussianHierarchy = field(default_factory=GaussianHierarchy)
    reduction: PrincipalAxes = field(default_factory=PrincipalAxes)
    axes: Axes = None
    share: float = 0.6
    share_sd: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        expect_positive(self, "share", "share_sd")
        if self.hierarchy.covariates:
            raise ShapeError(
                "expected a hierarchy without covariates in the pool, got "
                f"{self.hierarchy.covariates}; quality is not part of its axes"
            )

    @property
    def coords(self) -> Mapping[str, tuple[str, ...]]:
        """Axis -> names."""
        return {**self.hierarchy.coords, **super().coords}

    @property
    def population_dims(self) -> Mapping[str, tuple[str, ...]]:
        """Population site -> axes."""
        own = dict.fromkeys(SHARES, ())
        return {**super().population_dims, **own, **self.hierarchy.population_dims}

    def with_axes(self, axes: Projection) -> PoolWithHierarchy:
        """The model with these axes, its hierarchy fitted to their spectrum."""
        fitted = self.hierarchy.fit_to(tuple(axes.spectrum.tolist()))
        return replace(self, axes=axes, hierarchy=fitted)

    def with_each_axes(self, axes: Projection, own: Mapping[str, Projection]) -> PoolWithHierarchy:
        """The same, with axes for each user that the user's own frames had no part in."""
        return replace(self.with_axes(axes), axes=dict(own))

    def sample_population(self, like: Tensor) -> dict[str, Tensor]:
        """Pyro program of the population sites; `like` gives dtype and device."""
        one = like.new_ones(())
        law = dist.LogNormal(math.log(self.share) * one, self.share_sd * one)
        shares = {site: pyro.sample(site, law) for site in SHARES}
        hierarchy = self.hierarchy.sample_population(like.new_ones(self._width(like.shape[-1])))
        return {**super().sample_population(like), **shares, **hierarchy}

    def default_population(self, dim: int) -> Posterior:
        """Draws of the population's prior."""
        pool = super().default_population(dim)
        z = normal_nodes(pool.num_draws, len(SHARES)).to(torch.float64)
        shares = {s: self.share * (self.share_sd * z[:, i]).exp() for i, s in enumerate(SHARES)}
        like = torch.ones(self._width(dim), dtype=torch.float64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            each = [self.hierarchy.sample_population(like) for _ in range(pool.num_draws)]
        hierarchy = {site: torch.stack([value[site] for value in each]) for site in each[0]}
        draws = {**pool.draws, **shares, **hierarchy}
        return Posterior("exact", draws, dict(self.population_dims))

    def tempered(self, scale: Tensor, population: Draws, known: Tensor) -> Tensor:
        """(draw, task) log scales of the pool's part of the answer."""
        if self.axes is None:
            return scale
        return scale + known * population["pool_share"].log()[:, None]

    def other_member(self, unit: Unit, episodes: EpisodeBatch, population: Draws) -> Tensor | None:
        """(draw, task, video[, frame], way) s_h log p_hierarchy(y | x, D, phi), the draws' own phi.

        Args:
            unit: whether single frames are asked, or whole videos.
            episodes: T tasks.
            population: sites, (draw, ...); runs of equal draws are computed once.
        """
        if self.axes is None:
            return None
        seen = self._seen(episodes)
        sites = {site: population[site] for site in self.hierarchy.population_dims}
        first = distinct_rows(sites)
        found = [
            self._log_labels(unit, seen, {s: v[row] for s, v in sites.items()}) for row in first
        ]
        share = population["hierarchy_share"]
        times = torch.tensor(np.diff([*first, len(share)]), device=share.device)
        log_p = torch.stack(found).repeat_interleave(times, 0)
        return share.reshape(-1, *[1] * (log_p.ndim - 1)) * log_p

    def _log_labels(
        self, unit: Unit, seen: EpisodeBatch, population: Mapping[str, Tensor]
    ) -> Tensor:
        """(task, video[, frame], way) log p(y | x, D, phi) of the hierarchy; 0 for padding."""
        levels = self.hierarchy.levels(population, seen.dim)
        post, prior = condition_classes(seen, levels), taught_prior(seen)
        queries = frame_queries if unit == "frame" else video_queries
        log_p = log_labels_of(post, levels, queries(seen, levels), prior)
        log_p = log_p.masked_fill(~seen.way_mask[:, None], 0.0)
        return log_p.reshape(*seen.query.shape[: 3 if unit == "frame" else 2], -1)

    def log_absent_odds(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Log odds of frames and videos that no taught class is shown, by the hierarchy."""
        sites = {site: population[site] for site in self.hierarchy.population_dims}
        return self.hierarchy.log_absent_odds(self._seen(episodes), sites)

    def _width(self, dim: int) -> int:
        """Number of the hierarchy's features."""
        if self.axes is None:
            return min(self.reduction.dim, dim)
        each = self.axes.values() if isinstance(self.axes, Mapping) else [self.axes]
        return max(own.dim for own in each)

    def _seen(self, episodes: EpisodeBatch) -> EpisodeBatch:
        """The tasks as the hierarchy sees them, by their principal axes."""
        return along_axes(episodes, self.axes, self._width(episodes.dim))


@once_per_batch
def along_axes(episodes: EpisodeBatch, axes: Axes, width: int) -> EpisodeBatch:
    """The same tasks with features along principal axes; missing ones are zero.

    Raises:
        ShapeError: there are no axes, or a user has none.
    """
    support, query = (x.new_zeros(*x.shape[:-1], width) for x in (episodes.support, episodes.query))
    users = episodes.users or ("",) * len(episodes)
    for t, user in enumerate(users):
        own = axes.get(user) if isinstance(axes, Mapping) else axes
        if own is None:
            raise ShapeError(f"expected principal axes for each user, missing those of {user!r}")
        support[t, ..., : own.dim] = along(episodes.support[t], episodes.support_condition[t], own)
        query[t, ..., : own.dim] = along(episodes.query[t], episodes.query_condition[t], own)
    return replace(episodes, support=support, query=query)


def along(x: Tensor, condition: Tensor, projection: Projection) -> Tensor:
    """(..., frame, axis) projected features of (..., frame, feature), as `Projection` has them.

    Args:
        x: (..., frame, feature).
        condition: (...) recording condition of the video.
        projection: with axes.
    """
    means, axes = (
        torch.from_numpy(np.asarray(part)).to(x) for part in (projection.means, projection.axes)
    )
    return unit((unit(x) - means[condition][..., None, :]) @ axes)
