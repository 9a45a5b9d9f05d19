"""Recordings on disk before any pixel is read: `Video`, `VideoTree`, and a careful `TreeWalk`.

Use `bayesfs.data.sources.open.read_tree` first; it returns a `VideoTree`. What a reader leaves out
is never silent: each such thing is a `Skipped` record that the report counts.
"""

from __future__ import annotations

import difflib
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bayesfs.errors import DataError
from bayesfs.types import CONDITIONS

FLAGS = (
    "object_not_present_issue",
    "framing_issue",
    "viewpoint_issue",
    "blur_issue",
    "occlusion_issue",
    "overexposed_issue",
    "underexposed_issue",
)
"""ORBIT's annotation flags; a store holds each as the coordinate `flag_NAME`."""

SPLITS = ("train", "validation", "test")
"""Splits of an ORBIT-shaped tree, as its folders are named."""

_SPLIT_LIKE = frozenset(
    {*SPLITS, "training", "valid", "val", "dev", "testing", "tests", "eval", "evaluation"}
)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".qt", ".avi", ".mkv", ".webm", ".gif", ".ogv", ".wmv", ".flv"}
    | {".3gp", ".3g2", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"}
)
"""Suffixes of pictures and of video files, in lower case; those of files may be in any."""

SYSTEM_FOLDERS = frozenset(
    {
        "@eadir",
        "@recycle",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "__macosx",
        "lost+found",
        "system volume information",
    }
)
"""Folders, in lower case, that operating systems, network drives and archives leave."""

UNKNOWN_OBJECT = ""
"""Object name of a video whose object is to be predicted."""

Level = Literal["object", "video", "frame", "annotation", "file", "name"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""What may be left out, the gravest loss first."""

UNDECODED = "no frame of it could be decoded"
"""Why a video is left out whose file can be read, and of which nothing else is known."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Skipped:
    """One thing that was left out, and why.

    Attributes:
        path: where, relative to the tree.
        reason: what is wrong and the likely cause.
        level: what is lost: "object", "video", "frame", "annotation", or an unused "file"; "name"
            where nothing is lost, but two names are suspiciously alike.
    """

    path: str
    reason: str
    level: Level


class NothingDecoded(DataError):
    """No frame at all could be decoded.

    Attributes:
        skipped: what was left out, and why.
    """

    def __init__(self, videos: int, skipped: Sequence[Skipped]) -> None:
        why = "; ".join(f"{s.path!r}: {s.reason}" for s in skipped[:3])
        super().__init__(f"no frame of {videos} videos could be decoded. {why}")
        self.skipped = tuple(skipped)


@dataclass(frozen=True, eq=False)
class Video:
    """One recording of one object: a folder of frames, a video file, or a single photograph.

    Attributes:
        split: "train", "validation" or "test".
        user: who recorded it.
        object: its object, `UNKNOWN_OBJECT` where it is to be predicted.
        condition: one of `CONDITIONS`.
        name: unique name of the video.
        root: the tree it belongs to.
        path: the folder or file, relative to the tree, with forward slashes.
        files: names of the frames in order of time; empty for a video file or a photograph.
        numbers: (frame,) number of each frame, as in its file name.
        flags: flag -> (frame,) int8: 1 true, 0 false, -1 not annotated.
        boxes: (frame, 4) x, y, width, height in pixels of 1080 x 1080; NaN where there is none.

    Raises:
        DataError: the condition is unknown, or a column has another length than `files`.
    """

    split: str
    user: str
    object: str
    condition: str
    name: str
    root: Path
    path: str
    files: tuple[str, ...] = ()
    numbers: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    flags: Mapping[str, NDArray[np.int8]] = field(default_factory=dict)
    boxes: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))

    def __post_init__(self) -> None:
        if self.condition not in CONDITIONS:
            raise DataError(
                f"video {self.name!r}: expected condition in {CONDITIONS}, got {self.condition!r}"
            )
        columns: dict[str, NDArray[Any]] = {"numbers": self.numbers, "boxes": self.boxes}
        for name, column in {**columns, **self.flags}.items():
            if len(column) != len(self.files):
                raise DataError(
                    f"video {self.name!r}: {len(self.files)} frames but {len(column)} {name}"
                )

    @property
    def location(self) -> Path:
        """Where it lies on this machine."""
        return self.root / self.path

    @property
    def is_file(self) -> bool:
        """Whether it is one file rather than a folder of frames."""
        return not self.files

    @property
    def is_photograph(self) -> bool:
        """Whether it is a single picture, a recording of one frame."""
        return self.is_file and Path(self.path).suffix.lower() in IMAGE_SUFFIXES

    @property
    def frames(self) -> tuple[Path, ...]:
        """Paths of the frames in order of time; empty for a video file or a photograph."""
        return tuple(self.location / name for name in self.files)


