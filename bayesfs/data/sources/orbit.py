"""Read an ORBIT-shaped tree: users who recorded short videos of their own objects.

    ROOT/{train,validation,test}/{USER}/{object name}/{clean|clutter}/{VIDEO}/{VIDEO}-00001.jpg
    ROOT/annotations/{train,validation,test}/{VIDEO}.json

Start with `read_orbit`. No pixel is read here.

Source: ORBIT data set (Massiceti et al. 2021), layout of its README and data/datasets.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bayesfs.data.sources.annotations import annotate
from bayesfs.data.sources.video import (
    IMAGE_SUFFIXES,
    SPLITS,
    TreeWalk,
    Video,
    VideoTree,
    looks_like_split,
)
from bayesfs.errors import DataError
from bayesfs.types import CONDITIONS

ANNOTATIONS = "annotations"

_FRAME = re.compile(r"(?P<video>.*)-(?P<number>[0-9]{1,9})\.[A-Za-z]+", re.DOTALL)


def read_orbit(root: str | Path) -> VideoTree:
    """Every usable video of an ORBIT-shaped tree; users, objects, videos and frames sorted.

    Left out, noted in `VideoTree.skipped` and logged: folders beside the splits and files beside
    the folders, an object without a clean video, a folder other than clean or clutter, a video
    without frames, files that are no frames, links that leave the tree, a second video of the same
    name. A video with gaps in its numbering is kept and the gap noted; so are names that are
    suspiciously alike. Annotations that cannot be read become -1 and NaN.

    Args:
        root: the folder that holds train, validation or test.

    Returns:
        The tree, with annotation flags and boxes where there are annotations.

    Raises:
        DataError: the folder is missing, or holds no usable video.

    Example:
        >>> tree = read_orbit("orbit")  # doctest: +SKIP
        >>> tree.videos[0].user, tree.videos[0].object  # doctest: +SKIP
        ('P100', 'house keys')
    """
    walk = TreeWalk(Path(root))
    splits = _splits(walk)
    if not splits:
        raise DataError(f"expected one of the folders {SPLITS} in {str(walk.root)!r}")
    seen: set[str] = set()
    videos: list[Video] = []
    users = [user for split in splits for user in _only_folders(walk, split)]
    walk.tell_alike(users)  # of different splits, too: is one person in both?
    for user in users:
        for thing in _only_folders(walk, user):
            videos += [v for v in _object(walk, thing) if _is_new(walk, v, seen)]
    return VideoTree(walk.root, tuple(videos), tuple(walk.skipped))


def is_orbit(root: Path) -> bool:
    """Whether some split holds user / object / clean or clutter."""
    return any(
        next(root.glob(f"{s}/*/*/{condition}"), None) for s in SPLITS for condition in CONDITIONS
    )


def _splits(walk: TreeWalk) -> list[Path]:
    """Folders of the splits in their order; whatever else lies beside them is noted."""
    found = _only_folders(walk, walk.root)
    for path in found:
        if path.name in (*SPLITS, ANNOTATIONS):
            continue
        if looks_like_split(path.name):
            walk.skip(path, f"not read: expected one of the names {SPLITS}; rename it", "video")
        else:
            walk.skip(path, f"neither one of {SPLITS} nor {ANNOTATIONS!r}", "file")
    return sorted((p for p in found if p.name in SPLITS), key=lambda p: SPLITS.index(p.name))


def _only_folders(walk: TreeWalk, path: Path) -> list[Path]:
    for stray in walk.files(path):
        walk.skip(stray, "a file where folders were expected", "file")
    return walk.folders(path)


def _is_new(walk: TreeWalk, video: Video, seen: set[str]) -> bool:
    if video.name in seen:
        walk.skip(video.location, "another video has the same name", "video")
        return False
    seen.add(video.name)
    return True


def _object(walk: TreeWalk, path: Path) -> list[Video]:
    """Videos of one object, or none where it has no clean one to learn from."""
    videos: list[Video] = []
    for condition in _only_folders(walk, path):
        if condition.name not in CONDITIONS:
            walk.skip(condition, f"unknown condition; expected one of {CONDITIONS}", "video")
            continue
        videos += _videos(walk, condition)
    if all(v.condition != "clean" for v in videos):
        walk.skip(path, "an object with no clean video: nothing to learn it from", "object")
        return []
    return videos


def _videos(walk: TreeWalk, condition: Path) -> Iterator[Video]:
    for stray in walk.files(condition):
        walk.skip(stray, "a file where a folder of frames was expected", "file")
    for path in walk.folders(condition):
        files, numbers = _frames(walk, path)
        if not files:
            walk.skip(path, "a video without frames; an incomplete download?", "video")
            continue
        split, user, name = condition.parts[-4], condition.parts[-3], path.name
        source = walk.root / ANNOTATIONS / split / f"{name}.json"
        notes = annotate(source if walk.holds(source) else None, files)
        for problem in notes.problems:
            walk.skip(source, problem, "annotation")
        yield Video(
            split=split,
            user=user,
            object=condition.parts[-2],
            condition=condition.name,
            name=name,
            root=walk.root,
            path=path.relative_to(walk.root).as_posix(),
            files=files,
            numbers=numbers,
            flags=notes.flags,
            boxes=notes.boxes,
        )


def _frames(walk: TreeWalk, path: Path) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Frame files of one video by number, with strays, repeats and gaps noted."""
    found: dict[int, str] = {}
    for file in walk.files(path):
        match = _FRAME.fullmatch(file.name)
        if file.suffix.lower() not in IMAGE_SUFFIXES or not match or match["video"] != path.name:
            walk.skip(file, f"not a frame; expected {path.name!r} and -00001.jpg", "file")
        elif int(match["number"]) in found:
            walk.skip(file, "a second file for the same frame number", "frame")
        else:
            found[int(match["number"])] = file.name
    numbers = np.array(sorted(found), np.int32)
    if len(numbers):
        missing = int(numbers[-1]) - int(min(numbers[0], 1)) + 1 - len(numbers)
        if missing:
            at = 1 if numbers[0] > 1 else int(numbers[np.flatnonzero(np.diff(numbers) > 1)[0]]) + 1
            walk.skip(path, f"{missing} frames missing, first number {at}; lost files?", "frame")
    return tuple(found[n] for n in numbers.tolist()), numbers
