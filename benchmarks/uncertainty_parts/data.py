"""Whose uncertainty is measured: people of a tree, simulated people, shelves of a shop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accuracy import as_split

from bayesfs.features.quality import COVARIATES
from bayesfs.synthetic.tasks import synthetic_embeddings
from bayesfs.synthetic.truth import Population
from bayesfs.types import Embeddings
from uncertainty_parts.causes import DEFECTS

SLOPES = dict(zip(COVARIATES, (0.5, 0.3, 0.4, 0.3, 0.2), strict=True))
"""Effect of each simulated covariate on the log sd of the frame noise."""

POOR = 1.5
"""A simulated frame has a defect where its covariate is so many sds above the mean."""


@dataclass(frozen=True)
class People:
    """How many people are simulated, and what they record."""

    train: int = 24
    test: int = 24
    way: int = 6
    frames: int = 8
    dim: int = 32

    def embeddings(self, seed: int = 0) -> Embeddings:
        """Frames from the hierarchy itself, with defects that are measured and matter.

        The features' mean is far from 0, so that scaling them to length 1 changes little.
        """
        embeddings, _ = synthetic_embeddings(
            self.world(),
            users=self.train + self.test,
            way=self.way,
            shots=5,
            frames=self.frames,
            seed=seed,
        )
        shifted = embeddings.with_features(embeddings.features + 5.0)
        shifted = Embeddings(shifted.dataset.assign_coords(covariate=list(SLOPES)))
        quality = shifted.dataset["quality"].values
        flags = {
            f"flag_{d}": ("frame", (quality[:, j] > POOR).astype(np.int8))
            for j, d in enumerate(DEFECTS)
        }
        flagged = Embeddings(shifted.dataset.assign_coords(flags))
        users = sorted(set(flagged.coord("user").tolist()))
        return as_split(flagged, users[self.train :])

    def world(self) -> Population:
        """Objects of one person that are about as hard to tell apart as real ones."""
        return Population.isotropic(
            self.dim,
            class_scale=0.5,
            video_scale=(0.35, 0.45),
            frame_scale=(0.4, 0.6),
            quality_slope=tuple(SLOPES.values()),
        )


def shop(path: Path, *, way: int = 5, meta_train: int = 50, photographs: int = 12) -> Embeddings:
    """Photographs of a shop's classes as people who each know some of them; a photo is a video.

    Args:
        path: npz with feat (row, feature), label and split, as for benchmarks/fewshot.py: split 0
            teaches, split 2 asks.
        way: classes of one person.
        meta_train: classes that the population is learnt from, the first ones of a seeded order.
        photographs: of each class and split, at most.
    """
    with np.load(path, allow_pickle=False) as file:
        features, label, split = (file[name] for name in ("feat", "label", "split"))
    order = np.random.default_rng(0).permutation(np.unique(label))
    rows, user, thing, conditions, part = [], [], [], [], []
    for name, classes in people(order, way, meta_train):
        for k in classes:
            for number, condition in ((0, "clean"), (2, "clutter")):
                found = np.flatnonzero((label == k) & (split == number))[:photographs]
                rows += found.tolist()
                user += [name] * len(found)
                thing += [f"class {k:02d}"] * len(found)
                conditions += [condition] * len(found)
                part += ["train" if name.startswith("train") else "test"] * len(found)
    return Embeddings.from_arrays(
        features[rows].astype(np.float32), object=thing, user=user, condition=conditions, split=part
    )


def people(order: np.ndarray, way: int, meta_train: int) -> Iterator[tuple[str, np.ndarray]]:
    """Each person's name and classes; classes that are left over belong to nobody."""
    for split, classes in (("train", order[:meta_train]), ("test", order[meta_train:])):
        for i in range(len(classes) // way):
            yield f"{split} {i + 1:02d}", classes[i * way : (i + 1) * way]
