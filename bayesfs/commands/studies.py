"""The subcommands that make features, runs, reports and the demo."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from bayesfs.cluster_runs import run_on_cluster
from bayesfs.data.render import render_tree
from bayesfs.data.store import read_skipped, store_attrs
from bayesfs.data.trees import read_tree
from bayesfs.data.videos import LEVELS, Skipped, VideoTree
from bayesfs.errors import DataError, RecipeError
from bayesfs.evaluation.report_view import score_cells
from bayesfs.features.embed import EfficientNetLite0, SizedEmbedder
from bayesfs.features.extract import extract
from bayesfs.features.video import Sampling
from bayesfs.overrides import override, shrink
from bayesfs.progress import bar, terminal_safe
from bayesfs.recipes import Recipe, load_recipe, recipe_folder
from bayesfs.rundir import RunDirectory, explained
from bayesfs.runs import Order, load_scores, report_run, run_study
from bayesfs.study import Study
from bayesfs.types import Embeddings

PRINTED = ("accuracy", "nll", "brier", "ece")
"""Scores that the command prints; the report has all."""


def make_features(
    tree: Path, store: Path, embedder: SizedEmbedder, sampling: Sampling, *, thumbnails: bool
) -> None:
    """Read a tree, embed its frames into a store, and say what came of it."""
    embeddings = embed_tree(read_tree(tree), embedder, store, sampling, thumbnails=thumbnails)
    counts = {name: len(np.unique(embeddings.coord(name))) for name in ("user", "video")}
    things = len({*zip(embeddings.coord("user"), embeddings.coord("object"), strict=True)})
    print(
        f"{store}: {len(embeddings)} frames of {counts['video']} videos of {things} objects of "
        f"{counts['user']} users"
    )
    tell_store(store)


def make_run(
    paths: Mapping[str, Path],
    store: Path,
    out: Path,
    *,
    settings: Sequence[str] = (),
    seed: int = 0,
    smoke: bool = False,
    pictures: bool = True,
    cluster: str | None = None,
) -> None:
    """Load three recipes, run the study they make, and print its scores."""
    inside = [p for p in paths.values() if p.resolve().is_relative_to(store.resolve())]
    if inside:
        raise RecipeError(
            f"{inside[0]}: lies in the data; a recipe is code and never comes from it"
        )
    recipes = {role: load_recipe(p, role) for role, p in paths.items()}
    study = compose(recipes, settings, smoke=smoke)
    sources = {f"{role}.py": recipe.source for role, recipe in recipes.items()}
    order = Order(study, store, sources, tuple(settings), smoke, seed, pictures, cluster)
    report = run_study(order, out) if cluster is None else run_on_cluster(order, out)
    tell_store(store)
    print_scores(RunDirectory(out))
    print(f"report: {report}")


def compose(
    recipes: Mapping[str, Recipe], settings: Sequence[str], *, smoke: bool = False
) -> Study:
    """The study that recipes make, with single fields overridden."""
    values = {name: v for recipe in recipes.values() for name, v in recipe.values.items()}
    values = override(values, settings)
    return Study(**(shrink(values) if smoke else values))


def make_report(out: Path, format: Literal["html", "md"]) -> None:
    """Write the report of a run again."""
    print(f"report: {report_run(out, format)}")


def make_demo(out: Path, seed: int) -> None:
    """Render a tree, embed it, run the default study on it, and report: no download."""
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
    with bar("videos") as progress:
        tree = render_tree(out / "videos", test_users=6, seed=seed, progress=progress)
    store = out / "features.zarr"
    embedder = EfficientNetLite0(px=128)
    make_features(tree, store, embedder, Sampling(max_frames=8), thumbnails=True)
    shipped = recipe_folder()
    paths = {
        "model": shipped / "models" / "gaussian.py",
        "engine": shipped / "inference" / "exact.py",
        "evaluation": shipped / "evaluation" / "clutter.py",
    }
    make_run(paths, store, out / "run", seed=seed)


def embed_tree(
    tree: VideoTree,
    embedder: SizedEmbedder,
    store: Path,
    sampling: Sampling,
    *,
    thumbnails: bool,
) -> Embeddings:
    """Embed a tree into a store, with a bar."""
    with bar("features") as progress:
        return extract(
            tree.videos,
            embedder,
            store,
            thumbnails=thumbnails,
            sampling=sampling,
            skipped=tree.skipped,
            progress=progress,
        )


def usable_device(name: str | None) -> torch.device | None:
    """The device of that name, None for none.

    Raises:
        DataError: this machine has no such device.
    """
    if name is None:
        return None
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as e:  # torch without CUDA raises the latter
        first = str(e).splitlines()[0]
        raise DataError(f"--device {name}: not usable on this machine ({first})") from e


def print_scores(run: RunDirectory) -> None:
    """A table of the main scores at every number of support videos, with intervals over users."""
    for shots, table in sorted(load_scores(run).items()):
        print(f"{shots} video{'s' if shots > 1 else ''} per object:")
        for unit, score, low, value, high in score_cells(table):
            if score in PRINTED:
                interval = "" if math.isnan(low) else f"  ({low:.3f} to {high:.3f})"
                print(f"  {unit} {score:9}{value:7.3f}{interval}")
        if reason := table.attrs.get("interval_reason"):
            print(f"  no intervals: {reason}")
        if note := table.attrs.get("interval_note"):
            print(f"  {note}")


def tell_store(store: Path) -> None:
    """Say what was left out when a store was made."""
    attrs = store_attrs(store)
    tell_skipped(read_skipped(attrs), int(attrs.get("skipped_count", 0)))


def tell_skipped(
    skipped: Sequence[Skipped],
    count: int,
    *,
    shown: int = 5,
    tell: Callable[[str], object] = print,
) -> None:
    """Say what was left out and why, the gravest losses first, and of the rest how much of what.

    Args:
        skipped: the records, such as a store keeps.
        count: how many there are in all; a store counts more than it keeps.
        shown: records that are told one by one.
        tell: what a line is given to.
    """
    order = sorted(skipped, key=lambda one: LEVELS.index(one.level))
    for one in order[:shown]:
        tell(f"  left out: {terminal_safe(one.path)}: {terminal_safe(one.reason)}")
    if count > shown:
        kinds = Counter(one.level for one in order[shown:])
        told = ", ".join(f"{level} {kinds[level]}" for level in LEVELS if kinds[level])
        tell(f"  left out: {count - shown} more ({told})")
