"""Keep what was learnt in files and read it back: arrays and JSON, never a pickle.

Use `save_posterior` and `load_posterior`, and the same of projections and scatters.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from bayesfs._utils.guarded_files import kept_npz
from bayesfs.features.projection import Projection
from bayesfs.features.standardisation import Standardisation
from bayesfs.models.similarity.heads import COSINES, WithinScatter
from bayesfs.types import Posterior, PosteriorKind

WHAT = "not what bayesfs wrote there"
"""What a file that cannot be read is told to be."""


@dataclass(frozen=True)
class _Header:
    kind: str
    dims: dict[str, list[str]]
    chains: int
    coords: dict[str, list[str]]
    seed: int


def save_posterior(posterior: Posterior, path: Path) -> None:
    """Write draws, axes and statistics of a posterior to an npz file.

    Args:
        posterior: what to keep.
        path: a file name ending in `.npz`.
    """
    header = _Header(
        kind=posterior.kind,
        dims={site: list(dims) for site, dims in posterior.dims.items()},
        chains=posterior.chains,
        coords={axis: list(labels) for axis, labels in posterior.coords.items()},
        seed=posterior.seed,
    )
    text = json.dumps(asdict(header)).encode()
    arrays = {
        "header": np.frombuffer(text, np.uint8),
        **_arrays("draws", posterior.draws),
        **_arrays("stats", posterior.sample_stats),
    }
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_posterior(path: Path) -> Posterior:
    """Read a posterior that `save_posterior` wrote.

    Raises:
        DataError: the file is missing, cut short, no such archive, or its parts disagree.
    """
    with kept_npz(path, WHAT) as archive:
        header = _Header(**json.loads(archive["header"].tobytes()))
        return Posterior.of_own(
            kind=_kind(header.kind),
            draws=_tensors(archive, "draws"),
            dims={site: tuple(dims) for site, dims in header.dims.items()},
            chains=header.chains,
            sample_stats=_tensors(archive, "stats"),
            coords={axis: tuple(labels) for axis, labels in header.coords.items()},
            seed=header.seed,
        )


def save_projection(projection: Projection, path: Path) -> None:
    """Write a projection to an npz file."""
    with path.open("wb") as file:
        arrays = {part.name: getattr(projection, part.name) for part in fields(projection)}
        kept = {name: value for name, value in arrays.items() if value is not None}
        np.savez_compressed(file, allow_pickle=False, **kept)


def load_projection(path: Path) -> Projection:
    """Read a projection that `save_projection` wrote.

    Raises:
        DataError: the file is missing, cut short, or no projection.
    """
    with kept_npz(path, WHAT) as archive:
        kept = {name: archive[name] for name in archive.files}
        kind = Standardisation if "scale" in kept else Projection
        return kind(**{"axes": None, **kept})


def save_scatter(scatter: WithinScatter, path: Path) -> None:
    """Write a scatter to an npz file."""
    with path.open("wb") as file:
        arrays = {part.name: np.asarray(getattr(scatter, part.name)) for part in fields(scatter)}
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_scatter(path: Path) -> WithinScatter:
    """Read a scatter that `save_scatter` wrote.

    Raises:
        DataError: the file is missing, cut short, or no scatter.
    """
    with kept_npz(path, WHAT) as archive:
        counts = {name: int(archive[name]) for name in ("videos", "objects")}
        like, unlike = (
            float(archive[name]) if name in archive.files else math.nan for name in COSINES
        )
        return WithinScatter(archive["axes"], archive["excess"], like=like, unlike=unlike, **counts)


def _kind(name: str) -> PosteriorKind:
    known: tuple[PosteriorKind, ...] = get_args(PosteriorKind)
    for kind in known:
        if kind == name:
            return kind
    raise ValueError(f"expected a kind out of {known}, got {name!r}")


def _arrays(group: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {f"{group}/{name}": t.detach().cpu().numpy() for name, t in tensors.items()}


def _tensors(archive: Any, group: str) -> dict[str, Tensor]:
    prefix = f"{group}/"
    names = [name for name in archive.files if name.startswith(prefix)]
    return {name.removeprefix(prefix): torch.from_numpy(archive[name]) for name in names}
