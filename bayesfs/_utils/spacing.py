"""Some of many, evenly spread: `evenly_spaced`."""

from __future__ import annotations

import numpy as np


def evenly_spaced(total: int, count: int) -> list[int]:
    """At most `count` different indices, evenly spaced from 0 to total - 1.

    Example:
        >>> evenly_spaced(9, 3), evenly_spaced(2, 5), evenly_spaced(0, 3)
        ([0, 4, 8], [0, 1], [])
    """
    index = np.linspace(0, max(total - 1, 0), min(count, total)).round().astype(int)
    return [int(i) for i in index]
