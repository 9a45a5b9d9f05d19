"""The nouns: frozen values that are validated once, with every axis named.

Start with `Embeddings` (labelled frames) and `EpisodeBatch` (few-shot tasks drawn from them).
`Posterior` is what an engine returns, `Predictive` what `bayesfs.predict` makes of it.

Axes, always in this order where they occur:
    draw     posterior draw (chains concatenated), or particle
    task     one user's recognition problem
    way      class (object) within the task
    shot     support video of a class
    video    query video of the task
    frame    frame within a video
    feature  embedding dimension
    covariate  measured quality of a frame
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bayesfs.types.labels import CONDITIONS, UNLABELLED, user_of
from bayesfs.types.level_names import LevelNames
from bayesfs.types.missing import refuse_missing

if TYPE_CHECKING:
    from bayesfs.types.embeddings import Embeddings
    from bayesfs.types.episodes import EpisodeBatch
    from bayesfs.types.posterior import Posterior, PosteriorKind
    from bayesfs.types.predictive import LabelDraws, Predictive

__all__ = [
    "CONDITIONS",
    "UNLABELLED",
    "Embeddings",
    "EpisodeBatch",
    "LabelDraws",
    "LevelNames",
    "Posterior",
    "PosteriorKind",
    "Predictive",
    "refuse_missing",
    "user_of",
]

_HOME = {
    "Embeddings": "embeddings",
    "EpisodeBatch": "episodes",
    "LabelDraws": "predictive",
    "Posterior": "posterior",
    "PosteriorKind": "posterior",
    "Predictive": "predictive",
}
"""What holds tensors, and so imports torch -> its module, imported when it is first asked for."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
