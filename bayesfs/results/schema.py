"""What the DataTree of a run has at least; `bayesfs.results.assemble` makes it."""

from __future__ import annotations

SCHEMA = 3
"""Version of this layout, the root attribute `bayesfs_schema`."""

UNCERTAINTY = tuple(
    f"{unit}_{part}" for unit in ("frame", "video") for part in ("total", "aleatoric", "epistemic")
)
"""Variables that the group `uncertainty` always holds, in nats."""
