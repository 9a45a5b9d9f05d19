"""The same frame filmed again without its defect: `refilm`, for tests of what causes doubt.

Object, pose, backdrop, light and sensor noise stay as they are; one thing is wrong with one frame
and not with the other. What mending it does to a recogniser is then seen, not inferred.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bayesfs.synthetic.videos.motion import Pose, poses
from bayesfs.synthetic.videos.objects import Thing
from bayesfs.synthetic.videos.scenes import _scene, _take

Spoil = Callable[[Pose, np.random.Generator], Pose]
"""A good pose -> the same with one thing wrong."""

FLAT = 0.25
"""Share of the contrast that a flat frame keeps."""


def _slipped(pose: Pose, rng: np.random.Generator) -> Pose:
    aside = rng.uniform(0, 2 * np.pi)
    return replace(pose, x=0.5 + 0.45 * np.cos(aside), y=0.5 + 0.45 * np.sin(aside))


DEFECTS: Mapping[str, Spoil] = {
    "blurred": lambda pose, rng: replace(pose, blur=rng.uniform(1.0, 2.4)),
    "dark": lambda pose, rng: replace(pose, gain=rng.uniform(0.15, 0.4)),
    "bright": lambda pose, rng: replace(pose, gain=rng.uniform(1.6, 2.4)),
    "flat": lambda pose, rng: pose,
    "cut off": _slipped,
    "too small": lambda pose, rng: replace(pose, scale=pose.scale * rng.uniform(0.35, 0.55)),
    "occluded": lambda pose, rng: replace(pose, occluded=True),
    "absent": lambda pose, rng: replace(pose, absent=True),
}
"""Defect -> what it does to a pose; contrast is taken from the picture."""


TURNED = 0.25
"""Frame widths by which an object moves in the picture when the camera is turned to it."""

NEARER = 1.6
"""How much larger it is from nearer."""

STEPS: Mapping[str, Callable[[Pose], Pose]] = {
    "steadier": lambda pose: replace(pose, blur=min(pose.blur, 0.35)),
    "more light": lambda pose: replace(pose, gain=1.0 if pose.gain < 1 else 1.5 * pose.gain),
    "less light": lambda pose: replace(pose, gain=1.0 if pose.gain > 1 else pose.gain / 1.5),
    "turn left": lambda pose: replace(pose, x=pose.x + TURNED),
    "turn right": lambda pose: replace(pose, x=pose.x - TURNED),
    "turn top": lambda pose: replace(pose, y=pose.y + TURNED),
    "turn bottom": lambda pose: replace(pose, y=pose.y - TURNED),
    "closer": lambda pose: replace(pose, scale=NEARER * pose.scale),
}
"""What a person may do with the camera -> what it does to a pose; the wrong one makes it worse."""


@dataclass(frozen=True)
class Refilmed:
    """One moment, filmed well and with each defect.

    Attributes:
        good: (row, column, 3) uint8.
        spoilt: defect -> the same.
    """

    good: NDArray[np.uint8]
    spoilt: Mapping[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class Moment:
    """A moment that can be filmed as often as one likes.

    Attributes:
        pose: how it is filmed well.
        film: pose -> (row, column, 3) uint8; object, backdrop, light and noise are the moment's.
    """

    pose: Pose
    film: Callable[[Pose], NDArray[np.uint8]]


def moments(
    thing: Thing,
    others: Sequence[Thing],
    condition: str,
    frames: int,
    size: int,
    seed: Sequence[int],
) -> Iterator[Moment]:
    """Moments of one recording of an object.

    Args:
        thing: the object.
        others: objects that may stand around it in clutter.
        condition: "clean" or "clutter".
        frames: number of moments.
        size: side of the square frames in pixels.
        seed: the same seed gives the same frames.
    """
    rng = np.random.default_rng(seed)
    scene = _scene(rng, others, condition, size)
    for pose in list(poses(rng, condition, frames)):
        state = deepcopy(rng)

        def film(pose: Pose, state: np.random.Generator = state) -> NDArray[np.uint8]:
            return _take(deepcopy(state), thing, scene, pose, condition, size).image

        yield Moment(_mended(pose), film)
        rng.random()  # another moment has noise of its own


def refilm(
    thing: Thing,
    others: Sequence[Thing],
    condition: str,
    frames: int,
    size: int,
    seed: Sequence[int],
) -> Iterator[Refilmed]:
    """Film an object well, and each moment again with one defect after the other.

    Args:
        thing: the object.
        others: objects that may stand around it in clutter.
        condition: "clean" or "clutter".
        frames: number of moments.
        size: side of the square frames in pixels.
        seed: the same seed gives the same frames.
    """
    for number, moment in enumerate(moments(thing, others, condition, frames, size, seed)):
        spoilt = {}
        for k, (name, spoil) in enumerate(DEFECTS.items()):
            image = moment.film(spoil(moment.pose, np.random.default_rng([*seed, number, k])))
            spoilt[name] = _flat(image) if name == "flat" else image
        yield Refilmed(moment.film(moment.pose), spoilt)


def _mended(pose: Pose) -> Pose:
    """The pose with nothing wrong with it."""
    return replace(
        pose,
        x=float(np.clip(pose.x, 0.35, 0.65)),
        y=float(np.clip(pose.y, 0.35, 0.65)),
        absent=False,
        occluded=False,
        blur=min(pose.blur, 0.35),
        gain=1.0,
    )


def _flat(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    mean = image.mean((0, 1))
    return np.asarray(np.round(mean + FLAT * (image - mean)), np.uint8)
