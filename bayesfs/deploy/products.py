"""Closed-form label predictives as a few products with the query: `prepare`, `labels_of`.

With G_jy = I - r^2 Cov(mu_j, mu_y) (r^2 Cov mu_y + N)^-1 and residual G_jy x - u_jy of a draw (see
`bayesfs.models.gaussian.labels`; x without the offset), the log density of class j is

    x' p_jy - (x' Q_jy x + c_jy) / 2,    p = G' N^-1 u,    Q = G' N^-1 G,    c = u' N^-1 u,

up to what is the same for all classes. Products that do not depend on the query are made once.

One query by itself is answered in NumPy, an operation of which costs a fraction of a tensor's, and
a product with one vector a twentieth of MKL's on some processors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayesfs._distributions.noise import Noise
from bayesfs._utils.arrays import Ints
from bayesfs.models.gaussian.conjugate import LOG_2PI, ClassPosterior, Levels
from bayesfs.models.gaussian.covariance import Dense, Diagonal, Points, joined
from bayesfs.types import LabelDraws

Array = NDArray[Any]

IN_CACHE = 2**16
"""Numbers in single precision that are worked on at a time."""


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
        points: (population, draw) evenly spread over (0, 1): a draw takes a query for the class
            that its point falls to.
        draws: the products for the draws.
    """

    offset: Tensor
    linear: Tensor
    square: Diagonal | Dense
    constant: Tensor
    by_place: Tensor
    points: Tensor
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

    def logits(self, x: Array, chosen: Ints) -> Array:
        """(population, draw, way) log densities of one query x, up to what is the same for all.

        Args:
            x: (population, feature).
            chosen: (population, draw) class y that each draw takes it for.
        """
        single, pulls, own = x.astype(np.float32), self.pulls.numpy(), self.own.numpy()
        populations, count, ways = own.shape[:3]
        row = chosen.ravel() + np.arange(0, populations * count * ways, ways)
        taken = pulls.reshape(-1, ways, pulls.shape[-1])[row].reshape(populations, count * ways, -1)
        cross = (taken @ single[..., None]).reshape(populations, count, ways)
        square = self.spread.squares_of_one(single).reshape(populations, ways, ways)
        square = square[np.arange(populations)[:, None], chosen]
        return np.asarray(cross - 0.5 * (square + own.reshape(-1, ways)[row].reshape(cross.shape)))


def prepare(
    levels: Levels,
    post: ClassPosterior,
    means: Tensor,
    condition: int,
    frames: int,
    noise: Noise,
) -> Prepared:
    """Products for queries of one condition and so many frames.

    Args:
        levels: population parameters, whose first axis is the draw of the population.
        post: exact posterior of the class means, for each of these.
        means: (population, draw, way, feature) draws of the class means, in single precision.
        condition: index of the condition.
        frames: of a query.
        noise: of the draws of queries.
    """
    populations, draws, _, dim = means.shape
    white = noise.normals(draws, ["task"] * populations, (dim,), means)
    start = (torch.arange(populations).to(levels.offset)[:, None] + 0.5) / populations
    single = in_single(levels), in_single(post), means
    return Prepared(
        levels.offset[:, condition],
        *_density_products(levels, post, condition, frames),
        noise.order.rank[0].argsort(),
        (torch.arange(draws) + start) / draws,
        _draw_products(*single, condition, frames, torch.cat(white, 1).transpose(0, 1)),
    )


def _density_products(
    levels: Levels, post: ClassPosterior, condition: int, frames: int
) -> tuple[Tensor, Any, Tensor]:
    """Linear, square and constant part of the log density of each class."""
    r = levels.loading[:, condition]
    noise = noise_of(levels, condition, frames).expand_axis(1)
    total = post.cov().scaled(r[:, None] ** 2) + noise
    weight, mean = total.inverse(), r[:, None, None] * post.mean
    linear = weight.apply(mean)
    constant = (mean * linear).sum(-1) + total.logdet() + mean.shape[-1] * LOG_2PI
    return linear, weight, constant


