"""The Gaussian hierarchy with frames that may be poor, or show nothing taught: `RobustHierarchy`.

A blurred frame is an outlier of its video, and in about one cluttered frame of twelve the object is
out of the picture. Here such a frame neither pulls its class's mean nor settles a label, and the
model says of each frame how likely it is to show nothing that was taught.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesfs._distributions.noise import Noise
from bayesfs._utils.ranges import Positive, check_ranges
from bayesfs.errors import ShapeError
from bayesfs.models.gaussian.conjugate import Levels, condition_on_videos
from bayesfs.models.gaussian.covariance import Diagonal
from bayesfs.models.gaussian.families import PerFeature, PowerLaw
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.gaussian.robust_frames import (
    RobustFrame,
    even_mixture,
    robust_frame_weights,
    video_log_density,
)
from bayesfs.models.gaussian.videos import sample_task_sites
from bayesfs.models.population_draws import drawn_posterior
from bayesfs.protocols import Approximable, Collapsible, OpenSetDraws
from bayesfs.types import CONDITIONS, EpisodeBatch, Posterior


@dataclass(frozen=True)
class RobustHierarchy(Collapsible, Approximable, OpenSetDraws):
    """Gaussian hierarchy with Student-t frame noise and a component for frames of something else.

    Frame f of video v of class k in task t, recorded in condition q:

        x_tkvf = o_q + r_q (a_t + c_tk) + b_tkv + e_tkvf,  e ~ t_dof(0, F_q),    with 1 - rho_q,
        x_tkvf ~ N(o_q + r_q a_t, r_q^2 B + V_q + F_q),                          with rho_q / 2,
        x_tkvf ~ N(o_q, V_q + F_q),                                              with rho_q / 2,

    a ~ N(0, A), c ~ N(0, B), b ~ N(0, V_q) as in `GaussianHierarchy`, and e a multivariate t: the
    noise of a frame is wide or narrow in all features at once. The second line is another object of
    the same user, the third no object at all, both in the same condition; given the video, frames
    are exchangeable.

    Population sites: those of `base` (its `absent_odds` has no part here), `dof` ~ Gamma(dof_prior)
    and `absent` = rho ~ Beta(absent_prior). Task sites: `task_raw`, `class_raw`, `video_raw`,
    non-centred.

    A frame's label density is exact up to quadrature; a video's is approximate (expectation
    propagation with one number a frame, see `bayesfs.models.gaussian.robust_frames`).

    Attributes:
        base: the hierarchy without this; its family must be diagonal.
        absent_prior: parameters of the Beta prior of rho; (1, 9) has mean 0.1.
        dof_prior: shape and rate of the Gamma prior of the degrees of freedom.

    Raises:
        ShapeError: the family has full covariances, or the base has covariates of quality.

    Source: Juárez and Steel (2010), Journal of Business and Economic Statistics 28, for the prior
    of the degrees of freedom.
    """

    base: GaussianHierarchy = field(default_factory=GaussianHierarchy)
    absent_prior: tuple[Positive, Positive] = (1.0, 9.0)
    dof_prior: tuple[Positive, Positive] = (2.0, 0.1)

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)
        if not isinstance(self.base.family, PowerLaw | PerFeature):
            raise ShapeError(
                "expected a diagonal family (PowerLaw, PerFeature) for robust frames, got "
                f"{type(self.base.family).__name__}"
            )
        if self.base.covariates:
            raise ShapeError(
                "expected a base without covariates: here each frame's noise is inferred from the "
                f"frame itself; got {self.base.covariates}"
            )

    @property
    def coords(self) -> Mapping[str, tuple[str, ...]]:
        """Axis -> names."""
        return self.base.coords

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Site -> axes."""
        return {**self.base.dims, "dof": (), "absent": ("condition",)}

    @property
    def population_dims(self) -> Mapping[str, tuple[str, ...]]:
        """Population site -> axes."""
        return {**self.base.population_dims, "dof": (), "absent": ("condition",)}

    def fit_to(self, spectrum: tuple[float, ...]) -> RobustHierarchy:
        """The same model for features whose sds over the train frames are `spectrum`."""
        return replace(self, base=self.base.fit_to(spectrum))

    def sample_population(self, like: Tensor) -> dict[str, Tensor]:
        """Pyro program of the population sites; `like` (..., feature) gives size and dtype."""
        one, (shape, rate) = like.new_ones(()), self.dof_prior
        a, b = (like.new_full((len(CONDITIONS),), value) for value in self.absent_prior)
        return {
            **self.base.sample_population(like),
            "dof": pyro.sample("dof", dist.Gamma(shape * one, rate * one)),
            "absent": pyro.sample("absent", dist.Beta(a, b).to_event(1)),
        }

    def __call__(self, episodes: EpisodeBatch) -> None:
        """The Pyro program over the support."""
        x, condition = episodes.support, episodes.support_condition
        tasks, ways, shots, frames, dim = x.shape
        population = self.sample_population(x)
        levels = self.base.levels(population, dim)
        loading, offset = levels.loading[condition][..., None], levels.offset[condition]
        unit = dist.Normal(x.new_zeros(dim), x.new_ones(dim)).to_event(1)
        with pyro.plate("task", tasks, dim=-4):
            task = levels.task.colour(pyro.sample("task_raw", unit)[:, 0, 0, 0])
            with pyro.plate("way", ways, dim=-3):
                way = levels.way.colour(pyro.sample("class_raw", unit)[:, :, 0, 0])
                mean = (task[:, None] + way)[:, :, None]
                with pyro.plate("shot", shots, dim=-2):
                    raw = pyro.sample("video_raw", unit)[:, :, :, 0]
                    centre = offset + loading * mean + levels.video[condition].colour(raw)
                    with pyro.plate("frame", frames, dim=-1):
                        law = RobustFrame(
                            centre[..., None, :],
                            _variance(levels.frame)[condition].sqrt()[..., None, :],
                            population["dof"],
                            _background(levels, task, condition),
                            population["absent"][condition][..., None],
                        )
                        pyro.sample("frames", law.mask(episodes.support_mask), obs=x)

    def log_joint_frame(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, frame, way) log p(x | y, theta_s) of each frame by itself."""
        return torch.stack(
            [_by_frame(_Query.given(d, episodes)) for d in self._draw_by_draw(draws)]
        )

    def log_joint_video(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, way) log p(x_1..F | y, theta_s), the frames sharing one effect."""
        return torch.stack(
            [_by_video(_Query.given(d, episodes)) for d in self._draw_by_draw(draws)]
        )

    def log_absent_frame(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """(draw, task, video, frame) log p(nothing taught is in the frame | x, theta_s).

        rho p_background(x) / mean_k p(x | y = k, theta_s), all classes being equally likely.
        """
        each = []
        for draw in self._draw_by_draw(draws):
            query = _Query.given(draw, episodes)
            ways = episodes.way_mask.sum(-1).to(query.background).log()
            total = _by_frame(query).logsumexp(-1) - ways[:, None, None]
            scale = _log_scale(query.levels)[query.condition][..., None]
            absent = query.absent[query.condition].log()[..., None] + query.background - scale
            each.append((absent - total).clamp(max=0.0))
        return torch.stack(each)

    def log_labels(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Log p(y | x, support, population) of frames and videos, approximately; no draw axis.

        Each support frame has an effective weight, inferred from the other frames of its video
        alone; the weighted mean frame of a video is then treated as Gaussian, with the sum of
        weights as its number of frames. The rest is as in `log_joint_frame` and `log_joint_video`,
        with r^2 Cov(mu_k) added to the variance of what a video's frames share.

        Returns:
            (task, video, frame, way) and (task, video, way), in nats; -inf for padded classes.
        """
        levels = self.base.levels(population, episodes.dim)
        given = _Draw(levels, population["dof"], population["absent"])
        mean, count = weighted_videos(episodes, given)
        post = condition_on_videos(mean, count, episodes.support_condition, levels)
        spread = cast(Diagonal, post.cov()).d, cast(Diagonal, post.task_cov).d
        known = _Draw(levels, given.dof, given.absent, post.task_mean, post.mean, *spread)
        query = _Query.given(known, episodes)
        return _by_frame(query).log_softmax(-1), _by_video(query).log_softmax(-1)

    def approximate(
        self, episodes: EpisodeBatch, population: Mapping[str, Tensor], *, draws: int, seed: int
    ) -> Posterior:
        """Posterior with every support frame's weight inferred within its own video.

        Given the weights the hierarchy is Gaussian, and draws are exact; what the weights leave
        open, and what a class's other videos say of them, is left out. Kind "variational".

        Args:
            episodes: T tasks.
            population: site -> (population draw, ...).
            draws: number of draws for each population draw.
            seed: of the draws.
        """

        def sample(value: dict[str, Tensor], noise: Noise) -> dict[str, Tensor]:
            levels = self.base.levels(value, episodes.dim)
            means = weighted_videos(episodes, _Draw(levels, value["dof"], value["absent"]))
            return sample_task_sites(*means, episodes.support_condition, levels, draws, noise)

        return drawn_posterior(
            "variational", self.dims, episodes, population, sample, draws=draws, seed=seed
        )

    def _draw_by_draw(self, draws: Mapping[str, Tensor]) -> Iterator[_Draw]:
        for s, raw in enumerate(draws["task_raw"]):
            sites = {site: draws[site][s] for site in self.population_dims}
            levels = self.base.levels(sites, raw.shape[-1])
            task = levels.task.colour(raw)
            mean = task[:, None] + levels.way.colour(draws["class_raw"][s])
            yield _Draw(levels, sites["dof"], sites["absent"], task, mean)


@dataclass(frozen=True)
class _Draw:
    """Parameters, and what is known of a batch of tasks: mean, and variance where there is any."""

    levels: Levels
    dof: Tensor
    absent: Tensor  # (condition,)
    task: Tensor = field(default_factory=lambda: torch.zeros(()))  # (task, feature)
    mean: Tensor = field(default_factory=lambda: torch.zeros(()))  # (task, way, feature)
    mean_variance: Tensor | None = None  # (task, way, feature)
    task_variance: Tensor | None = None  # (task, feature)


@dataclass(frozen=True)
class _Query:
    """Query videos in coordinates where the frame noise is white."""

    levels: Levels
    condition: Tensor  # (task, video)
    deviation: Tensor  # (task, video, way, frame, feature)
    shared: Tensor  # (task, video, way, feature) variance of what the frames share
    mask: Tensor  # (task, video, frame)
    background: Tensor  # (task, video, frame)
    absent: Tensor  # (condition,)
    dof: Tensor
    exists: Tensor  # (task, way)

    @classmethod
    def given(cls, draw: _Draw, episodes: EpisodeBatch) -> _Query:
        levels, condition = draw.levels, episodes.query_condition
        x = episodes.query - levels.offset[condition][:, :, None]
        r = levels.loading[condition][..., None]
        frame, video = _variance(levels.frame)[condition], _variance(levels.video)[condition]
        gap = x[:, :, None] - (r[..., None] * draw.mean[:, None])[..., None, :]
        shared = video[:, :, None].expand(*condition.shape, *draw.mean.shape[1:])
        other = r**2 * _variance(levels.way) + video + frame
        if draw.mean_variance is not None:
            shared = shared + r[..., None] ** 2 * draw.mean_variance[:, None]
        if draw.task_variance is not None:
            other = other + r**2 * draw.task_variance[:, None]
        white, unit = x / frame.sqrt()[:, :, None], (r * draw.task[:, None]) / frame.sqrt()
        log_away = even_mixture(
            [
                _log_normal(white - unit[:, :, None], (other / frame)[:, :, None]),
                _log_normal(white, (video / frame + 1)[:, :, None]),
            ]
        )
        return cls(
            levels,
            condition,
            gap / frame.sqrt()[:, :, None, None],
            shared / frame[:, :, None],
            episodes.query_mask,
            log_away,
            draw.absent,
            draw.dof,
            episodes.way_mask,
        )


def _by_video(query: _Query) -> Tensor:
    """(task, video, way) log density of each video, -inf for padded classes."""
    value = video_log_density(
        query.deviation,
        query.shared,
        query.mask[:, :, None].expand(query.deviation.shape[:-1]),
        query.background[:, :, None].expand(query.deviation.shape[:-1]),
        query.absent[query.condition][..., None, None],
        query.dof,
    )
    scale = _log_scale(query.levels)[query.condition] * query.mask.sum(-1)
    return (value - scale[..., None]).masked_fill(~query.exists[:, None], -torch.inf)


def _by_frame(query: _Query) -> Tensor:
    """(task, video, frame, way) log density of each frame, -inf for padded classes."""
    deviation = query.deviation.transpose(2, 3)[..., None, :]
    value = video_log_density(
        deviation,
        query.shared[:, :, None].expand(*deviation.shape[:-2], -1),
        torch.ones_like(deviation[..., 0], dtype=torch.bool),
        query.background[..., None, None].expand(deviation.shape[:-1]),
        query.absent[query.condition][..., None, None, None],
        query.dof,
    )
    scale = _log_scale(query.levels)[query.condition][..., None, None]
    return (value - scale).masked_fill(~query.exists[:, None, None], -torch.inf)


def weighted_videos(episodes: EpisodeBatch, given: _Draw) -> tuple[Tensor, Tensor]:
    """Weighted mean frame of each support video, and the sum of its frames' weights.

    Returns:
        (task, way, shot, feature) and (task, way, shot).
    """
    levels, condition = given.levels, episodes.support_condition
    frame = _variance(levels.frame)[condition]
    r = levels.loading[condition][..., None]
    prior = (
        r**2 * (_variance(levels.task) + _variance(levels.way)) + _variance(levels.video)[condition]
    )
    d = (episodes.support - levels.offset[condition][..., None, :]) / frame.sqrt()[..., None, :]
    v = prior / frame
    alone = _variance(levels.video)[condition] / frame
    log_away = even_mixture(
        [_log_normal(d, (v + 1)[..., None, :]), _log_normal(d, (alone + 1)[..., None, :])]
    )
    weight = robust_frame_weights(
        d, v, episodes.support_mask, log_away, given.absent[condition][..., None], given.dof
    )
    count = weight.sum(-1)
    mean = (weight[..., None] * episodes.support).sum(-2) / count.clamp(min=1e-12)[..., None]
    return mean, count


def _background(levels: Levels, task: Tensor, condition: Tensor) -> list[dist.Distribution]:
    """Laws (task, way, shot, 1) of a support frame with another object, and with none."""
    r, alone = (
        levels.loading[condition][..., None],
        _variance(levels.video + levels.frame)[condition],
    )
    other = r**2 * _variance(levels.way) + alone
    offset = levels.offset[condition]
    return [
        dist.Normal(centre[..., None, :], variance.sqrt()[..., None, :]).to_event(1)
        for centre, variance in ((offset + r * task[:, None, None], other), (offset, alone))
    ]


def _variance(operator: object) -> Tensor:
    """(..., feature) diagonal."""
    return cast(Diagonal, operator).d


def _log_scale(levels: Levels) -> Tensor:
    """(condition,) log Jacobian of the coordinates where the frame noise is white."""
    return 0.5 * _variance(levels.frame).log().sum(-1)


def _log_normal(x: Tensor, variance: Tensor) -> Tensor:
    """(...) log N(x; 0, diag variance), in nats; x (..., feature)."""
    return -0.5 * (x.square() / variance + (2.0 * math.pi * variance).log()).sum(-1)
