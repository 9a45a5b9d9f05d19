"""What one more support video would say of a query: `labels_after_video`.

A new video v of class k, of condition q and n frames, has the mean frame

    v = o_q + r_q mu_k + eps,      eps ~ N(0, M),   M = V_q + F_q / n.

It is drawn from p(v | x, D), not from p(v | D): whoever asks about x holds an object that looks
like x, so that what they film next does, too. Draws are exact (Matheron's rule, as in
`bayesfs.models.gaussian.labels`): y* from p(y | x, D), a pair (mu, x~) from the posterior with x~
of class y*, then

    mu_k <- mu_k + r Cov(mu_k, mu_y*) T^-1 (x - x~),      T = r^2 Cov mu_y* + N,

and v about it. Given v, with d = v - o_q - r_q E mu_k and S = r_q^2 Cov mu_k + M, every class is

    mu_j | v, D ~ N(E mu_j + G_j d, Cov mu_j - r_q G_j Cov(mu_k, mu_j)),
    G_j = r_q Cov(mu_j, mu_k) S^-1,

from which p(y | x, D, v) follows in closed form. Covariances do not depend on what v shows, so that
all draws and queries of a task share them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesfs._distributions.noise import Noise
from bayesfs.models.gaussian.conjugate import ClassPosterior, Levels, condition_classes
from bayesfs.models.gaussian.covariance import Operator, Points
from bayesfs.models.gaussian.labels import (
    Queries,
    frame_queries,
    log_labels_of,
    taught_prior,
    video_queries,
)
from bayesfs.types import EpisodeBatch


@dataclass(frozen=True)
class NewVideo:
    """What is filmed: its condition q, and the covariance of its mean frame about o_q + r_q mu."""

    offset: Tensor
    loading: Tensor
    noise: Operator

    @classmethod
    def of(cls, levels: Levels, condition: int, frames: int) -> NewVideo:
        """A video of `frames` frames of typical quality."""
        noise = levels.video[condition] + levels.frame[condition].scaled(1.0 / frames)
        return cls(levels.offset[condition], levels.loading[condition], noise)


def labels_after_video(
    episodes: EpisodeBatch,
    levels: Levels,
    *,
    condition: int,
    frames: int,
    draws: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Label laws of every query after one more video of each class, drawn given query and support.

    Args:
        episodes: T tasks.
        levels: population parameters of one draw.
        condition: of the new video.
        frames: its number of frames.
        draws: simulated videos of each class for each query.
        seed: of the draws.

    Returns:
        log p(y | x, D, v): (draw, task, video, frame, new, way) of frames and
        (draw, task, video, new, way) of videos, with `new` the class that is filmed.
    """
    noise = Noise.of(episodes, seed)
    post, prior = condition_classes(episodes, levels), taught_prior(episodes)
    video = NewVideo.of(levels, condition, frames)
    base = post.sample(draws, noise)[1] - post.mean
    shape = episodes.query.shape[:3]

    def after(queries: Queries) -> Tensor:
        return _after(post, base, levels, queries, prior, video, noise)

    frame = after(frame_queries(episodes, levels))
    return frame.reshape(draws, *shape, *frame.shape[3:]), after(video_queries(episodes, levels))


def _after(
    post: ClassPosterior,
    base: Tensor,  # (draw, task, way, feature) mu - E mu
    levels: Levels,
    queries: Queries,
    prior: Tensor,  # (task, way)
    video: NewVideo,
    noise: Noise,
) -> Tensor:
    """(draw, task, query, new, way) log p(y | x, D, v)."""
    law = log_labels_of(post, levels, queries, prior)
    parts = asked_together(post, base, levels, queries, law, noise)
    film = video.noise.colour(noise.normal(len(base), "way", base.shape[-1:], base))
    out = law[:, :, None].expand(*law.shape[:2], law.shape[-1], law.shape[-1])
    out = out.repeat(len(base), 1, 1, 1, 1)
    for columns, mask, asked, pull in parts:
        logits = torch.stack(
            [
                logits_after(post, asked, video, new, pull(new), film[:, :, new])
                for new in range(base.shape[2])
            ],
            -2,
        )
        value = (logits + prior[:, None, None]).log_softmax(-1)
        out[:, :, columns] = torch.where(mask[..., None, None], value, out[:, :, columns])
    return out


