"""Few-shot tasks of a world, with objects that are asked without being taught: `draw_tasks`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bayesfs._utils.arrays import Ints
from bayesfs._utils.spacing import evenly_spaced
from bayesfs.data.from_arrays import make_episode
from bayesfs.types import CONDITIONS, EpisodeBatch
from transfer_parts.worlds import World

LEAST = 2
"""An object with fewer videos than are asked for gives what it has, but so many at least."""


@dataclass(frozen=True)
class Sizes:
    """How many tasks, and how large they are.

    Attributes:
        tasks: tasks of a world at each number of videos.
        objects: objects of a task.
        untaught: how many of these are asked without being taught.
        frames: frames of a video, evenly spaced, at most.
        queries: videos of an object that are asked, at most.
    """

    tasks: int = 40
    objects: int = 8
    untaught: int = 2
    frames: int = 8
    queries: int = 6

    @property
    def way(self) -> int:
        """Objects that are taught."""
        return self.objects - self.untaught


def shots_of(world: World, shots: int) -> Ints:
    """(object,) how many videos of each object are taught; 0 where it cannot be taught.

    At most `shots`; one video is set aside to be asked where all that may be asked may be taught.
    """
    thing, n = world.videos.object, world.objects
    teach = np.bincount(thing[world.teach], minlength=n)
    ask = np.bincount(thing[world.ask], minlength=n)
    apart = np.bincount(thing[world.ask & ~world.teach], minlength=n)
    able = np.where(ask > 0, teach - (apart == 0), 0)
    taken = np.minimum(able, shots)
    return np.where(taken >= min(shots, LEAST), taken, 0).astype(np.int64)


def is_possible(world: World, shots: int, sizes: Sizes) -> bool:
    """Whether there are objects enough for a task."""
    asked = len(np.unique(world.videos.object[world.ask]))
    return int((shots_of(world, shots) > 0).sum()) >= sizes.way and asked >= sizes.objects


def draw_tasks(world: World, shots: int, sizes: Sizes, *, seed: int) -> Iterator[EpisodeBatch]:
    """Tasks of one each; none where `is_possible` says no. The same seed gives the same tasks."""
    if is_possible(world, shots, sizes):
        rng = np.random.default_rng([seed, shots])
        taken = shots_of(world, shots)
        for i in range(sizes.tasks):
            yield _task(world, taken, sizes, rng, f"{world.name}#{i}")


def _task(
    world: World, taken: Ints, sizes: Sizes, rng: np.random.Generator, name: str
) -> EpisodeBatch:
    order = rng.permutation(world.objects)
    taught = order[taken[order] > 0][: sizes.way]
    asked = np.unique(world.videos.object[world.ask])
    rest = order[np.isin(order, asked) & ~np.isin(order, taught)][: sizes.untaught]
    support: list[tuple[int, str]] = []
    query: list[tuple[int, str | None]] = []
    for k in taught:
        label = f"{world.videos.users[world.videos.owner[k]]}/{world.videos.objects[k]}"
        shown, held = _videos(world, int(k), int(taken[k]), rng)
        support += [(v, label) for v in shown]
        query += [(v, label) for v in held[: sizes.queries]]
    for k in rest:
        query += [(v, None) for v in _videos(world, int(k), 0, rng)[1][: sizes.queries]]
    return _episode(world, support, query, sizes.frames, name)


def _videos(
    world: World, thing: int, taken: int, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Videos of an object that are taught, and those that may then be asked, in random order."""
    own = rng.permutation(np.flatnonzero(world.videos.object == thing)).tolist()
    ask = [v for v in own if world.ask[v]]
    aside = [] if any(not world.teach[v] for v in ask) else ask[:1]
    shown = [v for v in own if world.teach[v] and v not in aside][:taken]
    return shown, [v for v in ask if v not in shown]


def _episode(
    world: World,
    support: list[tuple[int, str]],
    query: list[tuple[int, str | None]],
    frames: int,
    name: str,
) -> EpisodeBatch:
    s = _side(world, support, frames)
    q = _side(world, query, frames)
    return make_episode(
        s["features"],
        s["label"],
        s["video"],
        q["features"],
        q["video"],
        q["label"],
        support_condition=s["condition"],
        query_condition=q["condition"],
        support_quality=s["quality"],
        query_quality=q["quality"],
        task=name,
    )


def _side(world: World, chosen: list[tuple[int, Any]], frames: int) -> dict[str, Any]:
    """Frames of the chosen videos, as columns; their condition is that of most of the videos."""
    table, dataset = world.videos, world.embeddings.dataset
    rows, videos, labels = [], [], []
    for video, label in chosen:
        place = table.start[video] + np.array(evenly_spaced(int(table.count[video]), frames))
        rows += place.tolist()
        videos += [str(table.name[video])] * len(place)
        labels += [label] * len(place)
    conditions = table.condition[[v for v, _ in chosen]]
    quality = dataset["quality"].values[rows] if "quality" in dataset else None
    return {
        "features": torch.from_numpy(world.embeddings.features[rows].astype(np.float64)),
        "video": videos,
        "label": labels,
        "condition": CONDITIONS[int(np.bincount(conditions).argmax())],
        "quality": None if quality is None else torch.from_numpy(quality.astype(np.float64)),
    }
