"""Class probabilities of query frames and videos by integrating a link over latent values.

    frame    p(y | x, D) = E_f E_r  link(f + r)
    video    p(y | x_1..x_F, D) = E_f E_r  normalised prod_i link(f_i + r_i)

with f the class functions (epistemic; the draws of a Predictive) and r the query's own video and
frame deviations (aleatoric; integrated inside each draw). Given f and r the frames of a video are
independent glimpses of one label, and what they have in common is in r.

With the softmax link the product over frames is the softmax of the sum of their latent values, a
Gaussian per class like a frame's own. Other links are integrated over all frames jointly, with
the mean over the frames along the first direction of the points.

`FittedGaussian` serves every likelihood whose approximation is a Gaussian per class (Dirichlet,
mean-field one-vs-each, logistic-softmax, softmax). Integrals use antithetic Sobol points, the same
for every query, so that a query's answer depends on nothing but the query and the support.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import log
from typing import cast

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from bayesfs._distributions.noise import Noise
from bayesfs._linalg.cholesky import cholesky, deviation_of
from bayesfs.models.gp.conditioning import Conditioned, Latent, root
from bayesfs.models.gp.likelihood import Scores, equal_weights, normalise
from bayesfs.models.gp.links import Link, softmax
from bayesfs.models.gp.mixture import log_mean
from bayesfs.models.gp.points import Query
from bayesfs.types import Predictive

NODES = 8192
"""Points of the integral over all latent values in an answer: errors below .002 in probability."""

LEARNING_NODES = 32
"""The same while hyperparameters are learnt: an error of some .03 in single probabilities averages
out over the frames of all users, and every point is differentiated."""

INNER = 64
"""Points of the integral over the query's own deviations inside a draw."""

ELEMENTS = 2**21
"""Latent values that are held at a time."""


@dataclass(frozen=True)
class FittedGaussian:
    """Class functions with independent Gaussian posteriors, seen through a link.

    Attributes:
        conditioned: Gaussian (approximate) posterior of the class functions.
        link: class probabilities given latent values.
        log_evidence: (task,) of the likelihood, or its stated approximation.
    """

    conditioned: Conditioned
    link: Link
    log_evidence: Tensor

    @property
    def rank(self) -> Tensor:
        """(task, way): order in which classes take random numbers."""
        return self.conditioned.prior.support.rank

    def scores(self, query: Query, nodes: int = NODES) -> Scores:
        """Class probabilities by quadrature; differentiable, the same at every call."""
        return latent_scores(self.conditioned.latent(query), self.link, self.rank, nodes)

    def predictive(self, query: Query, draws: int, noise: Noise) -> Predictive:
        """Class probabilities by quadrature, with those of draws of f."""
        latent = self.conditioned.latent(query)
        f = latent.mean + query_noise(latent, draws, noise)
        scores = latent_scores(latent, self.link, self.rank, NODES)
        return predictive_of_draws(f, latent, self.link, self.rank, scores)

    def function(self, draws: int, noise: Noise) -> Tensor:
        """(draw, task, way, n): draws of f + b at the support points."""
        return self.conditioned.drawn(draws, noise)


def query_noise(latent: Latent, draws: int, noise: Noise) -> Tensor:
    """(draw, task, way, video, frame) of N(0, signal), from numbers that all videos share."""
    z = noise.normal(draws, "way", (latent.mean.shape[-1],), latent.mean)[:, :, :, None]
    return _apply(root(latent.signal), z, latent.mask)


def latent_scores(latent: Latent, link: Link, rank: Tensor, nodes: int) -> Scores:
    """Class probabilities of frames and growing videos, over all latent values at once."""
    mean = latent.mean[None]
    variance = latent.total.diagonal(dim1=-2, dim2=-1)
    frame = _frames(mean, variance, link, latent, rank, nodes)[0]
    if latent.mask.shape[-1] == 1:
        return Scores(frame, frame)
    if link is softmax:
        sums = _sums(mean, latent.mask), _sum_variances(latent.total, latent)
        return Scores(frame, _frames(*sums, link, latent, rank, nodes)[0])
    return Scores(frame, _videos(mean, latent.total, link, latent, rank, nodes)[0])


