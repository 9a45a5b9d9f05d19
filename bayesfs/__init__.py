"""bayesfs: Bayesian few-shot recognition of objects in short, real, messy videos.

The names below are all that a first analysis needs; each is imported when it is first used, so
that `import bayesfs` costs nothing and changes no global state. Start with `Embeddings.from_arrays`
and `Study`. Everything else is imported from the module that holds it.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bayesfs.errors import NO_DOCSTRINGS

if TYPE_CHECKING:
    from bayesfs.conversion import to_datatree, to_numpy, to_pandas
    from bayesfs.data.episodes import make_episode, sample_episodes
    from bayesfs.data.store import open_store
    from bayesfs.estimator import BayesianFewShotClassifier
    from bayesfs.evaluation.users import HeldOutUsers
    from bayesfs.inference.exact import Exact
    from bayesfs.inference.svi import SVI
    from bayesfs.models.gaussian import GaussianHierarchy
    from bayesfs.models.objectives import PredictiveScore
    from bayesfs.predict import predict
    from bayesfs.study import Study
    from bayesfs.types import Embeddings, EpisodeBatch, Posterior, Predictive
    from bayesfs.uncertainty import decompose

__all__ = [
    "SVI",
    "BayesianFewShotClassifier",
    "Embeddings",
    "EpisodeBatch",
    "Exact",
    "GaussianHierarchy",
    "HeldOutUsers",
    "Posterior",
    "Predictive",
    "PredictiveScore",
    "Study",
    "decompose",
    "make_episode",
    "open_store",
    "predict",
    "sample_episodes",
    "to_datatree",
    "to_numpy",
    "to_pandas",
]

_HOME = {
    "BayesianFewShotClassifier": "estimator",
    "Embeddings": "types",
    "EpisodeBatch": "types",
    "Exact": "inference.exact",
    "GaussianHierarchy": "models.gaussian",
    "HeldOutUsers": "evaluation.users",
    "Posterior": "types",
    "Predictive": "types",
    "PredictiveScore": "models.objectives",
    "SVI": "inference.svi",
    "Study": "study",
    "decompose": "uncertainty",
    "make_episode": "data.episodes",
    "open_store": "data.store",
    "predict": "predict",
    "sample_episodes": "data.episodes",
    "to_datatree": "conversion",
    "to_numpy": "conversion",
    "to_pandas": "conversion",
}


_COMMAND = ("-m", "bayesfs", "bayesfs.exe")
if sys.flags.optimize > 1 and os.path.basename(sys.argv[0]) not in _COMMAND:
    raise ImportError(NO_DOCSTRINGS)  # the command itself says it in one line


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """Keeps the verb `predict` a function: importing the module `bayesfs.predict` would hide it."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
