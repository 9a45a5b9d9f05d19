"""Tasks in an order that their content alone decides, so that names change no draw: `canonical`.

An engine deals its random numbers to latents by their place. It is therefore given the tasks with
classes, support videos and query videos sorted by content, and without padding that no task needs;
its draws are then put back in the caller's order. Frames stay in the order of time.

A population site that runs over the classes (the mean of each class over all tasks, say) gives the
places of the classes a meaning, the same in every task: they then stay where they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesfs._distributions.noise import TaskOrder, frame_content, from_start
from bayesfs.inference.program.potential import potential
from bayesfs.protocols import Model
from bayesfs.types import EpisodeBatch, Posterior

CLASS_AXES = ("way", "logit")
"""Axes of a site that run over the classes of a task; "shot" runs over the videos of a class."""


@dataclass(frozen=True)
class Canonical:
    """Tasks in canonical order, and the way back.

    Attributes:
        original: the tasks as they came.
        episodes: the tasks, sorted and trimmed.
        way: (task, way) class of the original at each place.
        shot: (task, way, shot) support video, of that class, at each place.
    """

    original: EpisodeBatch
    episodes: EpisodeBatch
    way: Tensor
    shot: Tensor

    def restored(self, posterior: Posterior, model: Model, given: Posterior | None) -> Posterior:
        """Draws in the original order; those of padding that was trimmed come from the prior."""
        filler: dict[str, Tensor] = {}
        if self.shot.shape != self.original.shot_mask.shape:
            density = potential(model, self.original, given)
            filler = density.constrain(density.prior(posterior.num_draws, seed=posterior.seed))
        draws = {
            site: self._restored(value, posterior.dims[site], filler.get(site))
            for site, value in posterior.draws.items()
        }
        return posterior.changed(draws=draws)

    def _restored(self, value: Tensor, axes: tuple[str, ...], filler: Tensor | None) -> Tensor:
        """One site: (draw, *axes)."""
        if "task" not in axes or not {*CLASS_AXES, "shot"} & set(axes):
            return value
        out = torch.empty_like(value) if filler is None else filler.clone()
        index = [self._places(axis, at, axes, value) for at, axis in enumerate(axes)]
        out.movedim(0, -1)[tuple(index)] = value.movedim(0, -1)
        return out

    def _places(self, axis: str, at: int, axes: tuple[str, ...], value: Tensor) -> Tensor:
        """Original places along one axis of a site, broadcast against its other axes."""
        known: dict[str, tuple[Tensor, tuple[str, ...]]] = {
            name: (self.way, ("task", name)) for name in CLASS_AXES
        }
        known["shot"] = (self.shot, ("task", "way", "shot"))
        count = torch.arange(value.shape[1 + at], device=self.way.device)
        place, over = known.get(axis, (count, (axis,)))
        if not set(over) <= set(axes):
            place, over = count, (axis,)
        sizes = dict(zip(over, place.shape, strict=True))
        return place.reshape([sizes.get(a, 1) if a in over else 1 for a in axes])


def has_shared_classes(model: Model) -> bool:
    """Whether the model has a population site over the classes."""
    return any("task" not in axes and {*CLASS_AXES} & {*axes} for axes in model.dims.values())


def canonical(model: Model, episodes: EpisodeBatch) -> Canonical:
    """Sort classes, support videos and query videos of each task by content; trim padding.

    Args:
        model: whose `dims` say whether classes may move.
        episodes: the tasks.
    """
    order = TaskOrder.of(episodes)
    ways, shots, videos = (
        max(1, int(mask.sum(-1).max()))
        for mask in (episodes.way_mask, episodes.shot_mask, episodes.video_mask)
    )
    frames, length = _used(episodes.support_mask), _used(episodes.query_mask)
    rank, way = order.rank, order.rank.argsort(-1)[:, :ways]
    if has_shared_classes(model):
        rank = way = torch.arange(episodes.way, device=way.device).expand_as(rank)
    task = torch.arange(len(way), device=way.device)[:, None]
    shot = from_start(order.shot).argsort(-1)[task, way][..., :shots]
    video = _query_order(episodes)[:, :videos]

    def taught(value: Tensor) -> Tensor:
        return value[task[..., None], way[..., None], shot]

    def asked(value: Tensor) -> Tensor:
        return value[task, video]

    label = asked(episodes.query_labels)
    place = rank.gather(1, label.clamp(min=0))
    quality, frame = episodes.support_quality, episodes.support_frame
    asked_quality, asked_frame = episodes.query_quality, episodes.query_frame
    found = EpisodeBatch.of_own(
        support=taught(episodes.support)[:, :, :, :frames],
        support_mask=taught(episodes.support_mask)[..., :frames],
        support_condition=taught(episodes.support_condition),
        query=asked(episodes.query)[:, :, :length],
        query_mask=asked(episodes.query_mask)[..., :length],
        query_condition=asked(episodes.query_condition),
        query_labels=torch.where(label < 0, label, place),
        support_quality=None if quality is None else taught(quality)[:, :, :, :frames],
        query_quality=None if asked_quality is None else asked(asked_quality)[:, :, :length],
        support_frame=None if frame is None else taught(frame)[..., :frames],
        query_frame=None if asked_frame is None else asked(asked_frame)[..., :length],
        untaught=None if episodes.untaught is None else episodes.untaught.gather(1, way),
        tasks=episodes.tasks,
        classes=_moved_names(episodes.classes, way),
    )
    return Canonical(episodes, found, way, shot)


def _moved_names(classes: tuple[tuple[str, ...], ...], way: Tensor) -> tuple[tuple[str, ...], ...]:
    """Names of the classes at each place; empty where padding goes."""
    return tuple(
        tuple(names[k] if k < len(names) else "" for k in order)
        for names, order in zip(classes, way.tolist(), strict=False)
    )


def _used(mask: Tensor) -> int:
    """Length of the last axis up to the last place that any task uses; at least 1."""
    places = mask.flatten(0, -2).any(0).nonzero()
    return int(places.max()) + 1 if len(places) else 1


def _query_order(episodes: EpisodeBatch) -> Tensor:
    """(task, video): query videos by content, padding last."""
    mask = episodes.query_mask
    content = frame_content(episodes.query, episodes.query_quality, mask)
    condition = episodes.query_condition.to(content.dtype)
    mean = content.sum(-1) / mask.sum(-1).clamp(min=1) * (1.0 + 0.5 * condition)
    return mean.masked_fill(~episodes.video_mask, torch.inf).argsort(dim=-1, stable=True)
