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
from collections.abc import Sequence

import torch
from torch import Tensor

from bayesfs.models.conjugate import (
    ClassPosterior,
    Levels,
    condition_classes,
    groups,
    log_normal,
    normal,
    video_means,
)
from bayesfs.models.covariance import Operator
from bayesfs.types import EpisodeBatch, LabelDraws, Predictive

Queries = tuple[Tensor, Tensor, Tensor]
"""(x, kind, count): (task, query, feature), (task, query), (task, query)."""


def frame_queries(episodes: EpisodeBatch) -> Queries:
    """Every query frame as a query of its own."""
    frames = episodes.query.shape[2]
    x = episodes.query.flatten(1, 2)
    kind = episodes.query_kind.repeat_interleave(frames, 1)
    return x, kind, episodes.query_mask.flatten(1, 2).to(x)


def video_queries(episodes: EpisodeBatch) -> Queries:
    """Every query video as its mean frame, which is sufficient for the class."""
    x, count = video_means(episodes.query, episodes.query_mask)
    return x, episodes.query_kind, count


def joint_log_density(queries: Queries, means: Tensor, levels: Levels) -> Tensor:
    """(task, query, way) log N(x; o + r mu_k, V + F / count) for given mu."""
    x, kind, count = queries
    out = x.new_zeros(*x.shape[:2], means.shape[1])
    for q, n, columns, mask in groups(kind, count):
        noise = _noise(levels, q, n).expand_axis(0).expand_axis(0)
        value = log_normal(x[:, columns] - levels.offset[q], levels.loading[q] * means, noise)
        out = _place(out, columns, mask, value)
    return out


def closed_form(episodes: EpisodeBatch, levels: Levels) -> tuple[Tensor, Tensor]:
    """Exact log p(y | x, D): (task, video, frame, way) and (task, video, way), in nats."""
    post = condition_classes(episodes, levels)
    exists = episodes.way_mask
    frame = _log_labels(post, levels, frame_queries(episodes), exists)
    video = _log_labels(post, levels, video_queries(episodes), exists)
    return frame.reshape(*episodes.query.shape[:3], -1), video


def mixture_predictive(
    episodes: EpisodeBatch, values: Sequence[Levels], *, draws: int, seed: int
) -> Predictive:
    """Predictive over population draws of equal weight: the support does not reweight them.

    Args:
        episodes: T tasks.
        values: population parameters of each draw.
        draws: draws of the class means for each population draw.
        seed: of the draws.
    """
    noise = torch.Generator().manual_seed(seed)
    frames, videos = [], []
    for levels in values:
        post = condition_classes(episodes, levels)
        base = post.sample(draws, noise)[1]
        frames.append(_label_draws(post, base, levels, frame_queries(episodes), episodes, noise))
        videos.append(_label_draws(post, base, levels, video_queries(episodes), episodes, noise))
    shape = episodes.query.shape[:3]
    frame, video = _mix(frames), _mix(videos)
    return Predictive(
        frame=LabelDraws(
            frame.log_prob.reshape(*shape, -1),
            frame.log_prob_given.reshape(-1, *shape, episodes.way),
            frame.log_weight.reshape(-1, *shape),
        ),
        video=video,
    )


def _mix(parts: Sequence[LabelDraws]) -> LabelDraws:
    log_prob = torch.stack([p.log_prob for p in parts]).logsumexp(0) - math.log(len(parts))
    return LabelDraws(
        log_prob,
        torch.cat([p.log_prob_given for p in parts]),
        torch.cat([p.log_weight for p in parts]) - math.log(len(parts)),
    )


def _log_labels(post: ClassPosterior, levels: Levels, queries: Queries, exists: Tensor) -> Tensor:
    """(task, query, way) exact log p(y | x, D)."""
    x, kind, count = queries
    mean, cov = post.mean, post.cov()
    out = x.new_zeros(*x.shape[:2], mean.shape[1])
    for q, n, columns, mask in groups(kind, count):
        loading = levels.loading[q]
        total = cov.scaled(loading**2) + _noise(levels, q, n)
        value = log_normal(x[:, columns] - levels.offset[q], loading * mean, total)
        out = _place(out, columns, mask, value)
    return out.masked_fill(~exists[:, None], -torch.inf).log_softmax(-1)


