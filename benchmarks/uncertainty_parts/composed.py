"""Causes tested on real pictures: a defect composed on a picture, and the picture without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from bayesfs.data.sources.open import read_tree
from bayesfs.data.sources.orbit import is_orbit
from bayesfs.features.backbones.efficientnet_lite0 import EfficientNetLite0
from bayesfs.features.quality import COVARIATES, quality
from bayesfs.protocols import Backbone
from bayesfs.synthetic.videos.refilm import FLAT
from bayesfs.types import Embeddings
from uncertainty_parts.bench import Bench, Found
from uncertainty_parts.refilmed import GOOD, Moments, caused

Picture = NDArray[np.uint8]

Spoil = Callable[[Picture, np.random.Generator], Picture]
"""A picture of at least 64 pixels a side -> the same with one thing wrong."""

PEOPLE_OF = 5
"""Objects of a person, where a folder has objects and no people."""

TRAIN_SHARE = 0.6
"""Of these people the population is learnt from."""

EVERY = 2
"""Of the frames of a video so many-th are taken."""


@dataclass(frozen=True)
class Pictures:
    """Labelled pictures of a world, in rows.

    Attributes:
        image: each resized as the backbone takes it.
        user: whose object it is.
        thing: its name.
        video: its recording.
        condition: of the recording.
        split: "train" or "test".
    """

    image: NDArray[np.uint8]
    user: NDArray[np.str_]
    thing: NDArray[np.str_]
    video: NDArray[np.str_]
    condition: NDArray[np.str_]
    split: NDArray[np.str_]

    @classmethod
    def of(cls, folder: Path, px: int) -> Pictures:
        """Of an ORBIT-shaped tree, or of object folders; no frame of test users that is flagged.

        Objects of a folder without people are shared out among people by lot; of each object's
        recordings the first three are clean and taught, the others cluttered and asked.
        """
        orbit = is_orbit(folder)
        rows, images = [], []
        people = None if orbit else _people(sorted(p.name for p in folder.iterdir() if p.is_dir()))
        seen: dict[str, int] = {}
        for video in read_tree(folder).videos:
            user, split, condition = video.user, video.split, video.condition
            if people is not None:
                user, split = people[video.object]
                seen[video.object] = seen.get(video.object, -1) + 1
                condition = "clean" if seen[video.object] < 3 else "clutter"
            if not user:
                continue
            for index, file in list(enumerate(video.files or ("",)))[::EVERY]:
                flagged = any(flag[index] == 1 for flag in video.flags.values())
                if split == "test" and flagged:
                    continue
                path = video.root / video.path / file if file else video.root / video.path
                with Image.open(path) as opened:
                    square = opened.convert("RGB").resize((px, px), Image.Resampling.BILINEAR)
                images.append(np.asarray(square))
                rows.append((user, video.object, f"{user} {video.name}", condition, split))
        return cls(np.stack(images), *(np.array(column) for column in zip(*rows, strict=True)))

    def embeddings(self, backbone: Backbone) -> Embeddings:
        """Their features and quality."""
        measured = quality(self.image)
        return Embeddings.from_arrays(
            by_batches(backbone, self.image),
            object=self.thing,
            video=self.video,
            user=self.user,
            condition=self.condition,
            split=self.split,
            quality={c: measured[:, j] for j, c in enumerate(COVARIATES)},
        )


def _people(things: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Object -> person and split; nobody for those that are left over."""
    order = np.random.default_rng(0).permutation(len(things))
    number = len(things) // PEOPLE_OF
    train = round(TRAIN_SHARE * number)
    found = {}
    for place, index in enumerate(order):
        person = place // PEOPLE_OF
        split = "train" if person < train else "test"
        found[things[index]] = (f"P{person + 1:03d}" if person < number else "", split)
    return found


