"""The pool of similarities and the Gaussian hierarchy together: `PoolWithHierarchy`.

Similarities carry over to any world, the hierarchy knows what people's objects, videos and frames
vary in where others of that world were learnt from. Their log-linear pool has

    log p(y | x) = (1 - s) log p_pool(y | x, D) + s log p_hierarchy(y | x, D, phi) + const

for single frames and for whole videos, each by its own rule. The hierarchy's task and classes are
integrated out exactly given its population phi. It sees principal axes of other people's frames,
the pool all features.

A person who is not of the population (see `LogLinearPool.vague`) has nothing of its hierarchy: s is
`share` times the probability that he is of it, given his scale, draw by draw.

Source: Genest and Zidek (1986) for logarithmic pools; Smith and Wallis (2009) for equal shares,
which beat shares that are learnt from few people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from torch import Tensor

from bayesfs._linalg.directions import unit
from bayesfs._utils.ranges import Share
from bayesfs.errors import ShapeError
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
from bayesfs.models.per_batch import once_per_batch
from bayesfs.models.population_draws import distinct_rows
from bayesfs.models.similarity.pool import Draws, QueryUnit, SimilarityPool
from bayesfs.protocols import OpenSet, TakesAxes
from bayesfs.types import EpisodeBatch, Posterior

Axes = Projection | Mapping[str, Projection] | None
"""Principal axes of other people's frames: one for all, one for each user, or none."""


@dataclass(frozen=True)
class PoolWithHierarchy(SimilarityPool, OpenSet, TakesAxes):
    """Log-linear pool of the similarities and of a Gaussian hierarchy.

    Further population sites are those of the hierarchy. The population of each member is learnt by
    the score of that member alone: learnt by that of both together, they make up for one another
    in the people that were learnt from.

    Attributes:
        hierarchy: the other member, of principal axes; it has no covariates of quality.
        reduction: the axes.
        axes: as they were fitted to other people; without them it is the pool alone.
        share: s, what the hierarchy has of the answer, where the person is of the population.
    """

    hierarchy: GaussianHierarchy = field(default_factory=GaussianHierarchy)
    reduction: PrincipalAxes = field(default_factory=PrincipalAxes)
    axes: Axes = None
    share: Share = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
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
        return {**super().population_dims, **self.hierarchy.population_dims}

    def with_axes(self, axes: Projection) -> PoolWithHierarchy:
        """The model with these axes, its hierarchy fitted to their spectrum."""
        fitted = self.hierarchy.fit_to(tuple(axes.spectrum.tolist()))
        return replace(self, axes=axes, hierarchy=fitted)

    def with_each_axes(self, axes: Projection, own: Mapping[str, Projection]) -> PoolWithHierarchy:
        """The same, with axes for each user that the user's own frames had no part in."""
        return replace(self.with_axes(axes), axes=dict(own))

    def sample_population(self, like: Tensor) -> dict[str, Tensor]:
        """Pyro program of the population sites; `like` gives dtype and device."""
        hierarchy = self.hierarchy.sample_population(like.new_ones(self._width(like.shape[-1])))
        return {**super().sample_population(like), **hierarchy}

    def default_population(self, dim: int) -> Posterior:
        """Draws of the population's prior."""
        pool = super().default_population(dim)
        like = torch.ones(self._width(dim), dtype=torch.float64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            each = [self.hierarchy.sample_population(like) for _ in range(pool.num_draws)]
        hierarchy = {site: torch.stack([value[site] for value in each]) for site in each[0]}
        draws = {**pool.draws, **hierarchy}
        return Posterior("exact", draws, dict(self.population_dims))

    def for_learning(self) -> PoolWithHierarchy:
        """The model whose members are scored apart."""
        return _Apart(**{f.name: getattr(self, f.name) for f in fields(self)})

    def heads_share(self, known: Tensor) -> Tensor:
        """(draw, task) 1 - s P(the person is of the population); 1 without axes."""
        return torch.ones_like(known) if self.axes is None else 1.0 - self.share * known

    def other_member(
        self, unit: QueryUnit, episodes: EpisodeBatch, population: Draws
    ) -> Tensor | None:
        """(draw, task, video[, frame], way) log p_hierarchy(y | x, D, phi), the draws' own phi.

        Args:
            unit: whether single frames are asked, or whole videos.
            episodes: T tasks.
            population: sites, (draw, ...); runs of equal draws are computed once.
        """
        if self.axes is None:
            return None
        seen = self._seen(episodes)
        sites = {site: population[site] for site in self.hierarchy.population_dims}
        first, count = distinct_rows(sites), len(population["scale_mean"])
        found = [
            self._log_labels(unit, seen, {site: v[row] for site, v in sites.items()})
            for row in first
        ]
        times = torch.tensor(np.diff([*first, count]), device=seen.query.device)
        return torch.stack(found).repeat_interleave(times, 0)

    def _log_labels(
        self, unit: QueryUnit, seen: EpisodeBatch, population: Mapping[str, Tensor]
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


@dataclass(frozen=True)
class _Apart(PoolWithHierarchy):
    """The same model as it is learnt: the log scores of its members, one plus the other."""

    def heads_share(self, known: Tensor) -> Tensor:
        """The heads answer by themselves."""
        return torch.ones_like(known)

    def other_member(
        self, unit: QueryUnit, episodes: EpisodeBatch, population: Draws
    ) -> Tensor | None:
        """None beside them."""
        return None

    def log_labels(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Log p_pool + log p_hierarchy, which is no log probability but the sum of two."""
        frame, video = super().log_labels(episodes, population)
        if self.axes is None:
            return frame, video
        sites = {site: population[site] for site in self.hierarchy.population_dims}
        other = self.hierarchy.log_labels(self._seen(episodes), sites)
        return frame + other[0], video + other[1]


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
    return replace(episodes, support=support, query=query, columns=())


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