def _label_draws(
    post: ClassPosterior,
    base: Tensor,  # (draw, task, way, feature) draws of p(mu | D)
    levels: Levels,
    queries: Queries,
    episodes: EpisodeBatch,
    noise: torch.Generator,
) -> LabelDraws:
    """Exact predictive of each query, and label distributions of draws from p(mu | x, D)."""
    x, kind, count = queries
    exists = episodes.way_mask
    log_prob = _log_labels(post, levels, queries, exists)
    chosen = _systematic(log_prob.exp(), len(base), noise)
    logits = x.new_zeros(len(base), *log_prob.shape)
    for q, n, columns, mask in groups(kind, count):
        value = _conditioned_logits(
            post, base, levels, q, n, x[:, columns], chosen[:, :, columns], noise
        )
        logits[:, :, columns] = torch.where(mask[..., None], value, logits[:, :, columns])
    given = logits.masked_fill(~exists[:, None], -torch.inf).log_softmax(-1)
    weight = logits.new_full(given.shape[:-1], -math.log(len(base)))
    return LabelDraws(log_prob, given, weight)


def _conditioned_logits(
    post: ClassPosterior,
    base: Tensor,
    levels: Levels,
    q: int,
    n: float,
    x: Tensor,
    chosen: Tensor,  # (draw, task, query) class y* of each draw
    noise: torch.Generator,
) -> Tensor:
    """(draw, task, query, way) log N(x; o + r mu_j, N), mu from p(mu | x, y*, D), up to a constant.

    The residual x - o - r mu_j is G_j (x - o) - u_j with G_j = I - r^2 Cov(mu_j, mu_y*) T^-1,
    u_j = r mu_j - r^2 Cov(mu_j, mu_y*) T^-1 (x~ - o) and T = r^2 Cov mu_y* + N, so that all
    queries and draws of a task are one matrix product.
    """
    x = x - levels.offset[q]
    r, cov_noise = levels.loading[q], _noise(levels, q, n)
    precision = cov_noise.inverse()
    eps = cov_noise.colour(normal(tuple(base[:, :, 0].shape), base, noise))
    out = x.new_zeros(*chosen.shape, base.shape[2])
    for way in range(base.shape[2]):
        here = chosen == way
        if not here.any():
            continue
        cross = post.cross(way).scaled(r**2)
        total = (cross[:, way] + cov_noise).inverse()
        update = cross @ total.expand_axis(1)
        simulated = r * base[:, :, way] + eps
        u = r * base - update.apply(simulated[:, :, None])
        gx = x[:, None] - update.expand_axis(2).apply(x[:, None])
        value = _residual(gx, u, precision)
        out = torch.where(here[..., None], value, out)
    return out


def _residual(gx: Tensor, u: Tensor, precision: Operator) -> Tensor:
    """-1/2 (gx - u)' P (gx - u) as (draw, task, query, way).

    Args:
        gx: (task, way, query, feature).
        u: (draw, task, way, feature).
        precision: no batch axes.
    """
    left, right = precision.apply(gx), precision.apply(u)
    cross = torch.einsum("twqd,stwd->stqw", left, u)
    own = (gx * left).sum(-1).mT
    return cross - 0.5 * (own + (u * right).sum(-1)[:, :, None])


def _systematic(prob: Tensor, draws: int, noise: torch.Generator) -> Tensor:
    """(draw, task, query) classes drawn with the given probabilities, evenly spread over draws."""
    start = torch.rand(prob.shape[:-1], generator=noise, dtype=prob.dtype).to(prob.device)
    order = torch.randperm(draws, generator=noise).to(prob)
    points = (order.reshape(-1, *[1] * start.ndim) + start) / draws
    edges = prob.cumsum(-1)
    chosen = (points[..., None] > edges[..., :-1]).sum(-1)
    last = prob.shape[-1] - 1 - (prob.flip(-1) > 0).to(torch.long).argmax(-1)
    return torch.minimum(chosen, last)


def _noise(levels: Levels, q: int, n: float) -> Operator:
    return levels.video[q] + levels.frame[q].scaled(1.0 / n)


def _place(out: Tensor, columns: Tensor, mask: Tensor, value: Tensor) -> Tensor:
    """`out` with `value` at the group's queries; out of place, so that gradients flow."""
    keep = torch.where(mask[..., None], value, out[:, columns])
    return out.index_copy(1, columns, keep)
