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

from bayesfs.types.embeddings import CONDITIONS, Embeddings
from bayesfs.types.episodes import UNLABELLED, EpisodeBatch, user_of
from bayesfs.types.level_names import LevelNames
from bayesfs.types.missing import refuse_missing
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
