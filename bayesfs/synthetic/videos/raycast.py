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
"""Distance along each ray (inf where missed), unit-frame normals (3, ray), u and v in [0, 1]."""

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
    """Colour (ray, 3) and hit of each ray (ray, 3), in object coordinates."""
    nearest = np.full(len(rays), np.inf, np.float32)
    rgb = np.zeros((3, len(rays)), np.float32)
    eye = origin / np.linalg.norm(origin)
    middle = (light + eye) / np.linalg.norm(light + eye)
    squared = np.einsum("ij,ij->i", rays, rays)
    for part in parts:
        index = _candidates(part, origin, rays, squared)
        if not len(index):
            continue
        size = np.asarray(part.size if part.shape != "torus" else part.size[:1] * 3, np.float32)
        frame = np.eye(3, dtype=np.float32) if part.turn is None else part.turn
        to_unit = frame / size
        o = ((origin - np.asarray(part.centre, np.float32)) @ to_unit).astype(np.float32)
        d = np.ascontiguousarray((rays[index] @ to_unit).T)
        t, normal, u, v = _INTERSECT[part.shape](o, d, part.taper)
        front = t < nearest[index]
        index, normal = index[front], (frame / size) @ normal[:, front]
        nearest[index] = t[front]
        normal /= _length(normal) + np.float32(1e-9)
        shade = ambient + (1 - ambient) * 1.25 * np.maximum(light @ normal, 0)
        colour = _lookup(part.texture, u[front], v[front]) * shade
        if part.gloss:
            colour += part.gloss * np.maximum(middle @ normal, 0) ** 24
        rgb[:, index] = colour
    return np.ascontiguousarray(np.minimum(rgb, 1.0).T), np.isfinite(nearest)


def _candidates(part: Part, origin: Reals, rays: Reals, squared: Reals) -> NDArray[np.intp]:
    """Rays that pass the part's bounding sphere; `squared` (ray,) are their squared lengths."""
    centre = np.asarray(part.centre, np.float32)
    radius = part.reach - float(np.linalg.norm(centre))
    to = centre - origin
    return np.flatnonzero((rays @ to) ** 2 >= (to @ to - radius**2) * squared)


def _length(vectors: Reals) -> Reals:
    """(ray,) lengths of (3, ray) vectors: an axis of three is slow to reduce where it is last."""
    x, y, z = vectors
    return np.asarray(np.sqrt(x * x + y * y + z * z))


def _at(o: Reals, d: Reals, t: Reals) -> Reals:
    """(3, ray) where each ray is after t, or its origin where it misses."""
    return np.asarray(o[:, None] + np.where(np.isfinite(t), t, 0) * d)


def _lookup(texture: Reals, u: Reals, v: Reals) -> Reals:
    """(3, ray) colours."""
    rows, columns = texture.shape[:2]
    r = np.clip((v * rows).astype(np.intp), 0, rows - 1)
    c = np.clip((u * columns).astype(np.intp), 0, columns - 1)
    return np.ascontiguousarray(texture[r, c].T)


def _quadratic(a: Reals, b: Reals, c: Reals | float) -> Reals:
    """Smaller root of a t^2 + 2 b t + c, inf where there is none."""
    disc = b * b - a * c
    safe = np.where(np.abs(a) < 1e-9, np.float32(1e-9), a)
    root = (-b - np.sign(safe) * np.sqrt(np.maximum(disc, 0))) / safe
    return np.where(disc > 0, root, np.inf).astype(np.float32)


def _around(x: Reals, y: Reals) -> Reals:
    return np.asarray(np.arctan2(y, x) / (2 * np.pi) + 0.5, np.float32)


def _down(z: Reals) -> Reals:
    """Row of a texture from a height in [-1, 1]."""
    return np.asarray(0.5 - 0.5 * np.clip(z, -1, 1))