@dataclass(frozen=True)
class Asked:
    """Queries that share condition and noise.

    Attributes:
        x: (task, query, feature) less the offset.
        loading: r.
        noise: N, no batch axes.
    """

    x: Tensor
    loading: Tensor
    noise: Operator


Pull = Callable[[int], Tensor]
"""Class -> (draw, task, query, feature) mu - E mu of it, given query, y* and support."""


def asked_together(
    post: ClassPosterior,
    base: Tensor,  # (draw, task, way, feature) mu - E mu
    levels: Levels,
    queries: Queries,
    law: Tensor,  # (1, task, query, way) log p(y | x, D)
    noise: Noise,
) -> Iterator[tuple[Tensor, Tensor, Asked, Pull]]:
    """Columns, mask and queries that share condition and noise, with draws of the class means.

    The draws of y* and of the queries' noise are made at once, those of a group when it is taken.
    """
    chosen = noise.classes(law.exp(), len(base))
    white = noise.normal(len(base), "task", base.shape[-1:], base)

    def of(q: int, n: float, columns: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Asked, Pull]:
        spread = levels.video[q] + levels.frame[q].scaled(1.0 / n)
        asked = Asked(queries.x[:, columns] - levels.offset[q], levels.loading[q], spread)
        return columns, mask, asked, _pull(post, base, asked, chosen[:, :, columns], white)

    return (of(*group[:4]) for group in queries.graded(levels).groups)


def _pull(
    post: ClassPosterior,
    base: Tensor,
    asked: Asked,
    chosen: Tensor,  # (draw, task, query) class y* of each draw
    white: Tensor,  # (draw, task, feature)
) -> Pull:
    r = asked.loading
    spread, cov = asked.noise.colour(white), post.cov()
    steps = []
    for way in range(base.shape[2]):
        total = (cov[:, way].scaled(r**2) + asked.noise).inverse().expand_axis(1)
        shown = asked.x - r * post.mean[:, way, None]
        simulated = r * base[:, :, way] + spread
        steps.append(r * total.apply(shown - simulated[:, :, None]))
    own = _picked(steps, chosen)
    shared = post.task_cov.expand_axis(1).apply(
        _picked([post.gain[:, k].transposed().expand_axis(1).apply(s) for k, s in enumerate(steps)],
                chosen)
    )  # fmt: skip

    def of(new: int) -> Tensor:
        through_task = post.gain[:, new].expand_axis(1).apply(shared)
        itself = post.given_task[:, new].expand_axis(1).apply(own)
        return base[:, :, new, None] + through_task + (chosen == new)[..., None] * itself

    return of


def _picked(values: list[Tensor], chosen: Tensor) -> Tensor:
    """The value of the class that each draw chose; values are (draw, task, query, feature)."""
    out = values[0]
    for way, value in enumerate(values[1:], start=1):
        out = torch.where((chosen == way)[..., None], value, out)
    return out


def logits_after(
    post: ClassPosterior,
    asked: Asked,
    video: NewVideo,
    new: int,
    moved: Tensor,  # (draw, task, query, feature) mu_new - E mu_new
    film: Tensor,  # (draw, task, feature) eps of the new video
) -> Tensor:
    """(draw, task, query, way) log N(x; r E[mu_j | v], r^2 Cov[mu_j | v] + N), up to a constant.

    With e_j = x - r E mu_j and g_j = r G_j d, the square (e_j - g_j)' P_j (e_j - g_j) is expanded,
    so that no tensor has draws, queries, classes and features at once.
    """
    r, cross = asked.loading, post.cross(new)
    total = (cross[:, new].scaled(video.loading**2) + video.noise).inverse()
    gain = (cross @ total.expand_axis(1)).scaled(video.loading)
    cov = post.cov() - (gain @ cross.transposed()).scaled(video.loading)
    spread = cov.scaled(r**2) + asked.noise
    precision = spread.inverse()
    d = video.loading * moved + film[:, :, None]
    e = asked.x[:, None] - r * post.mean[:, :, None]  # (task, way, query, feature)
    pe = precision.expand_axis(2).apply(e)
    pulled = gain.transposed().expand_axis(2).apply(pe)
    linear = r * torch.einsum("twqd,stqd->stqw", pulled, d)
    square = (gain.transposed() @ precision @ gain).scaled(r**2).squares(Points(d))
    constant = (e * pe).sum(-1).mT + spread.logdet()[:, None]
    return linear - 0.5 * (square + constant)
