"""Label predictives of the Gaussian hierarchy: closed form, and draws for their decomposition.

Start with `mixture_predictive`. For a query with noise covariance N (one frame: V + F; the mean
of a video's n frames: V + F / n), loading r and offset o,

    p(y = k | x, D) proportional to N(x; o + r E mu_k, r^2 Cov mu_k + N),

and the label distribution of a draw theta = (mu_1, ..., mu_K) is p(k | x, theta) proportional to
N(x; o + r mu_k, N). The draws are from p(theta | x, D), not p(theta | D): a generative model
learns about its classes from an unlabelled query too, and only then do they average to
p(y | x, D), so that E_x of the expected entropy is the same whatever the number of support videos
(tower property), as aleatoric uncertainty must be. They are exact (Matheron's rule): draw y* from
p(y | x, D) and a prior pair (mu, x~) with x~ from class y*; then

    mu_j + r Cov(mu_j, mu_y*) (r^2 Cov mu_y* + N)^-1 (x - x~).

Source: Wilson et al. (2021), Pathwise conditioning of Gaussian processes, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bayesfs._distributions.noise import Noise
from bayesfs.models.gaussian.conjugate import (
    ClassPosterior,
    Levels,
    condition_classes,
    frame_weights,
    groups,
    log_normal,
    video_means,
)
from bayesfs.models.gaussian.covariance import Index, Operator, Points
from bayesfs.models.per_batch import once_per_batch
from bayesfs.types import EpisodeBatch, LabelDraws, Predictive

GRADE = 0.05
"""Step of the log effective number of frames to which draws round it, where quality makes every
frame's noise its own: frames of like quality share one covariance, at most 2.5 % off."""


PIECE = 2.0
"""Width of the pieces of the log noise on which densities are interpolated where every frame has
its own: fixed, so that no frame's density depends on another's."""

NODES = 10
"""Values of the noise on a piece."""

WIDE_NODES = 14
"""The same where one piece must hold all."""

AT_ONCE = 2**18
"""Numbers of an array over several population draws: more do not fit beside a core."""


class QueryGroup(NamedTuple):
    """Queries that share condition and number of frames, hence one noise covariance.

    Attributes:
        condition: recording condition.
        frames: effective number of frames behind each.
        columns: (column,) the queries where the group occurs in some task.
        mask: (task, column) where it does.
        points: (task, column, feature) of `Queries.points`.
    """

    condition: int
    frames: float
    columns: Tensor
    mask: Tensor
    points: Points


@dataclass(frozen=True)
class Queries:
    """What is to be labelled: frames, or videos as their mean frames.

    Attributes:
        x: (task, query, feature).
        condition: (task, query) recording condition.
        frames: (task, query) effective number of frames behind x; 0 for padding.
        origin: (task, 1, feature) a place near the data, from which `points` are measured.
    """

    x: Tensor
    condition: Tensor
    frames: Tensor
    origin: Tensor

    @cached_property
    def points(self) -> Points:
        """The same from the origin."""
        return Points(self.x - self.origin)

    @cached_property
    def groups(self) -> tuple[QueryGroup, ...]:
        """The queries by what their noise depends on."""
        found = groups(self.condition, self.frames)
        return tuple(QueryGroup(*group, Points(self.points.x[:, group[2]])) for group in found)

    def graded(self, levels: Levels) -> Queries:
        """The same, numbers of frames rounded by `grade` where frames differ in weight."""
        return self if levels.slope is None else replace(self, frames=grade(self.frames))


def frame_queries(episodes: EpisodeBatch, levels: Levels) -> Queries:
    """Every query frame as a query of its own."""
    if levels.slope is None:
        return _plain_queries(episodes)[0]
    return _frames(episodes, query_weights(episodes, levels).to(episodes.query))


