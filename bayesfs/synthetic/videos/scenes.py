"""Short videos of procedural objects, with the truth about every frame's defects.

`record_video` yields the frames of one clean or cluttered video. A defect is either drawn on
purpose (blur, exposure, absence) or measured from the masks (framing, occlusion), so every flag is
exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from bayesfs.synthetic.videos.motion import Pose, poses
from bayesfs.synthetic.videos.objects import Thing
from bayesfs.synthetic.videos.raycast import Reals, View, rotation, view
from bayesfs.synthetic.videos.textures import COLOURS, cloud, ground, jitter

BOX_SIZE = 1080
"""ORBIT's bounding boxes are in pixels of frames of this size."""

VISIBLE = 0.8
"""A frame has a framing or occlusion issue where less of the object than this can be seen."""

SKIN = ((0.85, 0.65, 0.52), (0.62, 0.42, 0.3), (0.36, 0.23, 0.17))
"""Colours of hands."""


@dataclass(frozen=True)
class RenderedFrame:
    """One frame and its truth.

    Attributes:
        image: (row, column, 3) uint8.
        annotation: the frame's entry in ORBIT's annotation file.
    """

    image: NDArray[np.uint8]
    annotation: dict[str, Any]


@dataclass(frozen=True)
class _Scene:
    """What stays the same over a video."""

    backdrop: Reals
    light: Reals
    tint: Reals
    hand: Reals
    noise: float


def record_video(
    thing: Thing,
    others: Sequence[Thing],
    condition: str,
    frames: int,
    size: int,
    seed: Sequence[int],
) -> Iterator[RenderedFrame]:
    """Record a video of an object.

    Args:
        thing: the object.
        others: objects that may stand around it in clutter.
        condition: "clean" (alone before a plain surface) or "clutter".
        frames: number of frames.
        size: side of the square frames in pixels.
        seed: the same seed gives the same frames.
    """
    rng = np.random.default_rng(seed)
    scene = _scene(rng, others, condition, size)
    for pose in poses(rng, condition, frames):
        yield _take(rng, thing, scene, pose, condition, size)


def _scene(rng: np.random.Generator, others: Sequence[Thing], condition: str, size: int) -> _Scene:
    angle, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.0)
    light = np.array([np.cos(angle), height + 0.2, abs(np.sin(angle)) + 0.3], np.float32)
    light /= np.linalg.norm(light)
    side = int(size * 1.3)
    backdrop = ground(rng, side, str(rng.choice(["wood", "cloth", "stone", "paint"])))
    if condition == "clutter":
        backdrop = _paper(rng, backdrop)
        for other in _some(rng, others, int(rng.integers(3, 7))):
            backdrop = _stand(rng, backdrop, other, light, size)
    fall = 1 + rng.uniform(-0.3, 0.3) * np.linspace(-1, 1, side, dtype=np.float32)
    warm = rng.normal(scale=0.06)
    return _Scene(
        backdrop=backdrop * fall[:, None, None],
        light=light,
        tint=np.array([1 + warm, 1, 1 - warm], np.float32),
        hand=jitter(rng, SKIN[int(rng.integers(len(SKIN)))]),
        noise=float(rng.uniform(0.005, 0.03)),
    )


def _some(rng: np.random.Generator, things: Sequence[Thing], count: int) -> list[Thing]:
    if not things:
        return []
    chosen = rng.choice(len(things), size=min(count, len(things)), replace=False)
    return [things[i] for i in chosen]


def _paper(rng: np.random.Generator, backdrop: Reals) -> Reals:
    """Lay sheets, books and cloths of random colours on the backdrop."""
    side = len(backdrop)
    image = Image.fromarray((255 * np.clip(backdrop, 0, 1)).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(5, 12))):
        colour = COLOURS[str(rng.choice(list(COLOURS)))]
        muted = 0.5 * np.asarray(colour) + 0.5 * rng.uniform(0.2, 0.9)
        fill = tuple(int(255 * c) for c in jitter(rng, muted, 0.05))
        centre, turn = rng.uniform(0, side, size=2), rng.uniform(0, np.pi)
        half = rng.uniform(0.06, 0.25, size=2) * side
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
        c, s = np.cos(turn), np.sin(turn)
        points = corners @ np.array([[c, s], [-s, c]]) + centre
        draw.polygon([tuple(p) for p in points.tolist()], fill=fill)
        ink = tuple(int(255 * v) for v in jitter(rng, (0.3, 0.3, 0.32), 0.1))
        for row in np.linspace(-0.7, 0.7, int(rng.integers(0, 8))):
            ends = np.array([[-0.8, row], [0.8 * rng.uniform(0.3, 1), row]]) * half
            line = ends @ np.array([[c, s], [-s, c]]) + centre
            draw.line([tuple(p) for p in line.tolist()], fill=ink)
    return np.asarray(image, np.float32) / 255


def _stand(
    rng: np.random.Generator, backdrop: Reals, thing: Thing, light: Reals, size: int
) -> Reals:
    """Put another object somewhere in the scene."""
    turn = rotation(rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.8), rng.normal(scale=0.15))
    seen = view(thing.parts, turn, size * rng.uniform(0.14, 0.26), light)
    x, y = rng.uniform(0.0, len(backdrop), size=2)
    return _paste(backdrop, seen, x, y, shadow=0.35)[0]