def latent_draw_scores(mean: Tensor, latent: Latent, link: Link, rank: Tensor) -> Scores:
    """The same around draws of the mean (draw, task, way, video, frame), one point for each."""
    z = _points(len(mean), mean[:1], mean.shape[-1], rank)[:, 0]
    deviation = deviation_of(latent.total.diagonal(dim1=-2, dim2=-1))
    frame = link_log_prob(mean + deviation * z, link, latent.way_mask)
    joint = mean + _spread(_factor(latent.total, latent.mask), z, latent.mask)
    running = running_log_prob(link_log_prob(joint, link, latent.way_mask), latent)
    return Scores(log_mean(frame).movedim(-3, -1), log_mean(running).movedim(-3, -1))


def predictive_of_draws(
    f: Tensor, latent: Latent, link: Link, rank: Tensor, scores: Scores | None = None
) -> Predictive:
    """Predictive from draws of the class functions at the query.

    Args:
        f: (draw, task, way, video, frame) draws of f + b, jointly over the frames of a video.
        latent: its `deviation` is integrated inside each draw.
        link: class probabilities given latent values.
        rank: (task, way) order in which classes take random numbers.
        scores: class probabilities, draws averaged out; None takes the average of the draws.
    """
    variance = latent.deviation.diagonal(dim1=-2, dim2=-1)
    frame = _frames(f, variance, link, latent, rank, INNER)
    if latent.mask.shape[-1] == 1:
        video = frame[..., 0, :]
    elif link is softmax:
        sums = _sums(f, latent.mask)[..., -1:], _sum_variances(latent.deviation, latent)[..., -1:]
        video = _frames(*sums, link, latent, rank, INNER)[..., 0, :]
    else:
        video = _videos(f, latent.deviation, link, latent, rank, INNER)[..., -1, :]
    if scores is None:
        return Predictive(
            equal_weights(log_mean(frame), frame), equal_weights(log_mean(video), video)
        )
    return Predictive(equal_weights(scores.frame, frame), equal_weights(scores.video, video))


def _sums(value: Tensor, mask: Tensor) -> Tensor:
    """(..., task, way, video, frame): sums over a video's frames so far."""
    return (value * mask[:, None].to(value)).cumsum(-1)


def _sum_variances(matrix: Tensor, latent: Latent) -> Tensor:
    """(task, way or 1, video, frame): variances of the sums of a video's frames so far."""
    pairs = (latent.mask[..., :, None] & latent.mask[..., None, :])[:, None]
    return (matrix * pairs).cumsum(-1).cumsum(-2).diagonal(dim1=-2, dim2=-1)


def _frames(
    mean: Tensor,  # (draw, task, way, video, frame)
    variance: Tensor,  # (task, way or 1, video, frame)
    link: Link,
    latent: Latent,
    rank: Tensor,
    nodes: int,
) -> Tensor:
    """(draw, task, video, frame, way) log E link(u), u ~ N(mean, variance) apart for each frame."""
    scale = deviation_of(variance)
    return _log_mean_over(
        _points(nodes, mean, 1, rank),
        mean,
        lambda z: link_log_prob(mean + scale * z, link, latent.way_mask),
    )


def _videos(
    mean: Tensor,  # (draw, task, way, video, frame)
    matrix: Tensor,  # (task, way or 1, video, frame, frame)
    link: Link,
    latent: Latent,
    rank: Tensor,
    nodes: int,
) -> Tensor:
    """(draw, task, video, frame, way) log E of growing videos, u ~ N(mean, matrix) jointly."""
    factor = _factor(matrix, latent.mask)

    def given(z: Tensor) -> Tensor:
        own = _spread(factor, z, latent.mask)
        return running_log_prob(link_log_prob(mean + own, link, latent.way_mask), latent)

    return _log_mean_over(_points(nodes, mean, mean.shape[-1], rank), mean, given)