def _ellipsoid(o: Reals, d: Reals, _: float) -> Hits:
    x, y, z = d
    t = _quadratic(x * x + y * y + z * z, o @ d, float(o @ o) - 1)
    p = _at(o, d, t)
    return t, p, _around(p[0], p[1]), _down(p[2])


def _box(o: Reals, d: Reals, _: float) -> Hits:
    safe = np.where(np.abs(d) < 1e-7, np.float32(1e-7), d)
    near = (-np.sign(safe) - o[:, None]) / safe
    far = (np.sign(safe) - o[:, None]) / safe
    axis = near.argmax(0)
    t = near.max(0)
    t = np.where((t < far.min(0)) & (t > 0), t, np.inf).astype(np.float32)
    p = _at(o, d, t)
    rays = np.arange(d.shape[1])
    normal = np.zeros_like(d)
    sign = -np.sign(safe[axis, rays])
    normal[axis, rays] = sign
    across = np.where(axis == 0, p[1] * sign, -p[0] * sign)
    quarter = np.where(axis == 0, np.where(sign > 0, 1, 3), np.where(sign > 0, 2, 0))
    u = np.where(axis == 2, 0.03, (quarter + np.clip(across * 0.5 + 0.5, 0, 0.999)) / 4)
    v = np.where(axis == 2, np.where(sign > 0, 0.0, 0.999), _down(p[2]))
    return t, normal, u.astype(np.float32), v.astype(np.float32)


def _frustum(o: Reals, d: Reals, taper: float) -> Hits:
    x, y, z = d
    a, b = (1 + taper) / 2, (taper - 1) / 2
    width = a + b * o[2]
    slope = b * z
    t = _quadratic(
        x**2 + y**2 - slope**2,
        x * o[0] + y * o[1] - slope * width,
        o[0] ** 2 + o[1] ** 2 - width**2,
    )
    height = o[2] + np.where(np.isfinite(t), t, 0) * z
    t = np.where((np.abs(height) <= 1) & (t > 0), t, np.inf).astype(np.float32)
    end = -np.sign(z)
    cap = (end - o[2]) / np.where(np.abs(z) < 1e-7, np.float32(1e-7), z)
    on_cap = (np.hypot(o[0] + cap * x, o[1] + cap * y) <= a + b * end) & (cap < t) & (cap > 0)
    t = np.where(on_cap, cap, t).astype(np.float32)
    p = _at(o, d, t)
    normal = np.stack([p[0], p[1], -b * np.hypot(p[0], p[1])])
    normal[:, on_cap] = 0
    normal[2, on_cap] = end[on_cap]
    v = np.where(on_cap, np.where(end > 0, 0.0, 0.999), _down(p[2]))
    return t, normal, _around(p[0], p[1]), v.astype(np.float32)


def _torus(o: Reals, d: Reals, tube: float) -> Hits:
    length = _length(d)
    away = float(np.linalg.norm(o))
    t = np.full(len(length), max(away - 1 - tube, 0.0), np.float32)
    p, gap = np.empty_like(d), np.empty_like(t)
    going, unit, s = np.arange(len(t)), d / length, t
    for _ in range(24):
        at = o[:, None] + s * unit
        step = np.hypot(np.hypot(at[0], at[2]) - 1, at[1]) - tube
        after = s + step
        goes = (after != s) & (after < away + tube + 1.02)  # neither there nor past it
        p[:, going], gap[going], t[going] = at, step, after
        going, unit, s = going[goes], unit[:, goes], after[goes]
    ring = p / np.maximum(np.hypot(p[0], p[2]), 1e-6)
    ring[1] = 0
    t = np.where(np.abs(gap) < 0.01, t / length, np.inf).astype(np.float32)
    return t, p - ring, _around(p[0], p[2]), np.clip(0.5 - 0.5 * p[1] / tube, 0, 1)


_INTERSECT: dict[str, Callable[[Reals, Reals, float], Hits]] = {
    "ellipsoid": _ellipsoid,
    "box": _box,
    "frustum": _frustum,
    "torus": _torus,
}
