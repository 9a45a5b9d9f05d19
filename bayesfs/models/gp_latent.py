"""Class probabilities of query frames and videos by integrating a link over latent values.

    frame    p(y | x, D) = E_f E_r  link(f + r)
    video    p(y | x_1..x_F, D) = E_f E_r  normalised prod_i link(f_i + r_i)

with f the class functions (epistemic; the draws of a Predictive) and r the query's own video and
frame deviations (aleatoric; integrated inside each draw). Given f and r the frames of a video are
independent glimpses of one label, and what they have in common is in r.

`FittedGaussian` serves every likelihood whose approximation is a Gaussian per class (Dirichlet,
mean-field one-vs-each, logistic-softmax, softmax). Integrals use antithetic Sobol points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import qmc
from torch import Tensor

from bayesfs.models.gp_gaussian import Conditioned, Latent, root
from bayesfs.models.gp_likelihood import Scores, equal_weights, normalise
from bayesfs.models.gp_linalg import cholesky
from bayesfs.models.gp_links import Link
from bayesfs.models.gp_mixture import log_mean
from bayesfs.models.gp_points import Query
from bayesfs.noise import Noise
from bayesfs.types import LabelDraws, Predictive

NODES = 32
"""Points of the integral over all latent values in `scores`."""

INNER = 8
"""Points of the integral over the query's own deviations inside a draw."""


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

    def scores(self, query: Query) -> Scores:
        """Class probabilities by quadrature; differentiable, the same at every call."""
        return latent_scores(self.conditioned.latent(query), self.link, self.rank)

    def predictive(self, query: Query, draws: int, noise: Noise) -> Predictive:
        """Class probabilities as the mean over draws of f."""
        latent = self.conditioned.latent(query)
        f = latent.mean + query_noise(latent, draws, noise)
        return predictive_of_draws(f, latent, self.link, self.rank)

    def function(self, draws: int, noise: Noise) -> Tensor:
        """(draw, task, way, n): draws of f + b at the support points."""
        return self.conditioned.drawn(draws, noise)


def query_noise(latent: Latent, draws: int, noise: Noise) -> Tensor:
    """(draw, task, way, video, frame) of N(0, signal), from numbers that all videos share."""
    z = noise.normal(draws, "way", (latent.mean.shape[-1],), latent.mean)[:, :, :, None]
    return _apply(root(latent.signal), z, latent.mask)


def latent_scores(latent: Latent, link: Link, rank: Tensor) -> Scores:
    """Class probabilities of frames and growing videos, over all latent values at once."""
    mean = latent.mean.expand(NODES, *latent.mean.shape)
    return latent_draw_scores(mean, latent, link, rank)


def latent_draw_scores(mean: Tensor, latent: Latent, link: Link, rank: Tensor) -> Scores:
    """The same around draws of the mean (draw, task, way, video, frame), one point for each."""
    z = _nodes_like(mean, rank)
    deviation = latent.total.diagonal(dim1=-2, dim2=-1).sqrt()
    frame = link_log_prob(mean + deviation * z, link, latent.way_mask)
    joint = mean + _apply(cholesky(latent.total, name="of a query video"), z, latent.mask)
    running = running_log_prob(link_log_prob(joint, link, latent.way_mask), latent)
    return Scores(log_mean(frame), log_mean(running))


def predictive_of_draws(f: Tensor, latent: Latent, link: Link, rank: Tensor) -> Predictive:
    """Predictive from draws of the class functions at the query.

    Args:
        f: (draw, task, way, video, frame) draws of f + b, jointly over the frames of a video.
        latent: its `deviation` is integrated inside each draw.
        link: class probabilities given latent values.
        rank: (task, way) order in which classes take random numbers.
    """
    z = _nodes_like(f[:1].expand(INNER, *f.shape[1:]), rank)
    own = _apply(cholesky(latent.deviation, name="of a query video"), z, latent.mask)
    frames, videos = [], []
    for r in own:
        each = link_log_prob(f + r, link, latent.way_mask)
        frames.append(each)
        videos.append(running_log_prob(each, latent)[..., -1, :])
    return Predictive(_averaged(frames), _averaged(videos))


def link_log_prob(u: Tensor, link: Link, way_mask: Tensor) -> Tensor:
    """(..., task, way, video, frame) -> (..., task, video, frame, way) log p(y | u)."""
    real = way_mask[:, None, None]
    return normalise(link(u.movedim(-3, -1), real), real)


def running_log_prob(log_prob: Tensor, latent: Latent) -> Tensor:
    """(..., task, video, frame, way): normalised product over a video's frames so far."""
    real = latent.way_mask[:, None, None]
    counted = torch.where(latent.mask[..., None] & real, log_prob, 0.0)
    return normalise(counted.cumsum(-2), real)


def by_rank(z: Tensor, rank: Tensor) -> Tensor:
    """Deal numbers (draw, task, way, ...) out to classes by their rank (task, way)."""
    index = rank.reshape(1, *rank.shape, *[1] * (z.ndim - 3))
    return z.gather(2, index.expand(z.shape))


def _nodes_like(mean: Tensor, rank: Tensor) -> Tensor:
    """Sobol points of the shape of mean (draw, task, way, video, frame), the same per video."""
    nodes = normal_nodes(len(mean), mean.shape[2], mean.shape[-1], mean)
    return by_rank(nodes[:, None, :, None].expand(mean.shape), rank)


def normal_nodes(count: int, way: int, frame: int, like: Tensor, stream: int = 0) -> Tensor:
    """(count, way, frame): standard normal points in antithetic pairs, Sobol over the classes.

    The entry of a class and frame depends on neither `way` nor `frame`, so that padding changes
    no result. Frames (and streams) are shuffled and shifted against each other.
    """
    half = np.stack([_sobol(-(-count // 2), way, f, stream) for f in range(frame)], -1)
    nodes = torch.from_numpy(half).to(like)
    return torch.cat([nodes, -nodes])[:count]


@lru_cache(maxsize=4096)
def _sobol(count: int, way: int, frame: int, stream: int) -> NDArray[np.float64]:
    """(count, way) normal quantiles of a Sobol set, shuffled and shifted for this frame."""
    points = qmc.Sobol(way, scramble=False).random_base2(max(0, (count - 1).bit_length()))
    order = np.random.default_rng([stream, frame]).permutation(len(points))[:count]
    shift = np.array([np.random.default_rng([stream, frame, w]).random() for w in range(way)])
    moved = (points[order] + shift) % 1
    return cast(NDArray[np.float64], ndtri(moved.clip(1e-9, 1 - 1e-9)))


def _apply(factor: Tensor, z: Tensor, mask: Tensor) -> Tensor:
    """L z over frames, zero where padded; factor (task, way or 1, video, frame, frame)."""
    return (factor @ z[..., None])[..., 0] * mask[:, None].to(z)


def _averaged(log_prob: list[Tensor]) -> LabelDraws:
    given = log_mean(torch.stack(log_prob))
    return equal_weights(log_mean(given), given)
