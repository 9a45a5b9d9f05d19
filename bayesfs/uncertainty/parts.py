"""The levels that an uncertainty is told apart by, from `bayesfs.uncertainty.by_level`.

`told_apart` says which a table has, `agreeing` moves them so that they sum to the kinds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

LEVEL_PARTS = ("population", "task", "class", "video", "frame")
"""Levels from the top; the first three are epistemic."""

EPISTEMIC = LEVEL_PARTS[:3]

SHARED = "shared"
"""What a class is in general: epistemic, a level of its own where classes are shared by name."""

ALL_PARTS = (LEVEL_PARTS[0], SHARED, *LEVEL_PARTS[1:])
"""All levels that a model may tell apart, from the top."""

TINY = 1e-12
"""Squared nats added to every squared error."""


def is_epistemic(part: str) -> bool:
    """Whether more examples, or more users to learn from, would lower a level's part."""
    return part in (*EPISTEMIC, SHARED)


def told_apart(levels: xr.Dataset) -> tuple[str, ...]:
    """Those of `ALL_PARTS` that a dataset of `by_level` has, from the top."""
    return tuple(p for p in ALL_PARTS if f"video_{p}" in levels or f"frame_{p}" in levels)


def agreeing(levels: xr.Dataset, kinds: xr.Dataset) -> xr.Dataset:
    """The parts of `by_level`, moved within their errors so that they sum to the kinds.

    Epistemic levels sum to the epistemic part e, the others to the aleatoric one:

        l_i' = l_i + v_i / sum_j v_j (e - sum_j l_j),

    with v_i the squared error of l_i: the likeliest parts, given both estimates, if the kinds are
    taken as exact. Where no error is known, or all are zero, the gap is shared evenly.

    Args:
        levels: from `by_level`.
        kinds: from `bayesfs.uncertainty.decompose.decompose`, of the same queries.
    """
    moved = levels.copy()
    for unit in ("frame", "video"):
        for kind in ("epistemic", "aleatoric"):
            own = [p for p in told_apart(levels) if is_epistemic(p) == (kind == "epistemic")]
            names = [f"{unit}_{part}" for part in own]
            gap = kinds[f"{unit}_{kind}"] - sum(levels[name] for name in names)
            weight = [levels[f"{name}_se"].fillna(0.0) ** 2 + TINY for name in names]
            for name, squared in zip(names, weight, strict=True):
                moved[name] = levels[name] + squared / sum(weight) * gap
    return moved
