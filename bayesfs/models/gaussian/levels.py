"""Label entropy as each level of the Gaussian hierarchy becomes known: `level_entropies`.

With the population phi, task effect a, class means mu and the query's video effect b, the chain
rule of mutual information splits the entropy of the label y of a query x, given support D,

    H[y | x, D] = I(y; phi) + I(y; a | phi) + I(y; mu | phi, a) + I(y; b | phi, a, mu)
                  + H[y | x, phi, a, mu, b],

everything given x and D. Each term is the fall of an expected entropy when one more level is known:

    H0 = H[p(y | x, D)]                     H1 = E H[p(y | x, D, phi)]
    H2 = E H[p(y | x, D, phi, a)]           H3 = E H[p(y | x, phi, mu)]
    H4 = E H[p(y | x, phi, mu, b)].

H0 = - E sum_y p(y | x, D, phi) log p(y | x, D) and H1 are closed forms at each phi. For the others
a, mu and b are drawn from their posterior given the query too: draw y* from p(y | x, D, phi), a
prior pair (latents, x~) with x~ of class y*, and add Cov(latent, x) Cov(x)^-1 (x - x~) (Matheron's
rule); given a draw, the label law is Gaussian again.

Where classes are shared by name, phi is the scales theta and the shared effects s. With K draws of
s for each theta and their mean p_K, E H[p_K] - H1 falls short of I(y; s | x, D, theta) by a K-th in
second order, as the variance of a mean of K does, so that

    H_theta = H1 + K / (K - 1) (E H[p_K] - H1)

stands between H0 and H1.

Source: the chain rule, Cover and Thomas (2006), theorem 2.5.2; for the draws see
`bayesfs.models.gaussian.labels`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bayesfs._distributions.categorical import cross_entropy, entropy
from bayesfs._distributions.noise import Noise
from bayesfs.models.gaussian.conjugate import (
    ClassPosterior,
    Levels,
    condition_classes,
    log_normal_by_precision,
    video_noise,
)
from bayesfs.models.gaussian.covariance import Operator
from bayesfs.models.gaussian.labels import (
    Queries,
    frame_queries,
    log_labels_of,
    several,
    taught_prior,
    video_queries,
)
from bayesfs.types import EpisodeBatch

STAGES = ("data", "population", "task", "class", "video")
"""What is known at each stage, besides all before it."""


def level_entropies(
    episodes: EpisodeBatch, values: Sequence[Levels], *, draws: int, seed: int, alike: int = 1
) -> tuple[Tensor, Tensor]:
    """What each draw adds to the entropies H0 to H4 of frames and of videos, in nats.

    Args:
        episodes: T tasks.
        values: population parameters of each population draw.
        draws: draws of the latents for each of them.
        seed: of the draws.
        alike: so many values after each other have the same scales, and differ in what names share.

    Returns:
        For frames (stage, population draw, draw, task, video, frame) and for videos (stage,
        population draw, draw, task, video), in the order of `STAGES`; H is their mean over draws.
        The first two stages are the same at all draws of the latents. Values that are alike count
        as one population draw, with H_theta as a stage after the first.
    """
    shape = episodes.query.shape[:3]
    frames, videos = [], []
    for t in range(len(episodes)):
        task = episodes.select([t])
        noise, own = Noise.of(task, seed), [levels.of_task(t) for levels in values]
        frames.append(_one_task(task, own, frame_queries, draws, noise, alike))
        videos.append(_one_task(task, own, video_queries, draws, noise, alike))
    by_frame, by_video = torch.cat(frames, 3), torch.cat(videos, 3)
    return by_frame.reshape(*by_frame.shape[:3], *shape), by_video


def _one_task(
    task: EpisodeBatch,
    values: Sequence[Levels],
    queries_of: Callable[[EpisodeBatch, Levels], Queries],
    draws: int,
    noise: Noise,
    alike: int,
) -> Tensor:
    """(stage, population draw, draw, 1, query) entropies of one task."""
    prior = taught_prior(task)
    log_probs, sampled = [], []
    for levels in several(values, draws * queries_of(task, values[0]).x.numel() * task.way):
        post, queries = condition_classes(task, levels), queries_of(task, levels)
        log_prob = log_labels_of(post, levels, queries, prior)
        log_probs.append(log_prob)
        sampled.append(_sampled(post, levels, queries, prior, log_prob, draws, noise))
    by_value = torch.cat(log_probs)[:, None]  # (population draw, task, query, way)
    latent = torch.cat(sampled, 2).transpose(1, 2)[..., None, :]  # (stage, draw, ..., query)
    exact = torch.stack([cross_entropy(by_value), entropy(by_value)])
    found = torch.cat([exact[:, :, None].expand(-1, -1, draws, -1, -1), latent])
    if alike == 1:
        return found
    found = found.reshape(len(found), -1, alike, *found.shape[2:]).mean(2)
    mixed = by_value.reshape(-1, alike, *by_value.shape[1:]).logsumexp(1) - math.log(alike)
    own = alike / (alike - 1) * (entropy(mixed)[:, None] - found[1])
    return torch.cat([found[:1], (found[1] + own)[None], found[1:]])


def _sampled(
    post: ClassPosterior,
    levels: Levels,
    queries: Queries,
    prior: Tensor,
    log_prob: Tensor,
    draws: int,
    noise: Noise,
) -> Tensor:
    """(stage, draw, population draw, query) entropies given a; given mu; given mu and b.

    Population draws are tasks of `post` and of `levels`; the queries are those of one task.
    """
    x, there = queries.x, (queries.frames > 0)[..., None]
    condition, count = _alike(queries)
    at = levels.at(condition)
    r, cov = levels.loading[at], post.cov()
    z, law = x - levels.offset[at], video_noise(levels, condition, count)
    chosen, white = _white(log_prob, draws, noise, x)
    task, mean = post.coloured(*white[:2])
    own = _of_class(mean, chosen)
    eps = law.colour(white[2][:, :, None])
    total = cov.expand_axis(1).scaled((r**2)[..., None]) + law.expand_axis(2)
    pulled = _chosen_query(total.inverse(), chosen, count.shape[1]).apply(
        z - r[..., None] * own - eps
    )
    shift = r[..., None] * _chosen(_task_cross(post), chosen).apply(pulled)
    effect = task[:, :, None] + shift
    centres = (
        r[..., None, None]
        * (post.gain.expand_axis(1).apply(effect[..., None, :]) + post.pull[:, None]),
        r[..., None, None] * _class_means(post, mean, chosen, shift, r[..., None] * pulled),
    )
    rest = z - _of_way(centres[1], chosen)
    frame = levels.frame[at].scaled(torch.where(count > 0, count, 1.0).reciprocal())
    left = (levels.video[at].inverse() + frame.inverse()).inverse()
    video = left.apply(frame.inverse().apply(rest)) + left.colour(white[3][:, :, None])
    given_task = post.given_task.expand_axis(1).scaled((r**2)[..., None]) + law.expand_axis(2)
    logits = (
        _logits(z, centres[0], given_task),
        _logits(z, centres[1], law.expand_axis(2)),
        _logits(z, centres[1] + video[..., None, :], frame.expand_axis(2)),
    )
    return torch.stack([entropy((v * there + prior[:, None]).log_softmax(-1)) for v in logits])


def _white(
    log_prob: Tensor, draws: int, noise: Noise, x: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Classes y* (draw, population draw, query), and standard normal numbers, value by value.

    The numbers are those of a, mu, the frame and b: (draw, population draw[, way], feature).
    """
    chosen, white = [], []
    for one in log_prob.exp()[:, None]:
        chosen.append(noise.classes(one, draws))
        white.append(noise.normals(draws, ["task", "way", "task", "task"], x.shape[-1:], x))
    return torch.cat(chosen, 1), tuple(torch.cat(each, 1) for each in zip(*white, strict=True))


