"""Held-out users: refuse to score people whom anything was learnt from, `check_held_out`."""

from __future__ import annotations

from collections.abc import Iterable

from bayesfs.errors import DataError


def check_held_out(users: Iterable[str], others: Iterable[str], split: str) -> None:
    """Refuse people who have frames in a split and in another.

    Args:
        users: who has frames in the split.
        others: who has frames in any other split.
        split: its name, for the message.

    Raises:
        DataError: somebody is among both.
    """
    both = sorted({*users} & {*others})
    if both:
        raise DataError(
            f"user {both[0]!r} has frames in the split {split!r} and in another; "
            "held-out users must be other people than those the population is learnt from"
        )