def video_queries(episodes: EpisodeBatch, levels: Levels) -> Queries:
    """Every query video as its weighted mean frame, which is sufficient for the class."""
    if levels.slope is None:
        return _plain_queries(episodes)[1]
    return _videos(episodes, query_weights(episodes, levels))


@once_per_batch
def _plain_queries(episodes: EpisodeBatch) -> tuple[Queries, Queries]:
    """Frames and videos where every frame counts alike, whatever the population's values."""
    weight = episodes.query_mask.to(episodes.query)
    both = _frames(episodes, weight), _videos(episodes, weight)
    for group in (*both[0].groups, *both[1].groups):
        _ = group.points.squared  # now, and not inside a transform that a batch outlives
    return both


def _frames(episodes: EpisodeBatch, weight: Tensor) -> Queries:
    condition = episodes.query_condition.repeat_interleave(episodes.query.shape[2], 1)
    return Queries(
        episodes.query.flatten(1, 2), condition, weight.flatten(1, 2), _support_centre(episodes)
    )


def _videos(episodes: EpisodeBatch, weight: Tensor) -> Queries:
    x, count = video_means(episodes.query, weight)
    return Queries(x, episodes.query_condition, count, _support_centre(episodes))


@once_per_batch
def _support_centre(episodes: EpisodeBatch) -> Tensor:
    """(task, 1, feature) mean of the support's frames; zero where there are none."""
    return video_means(episodes.support.flatten(1, 3), episodes.support_mask.flatten(1))[0][:, None]


def query_weights(episodes: EpisodeBatch, levels: Levels) -> Tensor:
    """(task, video, frame) weights of the query frames."""
    quality, condition = episodes.query_quality, episodes.query_condition
    return frame_weights(episodes.query_mask, quality, condition, levels)


def joint_log_density(queries: Queries, means: Tensor, levels: Levels) -> Tensor:
    """(task, query, way) log N(x; o + r mu_k, V + F / count) for given mu."""
    return _log_density(queries, means, None, levels)


def closed_form(episodes: EpisodeBatch, levels: Levels) -> tuple[Tensor, Tensor]:
    """Exact log p(y | x, D): (task, video, frame, way) and (task, video, way), in nats."""
    post = condition_classes(episodes, levels)
    prior = taught_prior(episodes)
    frame = log_labels_of(post, levels, frame_queries(episodes, levels), prior)
    video = log_labels_of(post, levels, video_queries(episodes, levels), prior)
    return frame.reshape(*episodes.query.shape[:3], -1), video