def by_batches(backbone: Backbone, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Features, 64 pictures at a time."""
    return np.concatenate([backbone(images[i : i + 64]) for i in range(0, len(images), 64)])


def _blurred(picture: Picture, rng: np.random.Generator) -> Picture:
    sigma = rng.uniform(1.0, 2.4) / 128 * len(picture)
    return np.asarray(gaussian_filter(picture, (sigma, sigma, 0), mode="nearest"), np.uint8)


def _exposed(low: float, high: float) -> Spoil:
    def spoil(picture: Picture, rng: np.random.Generator) -> Picture:
        return _rounded(picture * rng.uniform(low, high))

    return spoil


def _flat(picture: Picture, rng: np.random.Generator) -> Picture:
    mean = picture.mean((0, 1))
    return _rounded(mean + FLAT * (picture - mean))


def _cut_off(picture: Picture, rng: np.random.Generator) -> Picture:
    """Moved aside by nearly half a side; what comes into view repeats the edge."""
    angle, side = rng.uniform(0, 2 * np.pi), len(picture)
    down, across = (
        np.clip(np.arange(side) + round(0.45 * side * f), 0, side - 1)
        for f in (np.sin(angle), np.cos(angle))
    )
    return picture[down][:, across]


def _too_small(picture: Picture, rng: np.random.Generator) -> Picture:
    """In the middle of itself, blurred beyond recognition."""
    side = len(picture)
    behind = gaussian_filter(picture, (side / 8, side / 8, 0), mode="nearest").copy()
    size = round(side * rng.uniform(0.35, 0.55))
    small = Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR)
    start = (side - size) // 2
    behind[start : start + size, start : start + size] = np.asarray(small)
    return np.asarray(behind, np.uint8)


def _occluded(picture: Picture, rng: np.random.Generator) -> Picture:
    """A hand's worth of one colour over the middle."""
    side, hidden = len(picture), picture.copy()
    size = round(0.5 * side)
    top, left = rng.integers(side // 8, side - size - side // 8, 2)
    hidden[top : top + size, left : left + size] = rng.integers(60, 200, 3)
    return hidden


def _rounded(picture: NDArray[np.float64]) -> Picture:
    return np.asarray(np.round(picture.clip(0, 255)), np.uint8)


SPOILT: Mapping[str, Spoil] = {
    "blurred": _blurred,
    "dark": _exposed(0.15, 0.4),
    "bright": _exposed(1.6, 2.4),
    "flat": _flat,
    "cut off": _cut_off,
    "too small": _too_small,
    "occluded": _occluded,
}
"""Defect -> what it does to a picture; "absent" is another person's picture."""

TWO = ("blurred", "dark"), ("blurred", "bright"), ("blurred", "flat")
"""Defects that a picture has at once: then one is left out."""


def composed(pictures: Pictures, moments: int, backbone: Backbone) -> Moments:
    """Pictures of the test users in clutter, each with one defect after the other, and with two.

    Args:
        pictures: of a world.
        moments: pictures of each object, evenly over its cluttered ones.
        backbone: that the world is seen with.
    """
    asked = (pictures.split == "test") & (pictures.condition == "clutter")
    rows, images = [], []
    for user, thing in sorted(set(zip(pictures.user[asked], pictures.thing[asked], strict=True))):
        own = np.flatnonzero(asked & (pictures.user == user) & (pictures.thing == thing))
        others = np.flatnonzero(asked & (pictures.user != user))
        for number in np.linspace(0, len(own) - 1, moments).round().astype(int):
            index = int(own[number])
            good = pictures.image[index]
            made = {name: spoil(good, _rng(index, name)) for name, spoil in SPOILT.items()}
            made["absent"] = pictures.image[_rng(index, "absent").choice(others)]
            for one, other in TWO:
                made[f"{one}, {other}"] = SPOILT[one](made[other], _rng(index, one))
            for defect, image in {GOOD: good, **made}.items():
                rows.append((user, thing, defect))
                images.append(image)
    whole = np.stack(images)
    columns = (np.array(column) for column in zip(*rows, strict=True))
    mended = {name: {name: GOOD} for name in (*SPOILT, "absent")}
    mended |= {f"{one}, {other}": {other: one, one: other} for one, other in TWO}
    return Moments(by_batches(backbone, whole), quality(whole), *columns, mended)


def row_16(bench: Bench, folders: Sequence[Path], moments: int) -> Found:
    """Defects composed on real pictures; the figures are those of the worst world.

    Args:
        bench: model and engines; its data play no part.
        folders: worlds, each with a population of its own people.
        moments: pictures of each object.
    """
    backbone, worlds = EfficientNetLite0(), []
    for folder in folders:
        pictures = Pictures.of(folder, backbone.px)
        people = replace(bench, data=pictures.embeddings(backbone))
        print(f"defects composed on real pictures, {folder.name}:")
        worlds.append(caused(people, composed(pictures, moments, backbone), moments, "composed"))
    return {
        "composed_spearman": min(w["composed_spearman"] for w in worlds),
        "composed_sign": min(w["composed_sign"] for w in worlds),
        "composed_size": max((w["composed_size"] for w in worlds), key=_off),
    }


def _off(size: float) -> float:
    return abs(float(np.log(max(size, 1e-6))))


def _rng(index: int, name: str) -> np.random.Generator:
    return np.random.default_rng([index, *name.encode()])
