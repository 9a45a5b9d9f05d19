"""People of ORBIT's shape and size with simulated features: `simulated`.

Rendering and embedding 1.5 million frames would take days on two cores, so that the features are
drawn: with unit vectors m of all, u_p of a person, o of an object, v of a video and e_t of a frame
in 64 directions of the feature space,

    x_t = unit(sqrt(.40) m + sqrt(.05) u_p + sqrt(.20) o + sqrt(.10) v + sqrt(.25) e_t + c),

e_t an autoregression (.9 from frame to frame), c a shift in clutter, where part of the object's
share goes to other things; `ABSENT` frames have none of the object. How many objects a person
has, and how many clean and cluttered videos of each, is exactly ORBIT's; numbers of frames are
drawn about ORBIT's mean of 703 a video.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bayesfs.evaluation.orbit import ABSENT
from bayesfs.types import Embeddings
from orbit_parts.people import People, joined_frames, thinned

TEST_USERS = {
    "P177": "1x5+1 6x6+1",
    "P198": "7x6+1 1x7+1 1x8+1 1x10+1",
    "P204": "1x5+10 1x5+12 1x5+13 2x6+3 1x6+11 2x6+12 1x6+13",
    "P233": "1x4+2 5x5+2",
    "P271": "1x5+1 6x5+2",
    "P421": "7x6+1 2x7+1 1x8+1",
    "P452": "1x5+1 8x6+1 1x6+3",
    "P455": "4x6+1 1x6+3 4x7+1",
    "P485": "1x2+1 2x4+2 6x5+2",
    "P554": "2x4+2 3x5+2",
    "P609": "9x6+1 1x7+1",
    "P642": "1x3+1 1x4+1 2x5+1 7x6+1 1x7+1 1x8+1",
    "P753": "1x5+1 12x5+2",
    "P900": "1x4+1 5x5+1 1x6+1 1x7+1",
    "P901": "1x2+2 1x5+1 1x6+1 3x6+2 1x6+3 1x6+5 1x6+7 1x7+2 1x8+2",
    "P953": "1x5+1 6x6+1 3x6+2",
    "P999": "11x6+1",
}
"""ORBIT's 17 test users: "OBJECTSxCLEAN+CLUTTER", objects with so many clean and cluttered videos.

Counted in the names of videos in orbit_test_object_cluster_labels.json of its repository (MIT):
158 objects, 898 clean and 300 cluttered videos.
"""

TRAIN_USERS = 44
"""ORBIT's; here each has as many videos as a test user, and they are short: 16 frames are kept."""

DIM, RANK = 1280, 64
MEAN_FRAMES = 703
LEAST_FRAMES, MOST_FRAMES = 60, 2000

SHARES = {"all": 0.40, "person": 0.05, "object": 0.20, "video": 0.10, "frame": 0.25}
CLUTTERED = {**SHARES, "object": 0.12, "video": 0.18}
"""Shares of a frame's squared length, clean and cluttered."""

ABSENT_SHARE = 0.08
MEMORY = 0.9

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """How much is simulated.

    Attributes:
        test: user -> (clean videos, cluttered videos) of each object.
        train_users: number of them.
        frames: mean number of frames of a video.
        dim: features.
    """

    test: dict[str, list[tuple[int, int]]]
    train_users: int = TRAIN_USERS
    frames: int = MEAN_FRAMES
    dim: int = DIM


def orbit_shape() -> Shape:
    """ORBIT's."""
    return Shape({user: [*_counts(text.split())] for user, text in TEST_USERS.items()})


def tiny_shape() -> Shape:
    """Six test users with two or three objects and short videos, for the smoke test."""
    return Shape({f"P{i}": [(2, 1)] * (2 + i % 2) for i in range(6)}, 3, 70, 96)


def _counts(groups: Sequence[str]) -> Iterator[tuple[int, int]]:
    for group in groups:
        objects, videos = group.split("x")
        clean, clutter = videos.split("+")
        yield from [(int(clean), int(clutter))] * int(objects)


def simulated(shape: Shape) -> People:
    """People of this shape; the same name always has the same frames."""
    tests, short = [*shape.test], replace(shape, frames=min(shape.frames, LEAST_FRAMES))
    train = [
        thinned(_person(f"T{i:02d}", shape.test[tests[i % len(tests)]], "train", short))
        for i in range(shape.train_users)
    ]
    joined = joined_frames(train)
    return People(
        "simulated",
        joined,
        tuple(sorted(tests)),
        lambda user: _person(user, shape.test[user], "test", shape),
    )


def _person(user: str, objects: Sequence[tuple[int, int]], split: str, shape: Shape) -> Embeddings:
    """All videos of one person."""
    rng = np.random.default_rng([*user.encode()])
    world = np.random.default_rng(0)
    basis = np.linalg.qr(world.normal(size=(shape.dim, RANK)))[0].astype(np.float32)
    known = {"all": _unit(world), "person": _unit(rng)}
    shift = 0.4 * _unit(world)
    frames, columns, absent = [], [], []
    for number, videos in enumerate(objects):
        thing = {**known, "object": _unit(rng)}
        for condition, count in zip(("clean", "clutter"), videos, strict=True):
            for video in range(count):
                length = int(np.clip(shape.frames * rng.lognormal(-0.125, 0.5), *_bounds(shape)))
                gone = np.zeros(length, bool)
                if condition == "clutter":
                    gone = rng.random(length) < ABSENT_SHARE
                found = _video(rng, {**thing, "video": _unit(rng)}, condition, gone)
                frames.append((found + shift * (condition == "clutter")) @ basis.T)
                name = f"{user}--thing {number:02d}--{condition}--{video:02d}"
                columns.append((f"thing {number:02d}", condition, name, length))
                absent.append(gone)
    x = np.concatenate(frames)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    names = {
        key: np.repeat([c[i] for c in columns], [c[3] for c in columns])
        for i, key in enumerate(("object", "condition", "video"))
    }
    told = Embeddings.from_arrays(
        x, **names, user=np.full(len(x), user), split=np.full(len(x), split)
    )
    flag = np.concatenate(absent).astype(np.int64)
    return Embeddings(told.dataset.assign_coords({ABSENT: ("frame", flag)}))


def _video(
    rng: np.random.Generator, parts: dict[str, Floats], condition: str, gone: NDArray[np.bool_]
) -> Floats:
    """(frame, direction) of one video."""
    shares = SHARES if condition == "clean" else CLUTTERED
    still = sum(np.sqrt(shares[name]) * part for name, part in parts.items() if name != "object")
    noise = rng.normal(size=(len(gone), RANK)).astype(np.float32) / np.sqrt(np.float32(RANK))
    fresh = np.sqrt(1 - MEMORY**2)
    for t in range(1, len(noise)):
        noise[t] = MEMORY * noise[t - 1] + fresh * noise[t]
    shown = np.sqrt(shares["object"]) * ~gone[:, None] * parts["object"]
    return np.asarray(still + shown + np.sqrt(shares["frame"]) * noise, np.float32)


def _bounds(shape: Shape) -> tuple[int, int]:
    return min(LEAST_FRAMES, shape.frames), MOST_FRAMES


def _unit(rng: np.random.Generator) -> Floats:
    x = rng.normal(size=RANK)
    return np.asarray(x / np.linalg.norm(x), np.float32)
