"""Learn a population that comes with bayesfs: `bayesfs/_populations/BACKBONE.npz`.

    python benchmarks/learn_population.py --photographs FOLDER --out FILE.npz
    python benchmarks/learn_population.py --backbone efficientnet-lite0 --photographs FOLDER ...
    python benchmarks/learn_population.py --smoke

People are rendered (`bayesfs.synthetic.videos`) unless stores are given, so that nothing with a
licence of its own gets into the file. Photographs are a folder of folders of labelled ones (the
Grocery Store Dataset, MIT): eight groups of eight things stand for people. Each world has its
posterior; the file holds the population of a world that was not met
(`bayesfs.training.shared_population.for_new_world`), and the card how it did in each. The last line
is JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from bayesfs.cli.embedding import embed_tree
from bayesfs.data.sources.open import read_tree
from bayesfs.data.store import open_store, store_attrs
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.features.backbones.spec import DEFAULT, backbone_of
from bayesfs.features.decoding.sampling import Sampling
from bayesfs.features.reduction import UnitNorm
from bayesfs.inference.own_approximation import OwnApproximation
from bayesfs.inference.svi.svi import SVI
from bayesfs.metrics.items import video_rows
from bayesfs.metrics.score_table import table_of_rows
from bayesfs.models.objectives import PredictiveScore
from bayesfs.models.similarity.heads import WithinScatter
from bayesfs.models.similarity.pool import SimilarityPool
from bayesfs.protocols import Backbone
from bayesfs.study import Learnt, Study, scatter_of
from bayesfs.synthetic.videos.render import render_tree
from bayesfs.training.shared_population import SharedPopulation, for_new_world
from bayesfs.types import Embeddings

SCORES = ("accuracy", "nll", "ece")

PHOTOGRAPHS = "photographs of groceries in shops (MIT), groups of things in place of people"
"""Name of their world."""

FAILS = (
    "objects that fill a small part of the frame among others (a cluttered room)",
    "things that are alike but for a label or a colour",
    "frames without any taught object, with one video of each object to judge by",
)
"""What the card warns of."""


@dataclass(frozen=True)
class World:
    """People to learn from.

    Attributes:
        name: for the card.
        frames: of its people.
        study: how tasks are drawn from it.
        real: whether it is photographed. The scale at which similarity tells objects apart, the
            trust in each similarity and how alike two videos of an object are, are learnt from
            photographs alone where there are any: rendered worlds are sharper than real ones.
    """

    name: str
    frames: Embeddings
    study: Study
    real: bool


def study_of(query_condition: str, shots: tuple[int, ...], steps: int) -> Study:
    """The pool, with tasks of the given kind."""
    evaluation = HeldOutUsers(
        shots=shots,
        train_shots=shots,
        query_conditions=(query_condition,),
        train_withheld=0.0,
    )
    return Study(
        SimilarityPool(),
        OwnApproximation(draws=64),
        evaluation,
        SVI(steps=steps, draws=64, particles=1, khat_draws=0),
        PredictiveScore,
        UnitNorm(),
    )


def rendered(folder: Path, backbone: Backbone, smoke: bool) -> Embeddings:
    """Frames of rendered people."""
    sizes = {"objects": 2, "clean_videos": 2, "clean_frames": 2} if smoke else {"objects": 8}
    users = 3 if smoke else 8
    tree = render_tree(
        folder / "tree", train_users=users, test_users=1, size=max(160, backbone.px), **sizes
    )
    store = folder / "features.zarr"
    return embed_tree(read_tree(tree), backbone, store, Sampling(), thumbnails=False)


def photographed(
    folder: Path, source: Path, backbone: Backbone, groups: int = 8, things: int = 8, most: int = 12
) -> Embeddings:
    """Photographs as people: each group has some things, and some photographs of each.

    Args:
        folder: for what is chosen of them.
        source: a folder of folders, of which each that holds JPEGs is of one thing.
        backbone: what makes the features.
        groups: number of them.
        things: of each group.
        most: photographs of a thing.
    """
    named: dict[str, list[Path]] = {}
    for path in sorted(source.rglob("*.jpg")):
        named.setdefault(path.parent.name, []).append(path)
    rng = np.random.default_rng(0)
    known = [name for name, paths in named.items() if len(paths) >= most]
    chosen = rng.permutation(known)[: groups * things].tolist()
    for name in chosen:
        (folder / "photographs" / name).mkdir(parents=True)
        for k in rng.permutation(len(named[name]))[:most].tolist():
            path = named[name][k]
            shutil.copy(path, folder / "photographs" / name / f"{k}.jpg")
    store = folder / "photographs.zarr"
    tree = read_tree(folder / "photographs")
    frames = embed_tree(tree, backbone, store, Sampling(), thumbnails=False)
    group = [f"group {chosen.index(name) % groups}" for name in frames.coord("object").tolist()]
    return Embeddings(frames.dataset.assign_coords(user=("frame", np.array(group))))


def calibration(world: World, population: Learnt, shots: Sequence[int]) -> dict[str, object]:
    """Scores of whole videos of the world's people, in a metric that others' videos gave.

    Scale and trust are five numbers, learnt from all of them.
    """
    tasks = world.study.train_tasks(world.frames, population, seed=0)
    unit = population.projection(world.frames)
    found: dict[str, object] = {}
    for count in shots:
        parts = []
        for task, user in enumerate(tasks.users):
            own = scatter_of(unit, without=user)
            episodes = tasks.select([task]).limit_shots(count)
            answer = world.study.infer(episodes, replace(population, scatter=own), seed=0)
            parts.append(video_rows(answer.predictive, episodes))
        table = table_of_rows({"video": pd.concat(parts)}, draws=20)["estimate"].sel(item="video")
        found[str(count)] = {s: round(float(table.sel(score=s)), 3) for s in SCORES}
    return found


def worlds_of(args: argparse.Namespace, folder: Path) -> tuple[list[World], str]:
    """The worlds, and the name of the backbone."""
    backbone = backbone_of(args.backbone, px=64 if args.smoke else args.px)
    steps, shots = (5, (1,)) if args.smoke else (args.steps, (1, 2, 5))
    worlds, name = [], backbone.name
    study = study_of("clutter", shots, steps)
    for store in args.people:
        name = str(store_attrs(store)["backbone"])
        worlds.append(World("rendered people", everybody(open_store(store)), study, False))
    if not args.people:
        frames = everybody(rendered(folder, backbone, args.smoke))
        worlds.append(World("rendered people", frames, study, False))
    if args.photographs is not None:
        frames = everybody(photographed(folder, args.photographs, backbone))
        worlds.append(World(PHOTOGRAPHS, frames, study_of("clean", shots, steps), True))
    return worlds, name


def everybody(frames: Embeddings) -> Embeddings:
    """The frames, all of whose people are learnt from."""
    split = ("frame", np.full(len(frames), "train"))
    return Embeddings(frames.dataset.assign_coords(split=split))


def learn(args: argparse.Namespace, folder: Path) -> SharedPopulation:
    """The population of a world that was not met, with its card."""
    worlds, name = worlds_of(args, folder)
    found = [world.study.learn(world.frames, seed=0) for world in worlds]
    for world, learnt in zip(worlds, found, strict=True):
        sites = {s: v.mean(0).tolist() for s, v in learnt.population.draws.items()}
        print(f"{world.name}: {sites}", flush=True)
    scatters = [scatter_of(unit_norm(world.frames)) for world in worlds]
    real = [each for each, world in zip(found, worlds, strict=True) if world.real] or found
    of_real = [each for each, world in zip(scatters, worlds, strict=True) if world.real] or scatters
    cosines = WithinScatter.merged(of_real)
    scatter = WithinScatter.merged(scatters)
    scatter = replace(scatter, like=cosines.like, unlike=cosines.unlike)
    model = SimilarityPool(scatter)
    population = for_new_world([each.population for each in real], model)
    shots = worlds[0].study.evaluation.shots
    kept = [replace(each, population=population) for each in found]
    card = {
        "backbone": name,
        "people": sum(len(set(w.frames.coord("user").tolist())) for w in worlds),
        "objects": sum(objects_of(w.frames) for w in worlds),
        "worlds": [f"{w.name}: {describe(w.frames)}" for w in worlds],
        "calibration": {
            w.name: calibration(w, each, shots) for w, each in zip(worlds, kept, strict=True)
        },
        "calibration_note": "whole videos, by videos per object, of people learnt from; scatter "
        "of the others",
        "fails": list(FAILS),
        "licence": "Apache-2.0; the photographs are MIT (Klasson et al. 2019)",
    }
    return SharedPopulation(population, model, card)


def unit_norm(frames: Embeddings) -> Embeddings:
    """The frames with features of length 1."""
    return UnitNorm().fit(frames)(frames)


def objects_of(frames: Embeddings) -> int:
    """Number of (user, object) pairs."""
    return len({*zip(frames.coord("user"), frames.coord("object"), strict=True)})


def describe(frames: Embeddings) -> str:
    """Numbers of people, objects and videos."""
    users, videos = (len(set(frames.coord(n).tolist())) for n in ("user", "video"))
    return f"{users} people, {objects_of(frames)} objects, {videos} videos"


def figures(shared: SharedPopulation) -> dict[str, float]:
    """Numbers of people and objects, and worst scores over the worlds."""
    worlds = list(shared.card["calibration"].values())
    found: dict[str, float] = {name: shared.card[name] for name in ("people", "objects")}
    for shots in worlds[0]:
        found[f"nll_worst_{shots}"] = max(world[shots]["nll"] for world in worlds)
        found[f"ece_worst_{shots}"] = max(world[shots]["ece"] for world in worlds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--people", type=Path, nargs="*", default=[])
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--backbone", default=DEFAULT, help="see docs/backbones.md")
    parser.add_argument("--px", type=int, help="side of the frames; the backbone's own by default")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        shared = learn(args, Path(scratch))
    if args.out is not None:
        shared.save(args.out)
        text = json.dumps(dict(shared.card), indent=2, ensure_ascii=False) + "\n"
        args.out.with_suffix(".json").write_text(text, encoding="utf-8")
    print(json.dumps(figures(shared)))


if __name__ == "__main__":
    main()
