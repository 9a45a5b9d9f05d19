"""Rows that several methods share, where they were scored on different episodes: `common_rows`.

Episodes differ where their seed, the evaluation or the people differ. A video that all methods
were asked about is still one video: what was predicted of it is compared, though other videos may
have taught its object, or stood beside it as choices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bayesfs.errors import DataError
from bayesfs.results.rows import ITEMS, Item

ScoredRows = Mapping[str, Mapping[Item, pd.DataFrame]]
"""Name of a method -> its scored frames and videos."""

Video = tuple[Any, ...]
"""Values of `VIDEO`."""

VIDEO = ["user", "object", "video", "time"]
"""What names a video that is asked about, the n-th time that a method was."""


def common_rows(rows: ScoredRows) -> tuple[dict[str, dict[Item, pd.DataFrame]], str]:
    """The videos that every method was asked about, and their frames.

    Frames are named by their place among those that were scored. Where a method scored another
    number of frames of a video, they are others, and the video is left out of all methods.

    Args:
        rows: of each method, as `bayesfs.results.rows.tree_rows` has them.

    Returns:
        The rows, named alike for all methods, and a sentence that says how many are left.

    Raises:
        DataError: no video is in all of them with the same frames.
    """
    named = {n: {item: _named(found[item]) for item in ITEMS} for n, found in rows.items()}
    first, *others = ({*_frames(found["frame"]).items()} for found in named.values())
    alike = [video for video, _ in first.intersection(*others)]
    if not alike:
        raise DataError(
            "expected a video that all runs were asked about, with the same frames, got none; are "
            "they of other people, or do they take other frames of a video?"
        )
    kept = {
        name: {item: _only(table, alike) for item, table in found.items()}
        for name, found in named.items()
    }
    return kept, _said(rows, alike)


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Rows with a key that does not depend on the episodes."""
    place = table.groupby(["user", "object", "video", "frame"]).cumcount()
    return table.assign(time=place, label=0)


def _frames(table: pd.DataFrame) -> dict[Video, int]:
    """Number of frames of each video."""
    return Counter(table[VIDEO].itertuples(index=False, name=None))


def _only(table: pd.DataFrame, videos: Sequence[Video]) -> pd.DataFrame:
    """Rows of these videos, whose task is the person and the n-th time of asking."""
    kept = table[pd.MultiIndex.from_frame(table[VIDEO]).isin(videos)]
    return kept.assign(task=kept["user"] + " / " + kept["object"] + " / " + kept["time"].map(str))


def _said(rows: ScoredRows, videos: Sequence[Video]) -> str:
    people = {name: set(found["video"]["user"]) for name, found in rows.items()}
    everybody, shared = set.union(*people.values()), {user for user, *_ in videos}
    most = max(len(found["video"]) for found in rows.values())
    return (
        f"the runs have different episodes: compared on {len(videos)} videos (of up to {most}) of "
        f"{len(shared)} people (of {len(everybody)}) that all of them were asked about; what "
        "differs is also which videos taught"
    )
