"""What a finished run lends to commands that go back to it: its recipes, backbone and sampling."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from bayesfs.data.store import store_attrs
from bayesfs.errors import RecipeError, RunError
from bayesfs.features.backbones.spec import remade
from bayesfs.features.decoding.sampling import Sampling
from bayesfs.features.extraction.job import sampling_of
from bayesfs.protocols import Backbone
from bayesfs.recipes.load import Recipe, recipe_folder, run_recipe
from bayesfs.recipes.names import ROLES
from bayesfs.recipes.scripts import Scripts, read_recipe
from bayesfs.runs.directory import STATE, RunDirectory
from bayesfs.runs.reading import inputs_of
from bayesfs.runs.run import recipe_digest


def kept_recipes(run: RunDirectory, *, trust: bool) -> dict[str, Recipe]:
    """The recipes of a run, which are run anew: those of bayesfs, or others if trusted.

    Each is read once; what is compared with the run's checksum is what runs.

    Raises:
        RunError: a recipe is not the one that the run was made with.
        RecipeError: a recipe is neither one that bayesfs ships nor trusted.
    """
    run.refuse_links()
    ours = {p.read_text(encoding="utf-8") for p in recipe_folder().glob("*/*.py")}
    made_with = inputs_of(run)["recipes"]
    sources = {f"{role}.py": "" for role in ROLES}
    for name in (*sources, *sorted(set(made_with) - set(sources))):
        path = run.recipe(name)
        if Path(name).name != name:
            raise RunError(f"{run.path}: {STATE} names {name!r}, which is no recipe of a run")
        sources[name] = read_recipe(path)
        if recipe_digest(sources[name]) != made_with.get(name):
            raise RunError(
                f"{path}: has changed since the run was made with it; put back the text that was "
                "run, or run the study again"
            )
        if not trust and sources[name] not in ours:
            raise RecipeError(
                f"{path}: is not a recipe that bayesfs ships, and a recipe is code; "
                "if you wrote or have read it, add --trust"
            )
    scripts = Scripts(given=sources)
    return {
        role: run_recipe(run.recipe(f"{role}.py"), sources[f"{role}.py"], role, scripts)
        for role in ROLES
    }


def same_sampling(run: RunDirectory) -> Sampling:
    """Which frames of each video a run's features are of; told, where that is not known.

    Raises:
        DataError: what the run keeps is no sampling.
    """
    state = run.state()
    store = run.path / state.get("store", "")
    found = sampling_of(state)
    if found is None and (store / "zarr.json").is_file():  # of a run that does not keep it
        found = sampling_of(store_attrs(store))
    if found is None:
        warnings.warn(
            f"{run.path}: does not say which frames of each video it was learnt from; all frames "
            "are used",
            stacklevel=2,
        )
    return found or Sampling()


def same_backbone(
    run: RunDirectory, device: torch.device | None, spec: str | None = None
) -> Backbone:
    """The backbone that a run's features come from.

    Args:
        run: the run.
        device: where it runs; the best there is by default.
        spec: where its code or weights are, if the name that the run keeps is not enough.

    Raises:
        RunError: the run does not say.
        DataError: they come from one that cannot be made here.
    """
    name = run.state().get("facts", {}).get("Backbone")
    if name is None:
        raise RunError(f"{run.path}: does not say which backbone its features come from")
    return remade(str(name), device, spec)
