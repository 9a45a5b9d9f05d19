"""What a reader left out, in words: `tell_skipped`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from bayesfs._utils.progress import terminal_safe
from bayesfs.data.sources.video import LEVELS, Skipped


def tell_skipped(
    skipped: Sequence[Skipped],
    count: int,
    *,
    shown: int = 5,
    tell: Callable[[str], object] = print,
) -> None:
    """Say what was left out and why, the gravest losses first, and of the rest how much of what.

    Args:
        skipped: the records, such as a store keeps.
        count: how many there are in all; a store counts more than it keeps.
        shown: records that are told one by one.
        tell: what a line is given to.
    """
    order = sorted(skipped, key=lambda one: LEVELS.index(one.level))
    for one in order[:shown]:
        tell(f"  left out: {terminal_safe(one.path)}: {terminal_safe(one.reason)}")
    if count > shown:
        kinds = Counter(one.level for one in order[shown:])
        told = ", ".join(f"{level} {kinds[level]}" for level in LEVELS if kinds[level])
        tell(f"  left out: {count - shown} more ({told})")