def open_labels(
    episodes: EpisodeBatch, levels: Levels
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """`closed_form`, and the exact log odds that a query shows a new class of the same user.

        odds = pi N(x; o + r E a, r^2 (Cov a + B) + N) / mean_k N(x; o + r E mu_k, r^2 Cov mu_k + N)

    with log pi = `levels.absent` and a the task effect, given the support.

    Returns:
        Log labels as `closed_form` has them, and log odds (task, video, frame) and (task, video).
    """
    post = condition_classes(episodes, levels)
    new = post.task_mean[:, None], post.task_cov.expand_axis(1) + levels.way
    prior_odds = torch.as_tensor(levels.absent).reshape(-1, 1)
    prior, cov = taught_prior(episodes), post.cov()
    labels, odds = [], []
    for queries in (frame_queries(episodes, levels), video_queries(episodes, levels)):
        taught = _log_density(queries, post.mean, cov, levels) + prior[:, None]
        unknown = _log_density(queries, *new, levels)[..., 0]
        labels.append(taught.log_softmax(-1))
        odds.append(prior_odds + unknown - taught.logsumexp(-1))
    shape = (len(post.pull), *episodes.query.shape[1:3])
    return (
        (labels[0].reshape(*shape, episodes.way), labels[1]),
        (odds[0].reshape(shape), odds[1]),
    )


def several(values: Sequence[Levels], size: int) -> Iterator[Levels]:
    """Population draws for one task, so many at once as `AT_ONCE` allows, as tasks of one batch.

    Args:
        values: population parameters of each draw.
        size: numbers of an array over one of them.
    """
    count = 1 if values[0].slope is not None else max(1, AT_ONCE // max(1, size))
    for start in range(0, len(values), count):
        some = values[start : start + count]
        yield Levels.of_each(some) if len(some) > 1 else some[0]


def taught_prior(episodes: EpisodeBatch) -> Tensor:
    """(task, way) log prior of each class: even over the taught ones, -inf for padding."""
    exists = episodes.way_mask
    even = -exists.sum(-1, keepdim=True).to(episodes.support).log()
    return even.expand(exists.shape).masked_fill(~exists, -torch.inf)


def mixture_predictive(
    episodes: EpisodeBatch, values: Sequence[Levels], *, draws: int, seed: int
) -> Predictive:
    """Predictive over population draws of equal weight: the support does not reweight them.

    Args:
        episodes: T tasks.
        values: population parameters of each draw.
        draws: draws of the class means for each population draw.
        seed: of the draws.

    Returns:
        Predictive, with the probability that nothing taught is shown where that is possible.
    """
    labels = _mixture(episodes, values, [taught_prior(episodes)] * len(values), draws, seed)
    if all(levels.absent == -math.inf for levels in values):
        return Predictive(*labels)
    shape = (-1, *episodes.query_mask.shape)
    absent = torch.cat(
        [
            open_labels(episodes, levels)[1][0].sigmoid().reshape(shape)
            for levels in _for_tasks(episodes, values, 1)
        ]
    )
    return Predictive(*labels, absent=absent.mean(0).masked_fill(~episodes.query_mask, 0.0))


def open_predictive(
    episodes: EpisodeBatch, values: Sequence[Levels], *, untaught: int, draws: int, seed: int
) -> Predictive:
    """The same over the taught classes and `untaught` classes that nobody taught, even among them.

    An untaught class has its prior for a posterior, so that a query unlike anything taught is of
    one of them, and of which is a matter of not having been taught: epistemic, up to
    log(untaught). See `open_labels` for the odds.

    Returns:
        Predictive with way + untaught classes; the untaught ones come last.
    """
    wide = with_untaught(episodes, untaught)
    taught = taught_prior(episodes)
    priors = []
    for levels in values:
        odds = torch.as_tensor(levels.absent, dtype=taught.dtype) - math.log(untaught)
        priors.append(torch.cat([taught, odds.expand(len(episodes), untaught)], -1))
    return Predictive(*_mixture(wide, values, priors, draws, seed))


def with_untaught(episodes: EpisodeBatch, count: int) -> EpisodeBatch:
    """The tasks with `count` more classes that have no support."""
    names = ("support", "support_mask", "support_condition", "support_quality", "support_frame")
    padded: dict[str, Any] = {}
    for name in names:
        value = getattr(episodes, name)
        if value is not None:
            extra = value.new_zeros(value.shape[0], count, *value.shape[2:])
            padded[name] = torch.cat([value, extra], 1)
    return episodes.changed(classes=(), **padded)


def _mixture(
    episodes: EpisodeBatch,
    values: Sequence[Levels],
    priors: Sequence[Tensor],  # (task, way) log prior for each population draw
    draws: int,
    seed: int,
) -> tuple[LabelDraws, LabelDraws]:
    noise = Noise.of(episodes, seed, even=True)
    frames: list[LabelDraws] = []
    videos: list[LabelDraws] = []
    for levels in _for_tasks(episodes, values, draws):
        post, done = condition_classes(episodes, levels), len(frames)
        count = len(post.pull) if len(episodes) == 1 else 1
        prior = torch.cat([*priors[done : done + count]])
        asked = frame_queries(episodes, levels), video_queries(episodes, levels)
        exact = [log_labels_of(post, levels, queries, prior) for queries in asked]
        task, way, *own = _numbers(exact, len(episodes), draws, noise, post.pull)
        base = post.coloured(task, way)[1]
        for part, queries, log_prob in zip((frames, videos), asked, exact, strict=True):
            chosen, white, own = own[0], own[1], own[2:]
            given = _draws_given(post, base, levels, queries, prior, chosen, white)
            part += _by_value(log_prob, given, len(episodes))
    return by_video(mixed(frames), episodes), mixed(videos)


def _numbers(
    exact: Sequence[Tensor], tasks: int, draws: int, noise: Noise, like: Tensor
) -> list[Tensor]:
    """Random numbers of `_mixture`, value by value, side by side along the axis of tasks.

    Args:
        exact: log probabilities (value x task, query, way) of frames and of videos.
        tasks: number of tasks.
        draws: number of draws.
        noise: what they come from.
        like: (..., feature).

    Returns:
        Standard normal (draw, task, feature) and (draw, task, way, feature) of a and mu; then, of
        frames and of videos, classes (draw, task, query) and standard normal (draw, task, feature).
    """
    dim, rows = like.shape[-1:], []
    for each in zip(*(torch.split(p.exp(), tasks) for p in exact), strict=True):
        row = noise.normals(draws, ["task", "way"], dim, like)
        for prob in each:
            row += [noise.classes(prob, draws), noise.normal(draws, "task", dim, like)]
        rows.append(row)
    return [torch.cat(each, 1) for each in zip(*rows, strict=True)]


def _by_value(log_prob: Tensor, given: Tensor, tasks: int) -> Iterator[LabelDraws]:
    """Label draws of each value, of which there are several along the axis of tasks."""
    for exact, drawn in zip(
        torch.split(log_prob, tasks), torch.split(given, tasks, 1), strict=True
    ):
        weight = drawn.new_full(drawn.shape[:-1], -math.log(len(drawn)))
        yield LabelDraws(exact, drawn, weight)


def _for_tasks(episodes: EpisodeBatch, values: Sequence[Levels], draws: int) -> Iterable[Levels]:
    """Population draws: several at once for one task, one after the other for several tasks."""
    if len(episodes) != 1:
        return values
    return several(values, draws * episodes.query[0].numel() * episodes.way)


def by_video(frames: LabelDraws, episodes: EpisodeBatch) -> LabelDraws:
    """Labels of the frames of all videos in a row, (task, query), as (task, video, frame)."""
    shape = episodes.query.shape[:3]
    return LabelDraws(
        frames.log_prob.reshape(*shape, -1),
        frames.log_prob_given.reshape(-1, *shape, episodes.way),
        frames.log_weight.reshape(-1, *shape),
    )


def mixed(parts: Sequence[LabelDraws]) -> LabelDraws:
    """Mixture of predictives of equal weight."""
    log_prob = torch.stack([p.log_prob for p in parts]).logsumexp(0) - math.log(len(parts))
    return LabelDraws(
        log_prob,
        torch.cat([p.log_prob_given for p in parts]),
        torch.cat([p.log_weight for p in parts]) - math.log(len(parts)),
    )


def log_labels_of(post: ClassPosterior, levels: Levels, queries: Queries, prior: Tensor) -> Tensor:
    """(task, query, way) exact log p(y | x, D); `prior` is (task, way)."""
    density = _log_density(queries, post.mean, post.cov(), levels)
    return (density + prior[:, None]).log_softmax(-1)


def _log_density(
    queries: Queries,
    mean: Tensor,  # (task, way, feature)
    cov: Operator | None,  # (task, way); None for none
    levels: Levels,
) -> Tensor:
    """(task, query, way) log N(x; o + r mean, r^2 cov + V + F / count); 0 for padding.

    Without slopes of quality few noise covariances occur, and each is one matrix product. Levels
    of each task take the queries of as many, or of one.
    """
    condition = queries.condition
    out = mean.new_zeros(len(mean), queries.x.shape[1], mean.shape[1])
    if levels.slope is not None:
        for q in condition.unique().tolist():  # type: ignore[no-untyped-call]
            out = _log_density_of_condition(out, queries, mean, cov, levels, q)
        return out
    for q, n, columns, mask, points in queries.groups:
        at = levels.at(columns.new_full((1,), q))  # (task or 1,)
        r = levels.loading[at][:, None]
        noise = _noise(levels, at, n)
        total = noise if cov is None else cov.scaled(r**2) + noise
        centre = levels.offset[at][:, None] - queries.origin + r[..., None] * mean
        out = _place(out, columns, mask, log_normal(points, centre, total))
    return out


def _log_density_of_condition(
    out: Tensor, queries: Queries, mean: Tensor, cov: Operator | None, levels: Levels, q: int
) -> Tensor:
    """`out` with the same where every query has a noise covariance of its own, for one condition.

    As a function of u = -log count the log density is analytic in the strip |Im u| < pi, so that
    Chebyshev interpolation between `NODES` values of u, each one matrix product, converges
    geometrically: to some 1e-8 nats on pieces of width `PIECE`. Inside a transform (while the
    slopes are learnt), where values cannot be looked at, one piece holds all: to some 1e-5 nats
    over the hundredfold range that standardised quality spans.
    """
    count = queries.frames
    u, mask = -torch.where(count > 0, count, 1.0).log(), (queries.condition == q) & (count > 0)
    r = levels.loading[q]
    centre_of_class = levels.offset[q] - queries.origin + r * mean
    for columns, here, centre, half, size in _pieces(u, mask):
        basis, nodes = chebyshev(((u[:, columns] - centre) / half).clamp(-1.0, 1.0), size)
        scale = (centre + half * nodes).exp()[:, None, None]
        noise = levels.video[q] + levels.frame[q].scaled(scale)
        total = noise if cov is None else cov.scaled(r**2).expand_axis(0) + noise
        values = log_normal(Points(queries.points.x[:, columns]), centre_of_class, total)
        value = torch.einsum("tqn,ntqw->tqw", basis, values)  # over nodes
        out = _place(out, columns, here, value)
    return out


def _pieces(
    u: Tensor, mask: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor | float, Tensor | float, int]]:
    """Pieces of the line that hold the (task, query) values u where `mask`.

    Yields:
        (columns, mask, centre, half, nodes): `columns` indexes the queries with a value there in
        some task, `mask` (task, column) tells in which.
    """
    if torch._C._functorch.is_functorch_wrapped_tensor(u):
        low, high = u.detach().amin(), u.detach().amax()
        half = (0.5 * (high - low)).clamp(min=1e-3)
        yield torch.arange(u.shape[1], device=u.device), mask, 0.5 * (low + high), half, WIDE_NODES
        return
    piece = (u.detach() / PIECE).floor()
    for p in piece[mask].unique().tolist():  # type: ignore[no-untyped-call]
        here = mask & (piece == p)
        columns = here.any(0).nonzero()[:, 0]
        yield columns, here[:, columns], PIECE * (p + 0.5), 0.5 * PIECE, NODES


def chebyshev(t: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Interpolation at Chebyshev nodes of [-1, 1]: f(t) is about sum_n weight_n(t) f(node_n).

    Args:
        t: (...) points in [-1, 1].
        count: number of nodes.

    Returns:
        (..., node) weights and (node,) nodes.

    Source: Trefethen (2013), Approximation Theory and Approximation Practice, chapters 2 and 8.
    """
    order = torch.arange(count, dtype=t.dtype, device=t.device)
    angles = math.pi * (order + 0.5) / count
    columns = [torch.ones_like(t), t]
    while len(columns) < count:
        columns.append(2.0 * t * columns[-1] - columns[-2])
    transform = (order[:, None] * angles).cos() * (2.0 / count)
    transform = torch.cat([0.5 * transform[:1], transform[1:]])
    return torch.stack(columns[:count], -1) @ transform, angles.cos()


def _draws_given(
    post: ClassPosterior,
    base: Tensor,  # (draw, task, way, feature) draws of p(mu | D)
    levels: Levels,
    queries: Queries,
    prior: Tensor,  # (task, way)
    chosen: Tensor,  # (draw, task, query) class y* of each draw
    white: Tensor,  # (draw, task, feature) standard normal: queries share it
) -> Tensor:
    """(draw, task, query, way) label distributions of draws from p(mu | x, D)."""
    logits = base.new_zeros(*chosen.shape, base.shape[2])
    for q, n, columns, mask, _ in queries.graded(levels).groups:
        value = _conditioned_logits(
            post, base, levels, q, n, queries.x[:, columns], chosen[:, :, columns], white
        )
        logits[:, :, columns] = torch.where(mask[..., None], value, logits[:, :, columns])
    return (logits + prior[:, None]).log_softmax(-1)


def grade(count: Tensor) -> Tensor:
    """Effective numbers of frames rounded to steps of `GRADE` in their logarithm; 0 stays 0."""
    log = torch.where(count > 0, count, 1.0).log()
    return torch.where(count > 0, ((log / GRADE).round() * GRADE).exp(), 0.0)


def _conditioned_logits(
    post: ClassPosterior,
    base: Tensor,
    levels: Levels,
    q: int,
    n: float,
    x: Tensor,
    chosen: Tensor,  # (draw, task, query) class y* of each draw
    white: Tensor,  # (draw, task, feature) standard normal: queries share it
) -> Tensor:
    """(draw, task, query, way) log N(x; o + r mu_j, N), mu from p(mu | x, y*, D), up to a constant.

    The residual x - o - r mu_j is G_j (x - o) - u_j with G_j = I - r^2 Cov(mu_j, mu_y*) T^-1,
    u_j = r mu_j - r^2 Cov(mu_j, mu_y*) T^-1 (x~ - o) and T = r^2 Cov mu_y* + N. Its square,

        (x - o)' G_j' P G_j (x - o) - 2 (x - o)' G_j' P u_j + u_j' P u_j,

    takes two matrix products for all queries and draws of a task.
    """
    at = levels.at(chosen.new_full((1,), q))  # (task or 1,)
    points, r = Points(x - levels.offset[at][:, None]), levels.loading[at][:, None]
    cov_noise = _noise(levels, at, n)
    precision = cov_noise.inverse()
    eps = cov_noise.colour(white[:, :, None])[:, :, 0]
    out = x.new_zeros(*chosen.shape, base.shape[2])
    for way in range(base.shape[2]):
        here = chosen == way
        if not here.any():
            continue
        cross = post.cross(way).scaled(r**2)
        total = (cross[:, way].expand_axis(1) + cov_noise).inverse()
        update = cross @ total
        simulated = r * base[:, :, way] + eps
        u = r[..., None] * base - update.apply(simulated[:, :, None])
        right = precision.apply(u)
        seen = right - update.transposed().apply(right)  # G' P u
        seen_by = precision - precision @ update  # P G
        square = seen_by - update.transposed() @ seen_by  # G' P G
        own = (u * right).sum(-1)[:, :, None] + square.squares(points)
        value = torch.einsum("tqd,stwd->stqw", points.x, seen) - 0.5 * own
        out = torch.where(here[..., None], value, out)
    return out


def _noise(levels: Levels, at: Index, n: float) -> Operator:
    """(task or 1, 1) V + F / n, the noise of a group's queries."""
    return (levels.video[at] + levels.frame[at].scaled(1.0 / n)).expand_axis(1)


def _place(out: Tensor, columns: Tensor, mask: Tensor, value: Tensor) -> Tensor:
    """`out` with `value` at the group's queries; out of place, so that gradients flow."""
    keep = torch.where(mask[..., None], value, out[:, columns])
    return out.index_copy(1, columns, keep)
