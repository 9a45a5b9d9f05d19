"""Some of many, evenly spread: `evenly_spaced`, and frames of videos: `spaced`."""

from __future__ import annotations

import numpy as np

from bayesfs._utils.arrays import Ints


def evenly_spaced(total: int, count: int) -> list[int]:
    """At most `count` different indices, evenly spaced from 0 to total - 1.

    Example:
        >>> evenly_spaced(9, 3), evenly_spaced(2, 5), evenly_spaced(0, 3)
        ([0, 4, 8], [0, 1], [])
    """
    index = np.linspace(0, max(total - 1, 0), min(count, total)).round().astype(int)
    return [int(i) for i in index]


def spaced(count: Ints, frames: int | None) -> tuple[Ints, Ints]:
    """Evenly spaced frame positions of videos with `count` frames.

    At most `frames` per video, the first and the last among them (the middle one where frames is
    1); every frame where the video is shorter or `frames` is None.

    Returns:
        video (n,): index into `count` of each chosen frame; position (n,): frame in its video.
    """
    taken = count if frames is None else np.minimum(count, frames)
    video = np.repeat(np.arange(len(count)), taken)
    i = np.arange(len(video)) - np.repeat(np.cumsum(taken) - taken, taken)
    n, k = count[video], taken[video]
    return video, np.where(k == 1, (n - 1) // 2, i * (n - 1) // np.maximum(k - 1, 1))
