"""Several data sets as one: `together`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from bayesfs.errors import DataError
from bayesfs.types import Embeddings


def together(worlds: Sequence[Embeddings]) -> Embeddings:
    """Frames of several worlds (stores, data sets), whose people and videos stay apart.

    The name of each user and video gets the number of its world before it, as in "2:P001".
    Measured quality and flags are kept where every world has the same ones.

    Args:
        worlds: features of the same backbone; a single world is returned as it is.

    Raises:
        DataError: there is none, or the numbers of features differ.
    """
    if not worlds:
        raise DataError("expected one world or more to learn from, got none")
    if len(worlds) == 1:
        return worlds[0]
    widths = [each.features.shape[1] for each in worlds]
    if len(set(widths)) > 1:
        raise DataError(
            f"expected the same number of features in every world, got {widths}; were the stores "
            "made with different backbones?"
        )
    alike = _alike(worlds)
    return Embeddings.of_own(
        xr.concat(
            [_named(each.dataset[alike], number) for number, each in enumerate(worlds, 1)],
            dim="frame",
            coords="minimal",
            compat="override",
            join="override",
        )
    )


def _alike(worlds: Sequence[Embeddings]) -> list[str]:
    """Variables over frames that every world has, with the same further axes."""
    first, *rest = (each.dataset for each in worlds)
    covariates = [
        each["covariate"].values.tolist() if "covariate" in each.coords else []
        for each in (first, *rest)
    ]
    names = [
        str(name)
        for name, value in first.variables.items()
        if "frame" in value.dims and all(name in each.variables for each in rest)
    ]
    same = all(each == covariates[0] for each in covariates)
    return [name for name in names if name != "quality" or same]


def _named(dataset: xr.Dataset, number: int) -> xr.Dataset:
    """The world with its number before each user and video."""
    marked = {
        name: ("frame", np.array([f"{number}:{v}" for v in dataset[name].values.tolist()], str))
        for name in ("user", "video")
    }
    return dataset.assign_coords(marked)
