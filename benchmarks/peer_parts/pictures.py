"""Few-shot tasks of photographs, as they are and spoilt: `Pictures`, `draw_tasks`.

Only what is asked is spoilt: a person teaches with good pictures. A video counts as one picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from bayesfs.benchmark.corruptions import corrupt
from bayesfs.data.sources.open import read_tree
from bayesfs.features.backbones.spec import remade
from bayesfs.features.decoding.pictures import read_image
from bayesfs.training.shared_population import default_population

Features = NDArray[np.float64]

CONDITIONS: Mapping[str, tuple[str, int] | None] = {
    "in": None,
    "blur5": ("blur", 5),
    "jpeg5": ("jpeg", 5),
}
"""Name -> corruption and severity."""

PX = 256
"""Side of the pictures that are spoilt."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """One picture of every video of a tree, in every condition.

    Attributes:
        name: of the tree.
        thing: (picture,) number of its object.
        files: condition -> where each picture is.
        features: condition -> (picture, feature), of length 1.
    """

    name: str
    thing: NDArray[np.int64]
    files: Mapping[str, list[Path]]
    features: Mapping[str, Features]

    @classmethod
    def of(cls, tree: Path, scratch: Path, backbone: str) -> Pictures:
        """Spoil and embed the first frame of every video.

        Args:
            tree: folder of recordings.
            scratch: folder for the spoilt pictures.
            backbone: whose population comes along.
        """
        videos = read_tree(tree).videos
        things = sorted({(v.user, v.object) for v in videos})
        thing = np.array([things.index((v.user, v.object)) for v in videos])
        plain = [Path(v.root, v.path, *v.files[:1]) for v in videos]
        embed = remade(default_population(backbone).backbone)
        files, features = {}, {}
        for condition, change in CONDITIONS.items():
            files[condition] = plain
            if change is not None:
                files[condition] = _spoilt(plain, change, scratch / tree.name / condition)
            images = np.stack([read_image(path, embed.px) for path in files[condition]])
            x = np.concatenate([embed(images[i : i + 16]) for i in range(0, len(images), 16)])
            features[condition] = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(float)
        return cls(tree.name, thing, files, features)


def _spoilt(files: list[Path], change: tuple[str, int], folder: Path) -> list[Path]:
    folder.mkdir(parents=True)
    out = []
    for number, path in enumerate(files):
        worse = corrupt(read_image(path, PX)[None], *change, frames=[number], seed=0)[0]
        out.append(folder / f"{number:05d}.png")
        PIL.Image.fromarray(worse).save(out[-1])
    return out


@dataclass(frozen=True, eq=False)
class Task:
    """Pictures that teach and pictures that are asked, by their number.

    Attributes:
        teach: (n,) numbers.
        label: (n,) their class.
        ask: (m,) numbers.
        truth: (m,) their class.
    """

    teach: NDArray[np.int64]
    label: NDArray[np.int64]
    ask: NDArray[np.int64]
    truth: NDArray[np.int64]


def draw_tasks(
    pictures: Pictures, *, tasks: int, way: int, shots: int, seed: int
) -> Iterator[Task]:
    """Tasks of `way` things with `shots` pictures each; all their other pictures are asked."""
    rng = np.random.default_rng(seed)
    enough = np.flatnonzero(np.bincount(pictures.thing) > shots)
    for _ in range(tasks):
        teach: list[int] = []
        ask: list[int] = []
        for thing in rng.permutation(enough)[:way]:
            own = rng.permutation(np.flatnonzero(pictures.thing == thing)).tolist()
            teach, ask = teach + own[:shots], ask + own[shots:]
        classes = {int(t): k for k, t in enumerate(dict.fromkeys(pictures.thing[teach].tolist()))}
        label, truth = ([classes[int(pictures.thing[i])] for i in rows] for rows in (teach, ask))
        yield Task(*(np.array(v, np.int64) for v in (teach, label, ask, truth)))
