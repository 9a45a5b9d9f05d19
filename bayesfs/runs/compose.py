"""From recipes to a study: `compose`."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from bayesfs._utils.devices import usable_device
from bayesfs.data.sources.skipped import tell_skipped
from bayesfs.data.store import read_skipped, store_attrs
from bayesfs.recipes.load import Recipe
from bayesfs.recipes.overrides import override, shrink
from bayesfs.study import Study

PACKAGES = ("bayesfs", "torch", "pyro-ppl", "numpy", "xarray", "zarr", "arviz-base", "arviz-stats")
"""Whose versions a run records."""


def compose(
    recipes: Mapping[str, Recipe],
    settings: Sequence[str],
    *,
    smoke: bool = False,
    device: str | None = None,
) -> Study:
    """The study that recipes make, with single fields overridden.

    Args:
        recipes: of each role.
        settings: fields to override.
        smoke: make everything tiny.
        device: where tensors live; the best there is by default.

    Raises:
        DataError: this machine has no such device.
    """
    values = {name: v for recipe in recipes.values() for name, v in recipe.values.items()}
    values = override(values, settings)
    study = Study(**(shrink(values) if smoke else values))
    return replace(study, device=usable_device(device, study.dtype))


def tell_store(store: Path) -> None:
    """Say what was left out when a store was made."""
    attrs = store_attrs(store)
    tell_skipped(read_skipped(attrs), int(attrs.get("skipped_count", 0)))


def run_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    return {"Python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