def _alike(queries: Queries) -> tuple[Tensor, Tensor]:
    """(task, query) condition and frames, or (task, 1) where all queries have the same noise."""
    condition, count = queries.condition, queries.frames
    real = count > 0
    kinds = torch.stack([condition[real].to(count), count[real]], -1).unique(dim=0)  # type: ignore[no-untyped-call]
    if len(kinds) != 1:
        return condition, count
    one = len(condition), 1
    return kinds[0, 0].to(condition).expand(one), kinds[0, 1].expand(one)


def _logits(z: Tensor, centre: Tensor, cov: Operator) -> Tensor:
    """(draw, task, query, way) log densities, a draw at a time to bound memory."""
    precision, logdet = cov.inverse(), cov.logdet()
    return torch.stack([log_normal_by_precision(z, c, precision, logdet) for c in centre])


def _class_means(
    post: ClassPosterior, mean: Tensor, chosen: Tensor, shift: Tensor, pulled: Tensor
) -> Tensor:
    """(draw, task, query, way, feature) draws of mu given x: all classes move through a, one by x.

    Args:
        post: given the support.
        mean: (draw, task, way, feature) draws given the support.
        chosen: (draw, task, query) class of the query.
        shift: (draw, task, query, feature) change of the task effect.
        pulled: (draw, task, query, feature) r Cov(x)^-1 (x - x~).
    """
    through_task = post.gain.expand_axis(1).apply(shift[..., None, :])
    own = _chosen(post.given_task, chosen).apply(pulled)
    ways = torch.arange(mean.shape[2], device=mean.device)
    direct = own[..., None, :] * (chosen[..., None] == ways)[..., None]
    return mean[:, :, None] + through_task + direct


def _task_cross(post: ClassPosterior) -> Operator:
    """(task, way) Cov(a, mu_k | D)."""
    return post.task_cov.expand_axis(1) @ post.gain.transposed()


def _of_class(mean: Tensor, chosen: Tensor) -> Tensor:
    """(draw, task, way, feature) at (draw, task, query) -> (draw, task, query, feature)."""
    index = chosen[..., None].expand(*chosen.shape, mean.shape[-1])
    return mean.gather(2, index)


def _of_way(centre: Tensor, chosen: Tensor) -> Tensor:
    """(draw, task, query, way, feature) at (draw, task, query) -> (draw, task, query, feature)."""
    index = chosen[..., None, None].expand(*chosen.shape, 1, centre.shape[-1])
    return centre.gather(3, index)[..., 0, :]


def _chosen(operator: Operator, chosen: Tensor) -> Operator:
    """(task, way) operators at (draw, task, query)."""
    task = torch.arange(chosen.shape[1], device=chosen.device)[:, None]
    return operator[task, chosen]


def _chosen_query(operator: Operator, chosen: Tensor, count: int) -> Operator:
    """(task, query, way) operators, or (task, 1, way), at (draw, task, query)."""
    task = torch.arange(chosen.shape[1], device=chosen.device)[:, None]
    query = torch.arange(chosen.shape[2], device=chosen.device) % count
    return operator[task, query, chosen]
