"""Words that data must hold: `check_split`, `check_flags`."""

from __future__ import annotations

from collections.abc import Collection

from bayesfs.errors import DataError


def check_split(split: str, known: Collection[str]) -> None:
    """Refuse a split that no frame is of.

    Raises:
        DataError: none is; the message names those that there are.
    """
    if split not in known:
        raise DataError(
            f"expected frames of the split {split!r}, found only {sorted(known)}; a population is "
            "learnt from several people's videos, in an ORBIT-shaped tree (one person's own "
            "folder is for `bayesfs predict` with a run of such a tree), or from groups of a "
            "data frame whose split column (from_dataframe(..., split=)) says 'train' for "
            "those to learn from and 'test' for those to predict"
        )


def check_flags(flags: Collection[str], known: Collection[str]) -> None:
    """Refuse flags that the frames do not have.

    Raises:
        DataError: they lack one; the message names those that there are.
    """
    for flag in flags:
        if flag not in known:
            raise DataError(f"expected drop_flags out of {sorted(known)}, got {flag!r}")
