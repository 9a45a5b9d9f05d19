"""How a hand-held camera passes an object: `poses` gives one `Pose` per frame.

Defects come in spells of consecutive frames, as they do in real recordings; poor light lasts for
a whole video.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pose:
    """How one frame is taken; lengths in frame widths, angles in radians.

    `blur` is a standard deviation in pixels of a frame of 128; `gain` multiplies the light.
    """

    x: float
    y: float
    scale: float
    azimuth: float
    elevation: float
    roll: float
    pan: tuple[float, float]
    absent: bool
    occluded: bool
    blur: float
    gain: float


def poses(rng: np.random.Generator, condition: str, frames: int) -> Iterator[Pose]:
    """A hand-held pass around the object, with defects that last for some frames."""
    clutter = condition == "clutter"
    first = Pose(
        x=rng.uniform(0.35, 0.65) if clutter else rng.normal(0.5, 0.06),
        y=rng.uniform(0.35, 0.65) if clutter else rng.normal(0.5, 0.06),
        scale=rng.uniform(0.3, 0.52) if clutter else rng.uniform(0.38, 0.6),
        azimuth=rng.uniform(0, 2 * np.pi),
        elevation=rng.uniform(0.25, 0.7),
        roll=rng.normal(scale=0.12 if clutter else 0.06),
        pan=(rng.uniform(0, 0.3), rng.uniform(0, 0.3)),
        absent=False,
        occluded=False,
        blur=0.0,
        gain=float(rng.choice([rng.uniform(0.8, 1.2), 0.35, 1.8], p=[0.8, 0.1, 0.1])),
    )
    if rng.random() < 0.08:
        first = replace(first, elevation=float(rng.choice([1.35, -0.6])))
    sweep = rng.uniform(0.4, 2.5) * rng.choice([-1, 1])
    drift = rng.normal(scale=0.12 if clutter else 0.07, size=2)
    zoom = rng.normal(scale=0.15)
    absent = _spell(rng, frames, 0.08 if clutter else 0.03)
    occluded = _spell(rng, frames, 0.12)
    blurred = _spell(rng, frames, 0.15)
    slipped, aside = _spell(rng, frames, 0.1), rng.uniform(0, 2 * np.pi)
    for i in range(frames):
        s = i / max(frames - 1, 1) - 0.5
        shake = rng.normal(scale=0.015, size=4)
        slip = 0.42 + rng.normal(scale=0.04) if slipped[i] else 0.0
        yield replace(
            first,
            x=first.x + s * drift[0] + shake[0] + slip * np.cos(aside),
            y=first.y + s * drift[1] + shake[1] + slip * np.sin(aside),
            scale=first.scale * np.exp(s * zoom + shake[2]),
            azimuth=first.azimuth + s * sweep,
            roll=first.roll + shake[3],
            pan=(first.pan[0] - s * drift[0], first.pan[1] - s * drift[1]),
            absent=bool(absent[i]),
            occluded=bool(occluded[i]),
            blur=rng.uniform(1.0, 2.4) if blurred[i] else rng.uniform(0.0, 0.35),
            gain=first.gain * np.exp(rng.normal(scale=0.05)),
        )


def _spell(rng: np.random.Generator, frames: int, share: float) -> NDArray[np.bool_]:
    """(frame,) bool: with chance 3 share, one run of a third of the video on average."""
    hit = np.zeros(frames, bool)
    if rng.random() < 3 * share:
        length = max(1, int(np.ceil(frames * rng.uniform(0.1, 0.57))))
        start = int(rng.integers(0, max(frames - length, 0) + 1))
        hit[start : start + length] = True
    return hit
