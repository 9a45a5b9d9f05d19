"""What ran, in full, as recipes that run again and as JSON: `written_in_full`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bayesfs.errors import RecipeError
from bayesfs.recipes.load import Recipe
from bayesfs.recipes.names import ROLES, names_of
from bayesfs.recipes.written import as_json, differences, full_recipe
from bayesfs.runs.compose import run_versions
from bayesfs.study import Seeds, Study

CONFIG = "full.json"
"""File beside the recipes of a run: the same as JSON."""


def values_of(study: Study) -> dict[str, Any]:
    """Name -> value of everything that recipes choose, defaults included; None where nothing is."""
    return {name: getattr(study, name) for role in ROLES for name in names_of(role)}


def sources_of(recipes: Mapping[str, Recipe], helpers: Mapping[str, str]) -> dict[str, str]:
    """File name -> text of what was run: the recipe of each role, and the modules beside them.

    Raises:
        RecipeError: a helper has the name that a recipe is kept under.
    """
    sources = {f"{role}.py": recipe.source for role, recipe in recipes.items()}
    for name, text in helpers.items():
        if sources.get(name, text) != text or name in {_full(role) for role in ROLES}:
            raise RecipeError(
                f"{name}: a recipe imports this module, and a run keeps a recipe under that name; "
                "rename the module"
            )
    return {**sources, **helpers}


def written_in_full(
    recipes: Mapping[str, Recipe],
    study: Study,
    seeds: Seeds,
    settings: Sequence[str] = (),
    *,
    smoke: bool = False,
) -> dict[str, str]:
    """File name -> text of recipes that say every field of what ran, and of the same as JSON.

    They stand beside the text that was run, so that they find the same helpers.

    Args:
        recipes: of each role.
        study: that they make, single fields overridden.
        seeds: of the run.
        settings: as on the command line; the values have them already.
        smoke: whether everything was made tiny; so are the values.
    """
    values, versions = values_of(study), run_versions()
    files = " ".join(_full(role) for role in ROLES)
    seeded = f"--episode-seed {seeds.episodes} --fit-seed {seeds.fit}"
    lines = "\n".join(f"    {name} {found}" for name, found in versions.items())
    about = (
        "The same numbers again, on the same data and with these versions:\n\n"
        f"    bayesfs run {files} --data STORE --out DIR {seeded}\n\n{lines}"
    )
    config = {
        "values": as_json({**values, "dtype": str(study.dtype)}),
        "differs_from_defaults": list(differences(values)),
        "settings": list(settings),
        "smoke": smoke,
        "seeds": {"episodes": seeds.episodes, "fit": seeds.fit},
        "versions": versions,
    }
    return {
        **{_full(r): full_recipe(recipe, r, values, about) for r, recipe in recipes.items()},
        CONFIG: json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    }


def _full(role: str) -> str:
    return f"full_{role}.py"
