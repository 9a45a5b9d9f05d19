"""Families of everyday objects, each a few solids with random proportions.

`FAMILIES` maps a family's name to its builder; `bayesfs.synthetic.videos.objects` decides colours
and prints. To add a family, write a builder and add it there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bayesfs.synthetic.videos.raycast import Part, Reals
from bayesfs.synthetic.videos.textures import jitter, plain


@dataclass(frozen=True)
class Skin:
    """Textures of one object: the print and plain surfaces in its colours."""

    print: Reals
    base: Reals
    second: Reals
    third: Reals
    dark: Reals
    metal: Reals


Builder = Callable[[np.random.Generator, Skin], list[Part]]


def _stack(profile: Sequence[tuple[float, float]], textures: Sequence[Reals]) -> list[Part]:
    """A solid of revolution: (radius, z) knots joined by frusta, one texture per piece."""
    parts = []
    for (r0, z0), (r1, z1), texture in zip(profile, profile[1:], textures, strict=False):
        size = (r0, r0, (z1 - z0) / 2)
        parts.append(
            Part("frustum", (0, 0, (z0 + z1) / 2), size, texture, taper=max(r1 / r0, 0.05))
        )
    return parts


def _turned(axis: str, angle: float) -> Reals:
    """Rotation of a part about one of its axes."""
    c, s = np.cos(angle), np.sin(angle)
    matrices = {
        "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
        "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }
    return np.asarray(matrices[axis], np.float32)


def _can(rng: np.random.Generator, skin: Skin) -> list[Part]:
    r, h = rng.uniform(0.38, 0.6), rng.uniform(0.5, 0.8)
    knots = [(r * 0.88, -h - 0.05), (r, -h), (r, h), (r * 0.86, h + 0.08)]
    return _stack(knots, [skin.metal, skin.print, skin.metal])


def _bottle(rng: np.random.Generator, skin: Skin) -> list[Part]:
    r, neck = rng.uniform(0.26, 0.38), rng.uniform(0.09, 0.15)
    top = rng.uniform(0.15, 0.4)
    knots = [(r, -0.9), (r, top), (neck, top + 0.25), (neck, 0.78), (neck * 1.25, 0.78)]
    parts = _stack(knots[:4], [skin.print, skin.base, skin.base])
    cap = Part("frustum", (0, 0, 0.85), (neck * 1.3,) * 2 + (0.09,), skin.third)
    return [*parts, cap]


def _mug(rng: np.random.Generator, skin: Skin) -> list[Part]:
    r, h, taper = rng.uniform(0.42, 0.55), rng.uniform(0.42, 0.6), rng.uniform(0.95, 1.25)
    body = Part("frustum", (0, 0, 0), (r, r, h), skin.print, taper=taper, gloss=0.4)
    hole = Part("frustum", (0, 0, h), (r * taper * 0.9,) * 2 + (0.012,), skin.dark, gloss=0.0)
    ring = h * rng.uniform(0.5, 0.65)
    handle = Part("torus", (r * 1.05, 0, 0), (ring,) * 3, skin.second, taper=0.2, gloss=0.4)
    return [handle, body, hole]


def _carton(rng: np.random.Generator, skin: Skin) -> list[Part]:
    size = tuple(rng.uniform((0.3, 0.2, 0.5), (0.5, 0.4, 0.75)).tolist())
    parts = [Part("box", (0, 0, 0), size, skin.print, gloss=0.1)]
    if rng.random() < 0.5:
        cap = Part("frustum", (0, 0, size[2] + 0.06), (0.12, 0.12, 0.06), skin.third)
        parts.append(cap)
    return parts


def _book(rng: np.random.Generator, skin: Skin) -> list[Part]:
    w, h, d = rng.uniform(0.45, 0.6), rng.uniform(0.6, 0.8), rng.uniform(0.06, 0.13)
    pages = plain(rng, np.array([0.88, 0.85, 0.75], np.float32))
    inner = Part("box", (0.02, 0, 0), (w - 0.02, d * 0.8, h - 0.03), pages, gloss=0.0)
    covers = [Part("box", (0, s * d, 0), (w, 0.02, h), skin.print) for s in (-1, 1)]
    spine = Part("box", (-w, 0, 0), (0.02, d, h), skin.base)
    return [inner, spine, *covers]


def _car(rng: np.random.Generator, skin: Skin) -> list[Part]:
    length, width, h = rng.uniform(0.75, 0.9), rng.uniform(0.32, 0.42), rng.uniform(0.15, 0.24)
    cabin = rng.uniform(0.3, 0.5)
    body = Part("box", (0, 0, 0), (length, width, h), skin.print, gloss=0.5)
    roof = Part("box", (-0.1, 0, h + 0.2), (cabin * 0.9, width * 0.85, 0.03), skin.base, gloss=0.5)
    glass = Part("box", (-0.1, 0, h + 0.09), (cabin, width * 0.9, 0.1), skin.dark, gloss=0.6)
    lights = Part("box", (length, 0, 0.02), (0.02, width * 0.8, 0.05), skin.third)
    wheels = [
        Part(
            "frustum",
            (x * length, y * width, -h),
            (0.19, 0.19, 0.07),
            skin.dark,
            turn=_turned("x", np.pi / 2),
        )
        for x in (-0.6, 0.6)
        for y in (-1, 1)
    ]
    return [body, glass, roof, lights, *wheels]


def _bear(rng: np.random.Generator, skin: Skin) -> list[Part]:
    belly, head = rng.uniform(0.36, 0.48), rng.uniform(0.28, 0.36)
    z = belly * 0.95 + head * 0.6 - 0.2
    limbs = [((s * belly, -0.12, 0.0), (0.13, 0.16, 0.3)) for s in (-1, 1)]
    limbs += [((s * belly * 0.65, -0.25, -0.5), (0.17, 0.28, 0.17)) for s in (-1, 1)]
    ears = [((s * head * 0.75, 0, z + head * 0.8), (0.12, 0.07, 0.12)) for s in (-1, 1)]
    eyes = [((s * 0.11, -head * 0.9, z + 0.08), (0.045,) * 3) for s in (-1, 1)]
    parts = [
        Part("ellipsoid", (0, 0, -0.2), (belly, belly * 0.85, belly * 1.1), skin.print, gloss=0.0),
        Part("ellipsoid", (0, 0, z), (head, head * 0.95, head * 0.9), skin.base, gloss=0.0),
        Part("ellipsoid", (0, -head * 0.8, z - 0.08), (0.14, 0.14, 0.11), skin.second, gloss=0.0),
    ]
    parts += [Part("ellipsoid", c, s, skin.base, gloss=0.0) for c, s in (*limbs, *ears)]
    return parts + [Part("ellipsoid", c, s, skin.dark, gloss=0.6) for c, s in eyes]


def _duck(rng: np.random.Generator, skin: Skin) -> list[Part]:
    body, head = rng.uniform(0.5, 0.62), rng.uniform(0.26, 0.34)
    x, z = body * 0.6, 0.42
    return [
        Part("ellipsoid", (0, 0, -0.1), (body * 1.15, body * 0.8, body * 0.62), skin.print),
        Part("ellipsoid", (x, 0, z), (head,) * 3, skin.base),
        Part("ellipsoid", (x + head, 0, z - 0.04), (0.2, 0.13, 0.06), skin.third),
        Part("ellipsoid", (-body * 1.1, 0, 0.12), (0.22, 0.14, 0.12), skin.base),
        *(
            Part("ellipsoid", (x + head * 0.75, s * head * 0.55, z + 0.1), (0.05,) * 3, skin.dark)
            for s in (-1, 1)
        ),
    ]


def _remote(rng: np.random.Generator, skin: Skin) -> list[Part]:
    w, h = rng.uniform(0.18, 0.28), rng.uniform(0.65, 0.85)
    columns, rows = int(rng.integers(2, 4)), int(rng.integers(3, 6))
    parts = [Part("box", (0, 0, 0), (w, 0.09, h), skin.base, gloss=0.3)]
    screen = Part("box", (0, -0.09, h * 0.72), (w * 0.8, 0.02, h * 0.16), skin.print, gloss=0.5)
    for i in range(rows):
        for j in range(columns):
            x = (j - (columns - 1) / 2) * 1.5 * w / columns
            at = (x, -0.1, h * 0.4 - i * 1.2 * h / rows)
            colour = skin.third if (i + j) % 3 == 0 else skin.second
            parts.append(Part("ellipsoid", at, (0.06, 0.03, 0.05), colour))
    return [*parts, screen]


def _lamp(rng: np.random.Generator, skin: Skin) -> list[Part]:
    shade, top = rng.uniform(0.4, 0.55), rng.uniform(0.35, 0.8)
    return [
        Part("frustum", (0, 0, -0.78), (rng.uniform(0.3, 0.42),) * 2 + (0.07,), skin.base),
        Part("frustum", (0, 0, -0.3), (0.05, 0.05, 0.5), skin.metal, gloss=0.6),
        Part("frustum", (0, 0, 0.42), (shade, shade, 0.34), skin.print, taper=top, gloss=0.0),
    ]


def _ball(rng: np.random.Generator, skin: Skin) -> list[Part]:
    r = rng.uniform(0.7, 0.8)
    seam = Part("torus", (0, 0, 0), (r,) * 3, skin.third, taper=0.03, turn=_turned("x", 0.9))
    return [Part("ellipsoid", (0, 0, 0), (r, r, r * 0.97), skin.print, gloss=0.5), seam]


def _hammer(rng: np.random.Generator, skin: Skin) -> list[Part]:
    length, head = rng.uniform(0.7, 0.85), rng.uniform(0.25, 0.4)
    return [
        Part("frustum", (0, 0, -0.1), (0.09, 0.07, length), skin.print, taper=0.8),
        Part("box", (0, 0, length - 0.08), (head, 0.13, 0.13), skin.metal, gloss=0.7),
        Part("frustum", (head + 0.08, 0, length - 0.08), (0.16, 0.16, 0.08), skin.metal,
             turn=_turned("y", np.pi / 2), gloss=0.7),
        Part("frustum", (0, 0, -length * 0.85), (0.11, 0.11, 0.22), skin.second),
    ]  # fmt: skip


def _teapot(rng: np.random.Generator, skin: Skin) -> list[Part]:
    r, h = rng.uniform(0.48, 0.58), rng.uniform(0.38, 0.5)
    spout = Part("frustum", (r * 1.1, 0, 0.05), (0.14, 0.14, 0.32), skin.base, taper=0.5,
                 turn=_turned("y", rng.uniform(0.6, 0.9)), gloss=0.5)  # fmt: skip
    return [
        Part("torus", (-r * 0.95, 0, 0.0), (h * 0.75,) * 3, skin.second, taper=0.18, gloss=0.5),
        Part("ellipsoid", (0, 0, 0), (r, r, h), skin.print, gloss=0.5),
        spout,
        Part("ellipsoid", (0, 0, h * 0.85), (r * 0.6, r * 0.6, 0.12), skin.second, gloss=0.5),
        Part("ellipsoid", (0, 0, h + 0.14), (0.09,) * 3, skin.third, gloss=0.5),
    ]


def _torch(rng: np.random.Generator, skin: Skin) -> list[Part]:
    r = rng.uniform(0.16, 0.22)
    knots = [(r * 0.9, -0.9), (r, -0.8), (r, 0.3), (r * 1.9, 0.6), (r * 1.9, 0.85), (r * 1.5, 0.9)]
    textures = [skin.dark, skin.print, skin.base, skin.second, skin.metal]
    switch = Part("box", (0, -r, 0.1), (0.05, 0.05, 0.1), skin.third)
    return [*_stack(knots, textures), switch]


def _plant(rng: np.random.Generator, skin: Skin) -> list[Part]:
    leaf = plain(rng, jitter(rng, (0.18, 0.45, 0.16), 0.06), 0.4)
    pot = Part("frustum", (0, 0, -0.55), (0.3, 0.3, 0.35), skin.print, taper=1.35)
    parts = [pot]
    count = int(rng.integers(5, 9))
    for i in range(count):
        lean, long = rng.uniform(0.3, 1.0), rng.uniform(0.3, 0.5)
        turn = _turned("z", 2 * np.pi * i / count) @ _turned("y", lean)
        tip = turn @ np.array([0, 0, long], np.float32)
        at = (float(tip[0]), float(tip[1]), float(tip[2]) - 0.2)
        parts.append(Part("ellipsoid", at, (0.05, 0.14, long), leaf, turn=turn, gloss=0.1))
    return parts


def _shoe(rng: np.random.Generator, skin: Skin) -> list[Part]:
    w = rng.uniform(0.26, 0.34)
    return [
        Part("box", (0, 0, -0.35), (0.8, w, 0.08), skin.second, gloss=0.0),
        Part("ellipsoid", (0.35, 0, -0.22), (0.5, w, 0.24), skin.base, gloss=0.1),
        Part("ellipsoid", (-0.35, 0, -0.1), (0.46, w, 0.36), skin.print, gloss=0.1),
        Part("frustum", (-0.45, 0, 0.2), (0.27, 0.22, 0.2), skin.print, taper=0.95),
        Part("frustum", (-0.45, 0, 0.4), (0.22, 0.18, 0.01), skin.dark, gloss=0.0),
        *(
            Part("box", (0.05 + 0.1 * i, 0, 0.08 - 0.05 * i), (0.02, w * 0.6, 0.02), skin.third)
            for i in range(3)
        ),
    ]


def _keys(rng: np.random.Generator, skin: Skin) -> list[Part]:
    parts = [Part("torus", (0, 0, 0.45), (0.3,) * 3, skin.metal, taper=0.1, gloss=0.8)]
    for i, lean in enumerate(rng.uniform(0.15, 0.5) * np.array([-1, 0.1, 1])):
        turn = _turned("y", lean)
        down = turn @ np.array([0, 0, -0.55], np.float32)
        at = (float(down[0]), 0.08 * (i - 1), float(down[2]) + 0.25)
        size = (0.06, 0.02, 0.42) if i != 1 else (0.22, 0.05, 0.3)
        texture = skin.metal if i != 1 else skin.print
        parts.append(Part("box", at, size, texture, turn=turn, gloss=0.6))
    bow = Part(
        "frustum", (-0.1, 0.1, 0.15), (0.16, 0.16, 0.03), skin.second, turn=_turned("x", 1.57)
    )
    return [*parts, bow]


FAMILIES: dict[str, Builder] = {
    "can": _can,
    "bottle": _bottle,
    "mug": _mug,
    "carton": _carton,
    "book": _book,
    "toy car": _car,
    "teddy bear": _bear,
    "duck": _duck,
    "remote control": _remote,
    "lamp": _lamp,
    "ball": _ball,
    "hammer": _hammer,
    "teapot": _teapot,
    "torch": _torch,
    "plant": _plant,
    "shoe": _shoe,
    "keys": _keys,
}
"""Family name -> builder of its solids."""
