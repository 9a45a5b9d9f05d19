"""From recipes to a study: `compose`."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from bayesfs._utils.progress import terminal_safe
from bayesfs.data.sources.video import LEVELS, Skipped
from bayesfs.data.store import read_skipped, store_attrs
from bayesfs.errors import DataError
from bayesfs.recipes.load import Recipe
from bayesfs.recipes.overrides import override, shrink
from bayesfs.study import Study

PACKAGES = ("bayesfs", "torch", "pyro-ppl", "numpy", "xarray", "zarr", "arviz-base", "arviz-stats")
"""Whose versions a run records."""


def compose(
    recipes: Mapping[str, Recipe], settings: Sequence[str], *, smoke: bool = False
) -> Study:
    """The study that recipes make, with single fields overridden."""
    values = {name: v for recipe in recipes.values() for name, v in recipe.values.items()}
    values = override(values, settings)
    return Study(**(shrink(values) if smoke else values))


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


def run_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    return {"Python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
