"""Classes that mean the same in every group, by their names: `SharedClasses`.

population -> class of that name -> class in this group -> cluster -> row.

"Keys" are keys in every home, and grade 3 is grade 3 in every school: what other groups say of a
class of the same name is a prior for it here, as strong as the data say that names share anything.

Given the scales, the shared class effects s are known exactly from all groups together. With the
notation of `bayesfs.models.gaussian.conjugate`, W_tk = B^-1 - B^-1 S_tk B^-1 (what group t says of
class k) and u_tk = B^-1 S_tk h_tk, integrating a_t leaves for s ~ N(0, S) of all names

    precision   [j = k] (S^-1 + sum_t W_tk) - sum_t W_tj Q_t W_tk,    Q_t = (A^-1 + sum_k W_tk)^-1,
    information sum_t (u_tk - W_tk Q_t sum_j u_tj),

feature by feature, covariances being diagonal. So scales are learnt with s integrated out
(`SharedClasses.log_evidence_together`), and s is drawn given them (`SharedClasses.pooled`).

Source: the two-way random-effects model, Searle, Casella and McCulloch (1992), Variance Components.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesfs._distributions.noise import normal_like
from bayesfs._utils.ranges import Positive, check_ranges
from bayesfs.errors import DataError, ShapeError
from bayesfs.models.gaussian.conjugate import LOG_2PI, Levels, condition_on_videos, video_means
from bayesfs.models.gaussian.covariance import Diagonal
from bayesfs.models.gaussian.families import FLOOR
from bayesfs.models.gaussian.level_model import LevelModel
from bayesfs.models.gaussian.levels import level_entropies
from bayesfs.models.per_batch import once_per_batch
from bayesfs.models.population_draws import alike, each_value
from bayesfs.protocols import NamesClasses
from bayesfs.types import CONDITIONS, EpisodeBatch

LEVELS = ("group", "label", "label in group", "cluster", "row")
"""Levels that have a scale of their own, in the order of the site axis."""


@dataclass(frozen=True)
class SharedClasses(LevelModel, NamesClasses):
    """A hierarchy with classes that are shared by name.

    Row f of cluster v of the class named k in group t:

        x_tkvf = o + a_t + s_k + c_tk + b_tkv + e_tkvf
        a_t ~ N(0, A)   group                s_k  ~ N(0, S)   class of that name, in every group
        c_tk ~ N(0, B)  class in this group  b_tkv ~ N(0, V)  cluster      e_tkvf ~ N(0, F)  row

    with diagonal covariances of sds sd_ld = scale_l relative_ld / sqrt(D), where scale_l ~
    HalfNormal(scale), log relative ~ N(0, spread^2), and o_d ~ N(0, (centre_sd / sqrt(D))^2): for
    features of about unit root mean square length, such as
    `bayesfs.features.standardisation.Standardise` gives.
    S against B says how much names share. A name that the population does not know is a new class,
    s + c ~ N(0, S + B). One recording condition; no measured quality.

    A class of a known name needs no cluster of its own: with `EpisodeBatch.limit_shots(0)` other
    groups alone say what it is.

    Attributes:
        labels: names that the population knows, in the order of the axis "class_name"; a `Study`
            sets them (`with_labels`).
        spread: prior sd of the log relative sds.
        centre_sd: prior sd of the population's mean, in sds of the features.
        scale: prior scale of scale_l.

    Example:
        >>> SharedClasses(labels=("a", "b")).dims["shared_raw"]
        ('class_name', 'feature')
    """

    labels: tuple[str, ...] = ()
    spread: Positive = 0.5
    centre_sd: Positive = 1.0
    scale: Positive = 1.0

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)

    def with_labels(self, labels: tuple[str, ...]) -> SharedClasses:
        """The same model for a population that knows these names."""
        return replace(self, labels=labels)

    @property
    def coords(self) -> Mapping[str, tuple[str, ...]]:
        """Axis -> names; those of the levels and of the classes that the population knows too."""
        return {**super().coords, "level": LEVELS, "class_name": self.labels}

    @property
    def population_dims(self) -> Mapping[str, tuple[str, ...]]:
        """Population site -> axes."""
        return {**self.scale_dims, "shared_raw": ("class_name", "feature")}

    @property
    def scale_dims(self) -> Mapping[str, tuple[str, ...]]:
        """The population's sites without the shared effects."""
        return {"mean_raw": ("feature",), "scale": ("level",), "relative": ("level", "feature")}

    def sample_scales(self, like: Tensor) -> dict[str, Tensor]:
        """Pyro program of the sites of `scale_dims`."""
        dim, each = like.shape[-1], like.new_ones(len(LEVELS))
        wide = each[:, None].expand(-1, dim)
        mean = dist.Normal(like.new_zeros(dim), like.new_ones(dim)).to_event(1)
        law = dist.LogNormal(0.0 * wide, self.spread * wide).to_event(2)
        return {
            "mean_raw": pyro.sample("mean_raw", mean),
            "scale": pyro.sample("scale", dist.HalfNormal(self.scale * each).to_event(1)),
            "relative": pyro.sample("relative", law),
        }

    def sample_population(self, like: Tensor) -> dict[str, Tensor]:
        """Pyro program of the population sites; `like` (..., feature) gives size and dtype."""
        sites = self.sample_scales(like)
        wide = like.new_ones(len(self.labels), like.shape[-1])
        shared = pyro.sample("shared_raw", dist.Normal(0.0 * wide, wide).to_event(2))
        return {**sites, "shared_raw": shared}

    def task_levels(self, population: Mapping[str, Tensor], episodes: EpisodeBatch) -> Levels:
        """Values of all levels; those of classes by the names that the tasks give them."""
        own = self._levels(population, episodes.dim)
        variance = self._variances(population, episodes.dim)
        if len(population["shared_raw"]) != len(self.labels):
            raise DataError(
                f"expected a population of {len(self.labels)} labels {self.labels[:8]}, got "
                f"{len(population['shared_raw'])}; give the model those of the population: "
                "with_labels(learnt.labels), or Study.model_of(learnt)"
            )
        known, index = label_index(episodes, self.labels)
        shared = variance[1].sqrt() * population["shared_raw"]
        centre = shared.new_zeros(1, episodes.dim) if not len(shared) else shared
        new = (~known).to(shared)[..., None]
        return replace(
            own,
            way=Diagonal(variance[2] + new * variance[1]),
            centre=(1.0 - new) * centre[index],
        )

    def log_evidence_together(self, episodes: EpisodeBatch, scales: Mapping[str, Tensor]) -> Tensor:
        """() log p(support of all tasks | scales), shared effects integrated out, in nats.

        Args:
            episodes: the tasks.
            scales: sites of `scale_dims`, without draw axis.
        """
        pooled = self._pool(episodes, scales)
        root, information = pooled.root, pooled.information
        white = torch.linalg.solve_triangular(root, information[..., None], upper=False)[..., 0]
        logdet = 2.0 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        prior = len(self.labels) * self._variances(scales, episodes.dim)[1].log()
        together: Tensor = 0.5 * (white.square().sum(-1) - logdet - prior).sum()
        return pooled.alone + together

    def pooled(
        self, episodes: EpisodeBatch, scales: Mapping[str, Tensor], *, seed: int
    ) -> dict[str, Tensor]:
        """Exact draws of the shared effects given the support of all tasks, one for each of scales.

        Args:
            episodes: the tasks.
            scales: site of `scale_dims` -> (draw, ...).
            seed: of the draws.

        Returns:
            {"shared_raw": (draw, label, feature)}.
        """
        generator = torch.Generator().manual_seed(seed)  # the same numbers on every device
        rows = []
        for value in each_value(scales):
            pooled = self._pool(episodes, value)
            mean = torch.cholesky_solve(pooled.information[..., None], pooled.root)[..., 0]
            eps = normal_like(mean.shape, generator, mean)
            rest = torch.linalg.solve_triangular(pooled.root.mT, eps[..., None], upper=True)[..., 0]
            sd = self._variances(value, episodes.dim)[1].sqrt()
            rows.append((mean + rest).mT / sd)
        return {"shared_raw": torch.stack(rows)}

    def level_entropies(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Label entropies; with a stage for the scales where draws of them come several in a row.

        See `bayesfs.models.gaussian.levels`.
        """
        values = self.levels_of_draws(population, episodes)
        same = alike(population, self.scale_dims)
        return level_entropies(episodes, values, draws=draws, seed=seed, alike=same)

    def moments(self, population: Mapping[str, Tensor], dim: int) -> dict[str, Tensor]:
        """What the population says, in the model's units.

        Args:
            population: site -> (draw, ...).
            dim: number of features.

        Returns:
            `mean` (draw, feature), `sd` (draw, level, feature) of each of `LEVELS`, and
            `label_mean` (draw, label, feature), the mean of each known class over groups.
        """
        parts = []
        for value in each_value(population):
            levels, variance = self._levels(value, dim), self._variances(value, dim)
            shared = variance[1].sqrt() * value["shared_raw"]
            parts.append((levels.offset[0], variance.sqrt(), levels.offset[0] + shared))
        names = ("mean", "sd", "label_mean")
        return {n: torch.stack(v) for n, v in zip(names, zip(*parts, strict=True), strict=True)}

    def _variances(self, population: Mapping[str, Tensor], dim: int) -> Tensor:
        """(level, feature)."""
        sd = population["scale"][..., None] * population["relative"]
        return sd.square() / dim + FLOOR / dim

    def _levels(self, population: Mapping[str, Tensor], dim: int) -> Levels:
        """Values of all levels as if no class were shared."""
        variance, count = self._variances(population, dim), len(CONDITIONS)
        offset = self.centre_sd / math.sqrt(dim) * population["mean_raw"]
        return Levels(
            offset=offset.expand(count, dim),
            loading=torch.ones_like(offset[:1]).expand(count),
            task=Diagonal(variance[0]),
            way=Diagonal(variance[2]),
            video=Diagonal(variance[3].expand(count, dim)),
            frame=Diagonal(variance[4].expand(count, dim)),
        )

    def _pool(self, episodes: EpisodeBatch, scales: Mapping[str, Tensor]) -> _Pool:
        """Precision and information of the shared effects, feature by feature."""
        levels = self._levels(scales, episodes.dim)
        data = _sufficient(episodes)
        condition = torch.zeros_like(episodes.support_condition)
        post = condition_on_videos(data.mean, data.rows, condition, levels)
        prior = levels.way.d.reciprocal()  # type: ignore[attr-defined]
        weight = prior - prior.square() * post.given_task.d  # type: ignore[attr-defined]
        said = prior * post.pull
        within = post.task_cov.d  # type: ignore[attr-defined]
        place = _one_hot(episodes, self.labels).to(weight)  # (task, way, label)
        weights = torch.einsum("twk,twd->tkd", place, weight)
        own = torch.einsum("twk,twd->kd", place, said)
        pull = (within * said.sum(1))[:, None] * weights
        information = (own - pull.sum(0)).mT
        variance = self._variances(scales, episodes.dim)[1]
        diagonal = torch.diag_embed((weights.sum(0) + 1.0 / variance).mT)
        precision = diagonal - torch.einsum("tjd,td,tkd->djk", weights, within, weights)
        alone = _log_evidence_alone(data, levels, post)
        return _Pool(torch.linalg.cholesky(precision), information, alone)


class _Pool(NamedTuple):
    """What all groups say of the shared effects.

    Attributes:
        root: (feature, label, label) Cholesky factors of the precision.
        information: (feature, label).
        alone: () log evidence if they were all zero.
    """

    root: Tensor
    information: Tensor
    alone: Tensor


class _Sufficient(NamedTuple):
    """What the support says, whatever the scales.

    Attributes:
        mean: (task, way, shot, feature) mean row of each cluster.
        rows: (task, way, shot) how many it has.
        scatter: (feature,) sum of squares about the means.
        spare: () rows beyond the first of each cluster.
        log_count: () sum of the log counts.
    """

    mean: Tensor
    rows: Tensor
    scatter: Tensor
    spare: Tensor
    log_count: Tensor


@once_per_batch
def _sufficient(episodes: EpisodeBatch) -> _Sufficient:
    mask = episodes.support_mask.to(episodes.support)
    mean, count = video_means(episodes.support, mask)
    rest = (episodes.support - mean[..., None, :]) * mask[..., None]
    there = count > 0
    return _Sufficient(
        mean,
        count,
        rest.square().flatten(0, 3).sum(0),
        (count - 1.0)[there].sum(),
        count[there].log().sum(),
    )


def _log_evidence_alone(data: _Sufficient, levels: Levels, post: object) -> Tensor:
    """() log p(support | scales, s = 0) of all tasks; `conjugate.log_evidence` from sums alone."""
    frame: Tensor = levels.frame.d[0]  # type: ignore[attr-defined]
    video: Tensor = levels.video.d[0]  # type: ignore[attr-defined]
    dim = len(frame)
    there = (data.rows > 0).to(data.mean)
    rest = data.mean - levels.offset[0]
    noise = video + frame / data.rows.clamp(min=1.0)[..., None]
    between = (rest.square() / noise + noise.log() + LOG_2PI).sum(-1)
    log_frame = dim * LOG_2PI + frame.log().sum()
    within = (data.scatter / frame).sum() + data.spare * log_frame + dim * data.log_count
    total: Tensor = -0.5 * ((there * between).sum() + within)
    prior: Tensor = levels.way.d  # type: ignore[attr-defined]
    given, task = post.given_task.d, post.task_cov.d  # type: ignore[attr-defined]
    square = (post.pull * post.informed).sum()  # type: ignore[attr-defined]
    total = total + 0.5 * (square + (given.log() - prior.log()).sum())
    g = (post.pull / prior).sum(1)  # type: ignore[attr-defined]
    logdet = task.log() - levels.task.d.log()  # type: ignore[attr-defined]
    of_groups: Tensor = 0.5 * (logdet + task * g.square()).sum()
    return total + of_groups


@once_per_batch
def label_index(episodes: EpisodeBatch, labels: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """(task, way) whether a class has a known name, and (task, way) its index, 0 if not.

    Raises:
        DataError: two classes of a task have the same name.
    """
    place = {name: i for i, name in enumerate(labels)}
    index = torch.full(episodes.way_mask.shape, -1)
    for t, names in enumerate(episodes.classes):
        given = [name for name in names if name]
        if len(set(given)) < len(given):
            raise DataError(f"task {episodes.task_name(t)!r} has a class name twice: {given[:8]}")
        for k, name in enumerate(names):
            index[t, k] = place.get(name, -1)
    index = index.to(episodes.support.device)
    return index >= 0, index.clamp(min=0)


@once_per_batch
def _one_hot(episodes: EpisodeBatch, labels: tuple[str, ...]) -> Tensor:
    """(task, way, label) 1 where a class has that name.

    Raises:
        DataError: a class that exists has a name that the population is not made for.
    """
    known, index = label_index(episodes, labels)
    if bool((episodes.way_mask & ~known).any()):
        raise DataError(
            f"expected classes named as the labels {labels[:8]}; is the model learnt by a Study, "
            "or with_labels(...)?"
        )
    return torch.nn.functional.one_hot(index, len(labels)) * known[..., None]
