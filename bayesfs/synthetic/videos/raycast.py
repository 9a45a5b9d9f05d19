"""A small ray caster: textured solids under a perspective camera, in NumPy.

`view` draws a list of parts; `Part` is an ellipsoid, box, frustum or torus in the object's own
coordinates (z up). Rays are intersected in closed form in each part's unit frame, the torus by
sphere tracing (Hart 1996), and shaded by Lambert's law with a Blinn highlight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.floating[Any]]
Hits = tuple[Reals, Reals, Reals, Reals]
"""Distance along each ray (inf where missed), unit-frame normals (ray, 3), u and v in [0, 1]."""

CAMERA = 4.0
"""Distance of the camera from the object's centre, in object units."""


@dataclass(frozen=True)
class Part:
    """One solid of an object.

    Attributes:
        shape: "ellipsoid", "box", "frustum" (axis z, capped) or "torus" (axis y).
        centre: (3,) position.
        size: (3,) half-extents; a torus takes the first as its ring radius.
        texture: (row, column, 3) colours in [0, 1]; columns run around z, rows down it.
        turn: (3, 3) rotation of the part.
        taper: ratio of a frustum's top radius to its bottom radius, or of a torus's tube to its
            ring.
        gloss: strength of the highlight.
    """

    shape: Literal["ellipsoid", "box", "frustum", "torus"]
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    texture: Reals
    turn: Reals | None = None
    taper: float = 1.0
    gloss: float = 0.2

    @property
    def reach(self) -> float:
        """Radius around the object's centre that holds the part."""
        size = np.asarray(self.size)
        if self.shape == "torus":
            extent = size[0] * (1 + self.taper)
        elif self.shape == "frustum":
            extent = np.hypot(size[2], size[:2].max() * max(1.0, self.taper))
        else:
            extent = np.linalg.norm(size) if self.shape == "box" else size.max()
        return float(np.linalg.norm(self.centre) + extent)


@dataclass(frozen=True)
class View:
    """What the camera sees of an object, in a square window around its centre.

    Attributes:
        rgb: (row, column, 3) colours in [0, 1], zero outside the object.
        alpha: (row, column) 1 on the object, 0 beside it.
        half: the object's centre is at pixel (half, half) of the window.
    """

    rgb: Reals
    alpha: Reals
    half: int


def rotation(azimuth: float, elevation: float, roll: float = 0.0) -> Reals:
    """(3, 3) object -> camera (x right, y up, z to the camera); angles in radians.

    The object turns by `azimuth` about its z axis, is seen from `elevation` above, and the camera
    is rolled.
    """
    ca, sa, ce, se = np.cos(azimuth), np.sin(azimuth), np.cos(elevation), np.sin(elevation)
    turn = np.array([[ca, -sa, 0], [sa, ca, 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, se, ce], [0, -ce, se]])
    cr, sr = np.cos(roll), np.sin(roll)
    spin = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(spin @ tilt @ turn, np.float32)


def view(
    parts: Sequence[Part], turn: Reals, pixels: float, light: Reals, ambient: float = 0.45
) -> View:
    """Draw an object.

    Args:
        parts: its solids.
        turn: (3, 3) rotation object -> camera.
        pixels: pixels per object unit at the object's centre.
        light: (3,) unit vector towards the light, in camera coordinates.
        ambient: share of light that comes from everywhere.
    """
    reach = max(p.reach for p in parts)
    half = int(np.ceil(pixels * reach * CAMERA / np.sqrt(max(CAMERA**2 - reach**2, 1.0)))) + 1
    axis = np.arange(-half, half + 1, dtype=np.float32) / np.float32(pixels)
    x, y = np.meshgrid(axis, -axis)
    rays = np.stack([x.ravel(), y.ravel(), np.full(x.size, -CAMERA, np.float32)], 1)
    origin = turn.T @ np.array([0, 0, CAMERA], np.float32)
    rgb, hit = _cast(parts, origin, rays @ turn, turn.T @ light, ambient)
    side = 2 * half + 1
    return View(rgb.reshape(side, side, 3), hit.reshape(side, side).astype(np.float32), half)


def _cast(
    parts: Sequence[Part], origin: Reals, rays: Reals, light: Reals, ambient: float
) -> tuple[Reals, NDArray[np.bool_]]:
    """Colour and hit of each ray, in object coordinates."""
    nearest = np.full(len(rays), np.inf, np.float32)
    rgb = np.zeros((len(rays), 3), np.float32)
    eye = origin / np.linalg.norm(origin)
    middle = (light + eye) / np.linalg.norm(light + eye)
    for part in parts:
        index = _candidates(part, origin, rays)
        if not len(index):
            continue
        size = np.asarray(part.size if part.shape != "torus" else part.size[:1] * 3, np.float32)
        frame = np.eye(3, dtype=np.float32) if part.turn is None else part.turn
        to_unit = frame / size
        o = ((origin - np.asarray(part.centre, np.float32)) @ to_unit).astype(np.float32)
        t, normal, u, v = _INTERSECT[part.shape](o, rays[index] @ to_unit, part.taper)
        front = t < nearest[index]
        index, normal = index[front], normal[front] @ (frame / size).T
        nearest[index] = t[front]
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
        shade = ambient + (1 - ambient) * 1.25 * np.maximum(normal @ light, 0)
        shine = part.gloss * np.maximum(normal @ middle, 0) ** 24
        rgb[index] = _lookup(part.texture, u[front], v[front]) * shade[:, None] + shine[:, None]
    return np.minimum(rgb, 1.0), np.isfinite(nearest)


