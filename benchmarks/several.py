"""Are several of a person's things in view? What crops of a picture tell, on composed photographs.

    python benchmarks/several.py --photos FOLDER    # object/photo/*.jpg
    python benchmarks/several.py --smoke            # coloured noise, for CI

Objects with four photographs or more take part. People teach five of them with two photographs
each, to the population that comes along. They ask about single photographs, about two of their
things side by side, and about one of them beside somebody else's. Four crops (left, right, top,
bottom; three fifths of the side) are named each by itself; where two of them are sure of different
things, several are in view. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bayesfs._utils.threads import share_cores
from bayesfs.cli.name_videos import Teacher, boxed, tasks_in_condition
from bayesfs.data.sources.video import UNKNOWN_OBJECT
from bayesfs.types import Embeddings

Picture = NDArray[np.uint8]
Asked = tuple[str, frozenset[str], Picture]
"""What is composed, the person's things in it, and the picture."""

SIDE, WINDOW = 256, 154
MIDDLE = slice((SIDE - WINDOW) // 2, (SIDE + WINDOW) // 2)
FIRST, LAST = slice(0, WINDOW), slice(SIDE - WINDOW, SIDE)
CROPS = {
    "left": (MIDDLE, FIRST),
    "right": (MIDDLE, LAST),
    "top": (FIRST, MIDDLE),
    "bottom": (LAST, MIDDLE),
}
SURE = 0.9
PEOPLE, THINGS, TAUGHT = 4, 5, 2


def photographs(folder: Path) -> dict[str, list[Picture]]:
    """Object -> its photographs, of objects that have enough."""
    found = {
        place.name: [
            np.asarray(Image.open(path).convert("RGB").resize((SIDE, SIDE)))
            for path in sorted(place.glob("*/*.jpg"))
        ]
        for place in sorted(folder.iterdir())
        if place.is_dir()
    }
    return {name: each for name, each in found.items() if len(each) >= 2 * TAUGHT}


def simulated() -> dict[str, list[Picture]]:
    """One person's things and a stranger's: noise about a colour each."""
    rng = np.random.default_rng(0)
    found = {}
    for thing in range(THINGS + 1):
        colour = rng.integers(40, 216, 3)
        each = colour + rng.integers(-40, 41, (2 * TAUGHT, SIDE, SIDE, 3))
        found[f"thing {thing}"] = list(each.astype(np.uint8))
    return found


def beside(one: Picture, other: Picture) -> Picture:
    """The middle halves of two pictures, side by side."""
    half = slice(SIDE // 4, 3 * SIDE // 4)
    return np.concatenate([one[:, half], other[:, half]], 1)


def questions(
    photos: dict[str, list[Picture]], mine: list[str], rng: np.random.Generator
) -> list[Asked]:
    """All that one person asks."""
    others = [name for name in photos if name not in mine]
    found: list[Asked] = []
    for k, thing in enumerate(mine):
        for n in (TAUGHT, TAUGHT + 1):
            friend, strange = mine[(k + n) % THINGS], others[rng.integers(len(others))]
            own = photos[thing][n]
            second = photos[friend][2 * TAUGHT + 1 - n]
            third = photos[strange][n]
            found.append(("alone", frozenset({thing}), own))
            found.append(("two", frozenset({thing, friend}), beside(own, second)))
            found.append(("beside another", frozenset({thing}), beside(own, third)))
    return found


def named(teacher: Teacher, taught: dict[str, list[Picture]], asked: list[Asked]) -> list[set[str]]:
    """The things that the crops of each picture are sure of."""
    images = [(name, f"{name} {n}", p) for name, each in taught.items() for n, p in enumerate(each)]
    images += [
        (UNKNOWN_OBJECT, f"{i} {crop}", picture[cut])
        for i, (_, _, picture) in enumerate(asked)
        for crop, cut in CROPS.items()
    ]
    size = (teacher.backbone.px,) * 2
    pixels = [Image.fromarray(p).resize(size, Image.Resampling.BILINEAR) for *_, p in images]
    frames = Embeddings.from_arrays(
        teacher.backbone(np.stack([np.asarray(p) for p in pixels])),
        object=[thing for thing, *_ in images],
        video=[video for _, video, _ in images],
        user="one",
        condition="clean",
        split="test",
    )
    tasks = tasks_in_condition(teacher, frames, "clutter")
    answer = teacher.study.infer(tasks, teacher.learnt, seed=teacher.seed)
    prob = answer.predictive.video.prob[0].numpy()
    found: list[set[str]] = [set() for _ in asked]
    for video, p in zip(tasks.videos[0], prob, strict=False):
        if p.max() >= SURE:
            found[int(video.split()[0])].add(tasks.classes[0][int(p.argmax())])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--photos", type=Path, help="folder object/photo/*.jpg")
    parser.add_argument("--smoke", action="store_true", help="tiny, simulated pictures")
    args = parser.parse_args()
    if args.photos is None and not args.smoke:
        parser.error("--photos is needed, or --smoke")
    photos = simulated() if args.smoke else photographs(args.photos)
    rng, teacher = np.random.default_rng(0), boxed("cpu")
    names = [str(name) for name in rng.permutation(list(photos))]
    said: dict[str, list[bool]] = {}
    for person in range(min(PEOPLE, len(names) // THINGS)):
        mine = names[THINGS * person : THINGS * (person + 1)]
        asked = questions(photos, mine, rng)
        taught = {name: photos[name][:TAUGHT] for name in mine}
        for (kind, shown, _), sure in zip(asked, named(teacher, taught, asked), strict=True):
            told = len(sure & shown if kind == "two" else sure) > 1
            said.setdefault(kind, []).append(told)
    rates = {f"several.{kind.replace(' ', '_')}": float(np.mean(v)) for kind, v in said.items()}
    print(f'"several are in view", {len(said["two"])} pictures of each kind:')
    for kind, rate in rates.items():
        print(f"  {kind:24}{rate:.2f}")
    print(json.dumps(rates))


if __name__ == "__main__":
    share_cores()
    main()
