"""What several support videos, of several classes, would say of a query: `labels_after_round`.

A round has n_kq further videos of each class k in each condition q. What they tell of mu_k is

    h'_k = sum_q n_kq r_q M_q^-1 (vbar_kq - o_q) = P'_k mu_k + eps,   eps ~ N(0, P'_k),
    P'_k = sum_q n_kq r_q^2 M_q^-1,     M = V + F / n,

whatever their number. As in `bayesfs.models.gaussian.further_video`, they are drawn from
p(v | x, D): y* from p(y | x, D), all class means from their posterior given a query of class y*,
and h' about these. Given h' the class means are Gaussian again (`told_more`), with covariances that
all draws and queries share, and p(y | x, D, v) follows in closed form.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesfs._distributions.noise import Noise
from bayesfs.models.gaussian.conjugate import (
    ClassPosterior,
    Levels,
    condition_classes,
    log_normal_each,
    told_more,
)
from bayesfs.models.gaussian.covariance import Operator
from bayesfs.models.gaussian.further_video import Asked, NewVideo, Pull, asked_together
from bayesfs.models.gaussian.labels import (
    Queries,
    frame_queries,
    log_labels_of,
    taught_prior,
    video_queries,
)
from bayesfs.types import CONDITIONS, EpisodeBatch


def labels_after_round(
    episodes: EpisodeBatch,
    levels: Levels,
    *,
    count: Tensor,
    frames: int,
    draws: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Label laws of every query after a round of further videos, drawn given query and support.

    Args:
        episodes: T tasks.
        levels: population parameters of one draw.
        count: (task, way, condition) further videos; those of classes that do not exist are none.
        frames: number of frames of each.
        draws: simulated rounds for each query.
        seed: of the draws.

    Returns:
        log p(y | x, D, v): (draw, task, video, frame, way) of frames and (draw, task, video, way)
        of videos.
    """
    parts = [
        _one_task(episodes.select([t]), levels.of_task(t), count[[t]], frames, draws, seed)
        for t in range(len(episodes))
    ]
    frame, video = (torch.cat(part, 1) for part in zip(*parts, strict=True))
    return frame, video


def _one_task(
    episodes: EpisodeBatch, levels: Levels, count: Tensor, frames: int, draws: int, seed: int
) -> tuple[Tensor, Tensor]:
    """The same for a batch of one task, which bounds memory: all draws of its queries are held."""
    noise = Noise.of(episodes, seed)
    post, prior = condition_classes(episodes, levels), taught_prior(episodes)
    base = post.sample(draws, noise)[1] - post.mean
    told = (count * episodes.way_mask[..., None]).to(base)
    precision, scatter = _informs(levels, told, frames, noise, base)
    shape = episodes.query.shape[:3]

    def after(queries: Queries) -> Tensor:
        return _after(post, base, levels, queries, prior, (precision, scatter), noise)

    frame = after(frame_queries(episodes, levels))
    return frame.reshape(draws, *shape, -1), after(video_queries(episodes, levels))


def _informs(
    levels: Levels, count: Tensor, frames: int, noise: Noise, base: Tensor
) -> tuple[Operator, Tensor]:
    """(task, way) P' of a round, and (draw, task, way, feature) eps ~ N(0, P')."""
    parts = []
    for q in range(len(CONDITIONS)):
        video = NewVideo.of(levels, q, frames)
        precision, r = video.noise.inverse(), video.loading
        white = noise.normal(len(base), "way", base.shape[-1:], base)
        eps = precision.apply(video.noise.colour(white))
        number = count[..., q]
        parts.append(
            (
                precision.expand_axis(0).expand_axis(0).scaled(number * r**2),
                r * number.sqrt()[..., None] * eps,
            )
        )
    total, eps = parts[0]
    for more, spread in parts[1:]:
        total, eps = total + more, eps + spread
    return total, eps


def _after(
    post: ClassPosterior,
    base: Tensor,  # (draw, task, way, feature) mu - E mu
    levels: Levels,
    queries: Queries,
    prior: Tensor,  # (task, way)
    told: tuple[Operator, Tensor],
    noise: Noise,
) -> Tensor:
    """(draw, task, query, way) log p(y | x, D, v)."""
    law = log_labels_of(post, levels, queries, prior)
    out = law.repeat(len(base), 1, 1, 1)
    for columns, mask, asked, pull in asked_together(post, base, levels, queries, law, noise):
        logits = logits_after_round(post, levels, asked, pull, told)
        value = (logits + prior[:, None]).log_softmax(-1)
        out[:, :, columns] = torch.where(mask[..., None], value, out[:, :, columns])
    return out


def logits_after_round(
    post: ClassPosterior,
    levels: Levels,
    asked: Asked,
    pull: Pull,
    told: tuple[Operator, Tensor],
) -> Tensor:
    """(draw, task, query, way) log N(x; r E[mu | v], r^2 Cov[mu | v] + N), up to a constant."""
    precision, eps = told
    centre = post.mean if levels.centre is None else post.mean - levels.centre
    moved = torch.stack([pull(way) for way in range(eps.shape[2])], -2)
    spread = asked.noise
    found = []
    for one, film in zip(moved, eps, strict=True):  # a draw at a time to bound memory
        means = (centre[:, None] + one).movedim(1, 0)  # (query, task, way, feature)
        after = told_more(post, precision, precision.apply(means) + film, levels)
        cov = after.cov().scaled(asked.loading**2) + spread
        mean = asked.loading * after.mean.movedim(0, 1)
        found.append(log_normal_each(asked.x, mean, cov.expand_axis(1)))
    return torch.stack(found)
