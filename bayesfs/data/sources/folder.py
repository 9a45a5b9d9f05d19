"""Read a person's own videos: one folder per object, and a folder of videos to predict.

    ROOT/{object name}/*.mp4, *.mov, ...      video files (extra `video`), or
    ROOT/{object name}/{video}/*.jpg          folders of frames, in natural order of their names,
    ROOT/{object name}/*.jpg                  or photographs, each a recording of one frame
    ROOT/unlabelled/*.mp4 or {video}/*.jpg    videos whose object is to be predicted

Start with `read_folder`. No pixel is read here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from bayesfs._utils.places import folder_name
from bayesfs.data.sources.video import (
    IMAGE_SUFFIXES,
    SPLITS,
    UNKNOWN_OBJECT,
    VIDEO_SUFFIXES,
    TreeWalk,
    Video,
    VideoTree,
    looks_like_split,
    plain_name,
)
from bayesfs.errors import DataError
from bayesfs.types import CONDITIONS

UNLABELLED_FOLDER = "unlabelled"

MANY_ALIKE = 8
"""Numbered pictures of an object that are said to look like frames of one video."""

PHONES: Mapping[str, str] = dict.fromkeys(
    (".heic", ".heif"),
    "not read, as a phone's HEIC picture; have it as JPEG (on an iPhone: Settings, Camera, "
    "Formats, Most Compatible; pictures that are there: export or share them as JPEG)",
)
"""Suffix of pictures that phones take and that are not read -> what to do."""

_UNLABELLED = ("unlabelled", "unlabeled")


def read_folder(
    root: str | Path,
    *,
    unlabelled: str | Path | None = None,
    user: str | None = None,
    split: str = "test",
    condition: str = "clean",
    unlabelled_condition: str = "clutter",
) -> VideoTree:
    """A person's teaching videos, one folder per object, and the videos to predict.

    Args:
        root: folder with one sub-folder per object.
        unlabelled: another folder of videos to predict, or one of them; without it,
            ROOT/unlabelled if it exists.
        user: name of the person; the folder's name by default, unless it is the machine's user.
        split: split that the videos are filed under.
        condition: recording condition of the teaching videos.
        unlabelled_condition: recording condition of the videos to predict.

    Returns:
        The tree; videos to predict have the object `UNKNOWN_OBJECT`. Paths of videos from another
        folder are relative to that folder.

    Raises:
        DataError: a folder is missing, or no object has a video.
    """
    walk = TreeWalk(Path(root))
    owner = user or folder_name(walk.root)
    videos: list[Video] = []
    for path in _objects(walk, unlabelled is not None):
        found = list(_recordings(walk, path, owner, path.name, split, condition))
        if not found:
            walk.skip(path, "an object without a video: nothing to learn it from", "object")
        videos += found
    if not videos:
        why = "; ".join(f"{s.path!r}: {s.reason}" for s in walk.skipped[:3])
        raise DataError(
            f"{str(root)!r} holds no folder 'object name/' with video files, photographs or "
            f"folders of frames. {why or describe_layout(walk.root)}"
        )
    if unlabelled is not None and Path(unlabelled).is_file():
        alone = replace(
            recording(Path(unlabelled), owner), split=split, condition=unlabelled_condition
        )
        return VideoTree(walk.root, (*videos, alone), tuple(walk.skipped))
    other = walk if unlabelled is None else TreeWalk(Path(unlabelled))
    queries = other.root / UNLABELLED_FOLDER if unlabelled is None else other.root
    if queries.is_dir() and other.holds(queries):
        videos += _recordings(other, queries, owner, UNKNOWN_OBJECT, split, unlabelled_condition)
    skipped = walk.skipped if other is walk else walk.skipped + other.skipped
    return VideoTree(walk.root, tuple(videos), tuple(skipped))


def read_unlabelled(root: str | Path, user: str) -> VideoTree:
    """The videos of a folder, all to be predicted, of a person whose objects are known.

    Args:
        root: folder of videos, or one video file or photograph.
        user: name of the person.

    Raises:
        DataError: there is neither.
    """
    if Path(root).is_file():
        return VideoTree(Path(root).parent, (recording(Path(root), user),), ())
    walk = TreeWalk(Path(root))
    videos = tuple(_recordings(walk, walk.root, user, UNKNOWN_OBJECT, "test", "clutter"))
    return VideoTree(walk.root, videos, tuple(walk.skipped))


def recording(path: Path, user: str = "user") -> Video:
    """One recording by itself: a video file, a photograph, or a folder of frames.

    Args:
        path: where it is.
        user: name of the person.

    Raises:
        DataError: there is none of that name.
    """
    walk = TreeWalk(path.parent)
    found = _recordings(walk, walk.root, user, UNKNOWN_OBJECT, "test", "clutter")
    for video in found:
        if video.path == path.name:
            return video
    why = next((f": {s.reason}" for s in walk.skipped if s.path == path.name), "")
    raise DataError(
        f"{str(path)!r}: expected a video file, a photograph or a folder of frames{why}"
    )


def _objects(walk: TreeWalk, elsewhere: bool) -> Iterator[Path]:
    """Folders of objects; whatever else lies beside them is noted."""
    for file in walk.files(walk.root):
        is_video = file.suffix.lower() in VIDEO_SUFFIXES
        told = "a file beside the folders of the objects; put videos into 'object name/'"
        walk.skip(file, told, "video" if is_video else "file")
    for path in walk.folders(walk.root):
        if plain_name(path.name) not in _UNLABELLED:
            if looks_like_split(path.name):
                told = f"kept as an object, but named as one of {SPLITS} may be: is it one?"
                walk.skip(path, told, "name")
            yield path
        elif path.name != UNLABELLED_FOLDER:
            told = f"not read, as an object or otherwise: expected the name {UNLABELLED_FOLDER!r}"
            walk.skip(path, f"{told}; rename it", "video")
        elif elsewhere:
            walk.skip(path, "not read: the videos to predict are in another folder", "file")


def is_folder(root: Path) -> bool:
    """Whether some sub-folder holds a video file, a photograph, or a folder of images."""
    return any(
        p.is_file() and p.suffix.lower() in suffixes
        for depth, suffixes in ((2, VIDEO_SUFFIXES | IMAGE_SUFFIXES), (3, IMAGE_SUFFIXES))
        for p in root.glob("/".join("*" * depth))
    )


def describe_layout(root: Path) -> str:
    """What a folder holds instead of objects, as the likely cause of an error."""
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        return f"It cannot be listed: {error.strerror}."
    misnamed = [p.name for p in entries if p.name not in SPLITS and looks_like_split(p.name)]
    if misnamed:
        return f"It holds {misnamed}: expected the names {SPLITS}, in lower case."
    suffixes = {p.suffix.lower() for p in entries if p.is_file()}
    if suffixes & VIDEO_SUFFIXES:
        return "Videos lie directly in it: put those of each object into a folder of its own."
    if suffixes & IMAGE_SUFFIXES:
        return "Images lie directly in it: put those of each object into a folder of its own."
    return f"It holds {[p.name for p in entries[:5]]}." if entries else "It is empty."


def _recordings(
    walk: TreeWalk, path: Path, user: str, label: str, split: str, condition: str
) -> Iterator[Video]:
    """Videos of one object: its video files and its folders of frames."""
    if condition not in CONDITIONS:
        raise DataError(f"expected condition to be one of {CONDITIONS}, got {condition!r}")
    prefix = f"{user}--{label or UNLABELLED_FOLDER}"
    for file in walk.files(path):
        if file.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
            where = file.relative_to(walk.root).as_posix()
            yield Video(split, user, label, condition, f"{prefix}--{file.name}", walk.root, where)
        else:
            videos, pictures = (", ".join(sorted(s)) for s in (VIDEO_SUFFIXES, IMAGE_SUFFIXES))
            told = (
                f"not read; expected a video file ({videos}), a photograph ({pictures}), or a "
                "folder with the images of one video"
            )
            walk.skip(file, PHONES.get(file.suffix.lower(), told), "file")
    _note_frames(walk, path)
    for folder in walk.folders(path):
        files, suffixes = walk.files(folder), ", ".join(sorted(IMAGE_SUFFIXES))
        images = [f for f in files if f.suffix.lower() in IMAGE_SUFFIXES]
        if not images:
            walk.skip(folder, f"no frame ({suffixes}) in it", "video")
            continue
        for stray in sorted(set(files) - set(images)):
            walk.skip(stray, f"not a frame; expected one of {suffixes}", "file")
        for inner in walk.folders(folder):
            walk.skip(inner, "a folder within a folder of frames", "file")
        yield Video(
            split=split,
            user=user,
            object=label,
            condition=condition,
            name=f"{prefix}--{folder.name}",
            root=walk.root,
            path=folder.relative_to(walk.root).as_posix(),
            files=tuple(sorted((f.name for f in images), key=_natural)),
            numbers=np.arange(1, len(images) + 1, dtype=np.int32),
            boxes=np.full((len(images), 4), np.nan, np.float32),
        )


def _note_frames(walk: TreeWalk, path: Path) -> None:
    """Say it where photographs look like the frames of one video, which are no recordings each."""
    pictures = [f for f in walk.files(path) if f.suffix.lower() in IMAGE_SUFFIXES]
    patterns = Counter(re.sub(r"[0-9]+", "#", picture.name) for picture in pictures)
    pattern, count = max(patterns.items(), key=lambda item: item[1], default=("", 0))
    if count >= MANY_ALIKE and "#" in pattern:
        told = f"{count} pictures named {pattern!r} are taken for as many recordings of one frame: "
        walk.skip(path, f"{told}if they are frames of one video, give it a folder", "name")


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sorting key by which frame2 comes before frame10."""
    parts = re.findall(r"(0*)([0-9]+)|([^0-9]+)", name)
    return [(len(digits), digits or text) for _, digits, text in parts], name
