"""Corrupted query frames of a benchmark: each corruption is embedded once, and kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bayesfs._utils.guarded_files import opened_npz
from bayesfs._utils.progress import bar
from bayesfs.benchmark.corrupted_frames import Frames, frames_of_tree
from bayesfs.benchmark.methods import digest
from bayesfs.errors import DataError
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.runs.directory import RunDirectory
from bayesfs.types import Embeddings


@dataclass(frozen=True, eq=False)
class CorruptedQueries:
    """The embeddings of a store, with what is asked about corrupted.

    Attributes:
        frames: query frames of the scored users.
        run: the benchmark's folder, which keeps their features and quality.
        seed: of the corruption.
    """

    frames: Frames
    run: RunDirectory
    seed: int

    def __call__(self, corruption: str, severity: int) -> Embeddings:
        """Embeddings with one corruption at one severity."""
        with opened_npz(self.measured(corruption, severity)) as file:
            return self.frames.replaced(file["features"], file["quality"])

    def measured(self, corruption: str, severity: int) -> Path:
        """File of the corrupted frames' features and quality, made where it is not kept already."""
        what = digest(corruption, severity, self.frames.rows.tolist(), self.seed)
        name = f"frames-{corruption}-{severity}-{what}.npz"
        path = self.run.kept(name)
        if path is not None:
            return path
        with bar(f"{corruption} {severity}") as progress:
            features, measures = self.frames.measured(
                corruption, severity, seed=self.seed, progress=progress
            )

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez(file, features=features, quality=measures)

        return self.run.keep(name, write)


def corrupted_queries(
    embeddings: Embeddings,
    evaluation: HeldOutUsers,
    store: Path,
    tree: Path,
    run: RunDirectory,
    *,
    device: torch.device | None,
    seed: int,
) -> CorruptedQueries:
    """Query frames of an evaluation's test users, with their pictures.

    Raises:
        DataError: the store was not made from that tree by the shipped backbone.
    """
    thin = embeddings.with_features(np.zeros((len(embeddings), 1), np.float32))
    rows = evaluation.test_episodes(thin, seed=seed).query_frame
    if rows is None:
        raise DataError(
            f"{type(evaluation).__name__}: its episodes do not say which frames they hold"
        )
    chosen = np.unique(rows[rows >= 0].cpu().numpy())
    return CorruptedQueries(
        frames_of_tree(embeddings, chosen, store, tree, device=device), run, seed
    )
