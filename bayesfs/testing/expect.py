"""A check of a contract that holds with `python -O`, too, where `assert` does nothing: `expect`."""

from __future__ import annotations

from torch import Tensor


def expect(holds: bool | Tensor, why: object) -> None:
    """Fail the test unless a condition holds.

    Args:
        holds: the condition; a tensor must have one element.
        why: what is said where it does not.

    Raises:
        AssertionError: it does not hold.
    """
    if not holds:
        raise AssertionError(str(why))