def _candidates(part: Part, origin: Reals, rays: Reals) -> NDArray[np.intp]:
    """Rays that pass the part's bounding sphere."""
    centre = np.asarray(part.centre, np.float32)
    radius = part.reach - float(np.linalg.norm(centre))
    to = centre - origin
    along = rays @ to
    gap = (to @ to - radius**2) * np.einsum("ij,ij->i", rays, rays)
    return np.flatnonzero(along**2 >= gap)


def _lookup(texture: Reals, u: Reals, v: Reals) -> Reals:
    rows, columns = texture.shape[:2]
    r = np.clip((v * rows).astype(np.intp), 0, rows - 1)
    c = np.clip((u * columns).astype(np.intp), 0, columns - 1)
    return np.asarray(texture[r, c])


def _quadratic(a: Reals, b: Reals, c: Reals | float) -> Reals:
    """Smaller root of a t^2 + 2 b t + c, inf where there is none."""
    disc = b * b - a * c
    safe = np.where(np.abs(a) < 1e-9, np.float32(1e-9), a)
    root = (-b - np.sign(safe) * np.sqrt(np.maximum(disc, 0))) / safe
    return np.where(disc > 0, root, np.inf).astype(np.float32)


def _around(x: Reals, y: Reals) -> Reals:
    return np.asarray(np.arctan2(y, x) / (2 * np.pi) + 0.5, np.float32)


def _ellipsoid(o: Reals, d: Reals, _: float) -> Hits:
    t = _quadratic(np.einsum("ij,ij->i", d, d), d @ o, float(o @ o) - 1)
    p = o + np.where(np.isfinite(t), t, 0)[:, None] * d
    return t, p, _around(p[:, 0], p[:, 1]), 0.5 - 0.5 * np.clip(p[:, 2], -1, 1)


def _box(o: Reals, d: Reals, _: float) -> Hits:
    safe = np.where(np.abs(d) < 1e-7, np.float32(1e-7), d)
    near = (-np.sign(safe) - o) / safe
    far = (np.sign(safe) - o) / safe
    axis = near.argmax(1)
    t = near.max(1)
    t = np.where((t < far.min(1)) & (t > 0), t, np.inf).astype(np.float32)
    p = o + np.where(np.isfinite(t), t, 0)[:, None] * d
    rows = np.arange(len(d))
    normal = np.zeros_like(d)
    sign = -np.sign(safe[rows, axis])
    normal[rows, axis] = sign
    across = np.where(axis == 0, p[:, 1] * sign, -p[:, 0] * sign)
    quarter = np.where(axis == 0, np.where(sign > 0, 1, 3), np.where(sign > 0, 2, 0))
    u = np.where(axis == 2, 0.03, (quarter + np.clip(across * 0.5 + 0.5, 0, 0.999)) / 4)
    v = np.where(axis == 2, np.where(sign > 0, 0.0, 0.999), 0.5 - 0.5 * np.clip(p[:, 2], -1, 1))
    return t, normal, u.astype(np.float32), v.astype(np.float32)


def _frustum(o: Reals, d: Reals, taper: float) -> Hits:
    a, b = (1 + taper) / 2, (taper - 1) / 2
    width = a + b * o[2]
    slope = b * d[:, 2]
    t = _quadratic(
        d[:, 0] ** 2 + d[:, 1] ** 2 - slope**2,
        d[:, 0] * o[0] + d[:, 1] * o[1] - slope * width,
        o[0] ** 2 + o[1] ** 2 - width**2,
    )
    z = o[2] + np.where(np.isfinite(t), t, 0) * d[:, 2]
    t = np.where((np.abs(z) <= 1) & (t > 0), t, np.inf).astype(np.float32)
    end = -np.sign(d[:, 2])
    cap = (end - o[2]) / np.where(np.abs(d[:, 2]) < 1e-7, np.float32(1e-7), d[:, 2])
    q = o + cap[:, None] * d
    on_cap = (np.hypot(q[:, 0], q[:, 1]) <= a + b * end) & (cap < t) & (cap > 0)
    t = np.where(on_cap, cap, t).astype(np.float32)
    p = o + np.where(np.isfinite(t), t, 0)[:, None] * d
    radius = np.hypot(p[:, 0], p[:, 1])
    side = np.stack([p[:, 0], p[:, 1], -b * radius], 1)
    up = np.zeros_like(side)
    up[:, 2] = end
    v = np.where(on_cap, np.where(end > 0, 0.0, 0.999), 0.5 - 0.5 * np.clip(p[:, 2], -1, 1))
    normal = np.where(on_cap[:, None], up, side)
    return t, normal, _around(p[:, 0], p[:, 1]), v.astype(np.float32)


def _torus(o: Reals, d: Reals, tube: float) -> Hits:
    unit = d / np.linalg.norm(d, axis=1, keepdims=True)
    t = np.full(len(d), max(float(np.linalg.norm(o)) - 1 - tube, 0.0), np.float32)
    for _ in range(24):
        p = o + t[:, None] * unit
        gap = np.hypot(np.hypot(p[:, 0], p[:, 2]) - 1, p[:, 1]) - tube
        t = t + gap
    ring = p / np.maximum(np.hypot(p[:, 0], p[:, 2]), 1e-6)[:, None]
    ring[:, 1] = 0
    hit = np.abs(gap) < 0.01
    t = np.where(hit, t / np.linalg.norm(d, axis=1), np.inf).astype(np.float32)
    return t, p - ring, _around(p[:, 0], p[:, 2]), np.clip(0.5 - 0.5 * p[:, 1] / tube, 0, 1)


_INTERSECT: dict[str, Callable[[Reals, Reals, float], Hits]] = {
    "ellipsoid": _ellipsoid,
    "box": _box,
    "frustum": _frustum,
    "torus": _torus,
}
