"""Tasks drawn from the Gaussian hierarchy, with the truth behind them.

Start with `synthetic_episodes`; `synthetic_embeddings` gives the same frames as labelled
embeddings.

The embedding of frame f of video v of class k of task t, recorded in condition `condition`, is

    x_tkvf = mean + offset[condition] + a_t + c_tk + v_tkv + s_tkvf e_tkvf,
    a ~ N(0, task_scale^2), c ~ N(0, class_scale^2), v ~ N(0, video_scale[condition]^2),
    e ~ N(0, frame_scale[condition]^2), or a multivariate Student t of that scale,
    log s_tkvf = quality_slope . q_tkvf, q ~ N(0, 1) per covariate,

all covariances diagonal. In an absent frame another object stands where the taught one should:
c_tk is replaced by a fresh draw from the same distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayesfs.synthetic.truth import Population, Truth
from bayesfs.types import CONDITIONS, UNLABELLED, Embeddings, EpisodeBatch


def synthetic_episodes(
    population: Population | None = None,
    *,
    users: int = 16,
    way: int = 5,
    shots: int = 5,
    frames: int = 8,
    query_videos: int = 2,
    query_frames: int | None = None,
    conditions: tuple[str, str] = ("clean", "clutter"),
    dim: int = 8,
    ragged: bool = False,
    seed: int = 0,
) -> tuple[EpisodeBatch, Truth]:
    """Draw one task per user from the hierarchy.

    Args:
        population: the parameters; None takes `Population.isotropic(dim)`. Its dtype and device
            are those of the episodes.
        users: number of tasks.
        way: classes per task.
        shots: support videos per class.
        frames: frames per support video.
        query_videos: query videos per class.
        query_frames: frames per query video; None means `frames`.
        conditions: condition of the support videos and of the query videos.
        dim: number of features where no population is given.
        ragged: hide at random classes (of 3 or more), videos and frames, so that padding occurs.
        seed: the same seed gives the same tasks.

    Returns:
        The episodes and the truth. Query videos stand class by class.

    Example:
        >>> episodes, truth = synthetic_episodes(users=2, way=3, seed=1)
        >>> episodes.support.shape
        torch.Size([2, 3, 5, 8, 8])
    """
    p = Population.isotropic(dim) if population is None else population
    rng = torch.Generator(p.mean.device).manual_seed(seed)
    task = p.task_scale * _normal(p, rng, users, len(p.mean))
    classes = p.class_scale * _normal(p, rng, users, way, len(p.mean))
    centre = (task, classes)
    condition = CONDITIONS.index(conditions[0]), CONDITIONS.index(conditions[1])
    s = _record(p, rng, centre, condition[0], shots, frames)
    q = _record(p, rng, centre, condition[1], query_videos, query_frames or frames)
    exists = _existence(rng, ragged, users, way)
    s_mask = _frame_mask(rng, ragged, exists, s.features.shape[:-1])
    q_mask = _frame_mask(rng, ragged, exists, q.features.shape[:-1]).flatten(1, 2)
    labels = torch.arange(way, device=s_mask.device).repeat_interleave(query_videos)
    labels = labels.repeat(users, 1)
    names = tuple(f"object {k + 1:02d}" for k in range(way))
    episodes = EpisodeBatch.of_own(
        support=s.features * s_mask[..., None],
        support_mask=s_mask,
        support_condition=torch.full_like(s_mask[..., 0], condition[0], dtype=torch.long),
        query=q.features.flatten(1, 2) * q_mask[..., None],
        query_mask=q_mask,
        query_condition=torch.full_like(q_mask[..., 0], condition[1], dtype=torch.long),
        query_labels=torch.where(q_mask.any(-1), labels, UNLABELLED),
        support_quality=None if s.quality is None else s.quality * s_mask[..., None],
        query_quality=None if q.quality is None else q.quality.flatten(1, 2) * q_mask[..., None],
        tasks=tuple(f"U{t + 1:04d}" for t in range(users)),
        classes=tuple(names[: int(n)] for n in exists.sum(1)),
    )
    truth = Truth(
        population=p,
        task_effect=task,
        class_effect=classes,
        support_video_effect=s.video_effect,
        query_video_effect=q.video_effect.flatten(1, 2),
        support_absent=s.absent,
        query_absent=q.absent.flatten(1, 2),
        query_labels=labels,
    )
    return episodes, truth


def synthetic_embeddings(
    population: Population | None = None,
    *,
    users: int = 16,
    validation_users: int = 0,
    test_users: int = 0,
    way: int = 5,
    shots: int = 5,
    frames: int = 8,
    query_videos: int = 2,
    query_frames: int | None = None,
    dim: int = 8,
    ragged: bool = False,
    seed: int = 0,
) -> tuple[Embeddings, Truth]:
    """The same draws as labelled frames: support videos are clean, query videos are clutter.

    The first `users` users are of split "train", then come those of "validation" and "test". The
    coordinate `flag_object_not_present_issue` marks absent frames. The other arguments are those
    of `synthetic_episodes`.

    Returns:
        The embeddings, as float32, and the truth, whose tasks are the users in order.
    """
    counts = (users, validation_users, test_users)
    episodes, truth = synthetic_episodes(
        population,
        users=sum(counts),
        way=way,
        shots=shots,
        frames=frames,
        query_videos=query_videos,
        query_frames=query_frames,
        dim=dim,
        ragged=ragged,
        seed=seed,
    )
    splits = np.repeat(["train", "validation", "test"], counts)
    return _as_embeddings(episodes, truth, splits), truth


@dataclass(frozen=True)
class _Recording:
    features: Tensor  # (task, way, video, frame, feature)
    video_effect: Tensor  # (task, way, video, feature)
    absent: Tensor  # (task, way, video, frame)
    quality: Tensor | None  # (task, way, video, frame, covariate)


def _record(
    p: Population,
    rng: torch.Generator,
    centre: tuple[Tensor, Tensor],
    condition: int,
    videos: int,
    frames: int,
) -> _Recording:
    """Record `videos` videos of `frames` frames of every class of every task."""
    task, classes = centre
    t, w, d = classes.shape
    video = p.video_scale[condition] * _normal(p, rng, t, w, videos, d)
    absent = (
        torch.rand(t, w, videos, frames, generator=rng, device=task.device) < p.absent[condition]
    )
    other = p.class_scale * _normal(p, rng, t, w, videos, frames, d)
    shown = torch.where(absent[..., None], other, classes[:, :, None, None])
    noise = p.frame_scale[condition] * _normal(p, rng, t, w, videos, frames, d)
    if math.isfinite(p.dof):
        noise = noise / _chi_square_mean(p, rng, (t, w, videos, frames, 1)).sqrt()
    quality = None
    if len(p.quality_slope):
        quality = _normal(p, rng, t, w, videos, frames, len(p.quality_slope))
        noise = noise * (quality @ p.quality_slope).exp()[..., None]
    base = (p.mean + p.offset[condition] + task)[:, None, None, None]
    return _Recording(base + shown + video[..., None, :] + noise, video, absent, quality)


def _normal(p: Population, rng: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=rng, dtype=p.mean.dtype, device=p.mean.device)


def _chi_square_mean(p: Population, rng: torch.Generator, shape: tuple[int, ...]) -> Tensor:
    """Chi-square draws with p.dof degrees of freedom over p.dof, of the given shape."""
    state = int(torch.randint(2**31, (), generator=rng, device=p.mean.device))
    draws = np.random.default_rng(state).chisquare(p.dof, size=shape) / p.dof
    return torch.from_numpy(draws).to(p.mean)


def _existence(rng: torch.Generator, ragged: bool, users: int, way: int) -> Tensor:
    """(task, way) bool: classes that exist; at least two where there are two."""
    count = torch.full((users,), way, device=rng.device)
    if ragged and way > 2:
        count = torch.randint(2, way + 1, (users,), generator=rng, device=rng.device)
    return torch.arange(way, device=rng.device) < count[:, None]


def _frame_mask(rng: torch.Generator, ragged: bool, exists: Tensor, shape: Sequence[int]) -> Tensor:
    """(task, way, video, frame) bool: trailing videos and frames are hidden where ragged."""
    t, w, v, f = shape
    videos = torch.full((t, w), v, device=rng.device)
    frames = torch.full((t, w, v), f, device=rng.device)
    if ragged:
        videos = torch.randint(1, v + 1, (t, w), generator=rng, device=rng.device)
        frames = torch.randint(1, f + 1, (t, w, v), generator=rng, device=rng.device)
    has_video = exists[..., None] & (torch.arange(v, device=rng.device) < videos[..., None])
    has_frame = torch.arange(f, device=rng.device) < frames[..., None]
    return has_video[..., None] & has_frame


def _as_embeddings(episodes: EpisodeBatch, truth: Truth, splits: NDArray[Any]) -> Embeddings:
    way, n = episodes.way, len(episodes)

    def by_class(value: Tensor) -> Tensor:
        return value.view(n, way, -1, *value.shape[2:])

    e, q = episodes, episodes.query_quality
    quality = None if q is None else by_class(q)
    asked, absent = by_class(e.query), by_class(truth.query_absent)
    parts = [
        _columns("clean", e.support_mask, e.support, e.support_quality, truth.support_absent),
        _columns("clutter", by_class(e.query_mask), asked, quality, absent),
    ]
    column = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    names = [f"covariate {j + 1}" for j in range(len(truth.population.quality_slope))]
    emb = Embeddings.from_arrays(
        column["features"],
        user=column["user"].tolist(),
        object=column["object"].tolist(),
        video=column["video"].tolist(),
        condition=column["condition"].tolist(),
        split=splits[column["task"]],
        quality={name: column["quality"][:, j] for j, name in enumerate(names)},
    )
    flag = ("frame", column["absent"].astype(np.int8))
    return Embeddings.of_own(emb.dataset.assign_coords(flag_object_not_present_issue=flag))


def _columns(
    condition: str, mask: Tensor, features: Tensor, quality: Tensor | None, absent: Tensor
) -> dict[str, NDArray[Any]]:
    """One entry per existing frame, (task, way, video, frame) in row-major order."""
    task, k, video, _ = mask.nonzero().T.cpu().numpy()
    user = np.array([f"U{t + 1:04d}" for t in range(len(mask))])[task]
    thing = np.array([f"object {j + 1:02d}" for j in range(mask.shape[1])])[k]
    video = np.array([f"{condition}--{j + 1:03d}" for j in range(mask.shape[2])])[video]
    name = [f"{u}--{o}--{v}" for u, o, v in zip(user, thing, video, strict=True)]
    table = np.zeros((len(task), 0)) if quality is None else quality[mask].cpu().numpy()
    return {
        "features": features[mask].cpu().numpy(),
        "quality": table,
        "absent": absent[mask].cpu().numpy(),
        "task": task,
        "user": user,
        "object": thing,
        "video": np.char.replace(np.array(name), " ", "-"),
        "condition": np.full(len(task), condition),
    }
