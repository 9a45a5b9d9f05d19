"""Name a person's unlabelled videos, taught by a few videos of each object: `name_videos`."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bayesfs.commands.studies import ROLES, compose, embed_tree, usable_device
from bayesfs.data.episodes import sample_episodes
from bayesfs.data.folder import read_folder
from bayesfs.data.guarded import read_text
from bayesfs.data.videos import UNKNOWN_OBJECT
from bayesfs.errors import DataError, RecipeError, RunError
from bayesfs.explain import Explanation, explain
from bayesfs.features.embed import EfficientNetLite0
from bayesfs.features.video import Sampling
from bayesfs.progress import terminal_safe
from bayesfs.recipes import LONGEST, Recipe, load_recipe, recipe_folder
from bayesfs.run_rules import rules_of_most_shots
from bayesfs.rundir import RunDirectory, write_atomically
from bayesfs.runs import inputs_of, load_learnt


def name_videos(
    teach: Path, videos: Path, run: Path, *, table: Path | None, device: str | None, trust: bool
) -> None:
    """Print one sentence a video, and write the numbers behind them if asked.

    Args:
        teach: folder with one folder of videos per object.
        videos: folder of the videos to name.
        run: finished run whose population is used.
        table: CSV file to write.
        device: where the backbone runs.
        trust: run recipes kept in the run directory even if they are not the shipped ones.
    """
    directory = RunDirectory(run)
    learnt = load_learnt(directory)
    inputs = inputs_of(directory)
    recipes = kept_recipes(directory, trust=trust)
    study = compose(recipes, inputs["settings"], smoke=inputs["smoke"])
    tree = read_folder(teach, unlabelled=videos)
    if all(v.object != UNKNOWN_OBJECT for v in tree.videos):
        raise DataError(
            f"{videos}: expected videos to name, files or folders of frames, found none; "
            "TEACH comes first, then VIDEOS"
        )
    with tempfile.TemporaryDirectory(prefix="bayesfs-") as scratch:
        store, embedder = Path(scratch) / "features.zarr", same_backbone(directory, device)
        embeddings = embed_tree(tree, embedder, store, Sampling(), thumbnails=False)
    tasks = sample_episodes(learnt.projection(embeddings), shots=None, seed=inputs["seed"])
    answer = study.infer(tasks.to(study.dtype), learnt, seed=inputs["seed"])
    decide = rules_of_most_shots(directory)
    (said,) = explain(
        answer.model,
        learnt.population,
        answer.episodes,
        answer.predictive,
        rules=decide,
        seed=inputs["seed"],
    )
    rows = prediction_rows(said, {v.name: v.path for v in tree.videos})
    for row in rows:
        print(f"{terminal_safe(str(row['video']))}: {terminal_safe(str(row['sentence']))}")
    if table is not None:
        write_atomically(table, lambda path: _write_csv(path, rows))


def kept_recipes(run: RunDirectory, *, trust: bool) -> dict[str, Recipe]:
    """The recipes of a run, which are run anew: those of bayesfs, or others if trusted.

    Raises:
        RecipeError: a recipe is neither one that bayesfs ships nor trusted.
    """
    run.refuse_links()
    ours = {p.read_text(encoding="utf-8") for p in recipe_folder().glob("*/*.py")}
    recipes = {}
    for role, optional in ROLES.items():
        path = run.recipe(f"{role}.py")
        if not trust and (not path.is_file() or read_text(path, LONGEST) not in ours):
            raise RecipeError(
                f"{path}: is not a recipe that bayesfs ships, and a recipe is code; "
                "if you wrote or have read it, add --trust"
            )
        recipes[role] = load_recipe(path, role, optional=optional)
    return recipes


def same_backbone(run: RunDirectory, device: str | None) -> EfficientNetLite0:
    """The backbone that a run's features come from.

    Raises:
        RunError: the run does not say.
        DataError: they come from one that cannot be made here.
    """
    name = run.state().get("facts", {}).get("Backbone")
    if name is None:
        raise RunError(f"{run.path}: does not say which backbone its features come from")
    return EfficientNetLite0.named(str(name), usable_device(device))


def prediction_rows(
    said: Sequence[Explanation], places: Mapping[str, str]
) -> list[dict[str, str | float]]:
    """One row a video: where it is, what is said of it, and the numbers behind that.

    Args:
        said: of each query video.
        places: video -> its path.
    """
    parts = ("total", "aleatoric", "epistemic")
    return [
        {
            "video": places.get(one.video, one.video),
            "object": next(iter(one.prob)),
            "probability": next(iter(one.prob.values())),
            **{part: one.parts[part] for part in parts},
            "sentence": one.sentence(),
        }
        for one in said
    ]


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
