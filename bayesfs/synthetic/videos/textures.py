"""Procedural surfaces: prints for objects and grounds for scenes, in NumPy and Pillow.

`print_texture` draws what is wrapped around an object, `ground` what lies behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bayesfs.synthetic.videos.raycast import Reals

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.72, 0.12, 0.10),
    "orange": (0.88, 0.45, 0.10),
    "yellow": (0.90, 0.76, 0.16),
    "green": (0.16, 0.48, 0.20),
    "teal": (0.10, 0.50, 0.52),
    "blue": (0.13, 0.26, 0.62),
    "purple": (0.42, 0.20, 0.52),
    "pink": (0.88, 0.48, 0.60),
    "brown": (0.42, 0.27, 0.16),
    "white": (0.90, 0.89, 0.86),
    "grey": (0.52, 0.53, 0.55),
    "black": (0.12, 0.12, 0.13),
}

PRINTS = ("label", "label", "stripes", "bands", "dots", "checks", "marble", "plain")

_ROWS, _COLUMNS = 96, 192


def jitter(rng: np.random.Generator, colour: Sequence[float] | Reals, by: float = 0.04) -> Reals:
    """The colour, moved a little."""
    moved = np.asarray(colour) + rng.normal(scale=by, size=3)
    return np.asarray(np.clip(moved, 0.03, 0.97), np.float32)


def cloud(
    rng: np.random.Generator, shape: tuple[int, int], cells: int = 4, octaves: int = 4
) -> Reals:
    """Smooth noise of unit range: random grids of doubling fineness, halved in strength."""
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        grid = rng.random((cells * 2**octave + 1,) * 2, dtype=np.float32)
        image = Image.fromarray(grid, mode="F").resize(shape[::-1], Image.Resampling.BICUBIC)
        total += np.asarray(image, np.float32) / 2**octave
    low, high = total.min(), total.max()
    return np.asarray((total - low) / (high - low + 1e-6), np.float32)


def plain(rng: np.random.Generator, colour: Reals, by: float = 0.12) -> Reals:
    """(row, column, 3) one colour with faint wear."""
    wear = cloud(rng, (48, 96), 3) - 0.5
    return np.asarray(np.clip(colour * (1 + by * wear[..., None]), 0, 1), np.float32)


def print_texture(rng: np.random.Generator, colours: Sequence[Reals], kind: str) -> Reals:
    """(row, column, 3) texture wrapped around an object.

    Args:
        rng: source of randomness.
        colours: base, second and third colour.
        kind: one of `PRINTS`.
    """
    v, u = np.mgrid[0:_ROWS, 0:_COLUMNS].astype(np.float32)
    if kind == "plain":
        return plain(rng, colours[0])
    if kind == "label":
        return _label(rng, colours)
    if kind == "marble":
        wave = np.sin(rng.integers(3, 8) * u / _COLUMNS * 6.28 + 7 * cloud(rng, u.shape))
        share = (0.5 + 0.5 * wave)[..., None]
        return np.asarray(colours[0] * share + colours[1] * (1 - share), np.float32)
    across, down = int(rng.integers(4, 9)) * 2, int(rng.integers(3, 6))
    if kind == "dots":
        cu, cv = (u * across / _COLUMNS) % 1 - 0.5, (v * down / _ROWS) % 1 - 0.5
        mark = np.hypot(cu, cv) < rng.uniform(0.2, 0.36)
    elif kind == "stripes":
        mark = (u * across / _COLUMNS + rng.choice([0.0, 2.0]) * v / _ROWS) % 1 < 0.45
    elif kind == "bands":
        mark = (v * down / _ROWS) % 1 < rng.uniform(0.3, 0.6)
    else:
        mark = ((u * across / _COLUMNS) % 1 < 0.5) ^ ((v * down / _ROWS) % 1 < 0.5)
    wear = 1 + 0.1 * (cloud(rng, u.shape, 3) - 0.5)
    out = np.where(mark[..., None], colours[1], colours[0]) * wear[..., None]
    return np.asarray(np.clip(out, 0, 1), np.float32)


def _label(rng: np.random.Generator, colours: Sequence[Reals]) -> Reals:
    """A printed label: band, logo and words, on the front and on the back."""
    base, second, third = (tuple(int(255 * c) for c in colour) for colour in colours)
    image = Image.new("RGB", (_COLUMNS, _ROWS), base)
    draw = ImageDraw.Draw(image)
    top = int(rng.integers(8, 26))
    bottom = int(rng.integers(64, 90))
    draw.rectangle((0, top, _COLUMNS, bottom), fill=second)
    if rng.random() < 0.5:
        edge = int(rng.integers(2, 6))
        draw.rectangle((0, top, _COLUMNS, top + edge), fill=third)
        draw.rectangle((0, bottom - edge, _COLUMNS, bottom), fill=third)
    word = "".join(rng.choice(list("AEIOUBDKLMNRSTVZ"), size=int(rng.integers(3, 6))))
    points = int(rng.integers(3, 9))
    radius, size = int(rng.integers(8, 18)), int(rng.integers(13, 26))
    inner = rng.uniform(0.4, 1.0)
    for column in (_COLUMNS // 8, 5 * _COLUMNS // 8):
        middle = (column, top + radius + 6)
        draw.polygon(_star(middle, points, radius, inner), fill=base if radius % 2 else third)
        font = ImageFont.load_default(size)
        at = (column, min(middle[1] + radius, bottom - size))
        draw.text(at, word, fill=third, font=font, anchor="ma")
        for line in range(int(rng.integers(1, 5))):
            y = bottom - 4 - 4 * line
            draw.line((column - 20, y, column + 20, y), fill=base)
    return np.asarray(image, np.float32) / 255


def _star(
    centre: tuple[int, int], points: int, radius: float, inner: float
) -> list[tuple[float, float]]:
    angle = np.arange(2 * points) * np.pi / points
    length = radius * np.where(np.arange(2 * points) % 2, inner, 1.0)
    x, y = centre[0] + length * np.sin(angle), centre[1] - length * np.cos(angle)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def ground(rng: np.random.Generator, side: int, kind: str) -> Reals:
    """(side, side, 3) surface to put things on: "wood", "cloth", "stone" or "paint"."""
    colour = jitter(rng, COLOURS[str(rng.choice(list(COLOURS)))], 0.06)
    colour = colour * 0.6 + np.float32(0.4) * colour.mean()
    shade = cloud(rng, (side, side), 3)
    if kind == "wood":
        colour = jitter(rng, (0.55, 0.38, 0.22), 0.06) * np.float32(rng.uniform(0.6, 1.3))
        v = np.linspace(0, 1, side, dtype=np.float32)[:, None]
        lines = np.sin(60 * v + 9 * cloud(rng, (side, side), 2, 2))
        shade = 0.6 * shade + 0.4 * (0.5 + 0.5 * lines)
    elif kind == "cloth":
        row, column = np.mgrid[0:side, 0:side]
        weave = ((row // 2 + column // 2) % 2).astype(np.float32)
        shade = 0.75 * shade + 0.25 * weave
    elif kind == "stone":
        shade = 0.5 * shade + 0.5 * rng.random((side, side), dtype=np.float32)
    depth = {"paint": 0.25, "wood": 0.5, "cloth": 0.5, "stone": 0.55}[kind]
    return np.asarray(np.clip(colour * (1 + depth * (shade[..., None] - 0.5)), 0, 1), np.float32)
