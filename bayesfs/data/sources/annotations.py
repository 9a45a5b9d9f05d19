"""ORBIT's annotation JSON of one video -> flag and bounding-box columns; start with `annotate`.

    {"VIDEO-00001.jpg": {"blur_issue": false, ..., "object_bounding_box": {"x", "y", "w", "h"}}}

A clean frame has seven flags (null where the object is absent), a clutter frame a bounding box or
null, and one flag.

Source: ORBIT data set, README and data/datasets.py (Massiceti et al. 2021).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bayesfs._utils.guarded_files import read_bounded
from bayesfs.data.sources.video import FLAGS
from bayesfs.errors import DataError

BOX_SIZE = 1080
"""Side in pixels of the square frame that bounding boxes refer to."""

MAX_BYTES = 64 * 2**20
"""Largest annotation file that is read: about 250,000 frames."""


@dataclass(frozen=True, eq=False)
class Annotations:
    """Annotation columns of one video, aligned with its frames.

    Attributes:
        flags: flag -> (frame,) int8: 1 true, 0 false, -1 null or not annotated.
        boxes: (frame, 4) x, y, width, height in pixels of 1080 x 1080, NaN where none.
        problems: what could not be used, in words.
    """

    flags: Mapping[str, NDArray[np.int8]]
    boxes: NDArray[np.float32]
    problems: tuple[str, ...] = ()


def annotate(path: Path | None, files: Sequence[str]) -> Annotations:
    """Columns of the frames `files`; all -1 and NaN where there is no annotation file.

    Args:
        path: the JSON file of the video, or None.
        files: names of the frames in order of time.

    Returns:
        Annotations of len(files) rows. A file that cannot be used at all gives one problem.
    """
    flags = {name: np.full(len(files), -1, np.int8) for name in FLAGS}
    boxes = np.full((len(files), 4), np.nan, np.float32)
    if path is None or not path.exists():
        return Annotations(flags, boxes)
    try:
        table = load_json(path)
    except DataError as error:
        return Annotations(flags, boxes, (str(error),))
    bad = [name for row, name in enumerate(files) if not _fill(flags, boxes, row, table.get(name))]
    problems = [f"{len(bad)} entries not usable, first {bad[0]!r}: wrong type"] if bad else []
    unused = len(table.keys() - set(files))
    if unused:
        problems.append(f"{unused} annotated frames are not on disk; an incomplete download?")
    return Annotations(flags, boxes, tuple(problems))


def _fill(
    flags: Mapping[str, NDArray[np.int8]], boxes: NDArray[np.float32], row: int, entry: object
) -> bool:
    """Copy one frame's entry into its row; whether all of it could be used."""
    if not isinstance(entry, dict):
        return entry is None
    values = {name: entry.get(name) for name in FLAGS}
    for name, value in values.items():
        if isinstance(value, bool):
            flags[name][row] = value
    box = entry.get("object_bounding_box")
    boxes[row] = box_or_nan(box)
    box_fits = box is None or bool(np.isfinite(boxes[row]).all())
    return box_fits and all(v is None or isinstance(v, bool) for v in values.values())


def load_json(path: Path) -> dict[str, object]:
    """The object in a JSON file of an untrusted tree.

    Raises:
        DataError: not readable, too large, truncated, nested too deeply, or not an object.
    """
    try:
        table = json.loads(read_bounded(path, MAX_BYTES))
    except (ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"no valid JSON ({_brief(error)}); truncated?") from error
    if not isinstance(table, dict):
        raise DataError(f"expected frame name -> flags, got {_brief(table)}")
    return table


def box_or_nan(box: object) -> tuple[float, float, float, float]:
    """x, y, width, height of a box inside the 1080 x 1080 frame, else four NaN."""
    values = [box.get(k) for k in ("x", "y", "w", "h")] if isinstance(box, dict) else []
    numbers = [
        float(v)
        for v in values
        if isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= BOX_SIZE
    ]
    if len(numbers) == 4:
        x, y, w, h = numbers
        if min(x, y) >= 0 and max(x, y) < BOX_SIZE and min(w, h) > 0:
            return x, y, w, h
    return math.nan, math.nan, math.nan, math.nan


def _brief(value: object) -> str:
    text = str(value)[:80] if isinstance(value, Exception) else type(value).__name__
    return text.encode(errors="backslashreplace").decode()
