"""Which frames of a video to use: `Sampling`, and some of these: `Spread`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bayesfs._utils.spacing import spaced
from bayesfs.errors import DataError

TOLERANCE = 0.1
"""Intervals between frames by which a time stamp may be early: containers round them."""


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video to use; all of them by default.

    Attributes:
        every: use every n-th frame.
        fps: use about so many frames a second instead, by their time stamps.
        max_frames: use at most so many, spread evenly over the time of the video.

    Raises:
        DataError: a value is not positive, or both `every` and `fps` are given.
    """

    every: int = 1
    fps: float | None = None
    max_frames: int | None = None

    def __post_init__(self) -> None:
        given = (x for x in (self.every, self.fps, self.max_frames) if x is not None)
        if not all(x > 0 for x in given) or (self.fps is not None and self.every > 1):
            raise DataError(f"expected positive values, and every or fps but not both, got {self}")

    @property
    def is_all(self) -> bool:
        """Whether every frame is used."""
        return self == Sampling()

    def select(self, seconds: NDArray[np.float64]) -> NDArray[np.int64]:
        """Which frames are used, of those that are there.

        With times t_0 <= ... <= t_(n-1) and h the median interval between frames: `fps` uses the
        first frame in each of the intervals [t_0 + k / fps, t_0 + (k + 1) / fps). Where that or
        `every` leaves more than m = `max_frames`, the k-th of m frames is instead the first at or
        after t_0 + k (t_(n-1) + h - t_0) / m, or the next one where that frame is used already,
        and early enough to leave one for each of those that follow. So m frames are used whenever
        m are there. Times may be early by `TOLERANCE` h.

        Args:
            seconds: (n,) times of the frames, not descending.

        Returns:
            (m,) ascending positions.

        Example:
            >>> Sampling(max_frames=3).select(np.arange(12) / 30).tolist()
            [0, 4, 8]
        """
        n = len(seconds)
        chosen: NDArray[Any] = np.arange(0, n, self.every)
        if not n:
            return chosen
        step = float(np.median(np.diff(seconds))) if n > 1 else 0.0
        since = seconds - seconds[0]
        if self.fps is not None:
            cell = np.floor((since + TOLERANCE * step) * self.fps)
            chosen = np.flatnonzero(np.diff(cell, prepend=-1.0) > 0)
        most = self.max_frames
        if most is not None and len(chosen) > most:
            rank = np.arange(most)
            targets = rank * (since[-1] + step) / most - TOLERANCE * step
            first = np.minimum(np.searchsorted(since, targets) - rank, n - most)
            chosen = np.maximum.accumulate(first) + rank
        return chosen.astype(np.int64)


@dataclass(frozen=True)
class Spread(Sampling):
    """Some of the frames that a sampling uses: those that an episode takes of them.

    Episodes space the frames of a video evenly (`bayesfs._utils.spacing.spaced`): where no other
    frame is wanted, no other one has to be embedded.

    Attributes:
        count: frames at most; None takes all.

    Example:
        >>> Spread(every=2, count=3).select(np.arange(18) / 30).tolist()
        [0, 8, 16]
    """

    count: int | None = None

    @classmethod
    def of(cls, sampling: Sampling, count: int | None) -> Self:
        """So many frames of those that a sampling uses."""
        return cls(sampling.every, sampling.fps, sampling.max_frames, count)

    @property
    def is_all(self) -> bool:
        """Whether every frame is used."""
        return self == Spread()

    def select(self, seconds: NDArray[np.float64]) -> NDArray[np.int64]:
        """Which frames are used, of those that are there; see `Sampling.select`."""
        chosen = super().select(seconds)
        if self.count is None:
            return chosen
        _, position = spaced(np.array([len(chosen)]), self.count)
        return chosen[position]
