"""What a finished run lends to commands that go back to it: its recipes, backbone and sampling."""

from __future__ import annotations

import warnings

from bayesfs.commands.studies import usable_device
from bayesfs.data.store import store_attrs
from bayesfs.errors import RecipeError, RunError
from bayesfs.features.embed import EfficientNetLite0
from bayesfs.features.job import sampling_of
from bayesfs.features.video import Sampling
from bayesfs.recipe_names import ROLES
from bayesfs.recipes import Recipe, read_recipe, recipe_folder, run_recipe
from bayesfs.rundir import RunDirectory
from bayesfs.runs import inputs_of, recipe_digest


def kept_recipes(run: RunDirectory, *, trust: bool) -> dict[str, Recipe]:
    """The recipes of a run, which are run anew: those of bayesfs, or others if trusted.

    Each is read once; what is compared with the run's checksum is what runs.

    Raises:
        RunError: a recipe is not the one that the run was made with.
        RecipeError: a recipe is neither one that bayesfs ships nor trusted.
    """
    ours = {p.read_text(encoding="utf-8") for p in recipe_folder().glob("*/*.py")}
    made_with = inputs_of(run)["recipes"]
    recipes = {}
    for role in ROLES:
        path = run.path / "recipes" / f"{role}.py"
        source = read_recipe(path)
        if recipe_digest(source) != made_with.get(path.name):
            raise RunError(
                f"{path}: has changed since the run was made with it; put back the text that was "
                "run, or run the study again"
            )
        if not trust and source not in ours:
            raise RecipeError(
                f"{path}: is not a recipe that bayesfs ships, and a recipe is code; "
                "if you wrote or have read it, add --trust"
            )
        recipes[role] = run_recipe(path, source, role)
    return recipes


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