def _draw_products(
    levels: Levels,
    post: ClassPosterior,
    means: Tensor,  # (population, draw, way, feature)
    condition: int,
    frames: int,
    white: Tensor,  # (population, draw, feature) standard normal
) -> DrawProducts:
    """Products p, Q and c of each draw with each class that a query may show."""
    r, cov = levels.loading[:, condition], noise_of(levels, condition, frames)
    ways, square = means.shape[2], r[:, None] ** 2
    base = r[:, None, None, None] * means
    marginal = (post.cov().scaled(square) + cov.expand_axis(1)).inverse()
    precision, eps = cov.inverse().expand_axis(1), cov.expand_axis(1).colour(white)
    pulls = means.new_empty(*means.shape[:3], *means.shape[2:])
    own = means.new_empty(*means.shape[:3], ways)
    updates = [
        post.cross(way).scaled(square) @ marginal[:, way].expand_axis(1) for way in range(ways)
    ]
    spread = []
    for update in updates:
        half = precision @ update
        spread.append(precision - half - half.transposed() + update.transposed() @ half)
    for part in _parts(means):
        for way, update in enumerate(updates):
            each = update[part].expand_axis(1)
            learnt = each.apply((base[part, :, way] + eps[part])[:, :, None])
            u = torch.sub(base[part], learnt, out=learnt)
            right = precision[part].expand_axis(1).apply(u)
            torch.sum(u.mul_(right), -1, out=own[part, :, way])
            torch.sub(right, each.transposed().apply(right), out=pulls[part, :, way])
    return DrawProducts(pulls, joined(spread, 1), own)


def _parts(means: Tensor) -> Iterator[slice]:
    """Parts of the first axis that stay in a processor's cache."""
    step = max(1, IN_CACHE * len(means) // means.numel())
    return (slice(first, first + step) for first in range(0, len(means), step))


def noise_of(levels: Levels, condition: int, frames: int) -> Any:
    """(population,) covariance of the mean of so many frames of a video about its class."""
    each = slice(None), condition
    return levels.video[each] + levels.frame[each].scaled(1.0 / frames)


def in_single(value: Any) -> Any:
    """A value, or a dataclass of such values, with its tensors in single precision."""
    if isinstance(value, Tensor):
        return value.float()
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: in_single(getattr(value, f.name)) for f in fields(value)})
    return value


def labels_of(x: Array, made: Prepared) -> tuple[Array, Array]:
    """Log probabilities of one query, and those of the draws, which have even weights.

    Args:
        x: (population, feature) the query without the offset.
        made: the products.

    Returns:
        (way,) and (draw, way).
    """
    linear = (made.linear.numpy() @ x[..., None])[..., 0]
    density = linear - 0.5 * (made.square.squares_of_one(x) + made.constant.numpy())
    log_prob = _log_softmax(density)
    place = made.by_place.numpy()
    edges = np.exp(log_prob)[:, None, place].cumsum(-1)[..., :-1]
    chosen = place[(made.points.numpy()[..., None] > edges).sum(-1)]
    given = _log_softmax(made.draws.logits(x, chosen).astype(x.dtype))
    mixed = np.logaddexp.reduce(log_prob, 0) - math.log(len(x))
    return mixed, given.reshape(-1, given.shape[-1])


def _log_softmax(logits: Array) -> Array:
    """Over the last axis."""
    below = logits - logits.max(-1, keepdims=True)
    return np.asarray(below - np.log(np.exp(below).sum(-1, keepdims=True)))


def labels_of_many(x: Tensor, made: Prepared) -> LabelDraws:
    """Predictive of many queries, x (population, query, feature), by matrix products."""
    draws = made.draws
    populations, count, ways = draws.own.shape[:3]
    density = x @ made.linear.mT
    density = density - 0.5 * (made.square.squares(Points(x)) + made.constant[:, None])
    log_prob = density.log_softmax(-1)
    given = []
    for p in range(populations):
        single = x[p].float()
        each = made.points[p].expand(len(single), -1)
        chosen = _evenly_chosen(log_prob[p].exp(), each, made.by_place).mT
        at = chosen[:, None, None].expand(-1, 1, ways, -1)  # (draw, 1, way j, query)
        cross = (draws.pulls[p] @ single.mT).gather(1, at)[:, 0]
        square = draws.spread[p].squares(Points(single)).mT.reshape(1, ways, ways, -1)
        square = square.expand(count, -1, -1, -1).gather(1, at)[:, 0]
        own = draws.own[p].gather(1, chosen[..., None].expand(-1, -1, ways)).mT
        given.append((cross - 0.5 * (square + own)).mT.to(x).log_softmax(-1))
    joined = torch.cat(given)
    weight = joined.new_full(joined.shape[:-1], -math.log(len(joined)))
    return LabelDraws(log_prob.logsumexp(0) - math.log(populations), joined, weight)


def _evenly_chosen(prob: Tensor, points: Tensor, by_place: Tensor) -> Tensor:
    """(query, draw) classes in their shares (query, way) at points (query, draw) of (0, 1)."""
    edges = prob[:, by_place].cumsum(-1)[:, :-1].contiguous()
    return by_place[torch.searchsorted(edges, points.contiguous())]