@dataclass(frozen=True, eq=False)
class VideoTree:
    """All videos of a tree, by split, user, object, condition and name, and what was left out.

    Raises:
        DataError: there is no video, or two have one name.
    """

    root: Path
    videos: tuple[Video, ...]
    skipped: tuple[Skipped, ...] = ()

    def __post_init__(self) -> None:
        if not self.videos:
            why = "; ".join(f"{s.path!r}: {s.reason}" for s in self.skipped[:3])
            raise DataError(f"{str(self.root)!r} holds no usable video. {why or 'It is empty.'}")
        name, times = Counter(v.name for v in self.videos).most_common(1)[0]
        if times > 1:
            raise DataError(f"{str(self.root)!r}: {times} videos are named {name!r}")
        if self.skipped:
            levels = Counter(s.level for s in self.skipped)
            told = ", ".join(f"{level} {levels[level]}" for level in LEVELS if levels[level])
            first = self.skipped[0]
            _log.warning(
                "%s: left out (%s), first %r: %s", self.root, told, first.path, first.reason
            )

    def __len__(self) -> int:
        return len(self.videos)


class TreeWalk:
    """Lists folders and files in order; notes hidden traps instead of following them.

    A symbolic link that leaves the tree, a name that is not UTF-8, a pipe or device, a folder of
    the system (`SYSTEM_FOLDERS`) and a folder that cannot be read are skipped and noted. Names
    beside one another that differ only in case, spaces or Unicode form are noted and kept. Names
    that begin with a dot are ignored.

    Args:
        root: the tree.

    Raises:
        DataError: the root is no folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            what = "a file" if root.exists() else f"not there{_near(root)}"
            raise DataError(f"expected a folder of videos at {str(root)!r}, but it is {what}")
        self.root = root
        self.skipped: list[Skipped] = []
        self._real = root.resolve()

    def relative(self, path: Path) -> str:
        """Path relative to the tree, with forward slashes, always encodable."""
        text = path.relative_to(self.root).as_posix()
        return text.encode(errors="backslashreplace").decode()

    def skip(self, path: Path, reason: str, level: Level) -> None:
        """Note that something was left out."""
        self.skipped.append(Skipped(self.relative(path), reason, level))

    def holds(self, path: Path) -> bool:
        """Whether a path, its symbolic links followed, lies inside the tree."""
        return Path(os.path.realpath(path)).is_relative_to(self._real)

    def folders(self, path: Path) -> list[Path]:
        """Sub-folders sorted by name."""
        return self._entries(path, os.DirEntry.is_dir)

    def files(self, path: Path) -> list[Path]:
        """Regular files sorted by name."""
        return self._entries(path, lambda entry: not entry.is_dir())

    def tell_alike(self, paths: Sequence[Path]) -> None:
        """Note names that differ, but only in case, spaces or Unicode form."""
        first: dict[str, Path] = {}
        for path in paths:
            other = first.setdefault(plain_name(path.name), path)
            if other.name != path.name:
                told = f"kept, but alike but for case, spaces or Unicode form: {other.name!a} and "
                note = Skipped(self.relative(path), f"{told}{path.name!a}; is it the same?", "name")
                self.skipped += [note] if note not in self.skipped else []

    def _entries(self, path: Path, wanted: Callable[[os.DirEntry[str]], bool]) -> list[Path]:
        try:
            with os.scandir(path) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
            found = [e for e in entries if not e.name.startswith(".") and wanted(e)]
        except OSError as error:
            self.skip(path, f"cannot be listed: {error.strerror}", "video")
            return []
        safe = [path / entry.name for entry in found if self._is_safe(path, entry)]
        self.tell_alike(safe)
        return safe

    def _is_safe(self, path: Path, entry: os.DirEntry[str]) -> bool:
        reason = ""
        if not _is_utf8(entry.name):
            reason = "its name is not UTF-8; rename it"
        elif entry.is_symlink() and not self.holds(Path(entry.path)):
            reason = "a symbolic link that leaves the tree; copy the data into it"
        elif not (entry.is_dir() or entry.is_file()):
            reason = "neither a file nor a folder; a pipe, a device, or a link to nothing?"
        elif entry.is_dir() and entry.name.lower() in SYSTEM_FOLDERS:
            reason = "a folder of the system, a network drive or an archive, not of recordings"
        if reason:
            self.skip(path / entry.name, reason, "file")
        return not reason


def looks_like_split(name: str) -> bool:
    """Whether a folder's name is meant as that of a split, though it may be another one."""
    return plain_name(name) in _SPLIT_LIKE


def plain_name(name: str) -> str:
    """A name without what two spellings of it may differ in: case, spaces and Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _near(root: Path) -> str:
    """The name beside a missing one that is most like it, as a question."""
    beside = [p.name for p in root.parent.iterdir()] if root.parent.is_dir() else []
    near = difflib.get_close_matches(root.name, beside, n=1)
    return f"; did you mean {str(root.parent / near[0])!r}?" if near else ""
