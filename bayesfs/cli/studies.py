"""The subcommands that make features, runs, reports and the demo."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from bayesfs._utils.progress import bar, terminal_safe
from bayesfs.data.sources.open import read_tree
from bayesfs.data.sources.video import VideoTree
from bayesfs.errors import RecipeError
from bayesfs.features.backbones.efficientnet_lite0 import EfficientNetLite0
from bayesfs.features.decoding.sampling import Sampling
from bayesfs.features.extraction.extract import extract
from bayesfs.protocols import Backbone
from bayesfs.recipes.load import load_recipe, recipe_folder
from bayesfs.report.view import score_cells
from bayesfs.runs.compose import compose, tell_store
from bayesfs.runs.directory import RunDirectory, explained
from bayesfs.runs.distributed_run import run_on_cluster
from bayesfs.runs.run import Order, load_scores, report_run, run_study
from bayesfs.synthetic.videos.render import render_tree
from bayesfs.types import Embeddings

PRINTED = ("accuracy", "nll", "brier", "ece")
"""Scores that the command prints; the report has all."""


def make_features(
    tree: Path, store: Path, backbone: Backbone, sampling: Sampling, *, thumbnails: bool
) -> None:
    """Read a tree, embed its frames into a store, and say what came of it."""
    embeddings = embed_tree(read_tree(tree), backbone, store, sampling, thumbnails=thumbnails)
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


def make_report(out: Path, format: Literal["html", "md"], store: Path | None = None) -> None:
    """Write the report of a run again."""
    print(f"report: {report_run(out, format, store=store)}")


def make_demo(out: Path, seed: int) -> None:
    """Render a tree, embed it, run the default study on it, and report: no download."""
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
    with bar("videos") as progress:
        tree = render_tree(out / "videos", test_users=6, seed=seed, progress=progress)
    store = out / "features.zarr"
    backbone = EfficientNetLite0(px=128)
    make_features(tree, store, backbone, Sampling(max_frames=8), thumbnails=True)
    shipped = recipe_folder()
    paths = {
        "model": shipped / "models" / "gaussian.py",
        "engine": shipped / "inference" / "exact.py",
        "evaluation": shipped / "evaluation" / "clutter.py",
    }
    make_run(paths, store, out / "run", seed=seed)


def embed_tree(
    tree: VideoTree,
    backbone: Backbone,
    store: Path,
    sampling: Sampling,
    *,
    thumbnails: bool,
) -> Embeddings:
    """Embed a tree into a store, with a bar."""
    with bar("features") as progress:
        return extract(
            tree.videos,
            backbone,
            store,
            thumbnails=thumbnails,
            sampling=sampling,
            skipped=tree.skipped,
            progress=progress,
        )


def print_scores(run: RunDirectory) -> None:
    """A table of the main scores at every number of support videos, with intervals over users."""
    for shots, table in sorted(load_scores(run).items()):
        print(f"{shots} video{'s' if shots > 1 else ''} per object:")
        for unit, score, low, value, high in score_cells(table):
            if score in PRINTED:
                interval = "" if math.isnan(low) else f"  ({low:.3f} to {high:.3f})"
                print(f"  {unit} {score:9}{value:7.3f}{interval}")
        if reason := table.attrs.get("interval_reason"):
            print(f"  no intervals: {terminal_safe(str(reason))}")
        if note := table.attrs.get("interval_note"):
            print(f"  {terminal_safe(str(note))}")
