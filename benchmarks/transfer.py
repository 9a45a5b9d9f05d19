"""Does it hold in another world? Ours against simple heads, in worlds that nobody learnt from.

    python benchmarks/transfer.py --people TREE_OR_STORE... --new TREE_OR_STORE... --cache DIR
    python benchmarks/transfer.py --new ROOM --teach 'scene[012]' --ask 'scene[34]'
    python benchmarks/transfer.py --smoke         # two tiny worlds made in memory, for CI

Per new world and 1, 2 and 5 videos per object: tasks of 8 objects, 2 of which are asked without
being taught; whole videos of at most 8 frames are recognised. Taught are clean videos and asked
cluttered ones where a tree has both, else they are drawn at random; --teach and --ask choose by
the path of a video within its tree, in the worlds where they are found. At 5 videos an object with
fewer gives all but one that is asked, 2 at least. A tree that is given as --people and as --new is
left out of its own people: give all of them as both to leave a whole world out each time. Without
--people, methods have what the library ships; the heads' temperatures are then learnt on the other
new worlds.

A simple head counts with the better of two temperatures, and the best head of a world is that with
the lowest NLL there: both are chosen on the very tasks that are scored, in the heads' favour.
Intervals are over the tasks of one world, which share objects and videos: they say how much the
draw of tasks matters, not how another world would turn out. The last line is JSON; a figure that
was not measured is null.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transfer_parts.heads import HeadAnswers, Lesson
from transfer_parts.methods import DEFAULT, METHODS, Answer, Make, Method, Pool
from transfer_parts.scores import Cell, Figures, Scored, novelty_auroc, over_worlds
from transfer_parts.tasks import Sizes, draw_tasks, is_possible, shots_of
from transfer_parts.worlds import World, embedder_of, photographs, read_worlds, reader

from bayesfs._utils.threads import share_cores
from bayesfs.training.shared_population import BACKBONES
from bayesfs.types import Embeddings

SHOTS = (1, 2, 5)
LEARNING_SEED = 1
"""Of the tasks that temperatures are learnt on; those that are scored have seed 0."""


@dataclass(frozen=True)
class Bench:
    """What is compared, and on how much.

    Attributes:
        make: factories of the library's methods, by name.
        sizes: of the tasks that are scored.
        learning_tasks: tasks of each of the people's worlds that temperatures are learnt on.
        draws: bootstrap samples.
    """

    make: Mapping[str, Make]
    sizes: Sizes
    learning_tasks: int = 20
    draws: int = 500
    _taught: dict[tuple[tuple[str, bool], ...], tuple[Lesson, list[Method]]] = field(
        default_factory=dict
    )

    def learn(
        self, people: Sequence[World], others: Sequence[World]
    ) -> tuple[Lesson, list[Method]]:
        """What the heads and the methods have learnt; made once for the same worlds."""
        tuned_on = tuple(people or others)
        key = (*((w.source, w.comparable) for w in tuned_on), ("people", bool(people)))
        if key not in self._taught:
            sizes = replace(self.sizes, tasks=self.learning_tasks)
            methods = [make(people) for make in self.make.values()]
            self._taught[key] = Lesson(tuned_on, sizes, LEARNING_SEED), methods
        return self._taught[key]

    def cell(self, world: World, shots: int, lesson: Lesson, methods: Sequence[Method]) -> Cell:
        """Every method on the tasks of one world."""
        answers: dict[str, list[Answer]] = {method.name: [] for method in methods}
        heads = lesson.heads(shots)
        simple: list[HeadAnswers] = []
        labels, videos = [], []
        for task in draw_tasks(world, shots, self.sizes, seed=0):
            labels.append(task.query_labels[0].numpy())
            videos.append(task.videos[0][: len(labels[-1])])
            simple.append(heads.answer(task))
            for method in methods:
                answers[method.name].append(method.answer(task).checked(task, method.name))
        scored = partial(Scored.of, tasks=labels, videos=videos, draws=self.draws)
        ours = {name: scored(given) for name, given in answers.items()}
        taken = shots_of(world, shots)
        shown = float(taken[taken > 0].mean())
        return Cell(world.name, shots, shown, ours, *self._simple(simple, labels, scored))

    def _simple(
        self,
        found: Sequence[HeadAnswers],
        labels: Sequence[np.ndarray],
        score: Callable[[Sequence[Answer]], Scored],
    ) -> tuple[dict[str, Scored], dict[str, str], float]:
        """Each head with the better of its tunings, which that was, and the best novelty AUROC."""
        best: dict[str, Scored] = {}
        tuning: dict[str, str] = {}
        areas = [novelty_auroc([f.distance[n] for f in found], labels) for n in found[0].distance]
        for name, by in found[0].answers:
            given = [f.answers[name, by] for f in found]
            areas.append(novelty_auroc([a.novelty for a in given if a.novelty is not None], labels))
            scored = score(given)
            if name not in best or scored.value("nll") < best[name].value("nll"):
                best[name], tuning[name] = scored, by
        return best, tuning, max(areas)


def report(bench: Bench, people: Sequence[World], new: Sequence[World]) -> Figures:
    """Print the table of every new world and give all figures."""
    figures: Figures = {}
    for world in new:
        mine = [p.seen_from(world) for p in people if p.source != world.source]
        others = [o.seen_from(world) for o in new if o is not world]
        lesson, methods = bench.learn(mine, others)
        tuned = ", ".join(w.name for w in lesson.worlds) or "the support alone"
        learnt = ", ".join(w.name for w in mine) or "those that the library ships"
        print(f"\n{world.name}: {world.objects} objects, {len(world.videos)} videos, {world.rule}")
        print(f"temperatures from {tuned}; methods' people: {learnt}")
        for shots in SHOTS:
            start = time.perf_counter()
            if is_possible(world, shots, bench.sizes):
                cell = bench.cell(world, shots, lesson, methods)
                figures |= cell.figures(DEFAULT)
            else:
                cell = Cell(world.name, shots, None, {}, {}, {}, float("nan"))
            print("\n".join(cell.lines()), flush=True)
            seconds = time.perf_counter() - start
            print(f"  {world.name}, {shots} videos: {seconds:.1f} s", file=sys.stderr, flush=True)
    figures = with_gaps(figures, [w.name for w in new])
    return figures | over_worlds(figures, [w.name for w in new], DEFAULT)


def with_gaps(figures: Figures, worlds: Sequence[str]) -> Figures:
    """The same names for every world and number of videos; None for what was not measured."""
    mine = [(w, key) for w in worlds for key in figures if key.startswith(f"{w}.")]
    kinds = {key.removeprefix(f"{w}.").rpartition("_")[0]: None for w, key in mine}
    names = [f"{world}.{kind}_{n}" for world in worlds for kind in kinds for n in SHOTS]
    return {name: figures.get(name) for name in names}


def simulated() -> list[World]:
    """Two worlds of Gaussian objects, one of clean and cluttered videos, one drawn at random."""
    rng = np.random.default_rng(0)
    worlds = []
    for name, spread, kinds in (("desk", 1.2, ("clean", "clutter")), ("shed", 1.5, ("clean",))):
        rows, things, videos, kind = [], [], [], []
        for thing in range(9):
            centre = 2.0 + rng.normal(size=24)
            for k in kinds:
                for v in range(6):
                    video = centre + spread * rng.normal(size=24) + (k == "clutter")
                    rows.append(video + 0.3 * rng.normal(size=(3, 24)))
                    things += [f"thing {thing}"] * 3
                    videos += [f"{thing}-{k}-{v}"] * 3
                    kind += [k] * 3
        frames = Embeddings.from_arrays(
            np.concatenate(rows), object=things, video=videos, condition=kind, user=name
        )
        worlds.append(World.of(name, frames))
    return worlds


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--people", type=Path, nargs="*", default=[], help="worlds to learn from")
    parser.add_argument("--new", type=Path, nargs="*", default=[], help="worlds to be tried in")
    parser.add_argument(
        "--grocery",
        type=Path,
        help="npz with feat and label as for fewshot.py: one more of the people's worlds, of\n"
        "another backbone, from which only scalars such as temperatures are learnt",
    )
    parser.add_argument("--teach", type=re.compile, help="regular expression of taught videos")
    parser.add_argument("--ask", type=re.compile, help="regular expression of asked videos")
    parser.add_argument("--px", type=int, help="side of the frames; the backbone's own by default")
    parser.add_argument("--backbone", help="as of `bayesfs features`, or a store's name of one")
    parser.add_argument("--cache", type=Path, help="folder where features are kept")
    parser.add_argument("--methods", nargs="*", help="only these, and the default")
    parser.add_argument("--objects", type=int, default=Sizes.objects, help="of a task")
    parser.add_argument("--untaught", type=int, default=Sizes.untaught, help="of these, not taught")
    parser.add_argument("--tasks", type=int, default=Sizes.tasks, help="of each world and number")
    parser.add_argument("--smoke", action="store_true", help="tiny, simulated features")
    args = parser.parse_args()
    if not (args.smoke or args.new):
        parser.error("--new is needed, or --smoke")
    if args.untaught < 0 or args.objects - args.untaught < 2 or args.tasks < 1:
        parser.error("expected a task, two taught objects at least, and --untaught not below 0")
    return args


def main() -> None:
    """Run the benchmark and print the figures."""
    args = arguments()
    torch.manual_seed(0)
    make = {
        n: m for n, m in METHODS.items() if args.methods is None or n in {*args.methods, DEFAULT}
    }
    if args.backbone in BACKBONES:
        make[DEFAULT] = partial(Pool.of, backbone=args.backbone)
    sizes = Sizes(tasks=args.tasks, objects=args.objects, untaught=args.untaught)
    with tempfile.TemporaryDirectory(prefix="bayesfs-") as scratch:
        if args.smoke:
            new = people = simulated()
            bench = Bench(make, Sizes(tasks=2, objects=4, untaught=1), learning_tasks=3, draws=50)
        else:
            read = reader(lambda: embedder_of(args.backbone, args.px), args.cache or Path(scratch))
            people = read_worlds(args.people, read)
            people += [] if args.grocery is None else [photographs(args.grocery)]
            new = read_worlds(args.new, read, args.teach, args.ask)
            bench = Bench(make, sizes)
        figures = report(bench, people, new)
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}))


if __name__ == "__main__":
    share_cores()
    main()
