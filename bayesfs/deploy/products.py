"""Closed-form label predictives as a few products with the query: `prepare`, `labels_of`.

With G_jy = I - r^2 Cov(mu_j, mu_y) (r^2 Cov mu_y + N)^-1 and residual G_jy x - u_jy of a draw (see
`bayesfs.models.gaussian.labels`; x without the offset), the log density of class j is

    x' p_jy - (x' Q_jy x + c_jy) / 2,    p = G' N^-1 u,    Q = G' N^-1 G,    c = u' N^-1 u,

up to what is the same for all classes. Products that do not depend on the query are made once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bayesfs._distributions.noise import Noise
from bayesfs.models.gaussian.conjugate import LOG_2PI, ClassPosterior, Levels
from bayesfs.models.gaussian.covariance import Dense, Diagonal, Points
from bayesfs.types import LabelDraws


@dataclass(frozen=True)
class Prepared:
    """Products for queries of one condition and number of frames; first axis: population draw.

    Attributes:
        offset: (population, feature).
        linear: (population, way, feature) and
        square: (population, way) and
        constant: (population, way) of log N(x; o + r E mu, r^2 Cov mu + N).
        by_place: (way,) classes in an order that does not depend on their names, in which draws
            are shared out among them.
        draws: the products for the draws.
    """

    offset: Tensor
    linear: Tensor
    square: Diagonal | Dense
    constant: Tensor
    by_place: Tensor
    draws: DrawProducts


@dataclass(frozen=True)
class DrawProducts:
    """Products for the draws, in single precision: they serve averages over draws only.

    Attributes:
        pulls: (population, draw, way y, way j, feature) p.
        spread: (population, way y x way j) Q.
        own: (population, draw, way y, way j) c.
    """

    pulls: Tensor
    spread: Diagonal | Dense
    own: Tensor


def prepare(
    levels: Sequence[Levels],
    posteriors: Sequence[ClassPosterior],
    means: Sequence[Tensor],
    condition: int,
    frames: int,
    noise: Noise,
) -> Prepared:
    """Products for queries of one condition and so many frames.

    Args:
        levels: population parameters, of each draw of the population.
        posteriors: exact posterior of the class means, for each of these.
        means: for each, (draw, 1, way, feature) draws of the class means, in single precision.
        condition: index of the condition.
        frames: of a query.
        noise: of the draws of queries.
    """
    exact = [
        _density_products(values, post, condition, frames)
        for values, post in zip(levels, posteriors, strict=True)
    ]
    populations, (draws, _, ways, dim) = len(exact), means[0].shape
    pulls = torch.empty(populations, draws, ways, ways, dim)
    own = torch.empty(populations, draws, ways, ways)
    spread = [
        _draw_products(in_single(values), in_single(post), drawn, condition, frames, noise, *out)
        for values, post, drawn, *out in zip(levels, posteriors, means, pulls, own, strict=True)
    ]
    offset, linear, square, constant = zip(*exact, strict=True)
    return Prepared(
        torch.stack(offset),
        torch.stack(linear),
        _stacked(square),
        torch.stack(constant),
        noise.order.rank[0].argsort(),
        DrawProducts(pulls, _stacked(spread), own),
    )


def _density_products(
    levels: Levels, post: ClassPosterior, condition: int, frames: int
) -> tuple[Tensor, Tensor, Any, Tensor]:
    """Offset, linear, square and constant part of the log density of each class."""
    r = levels.loading[condition]
    total = post.cov()[0].scaled(r**2) + noise_of(levels, condition, frames).expand_axis(0)
    weight, mean = total.inverse(), r * post.mean[0]
    linear = weight.apply(mean)
    constant = (mean * linear).sum(-1) + total.logdet() + mean.shape[-1] * LOG_2PI
    return levels.offset[condition], linear, weight, constant


def _draw_products(
    levels: Levels,
    post: ClassPosterior,
    means: Tensor,  # (draw, 1, way, feature)
    condition: int,
    frames: int,
    noise: Noise,
    pulls: Tensor,  # (draw, way y, way j, feature), to fill
    own: Tensor,  # (draw, way y, way j), to fill
) -> Any:
    """Fill in p and c of one draw of the population; Q over (way y x way j)."""
    r, cov = levels.loading[condition], noise_of(levels, condition, frames)
    precision, base = cov.inverse().expand_axis(0), r * means[:, 0]
    marginal = (post.cov()[0].scaled(r**2) + cov.expand_axis(0)).inverse()
    eps = cov.colour(noise.normal(len(base), "task", (base.shape[-1],), base)[:, 0])
    spread = []
    for way in range(base.shape[1]):
        update = post.cross(way)[0].scaled(r**2) @ marginal[way].expand_axis(0)
        u = base - update.apply((base[:, way] + eps)[:, None])
        right = precision.apply(u)
        back = update.transposed()
        torch.sub(right, back.apply(right), out=pulls[:, way])
        torch.sum(u * right, -1, out=own[:, way])
        half = precision @ update
        spread.append(precision - half - half.transposed() + back @ half)
    return _joined(spread)


def noise_of(levels: Levels, condition: int, frames: int) -> Any:
    """Covariance of the mean of so many frames of a video about its class."""
    return levels.video[condition] + levels.frame[condition].scaled(1.0 / frames)


def in_single(value: Any) -> Any:
    """A value, or a dataclass of such values, with its tensors in single precision."""
    if isinstance(value, Tensor):
        return value.float()
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: in_single(getattr(value, f.name)) for f in fields(value)})
    return value


def labels_of(x: Tensor, made: Prepared) -> LabelDraws:
    """Predictive of one query, and label distributions of draws; x is (population, feature)."""
    at, draws = x[:, None], made.draws
    populations, count, ways = draws.own.shape[:3]
    linear = (made.linear @ x[..., None])[..., 0]
    density = linear - 0.5 * (made.square.squares(Points(at))[:, 0] + made.constant)
    log_prob = density.log_softmax(-1)
    start = (torch.arange(populations).to(x)[:, None] + 0.5) / populations
    chosen = _evenly_chosen(log_prob.exp(), count, start, made.by_place)
    p, d = torch.arange(populations)[:, None], torch.arange(count)
    single = at.float()
    cross = (draws.pulls[p, d, chosen] @ single[..., None])[..., 0]
    square = draws.spread.squares(Points(single))[:, 0].reshape(populations, ways, ways)
    logits = (cross - 0.5 * (square[p, chosen] + draws.own[p, d, chosen])).to(x)
    given = logits.log_softmax(-1).flatten(0, 1)
    weight = given.new_full(given.shape[:1], -math.log(len(given)))
    return LabelDraws(log_prob.logsumexp(0) - math.log(populations), given, weight)


def labels_of_many(x: Tensor, made: Prepared) -> LabelDraws:
    """`labels_of` of many queries, x (population, query, feature), by matrix products."""
    draws = made.draws
    populations, count, ways = draws.own.shape[:3]
    density = x @ made.linear.mT
    density = density - 0.5 * (made.square.squares(Points(x)) + made.constant[:, None])
    log_prob = density.log_softmax(-1)
    given = []
    for p in range(populations):
        single = x[p].float()
        chosen = _evenly_chosen(log_prob[p].exp(), count, (p + 0.5) / populations, made.by_place).mT
        at = chosen[:, None, None].expand(-1, 1, ways, -1)  # (draw, 1, way j, query)
        cross = (draws.pulls[p] @ single.mT).gather(1, at)[:, 0]
        square = draws.spread[p].squares(Points(single)).mT.reshape(1, ways, ways, -1)
        square = square.expand(count, -1, -1, -1).gather(1, at)[:, 0]
        own = draws.own[p].gather(1, chosen[..., None].expand(-1, -1, ways)).mT
        given.append((cross - 0.5 * (square + own)).mT.to(x).log_softmax(-1))
    joined = torch.cat(given)
    weight = joined.new_full(joined.shape[:-1], -math.log(len(joined)))
    return LabelDraws(log_prob.logsumexp(0) - math.log(populations), joined, weight)


def _evenly_chosen(prob: Tensor, draws: int, start: Tensor | float, by_place: Tensor) -> Tensor:
    """(query, draw) classes in their shares (query, way): points (d + start) / draws of (0, 1)."""
    points = (torch.arange(draws).to(prob) + start) / draws
    points = points.expand(len(prob), draws)
    edges = prob[:, by_place].cumsum(-1)[:, :-1]
    return by_place[(points[..., None] > edges[:, None]).sum(-1)]


def _stacked(values: Sequence[Any]) -> Any:
    """Operators along a new first axis."""
    return type(values[0])(
        *(torch.stack(each) for each in zip(*map(_tensors, values), strict=True))
    )


def _joined(values: Sequence[Any]) -> Any:
    """Operators along their first batch axis."""
    return type(values[0])(*(torch.cat(each) for each in zip(*map(_tensors, values), strict=True)))


def _tensors(operator: Any) -> list[Tensor]:
    """What a diagonal or dense operator holds."""
    return [getattr(operator, f.name) for f in fields(operator)]
