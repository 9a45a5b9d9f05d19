"""Random numbers that belong to a task, not to its place: start with `Noise.of`.

A row must have the same answer whatever is asked beside it. Three rules do that.

1. Counter-based streams. Every class (or video) of a task has a stream of its own,

       Philox(key = (seed, content of the task's support), counter = (call, class, video, .)),

   so that neither the other tasks, nor padding, nor the number of workers shifts a number. Tasks
   of different support have independent streams.
2. Classes and support videos are numbered by their content, not by their names or places:
   relabelling permutes every result.
3. Queries share their numbers (common random numbers). Each has the same law as with numbers of
   its own, and neither depends on the others nor jumps as the features move.

Source: Salmon, Moraes, Dror and Shaw (2011), Parallel random numbers: as easy as 1, 2, 3.
McKay, Beckman and Conover (1979), for draws that are `even`. refs.bib: salmon2011, mckay1979.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayesfs._distributions.categorical import at_points
from bayesfs.types import EpisodeBatch

Level = Literal["task", "way", "shot"]

BITS = 20
"""Binary digits of a task's content that choose its stream; rounding beyond them does not."""

LEAN = 0.6180339887498949
"""Weight of |projection| beside the projection, so that a mirrored video is told from its image."""


@dataclass(frozen=True)
class TaskOrder:
    """Places of classes, support videos and frames in an order that their content alone decides.

    Attributes:
        way: (task, way) place of each class; classes that do not exist have -1, -2, ... from the
            last on, so that padding in front of them changes nothing.
        shot: (task, way, shot) the same for the support videos of a class.
        frame: (task, way, shot, frame) the same for the frames of a support video.
        task: (task,) numbers that tell supports apart.
    """

    way: Tensor
    shot: Tensor
    frame: Tensor
    task: Tensor

    @classmethod
    def of(cls, episodes: EpisodeBatch) -> TaskOrder:
        """From the support; frames, videos and classes may stand in any order, padded anyhow."""
        mask = episodes.support_mask
        frame = frame_content(episodes.support, episodes.support_quality, mask)
        condition = episodes.support_condition.to(frame.dtype)
        video = frame.sum(-1) / mask.sum(-1).clamp(min=1) * (1.0 + 0.5 * condition)
        way = (video + LEAN * video.abs()).sum(-1)
        return cls(
            _places(way, episodes.way_mask),
            _places(video, episodes.shot_mask),
            _places(frame, mask),
            _rounded(way.abs().sum(-1)),
        )

    @property
    def rank(self) -> Tensor:
        """(task, way) place of each class, those that do not exist last."""
        return from_start(self.way)


def from_start(place: Tensor) -> Tensor:
    """Places along the last axis, what does not exist last."""
    return torch.where(place < 0, place + place.shape[-1], place)


def frame_content(x: Tensor, quality: Tensor | None, mask: Tensor) -> Tensor:
    """(..., frame) p + `LEAN` |p| of each frame, 0 for padding.

    p is the projection of features and quality on fixed random weights.

    Args:
        x: (..., frame, feature).
        quality: (..., frame, covariate), or None.
        mask: (..., frame).
    """
    x = x.detach().double()
    p = x @ _weights(x.shape[-1], 0).to(x.device)
    if quality is not None:
        known = torch.where(mask[..., None], quality.detach().double(), 0.0)
        p = p + known @ _weights(known.shape[-1], 1).to(x.device)
    content: Tensor = torch.where(mask, p + LEAN * p.abs(), 0.0)
    return content


def _weights(count: int, stream: int) -> Tensor:
    """(count,) fixed numbers between which no relation holds."""
    return torch.from_numpy(np.random.default_rng([20, stream]).standard_normal(count))


def _places(value: Tensor, exists: Tensor) -> Tensor:
    """Rank along the last axis, by value; what does not exist counts -1, -2, ... from the end."""
    rank = value.masked_fill(~exists, torch.inf).argsort(dim=-1, stable=True).argsort(-1)
    missing = ~exists
    from_end = missing.flip(-1).cumsum(-1).flip(-1)
    return torch.where(exists, rank, -from_end)


