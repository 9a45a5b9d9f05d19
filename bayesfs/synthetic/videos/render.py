"""Render a small ORBIT-shaped tree of videos, so that a first run needs no download.

Start with `render_tree`. Users have everyday objects made of textured solids (`things`), recorded
alone and in clutter (`scenes`), with exact annotations in ORBIT's keys.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

from bayesfs._utils.guarded_files import read_text
from bayesfs._utils.processes import fresh_processes
from bayesfs.errors import DataError
from bayesfs.protocols import Progress
from bayesfs.synthetic.videos.objects import Thing, make_thing, user_things
from bayesfs.synthetic.videos.scenes import record_video

SETTINGS = ".render.json"
"""File in the tree's folder that holds what it was rendered with."""

_STAGING = ".partial"


@dataclass(frozen=True)
class _Settings:
    train_users: int
    validation_users: int
    test_users: int
    objects: int
    clean_videos: int
    clean_frames: int
    clutter_videos: int
    clutter_frames: int
    size: int
    seed: int


@dataclass(frozen=True)
class _Job:
    """One video to render."""

    split: str
    user: str
    thing: Thing
    condition: str
    name: str
    frames: int
    others: tuple[Thing, ...]
    seed: tuple[int, ...]


def render_tree(
    path: str | Path,
    *,
    train_users: int = 6,
    validation_users: int = 0,
    test_users: int = 3,
    objects: int = 5,
    clean_videos: int = 5,
    clean_frames: int = 8,
    clutter_videos: int = 2,
    clutter_frames: int = 12,
    size: int = 128,
    seed: int = 0,
    processes: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Render a tree of short videos of procedural objects.

    Every video is written beside the tree and moved into place when complete, so a killed run
    leaves no partial video; a second run with the same settings renders what is missing.

    Args:
        path: folder of the tree; made if it is missing.
        train_users: users in `train`.
        validation_users: users in `validation`.
        test_users: users in `test`.
        objects: objects per user; with three or more, two of them look alike.
        clean_videos: clean videos per object.
        clean_frames: frames per clean video.
        clutter_videos: cluttered videos per object.
        clutter_frames: frames per cluttered video.
        size: side of the square frames in pixels.
        seed: the same seed gives the same tree.
        processes: how many render at a time; the tree is the same. A script that asks for several
            is to be guarded by `if __name__ == "__main__":`.
        progress: callback (done, total, message).

    Returns:
        The path.

    Raises:
        DataError: a number is too small, or the folder holds something else.

    Example:
        >>> render_tree("demo/tree", seed=1)  # doctest: +SKIP
    """
    settings = _Settings(
        train_users,
        validation_users,
        test_users,
        objects,
        clean_videos,
        clean_frames,
        clutter_videos,
        clutter_frames,
        size,
        seed,
    )
    root = Path(path)
    _check(settings)
    _claim(root, settings)
    jobs = list(_jobs(settings))
    told = progress or (lambda done, total, message: None)
    told(0, len(jobs), "")
    for done, name in enumerate(_rendered(root, jobs, size, processes), 1):
        told(done, len(jobs), name)
    shutil.rmtree(root / _STAGING, ignore_errors=True)
    return root


def _check(settings: _Settings) -> None:
    least = {"seed": 0, "train_users": 0, "validation_users": 0, "test_users": 0, "size": 32}
    for name, value in asdict(settings).items():
        if value < least.get(name, 1):
            raise DataError(f"expected {name} >= {least.get(name, 1)}, got {value}")
    if not settings.train_users + settings.validation_users + settings.test_users:
        raise DataError("expected at least one user, got none")


def _claim(root: Path, settings: _Settings) -> None:
    """Make the folder, or make sure that it is a tree of these settings."""
    file = root / SETTINGS
    wanted = json.dumps(asdict(settings), indent=1)
    if file.is_file():
        if read_text(file, 10_000) != wanted:
            raise DataError(
                f"{str(root)!r} was rendered with other settings (see {SETTINGS}); choose another "
                "folder or remove it"
            )
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"expected a new or empty folder to render into, got {str(root)!r}")
    root.mkdir(parents=True, exist_ok=True)
    staged = root / f"{SETTINGS}.partial"
    staged.write_text(wanted, encoding="utf-8")
    os.replace(staged, file)


def _jobs(settings: _Settings) -> Iterator[_Job]:
    splits = ("train", "validation", "test")
    counts = (settings.train_users, settings.validation_users, settings.test_users)
    conditions = (
        ("clean", settings.clean_videos, settings.clean_frames),
        ("clutter", settings.clutter_videos, settings.clutter_frames),
    )
    strangers = [make_thing(np.random.default_rng([settings.seed, 1, i])) for i in range(24)]
    for number, split in enumerate(np.repeat(splits, counts).tolist()):
        user = f"P{number + 1:03d}"
        mine = user_things(np.random.default_rng([settings.seed, 0, number]), settings.objects)
        for index, thing in enumerate(mine):
            others = _around(mine, index, strangers)
            for k, (condition, videos, frames) in enumerate(conditions):
                for video in range(videos):
                    seed = (settings.seed, 2, number, index, k, video)
                    name = _name(user, thing, condition, seed)
                    yield _Job(split, user, thing, condition, name, frames, others, seed)


def _around(mine: Sequence[Thing], index: int, strangers: Sequence[Thing]) -> tuple[Thing, ...]:
    """Objects for the clutter: now and then one of the user's own, never the asked one."""
    own = [thing for i, thing in enumerate(mine) if i != index]
    return (*strangers, *own[:2])


def _name(user: str, thing: Thing, condition: str, seed: Sequence[int]) -> str:
    tag = crc32(repr(tuple(seed)).encode())
    return f"{user}--{thing.name.replace(' ', '-')}--{condition}--{tag:08x}"


def _target(root: Path, job: _Job) -> Path:
    return root / job.split / job.user / job.thing.name / job.condition / job.name


def _rendered(root: Path, jobs: Sequence[_Job], size: int, processes: int) -> Iterator[str]:
    """The names of the videos, each when it is there."""
    missing = []
    for job in jobs:
        if _target(root, job).is_dir():
            yield job.name
        else:
            missing.append(job)
    if min(processes, len(missing)) < 2:
        yield from (_render(root, job, size) for job in missing)
        return
    with fresh_processes(min(processes, len(missing))) as pool:
        futures = [pool.submit(_render, root, job, size) for job in missing]
        yield from (future.result() for future in as_completed(futures))


def _render(root: Path, job: _Job, size: int) -> str:
    """Write one video and its annotations: the frames' folder last, and at once."""
    staged = root / _STAGING / job.name
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    truth = {}
    frames = record_video(job.thing, job.others, job.condition, job.frames, size, job.seed)
    with threadpool_limits(1, user_api="blas"):
        for number, frame in enumerate(frames, start=1):
            file = f"{job.name}-{number:05d}.jpg"
            Image.fromarray(frame.image).save(staged / file, quality=88)
            truth[file] = frame.annotation
    notes = root / "annotations" / job.split
    notes.mkdir(parents=True, exist_ok=True)
    part = root / _STAGING / f"{job.name}.json"
    part.write_text(json.dumps(truth), encoding="utf-8")
    os.replace(part, notes / f"{job.name}.json")
    target = _target(root, job)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(staged, target)
    return job.name
