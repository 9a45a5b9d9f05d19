"""The subcommands that read or draw recordings: their features, and the demo."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bayesfs._utils.progress import bar
from bayesfs._utils.threads import cores
from bayesfs.cli.embedding import embed_tree
from bayesfs.cli.studies import make_run
from bayesfs.data.sources.open import read_tree
from bayesfs.features.backbones.efficientnet_lite0 import EfficientNetLite0
from bayesfs.features.decoding.sampling import Sampling
from bayesfs.protocols import Backbone
from bayesfs.recipes.load import load_recipes, recipe_folder
from bayesfs.runs.compose import tell_store
from bayesfs.runs.directory import explained
from bayesfs.study import Seeds
from bayesfs.synthetic.videos.render import render_tree


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


def make_demo(out: Path, seed: int) -> None:
    """Render a tree, embed it, run the default study on it, and report: no download."""
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
    with bar("videos") as progress:
        tree = render_tree(
            out / "videos", test_users=6, seed=seed, processes=cores(), progress=progress
        )
    store = out / "features.zarr"
    backbone = EfficientNetLite0(px=128)
    make_features(tree, store, backbone, Sampling(max_frames=8), thumbnails=True)
    shipped = recipe_folder()
    paths = {
        "model": shipped / "models" / "gaussian.py",
        "engine": shipped / "inference" / "exact.py",
        "evaluation": shipped / "evaluation" / "clutter.py",
    }
    make_run(load_recipes(paths, ()), store, out / "run", seeds=Seeds(seed, seed))