def _rounded(total: Tensor) -> Tensor:
    """(task,) integers of the leading `BITS` digits of positive numbers."""
    mantissa, exponent = torch.frexp(total)
    key: Tensor = (mantissa * 2**BITS).round().long() * 4096 + exponent.long()
    return key


class Noise:
    """Draws for a batch of tasks; every call takes fresh streams, in the order of the calls.

    Args:
        seed: the same seed and support give the same numbers.
        order: of the tasks' classes and support videos.
        branch: another number gives other streams; the same one gives the same again.
        even: each number's draws fall one into each of as many equally likely parts of its range
            (Latin hypercube): right one by one, and averages over them err less. For averages
            only: the draws are not independent of each other.
    """

    def __init__(self, seed: int, order: TaskOrder, branch: int = 0, *, even: bool = False) -> None:
        self.order, self._even = order, even
        self._bits = np.random.Philox(key=np.array([seed % 2**64, 0], np.uint64))
        self._state: Any = self._bits.state
        self._generator = np.random.Generator(self._bits)
        self._calls = branch * 2**32

    @classmethod
    def of(cls, episodes: EpisodeBatch, seed: int, *, even: bool = False) -> Noise:
        """Noise of the tasks of a batch, from their support."""
        return cls(seed, TaskOrder.of(episodes), even=even)

    def normal(self, draws: int, level: Level, tail: tuple[int, ...], like: Tensor) -> Tensor:
        """(draw, task[, way[, shot]], *tail) standard normal.

        The first axis of `tail` may be padded at its end: the numbers before do not depend on it.
        """
        return self.normals(draws, [level], tail, like)[0]

    def normals(
        self, draws: int, levels: Sequence[Level], tail: tuple[int, ...], like: Tensor
    ) -> list[Tensor]:
        """`normal` of each of the levels, as one call after another would give it."""
        if self._even:
            return self._filled(levels, draws, (*tail, 2), like, _uniform, _normal_quantile)
        return self._filled(levels, draws, tail, like, _standard_normal)

    def uniform(self, draws: int, level: Level, tail: tuple[int, ...], like: Tensor) -> Tensor:
        """(draw, task[, way[, shot]], *tail) uniform on [0, 1)."""
        return self._filled([level], draws, tail, like, _uniform)[0]

    def generators(self) -> list[torch.Generator]:
        """One of each task by itself, for samplers whose need of numbers is random."""
        self._calls += 1
        tasks = self.order.task.tolist()
        seeds = [int(self._stream(self._calls, task, 0, 0).integers(2**63)) for task in tasks]
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    def chi_square(self, draws: int, degrees: Tensor) -> Tensor:
        """(draw, task, way, *tail) chi-square with `degrees` (task, way, *tail) of freedom."""
        half = 0.5 * degrees.detach().double().cpu().numpy()

        def gamma(rng: np.random.Generator, cell: Any, out: NDArray[Any]) -> None:
            if self._even and out.ndim == 1:  # by the quantile, which takes too long for many
                out[:] = scipy.special.gammaincinv(half[cell], _evenly(rng.random((2, len(out)))))
            else:
                rng.standard_gamma(half[cell][..., None], out=out)

        tail = tuple(degrees.shape[2:])
        return 2.0 * self._filled(["way"], draws, tail, degrees, gamma)[0]

    def classes(self, prob: Tensor, draws: int) -> Tensor:
        """(draw, task, query) classes with probabilities (task, query, way), evenly spread.

        Each class comes up floor or ceil of draws x prob times, in an order that is random and the
        same for all queries of a task; a class of probability 0 never. See
        `bayesfs._distributions.categorical.systematic`.
        """
        start = 1 - self.uniform(1, "task", (), prob)
        order = self.uniform(draws, "task", (), prob).argsort(0)
        points = (order + start) / draws
        by_place = self.order.rank.argsort(-1)
        index = by_place[:, None].expand(prob.shape)
        chosen = at_points(prob.gather(-1, index), points[..., None].expand(-1, -1, prob.shape[1]))
        return index.expand(draws, *prob.shape).gather(-1, chosen[..., None])[..., 0]

    def _filled(
        self,
        levels: Sequence[Level],
        draws: int,
        tail: tuple[int, ...],
        like: Tensor,
        fill: Callable[[np.random.Generator, Any, NDArray[Any]], object],
        finish: Callable[[NDArray[Any]], Tensor] = torch.from_numpy,
    ) -> list[Tensor]:
        """A call for each level, whose cells are filled from own streams: (draw, *cells, *tail).

        `finish` is given the numbers of a task, (cell, *tail, draw), and may drop an axis of tail.
        """
        places = {"task": self.order.task, "way": self.order.way, "shot": self.order.shot}
        streams = {level: self._streams(level) for level in {*levels}}
        tasks = []
        for task in range(len(self.order.task)):
            cells = [
                (call, *numbers)
                for call, level in enumerate(levels, self._calls + 1)
                for numbers in streams[level][task]
            ]
            raw = np.empty((len(cells), *tail, draws))
            for cell, (numbers, out) in enumerate(zip(cells, raw, strict=True)):
                fill(self._stream(*numbers), (task, cell), out)
            tasks.append(finish(raw).to(like.dtype))
        self._calls += len(levels)
        shapes = [places[level].shape for level in levels]
        sizes = [math.prod(shape[1:]) for shape in shapes]
        parts = torch.split(torch.stack(tasks), sizes, 1)
        return [
            part.reshape(*shape, *part.shape[2:]).movedim(-1, 0).contiguous().to(like.device)
            for part, shape in zip(parts, shapes, strict=True)
        ]

    def _streams(self, level: Level) -> list[list[tuple[int, int, int]]]:
        """For each task the numbers of its cells' streams: task, class and video."""
        task, way = self.order.task.tolist(), self.order.way.tolist()
        if level == "task":
            return [[(key, 0, 0)] for key in task]
        if level == "way":
            return [[(key, w, 0) for w in own] for key, own in zip(task, way, strict=True)]
        shots = self.order.shot.tolist()
        return [
            [(key, w, s) for w, each in zip(own, shot, strict=True) for s in each]
            for key, own, shot in zip(task, way, shots, strict=True)
        ]

    def _stream(self, call: int, task: int, way: int, shot: int) -> np.random.Generator:
        """The generator, at the start of one stream."""
        state = self._state["state"]
        state["key"][1] = task % 2**64
        state["counter"][:] = (0, shot % 2**64, way % 2**64, call)
        self._state.update(buffer_pos=4, has_uint32=0, uinteger=0)
        self._bits.state = self._state
        return self._generator


def normal_like(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers of a generator, the same in any precision up to rounding."""
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(like)


def _uniform(rng: np.random.Generator, cell: Any, out: NDArray[Any]) -> None:
    rng.random(out=out)


def _standard_normal(rng: np.random.Generator, cell: Any, out: NDArray[Any]) -> None:
    rng.standard_normal(out=out)


def _evenly(u: NDArray[Any]) -> NDArray[np.float64]:
    """(..., draw) numbers of (0, 1) from uniform (..., 2, draw): one in each of so many parts.

    The parts are equal, and shuffled.
    """
    p = u[..., 0, :].argsort(-1).astype(np.float64)
    p += u[..., 1, :]
    np.maximum(p, 1e-9, out=p)
    p /= u.shape[-1]
    return p


def _normal_quantile(u: NDArray[Any]) -> Tensor:
    """Standard normal (..., draw) from uniform (..., 2, draw), spread out `_evenly`."""
    p = torch.from_numpy(_evenly(u))
    inside = 1.0 - 1e-15  # where rounding would say certain
    return p.mul_(2.0).sub_(1.0).clamp_(-inside, inside).erfinv_().mul_(math.sqrt(2.0))
