"""Everyday objects made of a few solids, each from a seed: start with `make_thing`.

`user_things` gives the objects of one person: mostly of different families, one of them a
deliberate look-alike of another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bayesfs.synthetic.videos.families import FAMILIES, Skin
from bayesfs.synthetic.videos.raycast import Part
from bayesfs.synthetic.videos.textures import COLOURS, PRINTS, jitter, plain, print_texture


@dataclass(frozen=True)
class Thing:
    """A procedural object.

    Attributes:
        name: what its owner calls it.
        parts: its solids, within about one unit of the origin.
    """

    name: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class _Design:
    """What determines a thing: look-alikes share family and shape, and differ in the print."""

    family: str
    shape: int
    colours: tuple[str, str, str]
    kind: str
    print: int


def make_thing(rng: np.random.Generator, family: str | None = None) -> Thing:
    """A random object, of the given family or of any."""
    return _build(_design(rng, family or str(rng.choice(list(FAMILIES)))))


def user_things(rng: np.random.Generator, count: int) -> list[Thing]:
    """`count` objects of one person with distinct names; from three on, two look alike."""
    families = [str(f) for f in rng.permutation(list(FAMILIES))]
    designs = [_design(rng, families[i % len(families)]) for i in range(count)]
    if count > 2:
        designs[-1] = _look_alike(rng, designs[0])
    things: list[Thing] = []
    for thing in map(_build, designs):
        taken = {t.name for t in things}
        names = (thing.name, *(f"{thing.name} {i}" for i in range(2, count + 2)))
        things.append(replace(thing, name=next(n for n in names if n not in taken)))
    return things


def _design(rng: np.random.Generator, family: str) -> _Design:
    names = [str(c) for c in rng.choice(list(COLOURS), size=3, replace=False)]
    shape, seed = (int(s) for s in rng.integers(2**31, size=2))
    return _Design(family, shape, (names[0], names[1], names[2]), str(rng.choice(PRINTS)), seed)


def _look_alike(rng: np.random.Generator, design: _Design) -> _Design:
    """The same object in another edition: other second colours and another print."""
    rest = [c for c in COLOURS if c not in design.colours]
    second, third = (str(c) for c in rng.choice(rest, size=2, replace=False))
    kind, seed = str(rng.choice(PRINTS)), int(rng.integers(2**31))
    return replace(design, colours=(design.colours[0], second, third), kind=kind, print=seed)


def _build(design: _Design) -> Thing:
    rng = np.random.default_rng(design.print)
    base, second, third = (jitter(rng, COLOURS[name]) for name in design.colours)
    skin = Skin(
        print=print_texture(rng, (base, second, third), design.kind),
        base=plain(rng, base),
        second=plain(rng, second),
        third=plain(rng, third),
        dark=plain(rng, np.array([0.1, 0.1, 0.11], np.float32)),
        metal=plain(rng, np.array([0.66, 0.67, 0.7], np.float32), 0.25),
    )
    parts = FAMILIES[design.family](np.random.default_rng(design.shape), skin)
    reach = max(p.reach for p in parts)
    scaled = tuple(_scaled(p, 1 / reach) for p in parts)
    return Thing(f"{design.colours[0]} {design.family}", scaled)


def _scaled(part: Part, by: float) -> Part:
    (x, y, z), (a, b, c) = part.centre, part.size
    return replace(part, centre=(x * by, y * by, z * by), size=(a * by, b * by, c * by))
