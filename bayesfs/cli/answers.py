"""What is said of a person's videos, a row each, and where it goes: start with `tell_answers`.

Nothing here needs torch, so that what answers without it says the same.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from bayesfs._utils.progress import terminal_safe
from bayesfs.data.sources.video import (
    IMAGE_SUFFIXES,
    LEVELS,
    UNDECODED,
    UNKNOWN_OBJECT,
    VIDEO_SUFFIXES,
    Skipped,
    TreeWalk,
    Video,
)
from bayesfs.errors import RunError
from bayesfs.explanation.explanation import Explanation
from bayesfs.runs.directory import explained

Row = dict[str, str | float]

COLUMNS = (
    "video", "object", "probability", "set", "in_view", "typical", "total", "aleatoric",
    "epistemic", "sentence",
)  # fmt: skip
"""Of the table, before a column "p(OBJECT)" for each object that was taught; numbers of a video
that could not be read are empty. `set` holds what the sentence names, "" for none of them;
`in_view` several things that windows of its frames show clearly, or one whose place they tell."""


def tell_answers(said: Sequence[Explanation], rows: Sequence[Row], table: Path | None) -> None:
    """Print a sentence a video, and write the numbers behind them if asked.

    Args:
        said: of each video that could be read.
        rows: of `rows_of`.
        table: CSV file to write.
    """
    if table is not None:
        import pandas as pd

        from bayesfs.runs.csv_tables import write_csv

        classes = [f"p({name})" for name in sorted({n for one in said for n in one.prob})]
        write_csv(pd.DataFrame(rows, columns=[*COLUMNS, *classes]), table)
    for row in rows:
        print(f"{terminal_safe(str(row['video']))}: {terminal_safe(str(row['sentence']))}")


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before any work is done for it.

    Raises:
        RunError: its folder is missing or read-only, or a folder is in its place.
    """
    folder = path.parent
    if path.is_dir():
        raise RunError(f"cannot write {path}: it is a folder; name a file in it")
    if not folder.is_dir():
        raise RunError(f"cannot write {path}: there is no folder {str(folder)!r}; make it first")
    if not os.access(folder, os.W_OK):
        raise RunError(f"cannot write {path}: the folder {str(folder)!r} is read-only")


def asked_videos(videos: Path) -> tuple[str, ...]:
    """Paths below a folder of what looks like a recording: files, and folders of frames."""
    if videos.is_file():
        return (videos.name,)
    walk = TreeWalk(videos)
    with explained(videos, "list"):
        entries = sorted(p for p in videos.iterdir() if not p.name.startswith("."))
    suffixes = VIDEO_SUFFIXES | IMAGE_SUFFIXES
    files = [p for p in entries if not p.is_dir() and p.suffix.lower() in suffixes]
    return tuple(walk.relative(p) for p in [*files, *(p for p in entries if p.is_dir())])


def reason_of(skipped: Sequence[Skipped], place: str) -> str:
    """Why something at, or below, a place was left out; what is lost least says most."""
    below = f"{place}/"
    about = [s for s in skipped if s.path == place or s.path.startswith(below)]
    if not about:
        return UNDECODED
    return max(about, key=lambda one: LEVELS.index(one.level)).reason


def rows_of(
    said: Sequence[Explanation],
    asked: Sequence[str],
    videos: Sequence[Video],
    skipped: Sequence[Skipped],
) -> list[Row]:
    """One row a video that was asked: where it is, what is said of it, and the numbers behind that.

    Args:
        said: of each query video that could be read.
        asked: path of everything that is to be named, in order.
        videos: that were found.
        skipped: what could not be read, and why.
    """
    places = {v.name: v.path for v in videos if v.object == UNKNOWN_OBJECT}
    rows = {places.get(one.video, one.video): _row(one) for one in said}
    lost: dict[str, Row] = {
        path: {"sentence": _not_read(reason_of(skipped, path))} for path in asked
    }
    blank: Row = dict.fromkeys(COLUMNS, "")
    return [{**blank, "video": path, **rows.get(path, lost[path])} for path in asked]


def _not_read(reason: str) -> str:
    return f"Not read: {reason}" + ("" if reason.endswith("?") else ".")


def _row(one: Explanation) -> Row:
    parts = {part: one.parts[part] for part in ("total", "aleatoric", "epistemic")}
    likely, probability = next(iter(one.prob.items()))
    return {
        "object": likely,
        "probability": probability,
        "set": " | ".join(one.answer),
        "in_view": "" if one.framing is None else " | ".join(one.framing.things),
        "typical": "" if math.isnan(one.typical) else one.typical,
        **parts,
        **{f"p({name})": p for name, p in one.prob.items()},
        "sentence": one.sentence(),
    }