def _log_mean_over(points: Tensor, mean: Tensor, given: Callable[[Tensor], Tensor]) -> Tensor:
    """Log of the mean over points (node, draw, ...) of exp given(point), some points at a time."""
    step = max(1, ELEMENTS // max(1, mean.numel()))
    parts = [given(part).logsumexp(0) for part in torch.split(points, step)]
    total = parts[0] if len(parts) == 1 else torch.stack(parts).logsumexp(0)
    return (total - log(len(points))).movedim(-3, -1)


def _factor(matrix: Tensor, mask: Tensor) -> Tensor:
    """R with R R' = matrix over existing frames, the frames' sum along R's first column.

    R = L H with L the Cholesky factor and H the reflection that takes e_1 to L' 1 / |L' 1|. What
    frames have in common is then integrated by the first, and best, direction of the points.
    """
    factor = cholesky(matrix, name="of a query video")
    if factor.shape[-1] == 1:
        return factor
    along = (factor * mask[:, None, :, :, None].to(factor)).sum(-2)
    along = along / torch.linalg.vector_norm(along, dim=-1, keepdim=True).clamp_min(1e-12)
    first = torch.zeros_like(along)
    first[..., 0] = 1.0
    # the sign for which the reflection's vector is never near zero
    v = first + torch.where(along[..., :1] >= 0, along, -along)
    v = v / torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    return torch.as_tensor(factor - 2.0 * (factor @ v[..., None]) * v[..., None, :])


def link_log_prob(u: Tensor, link: Link, way_mask: Tensor) -> Tensor:
    """(..., task, way, video, frame) log p(y | u); the classes stay where they are, for speed."""
    real = way_mask[..., None, None]
    return normalise(link(u, real, -3), real, -3)


def running_log_prob(log_prob: Tensor, latent: Latent) -> Tensor:
    """(..., task, way, video, frame): normalised product over a video's frames so far."""
    real = latent.way_mask[..., None, None]
    counted = torch.where(latent.mask[:, None] & real, log_prob, 0.0)
    return normalise(counted.cumsum(-1), real, -3)


def by_rank(z: Tensor, rank: Tensor) -> Tensor:
    """Deal numbers (draw, task, way, ...) out to classes by their rank (task, way)."""
    index = rank.reshape(1, *rank.shape, *[1] * (z.ndim - 3))
    return z.gather(2, index.expand(z.shape))


def _points(count: int, mean: Tensor, frames: int, rank: Tensor) -> Tensor:
    """(count, draw, task, way, 1, frame): Sobol points, the same for every video.

    Each draw of the mean (draw, task, way, ...) has a set of its own, so that what one set errs
    the others do not.
    """
    nodes = sobol_normal_nodes(count, rank.shape[1], frames, mean, sets=len(mean))
    dealt = by_rank(nodes.flatten(0, 1)[:, None].expand(-1, *rank.shape, -1), rank)
    return dealt.reshape(count, len(mean), *dealt.shape[1:])[..., None, :]


def sobol_normal_nodes(
    count: int, way: int, frame: int, like: Tensor, stream: int = 0, sets: int = 1
) -> Tensor:
    """(count, set, way, frame): standard normal points in antithetic pairs, Sobol over the classes.

    The entry of a class and frame depends on neither `way` nor `frame`, so that padding changes
    no result. Frames (and streams) are shuffled and shifted against each other. Sets follow one
    another in the Sobol sequence: each is spread evenly, and all of them together.
    """
    half = -(-count // 2)
    points = np.stack([_sobol(half, way, f, stream, sets) for f in range(frame)], -1)
    nodes = torch.from_numpy(points).to(like).reshape(sets, half, way, frame).movedim(0, 1)
    return torch.cat([nodes, -nodes])[:count]


@lru_cache(maxsize=256)
def _sobol(count: int, way: int, frame: int, stream: int, sets: int) -> NDArray[np.float64]:
    """(set x count, way) normal quantiles of a Sobol set, shuffled and shifted for this frame."""
    sobol = scipy.stats.qmc.Sobol(way, scramble=False)
    points = sobol.random_base2(max(0, (sets * count - 1).bit_length()))
    within = np.random.default_rng([stream, frame]).permutation(count)
    order = (np.arange(sets)[:, None] * count + within).ravel()
    shift = np.array([np.random.default_rng([stream, frame, w]).random() for w in range(way)])
    moved = (points[order] + shift) % 1
    return cast(NDArray[np.float64], ndtri(moved.clip(1e-9, 1 - 1e-9)))


def _spread(factor: Tensor, z: Tensor, mask: Tensor) -> Tensor:
    """L z for points z (..., task, way, 1, frame) that all videos share, as one matrix product."""
    own = torch.einsum(
        "...twi,twvji->...twvj", z[..., 0, :], factor.expand(*z.shape[-4:-2], *factor.shape[2:])
    )
    return own * mask[:, None].to(z)


def _apply(factor: Tensor, z: Tensor, mask: Tensor) -> Tensor:
    """L z over frames, zero where padded; factor (task, way or 1, video, frame, frame)."""
    return (factor @ z[..., None])[..., 0] * mask[:, None].to(z)
