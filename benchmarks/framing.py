"""What windows of the frames tell: are several of a person's things in view, and where is it?

    python benchmarks/framing.py --photos FOLDER    # object/photo/*.jpg
    python benchmarks/framing.py --tree TREE        # ORBIT-shaped, boxes in its annotations
    python benchmarks/framing.py --rendered PEOPLE  # who film again as they are told
    python benchmarks/framing.py --smoke            # coloured noise, for CI

Photographs: objects with four of them or more take part. People teach five things with two
photographs each, to the population that comes along. They ask about single photographs, about two
of their things side by side, about one of them beside somebody else's, about one far off the middle
before a blurred background, and about somebody else's thing.

Tree: each user teaches every object by two clean videos, and asks every cluttered one. Of what is
said of a place, the annotated box says whether it is true.

Rendered: people film each thing once with each defect, and where the answer is unsure they take a
step with the camera, the advised one (`bayesfs.explanation.camera`), any of the eight, or the one
that undoes the defect, and film the same moment again.

Everything that is said is by `bayesfs.explanation.framing`, as `bayesfs predict` says it. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from bayesfs._utils.threads import share_cores
from bayesfs.cli.name_videos import Teacher, boxed, tasks_in_condition
from bayesfs.data.sources.video import UNKNOWN_OBJECT
from bayesfs.explanation.camera import CameraStep, camera_step
from bayesfs.explanation.explain import REJECTED
from bayesfs.explanation.framing import Framing, Look, framing_of
from bayesfs.explanation.sentences import SURE
from bayesfs.features.quality import quality
from bayesfs.features.windows import PARTS, WHOLE, Window
from bayesfs.protocols import KnowsTypical
from bayesfs.synthetic.videos.objects import Thing, make_thing, user_things
from bayesfs.synthetic.videos.refilm import DEFECTS, STEPS, moments
from bayesfs.synthetic.videos.scenes import record_video
from bayesfs.types import Embeddings

Picture = NDArray[np.uint8]

SIDE = 256
PEOPLE, THINGS, TAUGHT = 4, 5, 2
FRAMES = 3
"""Frames of a video of the tree."""

SEED, RENDERED = 5151, 160
"""Of the rendered people, and the side of their frames."""

TRIED = ("blurred", "dark", "bright", "cut off", "too small")
"""Defects that a step may undo."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A question.

    Attributes:
        kind: how it is composed.
        shown: the person's things in it.
        frames: the pictures.
        at: (x, y) centre of the thing in sides of the frame, where that is known.
    """

    kind: str
    shown: frozenset[str]
    frames: Sequence[Picture]
    at: tuple[float, float] | None = None


def photographs(folder: Path) -> dict[str, list[Picture]]:
    """Object -> its photographs, of objects that have enough."""
    found = {
        place.name: [picture(path) for path in sorted(place.glob("*/*.jpg"))]
        for place in sorted(folder.iterdir())
        if place.is_dir()
    }
    return {name: each for name, each in found.items() if len(each) >= 2 * TAUGHT}


def picture(path: Path) -> Picture:
    """A square one."""
    return np.asarray(Image.open(path).convert("RGB").resize((SIDE, SIDE)))


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


def aside(one: Picture, before: Picture, x: float, y: float) -> Picture:
    """A picture at half its size, at a place before a blurred one."""
    whole = Image.fromarray(before).filter(ImageFilter.GaussianBlur(SIDE / 12))
    small = Image.fromarray(one).resize((SIDE // 2, SIDE // 2))
    whole.paste(small, (round((x - 0.25) * SIDE), round((y - 0.25) * SIDE)))
    return np.asarray(whole)


def questions(
    photos: dict[str, list[Picture]], mine: list[str], rng: np.random.Generator
) -> list[Asked]:
    """All that one person asks."""
    others = [name for name in photos if name not in mine]
    places = ((0.25, 0.5), (0.75, 0.5), (0.5, 0.25), (0.5, 0.75))
    found: list[Asked] = []
    for k, thing in enumerate(mine):
        for n in (TAUGHT, TAUGHT + 1):
            friend, strange = mine[(k + n) % THINGS], others[rng.integers(len(others))]
            own, second = photos[thing][n], photos[friend][2 * TAUGHT + 1 - n]
            third, at = photos[strange][n], places[rng.integers(4)]
            one = frozenset({thing})
            found.append(Asked("alone", one, [own]))
            found.append(Asked("two", frozenset({thing, friend}), [beside(own, second)]))
            found.append(Asked("beside another", one, [beside(own, third)]))
            found.append(Asked("aside", one, [aside(own, photos[strange][0], *at)], at))
            found.append(Asked("another's", frozenset(), [third]))
    return found


def looked_at(
    teacher: Teacher,
    taught: dict[str, list[list[Picture]]],
    asked: Sequence[Sequence[Picture]],
    parts: Mapping[str, Window],
) -> list[dict[str, Look]]:
    """Part -> what is said of it, of each question.

    Args:
        teacher: with a model that knows what is typical.
        taught: thing -> frames of each of its videos.
        asked: frames of each question.
        parts: of the frames, each of which is asked about by itself.
    """
    rows = [
        (thing, f"{thing} {n}", frames)
        for thing, videos in taught.items()
        for n, frames in enumerate(videos)
    ]
    rows += [
        (UNKNOWN_OBJECT, f"{i} {name}", list(window.of(np.stack([*frames]))))
        for i, frames in enumerate(asked)
        for name, window in parts.items()
    ]
    images = [resized(p, teacher.backbone.px) for *_, frames in rows for p in frames]
    embeddings = Embeddings.from_arrays(
        teacher.backbone(np.stack(images)),
        object=[thing for thing, _, frames in rows for _ in frames],
        video=[video for _, video, frames in rows for _ in frames],
        user="one",
        condition="clean",
        split="test",
    )
    tasks = tasks_in_condition(teacher, embeddings, "clutter")
    answer = teacher.study.infer(tasks, teacher.learnt, seed=teacher.seed)
    assert isinstance(answer.model, KnowsTypical)
    like = answer.model.typicality(tasks, condition_known=False)[0].tolist()
    looks: list[dict[str, Look]] = [{} for _ in asked]
    for video, p, t in zip(
        tasks.videos[0], answer.predictive.video.prob[0].tolist(), like, strict=False
    ):
        number, _, part = video.partition(" ")
        looks[int(number)][part] = Look(dict(zip(tasks.classes[0], p, strict=False)), t)
    return looks


def resized(image: Picture, px: int) -> Picture:
    """A picture as the backbone takes it."""
    return np.asarray(Image.fromarray(image).resize((px, px), Image.Resampling.BILINEAR))


def framings(
    teacher: Teacher, taught: dict[str, list[list[Picture]]], asked: Sequence[Asked]
) -> list[tuple[bool, Framing | None]]:
    """Whether the whole leaves a doubt, and what the windows tell, of each question."""
    found = []
    for own in looked_at(teacher, taught, [one.frames for one in asked], PARTS):
        whole = own.pop(WHOLE)
        unsure = max(whole.prob.values()) < SURE or whole.typical < REJECTED
        found.append((unsure, framing_of(own, whole.doubt)))
    return found


def true_side(asked: Asked, framing: Framing) -> bool:
    """Whether the thing is the right one, and lies on that side of the middle."""
    assert asked.at is not None
    x, y = asked.at
    off = {"left": 0.5 - x, "right": x - 0.5, "top": 0.5 - y, "bottom": y - 0.5}
    return framing.side != "" and off[framing.side] > 0 and {*framing.things} <= asked.shown


def of_photographs(teacher: Teacher, photos: dict[str, list[Picture]]) -> dict[str, float]:
    """How often what is said, by kind of picture."""
    rng = np.random.default_rng(0)
    names = [str(name) for name in rng.permutation(list(photos))]
    said: dict[str, list[bool]] = {}
    places: list[bool] = []
    for person in range(min(PEOPLE, len(names) // THINGS)):
        mine = names[THINGS * person : THINGS * (person + 1)]
        asked = questions(photos, mine, rng)
        taught = {name: [[p] for p in photos[name][:TAUGHT]] for name in mine}
        for one, (unsure, found) in zip(asked, framings(teacher, taught, asked), strict=True):
            several = found is not None and len(found.things) > 1
            if one.kind == "two" and found is not None:
                several &= {*found.things} == one.shown
            said.setdefault(one.kind, []).append(several)
            if one.at is not None and unsure and found is not None and found.side:
                places.append(true_side(one, found))
    print(
        f'"several are in view", of {len(said["two"])} pictures of each kind (of two: both right):'
    )
    for kind, told in said.items():
        print(f"  {kind:24}{np.mean(told):.2f}")
    print(f"where it is, said of {len(places)} pictures aside, right in {sum(places)}")
    return {f"several.{kind.replace(' ', '_')}": float(np.mean(v)) for kind, v in said.items()}


def of_tree(teacher: Teacher, tree: Path) -> dict[str, float]:
    """How often a place is said, and true, by the boxes of cluttered videos."""
    places: list[bool] = []
    videos = unsure_ones = several = 0
    for user in sorted(
        p for p in tree.glob("*/*") if p.parent.name != "annotations" and p.is_dir()
    ):
        taught = {
            thing.name: [frames_of(v) for v in sorted((thing / "clean").iterdir())[:TAUGHT]]
            for thing in sorted(user.iterdir())
        }
        asked = [
            boxed_video(tree, user.parent.name, thing.name, video)
            for thing in sorted(user.iterdir())
            for video in sorted((thing / "clutter").iterdir())
        ]
        for one, (unsure, found) in zip(asked, framings(teacher, taught, asked), strict=True):
            videos += 1
            unsure_ones += unsure
            several += found is not None and len(found.things) > 1
            if unsure and found is not None and found.side and one.at is not None:
                places.append(true_side(one, found))
    print(
        f"cluttered videos {videos}, unsure {unsure_ones}; several said to be in view: {several};"
    )
    print(f"where it is, said of {len(places)} unsure ones, right in {sum(places)}")
    return {
        "place.said": len(places) / max(unsure_ones, 1),
        "place.right": float(np.mean(places)) if places else float("nan"),
        "several.tree": several / max(videos, 1),
    }


def frames_of(video: Path) -> list[Picture]:
    """Some frames, evenly spread."""
    files = sorted(video.glob("*.jpg"))
    return [picture(files[i]) for i in np.linspace(0, len(files) - 1, FRAMES + 2).astype(int)[1:-1]]


def boxed_video(tree: Path, split: str, thing: str, video: Path) -> Asked:
    """A video with the mean centre of its boxes in these frames."""
    notes = json.loads((tree / "annotations" / split / f"{video.name}.json").read_text())
    names = sorted(notes)
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, FRAMES + 2).astype(int)[1:-1]]
    boxes = [b for b in (notes[n]["object_bounding_box"] for n in chosen) if b]
    centres = [((b["x"] + b["w"] / 2) / 1080, (b["y"] + b["h"] / 2) / 1080) for b in boxes]
    x, y = np.mean(centres, axis=0).tolist() if centres else (0.0, 0.0)
    return Asked("cluttered", frozenset({thing}), frames_of(video), (x, y) if centres else None)


def of_rendered(teacher: Teacher, people: int) -> dict[str, float]:
    """People who film a thing with one defect, and try a step where the answer is unsure."""
    rows: list[tuple[str, str, dict[str, Look]]] = []
    for user in range(people):
        mine = user_things(np.random.default_rng([SEED, 0, user]), THINGS)
        strangers = [make_thing(np.random.default_rng([SEED, 1, i])) for i in range(12)]
        taught = {
            thing.name: taught_frames(thing, strangers, (user, i)) for i, thing in enumerate(mine)
        }
        filmed = [
            (
                thing.name,
                name,
                moment,
                spoil(moment.pose, np.random.default_rng([SEED, user, i, k])),
            )
            for i, thing in enumerate(mine)
            for moment in moments(thing, strangers, "clutter", 1, RENDERED, (SEED, 9, user, i))
            for k, (name, spoil) in enumerate(DEFECTS.items())
            if name in TRIED
        ]
        first = [[moment.film(pose)] for *_, moment, pose in filmed]
        looks = looked_at(teacher, taught, first, PARTS)
        px = teacher.backbone.px
        usual = quality(np.stack([resized(f, px) for v in taught.values() for fs in v for f in fs]))
        rng = np.random.default_rng([SEED, 3, user])
        then: list[list[Picture]] = []
        steps: list[CameraStep] = []
        for (*_, moment, pose), frames, own in zip(filmed, first, looks, strict=True):
            steps.append(camera_step(own, quality(resized(frames[0], px)[None]), usual))
            by_chance = str(rng.choice([*STEPS]))
            for step in (steps[-1], by_chance):
                then.append([moment.film(STEPS[step](pose) if step else pose)])
            then.append([moment.film(moment.pose)])
        after = looked_at(teacher, taught, then, {WHOLE: PARTS[WHOLE]})
        for n, ((thing, defect, *_), own) in enumerate(zip(filmed, looks, strict=True)):
            if max(own[WHOLE].prob.values()) >= SURE:
                continue
            results = [own[WHOLE], *(one[WHOLE] for one in after[3 * n : 3 * n + 3])]
            policies = ("not", "advised", "random", "mended")
            rows.append(
                (f"{defect}: {steps[n] or '-'}", thing, dict(zip(policies, results, strict=True)))
            )
    return steps_shown(rows)


def steps_shown(rows: Sequence[tuple[str, str, dict[str, Look]]]) -> dict[str, float]:
    """Accuracy and NLL after a step, of (defect and step, thing, policy -> answer) rows."""
    figures: dict[str, float] = {}
    defects = list(dict.fromkeys(told.partition(":")[0] for told, *_ in rows))
    print(f"{len(rows)} unsure frames; accuracy and NLL of the next frame, by what is done:")
    for name in [*defects, "all"]:
        own = [row for row in rows if name in ("all", row[0].partition(":")[0])]
        line = f"  {name:11}{len(own):4}"
        for policy in ("not", "advised", "random", "mended"):
            right = np.mean([look[policy].likeliest == thing for _, thing, look in own])
            nll = -np.mean([np.log(look[policy].prob[thing] + 1e-12) for _, thing, look in own])
            line += f"   {policy} {right:.2f} {nll:.2f}"
            if name == "all":
                figures |= {f"step.{policy}.acc": float(right), f"step.{policy}.nll": float(nll)}
        chosen = Counter(told.partition(": ")[2] for told, *_ in own)
        print(line, dict(chosen.most_common()) if name != "all" else "")
    return figures


def taught_frames(
    thing: Thing, others: Sequence[Thing], seed: tuple[int, int]
) -> list[list[Picture]]:
    """Frames of clean videos."""
    found = []
    for n in range(TAUGHT):
        video = record_video(thing, others, "clean", FRAMES, RENDERED, (SEED, 2, *seed, n))
        found.append([frame.image for frame in video])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--photos", type=Path, help="folder object/photo/*.jpg")
    parser.add_argument("--tree", type=Path, help="ORBIT-shaped tree with boxes")
    parser.add_argument("--smoke", action="store_true", help="tiny, simulated pictures")
    parser.add_argument("--rendered", type=int, default=0, help="number of people")
    args = parser.parse_args()
    if not (args.photos or args.tree or args.rendered or args.smoke):
        parser.error("--photos, --tree or --rendered is needed, or --smoke")
    teacher = boxed("cpu")
    found: dict[str, float] = {}
    if args.photos is not None or args.smoke:
        photos = simulated() if args.smoke else photographs(args.photos)
        found |= of_photographs(teacher, photos)
    if args.tree is not None:
        found |= of_tree(teacher, args.tree)
    if args.rendered:
        found |= of_rendered(teacher, args.rendered)
    print(json.dumps({name: None if np.isnan(v) else v for name, v in found.items()}))


if __name__ == "__main__":
    share_cores()
    main()
