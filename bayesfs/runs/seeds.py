"""Seeds as a person writes them: `seeds_in`."""

from __future__ import annotations

import re

from bayesfs.errors import RunError


def seeds_in(text: str) -> tuple[int, ...]:
    """Seeds as a person writes them: `3`, `0,2,7`, or `0:5` for 0 to 4.

    Raises:
        RunError: it is none of these, or holds no seed or one twice.

    Example:
        >>> seeds_in("0:3"), seeds_in("5,7")
        ((0, 1, 2), (5, 7))
    """
    found: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"\s*(\d+)(?::(\d+))?\s*", part)
        if not ends:
            raise RunError(f"expected seeds such as 3, 0,2,7 or 0:5, got {text!r}")
        found += range(int(ends[1]), int(ends[2]) if ends[2] else int(ends[1]) + 1)
    if not found or len(set(found)) < len(found):
        raise RunError(f"expected different seeds, one at least, got {text!r}")
    return tuple(found)
