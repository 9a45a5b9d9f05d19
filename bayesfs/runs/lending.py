"""What runs of one sweep have in common is learnt once: `population_identity`, `borrow`.

Cells of a grid that differ in what is asked, or in how tasks are inferred, learn the same
population. The first of them keeps it; the others copy its files, so that each run stays whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from bayesfs.errors import RunError
from bayesfs.recipes.written import as_json
from bayesfs.runs.directory import STATE, RunDirectory
from bayesfs.study import Study
from bayesfs.types import EpisodeBatch

LEARNT = ("projection.npz", "scatter.npz", "axes.npz", "population.npz")
"""Files of what is known about people in general, the one that all have last."""

IDENTITY, WARNINGS = "population_identity", "population_warnings"
"""What run.json says of it."""


WAITING = ".bayesfs-population-"
"""How the name of a file that runs wait at begins."""


def population_identity(study: Study, lesson: EpisodeBatch, seed: int, source: str) -> str:
    """Digest of everything that the population follows from.

    Args:
        study: whose model, objective, reduction and engine of the population count.
        lesson: the episodes that it is learnt from, whatever the evaluation's other fields and the
            seed of the episodes are.
        seed: of the inference.
        source: of code and data: checksums of the recipes, fingerprint of the store, version.
    """
    engine = study.population_engine or study.engine
    parts = (study.model, study.objective, study.reduction, engine)
    text = [as_json(part) for part in parts]
    said = [text, str(study.dtype), study.place.type, seed, source]
    digest = hashlib.sha256(json.dumps(said).encode())
    for one in fields(lesson):
        value = getattr(lesson, one.name)
        digest.update(one.name.encode())
        if isinstance(value, torch.Tensor):
            value = value.cpu().numpy()
        whole = isinstance(value, np.ndarray)
        digest.update(np.ascontiguousarray(value).tobytes() if whole else repr(value).encode())
    return digest.hexdigest()


@contextlib.contextmanager
def alone(beside: Path, identity: str) -> Iterator[None]:
    """Wait while another run in the same folder learns the same population.

    Args:
        beside: the folder.
        identity: from `population_identity`.
    """
    with FileLock(beside / f"{WAITING}{identity[:16]}"):
        yield


def forget_waiting(beside: Path) -> None:
    """Remove the files that runs waited at; none of them runs any more."""
    for path in beside.glob(f"{WAITING}*"):
        path.unlink(missing_ok=True)


def borrow(run: RunDirectory, beside: Path, identity: str) -> bool:
    """Take over the population of a run in the same folder, if one has that identity.

    Args:
        run: that has none yet.
        beside: folder of run directories.
        identity: from `population_identity`.

    Returns:
        Whether it was found.
    """
    for path in sorted(p.parent for p in beside.glob(f"*/{STATE}") if p.parent != run.path):
        with contextlib.suppress(RunError):  # one that is damaged lends nothing
            lender = RunDirectory(path)
            state = lender.state()
            if state.get(IDENTITY) != identity or LEARNT[-1] not in state["files"]:
                continue
            for name in LEARNT:
                if (kept := lender.kept(name)) is not None:
                    run.keep(name, partial(shutil.copyfile, kept))
            for text in state.get(WARNINGS, []):
                warnings.warn(str(text), stacklevel=2)
            run.log(f"population as in {path.name}")
            return True
    return False
