"""A taught recogniser for a device: whatever does not depend on the query is made once.

Start with `teach`: backbone features of a few videos of each object in, a `Recogniser` out, whose
`frame` and `video` say which object a query shows and how unsure that is, of which kind. The
answers are those of `GaussianHierarchy.predictive`, in the closed form of
`bayesfs.models.gaussian_labels`. With G_jy = I - r^2 Cov(mu_j, mu_y) (r^2 Cov mu_y + N)^-1 and
residual G_jy x - u_jy of a draw (see there; x without the offset), the log density of class j is

    x' p_jy - (x' Q_jy x + c_jy) / 2,    p = G' N^-1 u,    Q = G' N^-1 G,    c = u' N^-1 u,

up to what is the same for all classes, so that a query costs a few products with p and Q.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayesfs.errors import DataError, InferenceError
from bayesfs.features.project import Projection
from bayesfs.inference.exact import Exact, thin_population
from bayesfs.models.conjugate import (
    LOG_2PI,
    ClassPosterior,
    Levels,
    condition_classes,
    normal,
)
from bayesfs.models.covariance import Dense, Diagonal
from bayesfs.models.gaussian import GaussianHierarchy
from bayesfs.study import Learnt, Study
from bayesfs.types import KINDS, EpisodeBatch, LabelDraws
from bayesfs.uncertainty import kinds

Array = NDArray[Any]


@dataclass(frozen=True)
class Recognition:
    """What is said of one frame or video.

    Attributes:
        prob: (way,) p(y | x, D).
        total: entropy of `prob`, in nats.
        aleatoric: the part that more teaching would not remove.
        epistemic: the part that it would.
        labels: the draws behind the decomposition, (draw, way).
    """

    prob: Tensor
    total: float
    aleatoric: float
    epistemic: float
    labels: LabelDraws


@dataclass(frozen=True)
class Scored:
    """What is said of many frames, each by itself.

    Attributes:
        prob: (frame, way) p(y | x, D).
        total: (frame,) entropy of `prob`, in nats.
        aleatoric: (frame,) the part that more teaching would not remove.
        epistemic: (frame,) the part that it would.
    """

    prob: Tensor
    total: Tensor
    aleatoric: Tensor
    epistemic: Tensor


KEPT = 4
"""Conditions and lengths of query whose products are kept: 10 objects take 13 MB each."""


@dataclass(frozen=True)
class Prepared:
    """Products for queries of one condition and number of frames; first axis: population draw.

    Attributes:
        offset: (population, feature).
        linear: (population, way, feature) and
        square: (population, way) and
        constant: (population, way) of log N(x; o + r E mu, r^2 Cov mu + N).
        draws: the products for the draws.
    """

    offset: Tensor
    linear: Tensor
    square: Diagonal | Dense
    constant: Tensor
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


@dataclass(frozen=True)
class Recogniser:
    """A person's objects, taught; see `teach`.

    Attributes:
        classes: names of the objects, in the order of the probabilities.
        projection: from backbone features to those of the model.
        levels: population parameters of each draw of the population.
        posteriors: exact posterior of the class means, for each of these.
        means: for each, (draw, 1, way, feature) draws of the class means, in single precision.
        seed: of the draws.
    """

    classes: tuple[str, ...]
    projection: Projection
    levels: tuple[Levels, ...]
    posteriors: tuple[ClassPosterior, ...]
    means: tuple[Tensor, ...]
    seed: int
    _made: dict[tuple[int, int], Prepared] = field(default_factory=dict, repr=False)

    def prepare(self, kind: str = "clutter", frames: int = 1) -> Prepared:
        """Products for queries of a condition with so many frames; the last `KEPT` are kept.

        Raises:
            DataError: an unknown condition.
        """
        if kind not in KINDS:
            raise DataError(f"expected a recording condition of {KINDS}, got {kind!r}")
        key = KINDS.index(kind), frames
        made = self._made.pop(key, None) or self._prepare(*key)
        self._made[key] = made  # the last asked for comes last
        while len(self._made) > KEPT:
            self._made.pop(next(iter(self._made)))
        return made

    def frame(self, features: Array, kind: str = "clutter") -> Recognition:
        """Recognise one frame by itself.

        Args:
            features: (input feature,) of the backbone.
            kind: condition that it was recorded in.

        Raises:
            DataError: another number of features, or one that is not finite.
        """
        return self.video(np.asarray(features)[None], kind)

    def video(self, features: Array, kind: str = "clutter") -> Recognition:
        """Recognise a whole video, its frames jointly: they share the video's own deviation.

        Args:
            features: (frame, input feature) of the backbone.
            kind: condition that it was recorded in.
        """
        z = self.projection.of_features(features, kind)
        made = self.prepare(kind, len(z))
        x = torch.from_numpy(z.mean(0, dtype=np.float64)).to(made.offset) - made.offset
        return _recognition(_labels(x, made))

    def stream(
        self, pieces: Iterable[Array], kind: str = "clutter", *, at_once: int = 256
    ) -> Iterator[Scored]:
        """Recognise the frames of a long recording, each by itself, as they come.

        Memory goes with `at_once`, not with the recording: a million frames need what a thousand
        do.

        Args:
            pieces: (frame, input feature) features of the backbone, piece by piece.
            kind: condition that they were recorded in.
            at_once: frames in one matrix product.

        Yields:
            What is said of each piece, or part of it.
        """
        made = self.prepare(kind)
        for piece in pieces:
            for start in range(0, len(piece), at_once):
                z = self.projection.of_features(piece[start : start + at_once], kind)
                x = torch.from_numpy(z).to(made.offset)[None] - made.offset[:, None]
                labels = _labels_of_many(x, made)
                yield Scored(labels.prob, *kinds(labels))

    def _prepare(self, kind: int, frames: int) -> Prepared:
        noise = torch.Generator().manual_seed(self.seed + 1)
        exact = [
            _density_products(levels, post, kind, frames)
            for levels, post in zip(self.levels, self.posteriors, strict=True)
        ]
        populations, (draws, _, ways, dim) = len(exact), self.means[0].shape
        pulls = torch.empty(populations, draws, ways, ways, dim)
        own = torch.empty(populations, draws, ways, ways)
        spread = [
            _draw_products(in_single(levels), in_single(post), means, kind, frames, noise, *out)
            for levels, post, means, *out in zip(
                self.levels, self.posteriors, self.means, pulls, own, strict=True
            )
        ]
        offset, linear, square, constant = zip(*exact, strict=True)
        return Prepared(
            torch.stack(offset),
            torch.stack(linear),
            _stacked(square),
            torch.stack(constant),
            DrawProducts(pulls, _stacked(spread), own),
        )


def teach(
    study: Study,
    learnt: Learnt,
    videos: Mapping[str, Sequence[Array]],
    *,
    kind: str = "clean",
    ready_for: str = "clutter",
    seed: int = 0,
) -> Recogniser:
    """Teach a person's objects: the exact posterior, ready to recognise frames.

    Args:
        study: its model must be a `GaussianHierarchy` without covariates, its engine `Exact`.
        learnt: what holds for every user.
        videos: object -> its videos, each (frame, input feature) of backbone features.
        kind: condition that they were recorded in.
        ready_for: condition of the frames to recognise, which is prepared at once.
        seed: of the draws.

    Raises:
        DataError: no object, an object without a frame, or features of another backbone.
        InferenceError: another model or engine.

    Example:
        >>> mine = teach(study, learnt, {"mug": [a, b], "keys": [c]})  # doctest: +SKIP
        >>> mine.frame(features).prob  # doctest: +SKIP
    """
    model, engine = study.model_for(learnt.projection), study.engine
    if not isinstance(model, GaussianHierarchy) or not isinstance(engine, Exact):
        raise InferenceError(
            "expected a GaussianHierarchy and the engine Exact, got "
            f"{type(model).__name__} and {type(engine).__name__}; use bayesfs.predict for others"
        )
    if model.covariates:
        raise InferenceError("a model with covariates of quality is not taught here; use predict")
    support = _episode(learnt.projection, videos, kind).to(study.dtype)
    population = thin_population(model, learnt.population, engine.population_draws)
    count = len(next(iter(population.values())))
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        levels = [
            model.levels({s: v[p].to(study.dtype) for s, v in population.items()}, support.dim)
            for p in range(count)
        ]
        posts = [condition_classes(support, values) for values in levels]
        means = [in_single(p).sample(-(-engine.draws // count), noise)[1] for p in posts]
    names = tuple(videos)
    taught = Recogniser(names, learnt.projection, tuple(levels), tuple(posts), tuple(means), seed)
    taught.prepare(ready_for)
    return taught


def _episode(
    projection: Projection, videos: Mapping[str, Sequence[Array]], kind: str
) -> EpisodeBatch:
    """One task of these videos, padded; its query is a token."""
    ways, shots = len(videos), max((len(v) for v in videos.values()), default=0)
    frames = {name: [np.atleast_2d(v) for v in each] for name, each in videos.items()}
    empty = [name for name, each in frames.items() if not sum(map(len, each))]
    if not shots or empty:
        raise DataError(
            f"expected at least one video, with a frame, of each object; got none of {empty}"
        )
    flat = [(w, s, v) for w, each in enumerate(frames.values()) for s, v in enumerate(each)]
    rows = projection.of_features(np.concatenate([v for _, _, v in flat]), kind)
    longest = max(len(v) for _, _, v in flat)
    support = np.zeros((1, ways, shots, longest, rows.shape[1]), np.float32)
    mask, start = np.zeros(support.shape[:-1], bool), 0
    for w, s, video in flat:
        support[0, w, s, : len(video)] = rows[start : start + len(video)]
        mask[0, w, s, : len(video)] = True
        start += len(video)
    where = torch.full((1, ways, shots), KINDS.index(kind))
    token = torch.zeros(1, 1, 1, rows.shape[1])
    return EpisodeBatch(
        torch.from_numpy(support),
        torch.from_numpy(mask),
        where,
        token,
        torch.zeros(1, 1, 1, dtype=torch.bool),
        torch.zeros(1, 1, dtype=torch.long),
        torch.full((1, 1), -1),
    )


def _density_products(
    levels: Levels, post: ClassPosterior, kind: int, frames: int
) -> tuple[Tensor, Tensor, Any, Tensor]:
    """Offset, linear, square and constant part of the log density of each class."""
    r = levels.loading[kind]
    total = post.cov()[0].scaled(r**2) + noise_of(levels, kind, frames).expand_axis(0)
    weight, mean = total.inverse(), r * post.mean[0]
    linear = weight.apply(mean)
    constant = (mean * linear).sum(-1) + total.logdet() + mean.shape[-1] * LOG_2PI
    return levels.offset[kind], linear, weight, constant


def _draw_products(
    levels: Levels,
    post: ClassPosterior,
    means: Tensor,  # (draw, 1, way, feature)
    kind: int,
    frames: int,
    noise: torch.Generator,
    pulls: Tensor,  # (draw, way y, way j, feature), to fill
    own: Tensor,  # (draw, way y, way j), to fill
) -> Any:
    """Fill in p and c of one draw of the population; Q over (way y x way j)."""
    r, cov = levels.loading[kind], noise_of(levels, kind, frames)
    precision, base = cov.inverse().expand_axis(0), r * means[:, 0]
    marginal = (post.cov()[0].scaled(r**2) + cov.expand_axis(0)).inverse()
    eps = cov.colour(normal(tuple(base[:, 0].shape), base, noise))
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


def noise_of(levels: Levels, kind: int, frames: int) -> Any:
    """Covariance of the mean of so many frames of a video about its class."""
    return levels.video[kind] + levels.frame[kind].scaled(1.0 / frames)


def in_single(value: Any) -> Any:
    """A value, or a dataclass of such values, with its tensors in single precision."""
    if isinstance(value, Tensor):
        return value.float()
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: in_single(getattr(value, f.name)) for f in fields(value)})
    return value


def _labels(x: Tensor, made: Prepared) -> LabelDraws:
    """Predictive of one query, and label distributions of draws; x is (population, feature)."""
    at, draws = x[:, None], made.draws
    populations, count, ways = draws.own.shape[:3]
    linear = (made.linear @ x[..., None])[..., 0]
    density = linear - 0.5 * (made.square.squares(at)[:, 0] + made.constant)
    log_prob = density.log_softmax(-1)
    start = (torch.arange(populations).to(x)[:, None] + 0.5) / populations
    chosen = _evenly_chosen(log_prob.exp(), count, start)
    p, d = torch.arange(populations)[:, None], torch.arange(count)
    single = at.float()
    cross = (draws.pulls[p, d, chosen] @ single[..., None])[..., 0]
    square = draws.spread.squares(single)[:, 0].reshape(populations, ways, ways)
    logits = (cross - 0.5 * (square[p, chosen] + draws.own[p, d, chosen])).to(x)
    given = logits.log_softmax(-1).flatten(0, 1)
    weight = given.new_full(given.shape[:1], -math.log(len(given)))
    return LabelDraws(log_prob.logsumexp(0) - math.log(populations), given, weight)


def _labels_of_many(x: Tensor, made: Prepared) -> LabelDraws:
    """`_labels` of many queries, x (population, query, feature), by matrix products."""
    draws = made.draws
    populations, count, ways = draws.own.shape[:3]
    density = x @ made.linear.mT
    density = density - 0.5 * (made.square.squares(x) + made.constant[:, None])
    log_prob = density.log_softmax(-1)
    given = []
    for p in range(populations):
        single = x[p].float()
        chosen = _evenly_chosen(log_prob[p].exp(), count, (p + 0.5) / populations).mT
        at = chosen[:, None, None].expand(-1, 1, ways, -1)  # (draw, 1, way j, query)
        cross = (draws.pulls[p] @ single.mT).gather(1, at)[:, 0]
        square = draws.spread[p].squares(single).mT.reshape(1, ways, ways, -1)
        square = square.expand(count, -1, -1, -1).gather(1, at)[:, 0]
        own = draws.own[p].gather(1, chosen[..., None].expand(-1, -1, ways)).mT
        given.append((cross - 0.5 * (square + own)).mT.to(x).log_softmax(-1))
    joined = torch.cat(given)
    weight = joined.new_full(joined.shape[:-1], -math.log(len(joined)))
    return LabelDraws(log_prob.logsumexp(0) - math.log(populations), joined, weight)


def _evenly_chosen(prob: Tensor, draws: int, start: Tensor | float) -> Tensor:
    """(query, draw) classes in their shares (query, way): points (d + start) / draws of (0, 1)."""
    points = (torch.arange(draws).to(prob) + start) / draws
    points = points.expand(len(prob), draws)
    edges = prob.cumsum(-1)[:, :-1]
    return (points[..., None] > edges[:, None]).sum(-1)


def _recognition(labels: LabelDraws) -> Recognition:
    total, aleatoric, epistemic = (float(v) for v in kinds(labels))
    return Recognition(labels.prob, total, aleatoric, epistemic, labels)


def _stacked(values: Sequence[Any]) -> Any:
    """Operators along a new first axis."""
    name = "d" if isinstance(values[0], Diagonal) else "m"
    return type(values[0])(torch.stack([getattr(v, name) for v in values]))


def _joined(values: Sequence[Any]) -> Any:
    """Operators along their first batch axis."""
    name = "d" if isinstance(values[0], Diagonal) else "m"
    return type(values[0])(torch.cat([getattr(v, name) for v in values]))
