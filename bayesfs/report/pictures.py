"""Small pictures of the videos, within a budget of bytes: first where they tell most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bayesfs.plots.text import data_uri, small_jpeg

if TYPE_CHECKING:
    from bayesfs.data.store import Thumbnail

BUDGET = 250_000
"""Bytes of all pictures in a report, as base64; each is in the page once."""


@dataclass(frozen=True)
class ReportPicture:
    """A picture as it stands in the page.

    Attributes:
        frame: number of the frame in its video.
        source: data URI.
        name: by which the page shows it, wherever it does.
    """

    frame: int
    source: str
    name: str


@dataclass(frozen=True)
class Album:
    """The pictures of a report.

    Attributes:
        strips: video -> its pictures in order of time.
        left_out: number of videos whose pictures did not fit, or could not be read.
    """

    strips: Mapping[str, tuple[ReportPicture, ...]]
    left_out: int


def make_album(
    pictures: Mapping[str, Sequence[Thumbnail]],
    first: Sequence[str],
    rest: Sequence[str],
    budget: int = BUDGET,
) -> Album:
    """Choose and shrink pictures so that a report stays small.

    Args:
        pictures: video -> pictures.
        first: videos that get all of their pictures, before any other.
        rest: videos that get all of theirs if everything fits, otherwise one of 48 pixels each.
        budget: bytes.

    Returns:
        The album; no picture carries metadata of its file.
    """
    strips: dict[str, tuple[ReportPicture, ...]] = {}
    have = [v for v in dict.fromkeys((*first, *rest)) if pictures.get(v)]
    everything = sum(len(t.jpeg) for v in have for t in pictures[v]) * 4 / 3
    used = 0
    for video in have:
        whole = everything <= budget or video in first
        strip = _strip(pictures[video], whole)
        size = sum(len(p.source) for p in strip)
        if strip and used + size <= budget:
            place = sum(map(len, strips.values()))
            strips[video] = tuple(replace(p, name=f"i{place + i}") for i, p in enumerate(strip))
            used += size
    return Album(strips, len(have) - len(strips))


def _strip(thumbnails: Sequence[Thumbnail], whole: bool) -> tuple[ReportPicture, ...]:
    chosen = list(thumbnails) if whole else [thumbnails[len(thumbnails) // 2]]
    px, quality = (96, 80) if whole else (48, 55)
    made = [(t.frame_number, small_jpeg(t.jpeg, px, quality)) for t in chosen]
    return tuple(
        ReportPicture(frame, data_uri(jpeg), "") for frame, jpeg in made if jpeg is not None
    )