def _take(
    rng: np.random.Generator, thing: Thing, scene: _Scene, pose: Pose, condition: str, size: int
) -> RenderedFrame:
    room = len(scene.backdrop) - size
    row, column = (int(np.clip(p, 0, 0.3) / 0.3 * room) for p in pose.pan)
    image = scene.backdrop[row : row + size, column : column + size]
    turn = rotation(pose.azimuth, pose.elevation, pose.roll)
    seen = view(thing.parts, turn, pose.scale * size, scene.light)
    mask: Reals = np.zeros((size, size), np.float32)
    whole = float(seen.alpha.sum())
    if not pose.absent:
        image, mask = _paste(image, seen, pose.x * size, pose.y * size, shadow=0.3)
    inside = float(mask.sum()) / whole
    if pose.occluded:
        image, cover = _grasp(rng, image, scene.hand, pose, size)
        mask = mask * (1 - cover)
    shown = float(mask.sum()) / whole / max(inside, 1e-6)
    truth = _annotation(condition, pose, mask, inside, shown)
    return RenderedFrame(_expose(rng, image, scene, pose), truth)


def _paste(image: Reals, seen: View, x: float, y: float, shadow: float) -> tuple[Reals, Reals]:
    """Image with the object centred at (x, y) above its soft shadow, and the object's mask."""
    side = len(image)
    top, left = round(y) - seen.half, round(x) - seen.half
    n = len(seen.alpha)
    rows = slice(max(top, 0), min(top + n, side))
    columns = slice(max(left, 0), min(left + n, side))
    mask = np.zeros((side, side), np.float32)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return image, mask
    inner = (
        slice(rows.start - top, rows.stop - top),
        slice(columns.start - left, columns.stop - left),
    )
    mask[rows, columns] = seen.alpha[inner]
    dark = ndimage.shift(mask, (0.1 * seen.half, 0.06 * seen.half), order=0)
    dark = ndimage.gaussian_filter(dark, 0.08 * seen.half + 0.5)
    out = image * (1 - shadow * dark[..., None])
    soft = ndimage.gaussian_filter(seen.alpha, 0.5)[inner]
    rgb = ndimage.uniform_filter(seen.rgb, (3, 3, 0))[inner]
    near = ndimage.uniform_filter(seen.alpha, 3)[inner]
    rgb = np.where(
        seen.alpha[inner][..., None] > 0, seen.rgb[inner], rgb / np.maximum(near, 1e-6)[..., None]
    )
    out[rows, columns] += soft[..., None] * (rgb - out[rows, columns])
    return out, mask


def _grasp(
    rng: np.random.Generator, image: Reals, colour: Reals, pose: Pose, size: int
) -> tuple[Reals, Reals]:
    """Image with a hand that reaches over the object, and the hand's mask."""
    cover = Image.new("L", (size, size))
    draw = ImageDraw.Draw(cover)
    angle = rng.uniform(0, 2 * np.pi)
    out, along = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    width = pose.scale * size * rng.uniform(0.22, 0.34)
    base = np.array([pose.x, pose.y]) * size + out * pose.scale * size * rng.uniform(0.35, 0.6)
    for finger in range(4):
        root = base + along * width * (finger - 1.5) * 1.1
        tip = root - out * width * rng.uniform(1.3, 2.2)
        end = root + out * size
        draw.line([*root.tolist(), *tip.tolist()], fill=255, width=max(int(width), 1))
        draw.line([*root.tolist(), *end.tolist()], fill=255, width=max(int(1.3 * width), 1))
        r = width / 2
        draw.ellipse((tip[0] - r, tip[1] - r, tip[0] + r, tip[1] + r), fill=255)
    mask = np.asarray(cover, np.float32) / 255
    deep = ndimage.gaussian_filter(mask, 0.2 * width)
    skin = colour * (0.55 + 0.5 * deep[..., None]) * (0.9 + 0.2 * cloud(rng, mask.shape)[..., None])
    soft = ndimage.gaussian_filter(mask, 0.6)[..., None]
    return image + soft * (skin - image), mask


def _expose(rng: np.random.Generator, image: Reals, scene: _Scene, pose: Pose) -> NDArray[np.uint8]:
    """Blur, light and sensor noise."""
    sigma = pose.blur * len(image) / 128
    if sigma > 0.2:
        stretch = rng.uniform(0.3, 1.0) if pose.blur >= 1 else 1.0
        sigmas = (sigma, sigma * stretch) if rng.random() < 0.5 else (sigma * stretch, sigma)
        image = ndimage.gaussian_filter(image, (*sigmas, 0))
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(scene.noise)
    out = image * (pose.gain * scene.tint) + noise
    return np.asarray(255 * np.clip(out, 0, 1), np.uint8)


def _annotation(
    condition: str, pose: Pose, mask: Reals, inside: float, shown: float
) -> dict[str, Any]:
    absent = pose.absent or not bool(mask.any())
    if condition == "clutter":
        return {
            "object_bounding_box": None if absent else _box(mask),
            "object_not_present_issue": absent,
        }
    issues: dict[str, bool] = {
        "framing_issue": bool(inside < VISIBLE),
        "viewpoint_issue": bool(not 0.0 <= pose.elevation <= 1.1),
        "blur_issue": bool(pose.blur >= 1),
        "occlusion_issue": bool(shown < VISIBLE),
        "overexposed_issue": bool(pose.gain > 1.5),
        "underexposed_issue": bool(pose.gain < 0.5),
    }
    known = {name: None if absent else value for name, value in issues.items()}
    return {"object_not_present_issue": absent, **known}


def _box(mask: Reals) -> dict[str, int]:
    """Tight box around the visible object, in pixels of 1080 x 1080."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    unit = BOX_SIZE / len(mask)
    x, y = int(columns[0] * unit), int(rows[0] * unit)
    w, h = int((columns[-1] + 1) * unit) - x, int((rows[-1] + 1) * unit) - y
    return {"x": x, "y": y, "w": w, "h": h}
