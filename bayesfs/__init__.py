"""bayesfs: Bayesian few-shot recognition of objects in short, real, messy videos.

The names below are all that a first analysis needs; each is imported when it is first used, so
that `import bayesfs` costs nothing and changes no global state. Start with `Embeddings.from_arrays`
and `Study`. Everything else is imported from the module that holds it.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from bayesfs.errors import NO_DOCSTRINGS

if TYPE_CHECKING:
    from bayesfs.data.from_arrays import make_episode
    from bayesfs.data.sampling import sample_episodes
    from bayesfs.data.store import open_store
    from bayesfs.evaluation.held_out_groups import HeldOutGroups
    from bayesfs.evaluation.held_out_users import HeldOutUsers
    from bayesfs.explanation.explain import explain
    from bayesfs.features.backbones.spec import backbone_of
    from bayesfs.features.extraction.embed import embed
    from bayesfs.features.standardisation import Standardise
    from bayesfs.inference.adaptive_importance import AdaptiveImportance
    from bayesfs.inference.exact import Exact
    from bayesfs.inference.nuts.nuts import NUTS
    from bayesfs.inference.plain import infer
    from bayesfs.inference.svgd.svgd import SVGD
    from bayesfs.inference.svi.svi import SVI
    from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
    from bayesfs.models.gaussian.shared_classes import SharedClasses
    from bayesfs.models.gp.deep_kernel_gp import DeepKernelGP
    from bayesfs.models.objectives import PredictiveScore
    from bayesfs.prediction import predict
    from bayesfs.sklearn import BayesianFewShotClassifier
    from bayesfs.study import Study
    from bayesfs.training.shared_population import default_population
    from bayesfs.types import Embeddings, EpisodeBatch, Posterior, Predictive
    from bayesfs.uncertainty.decompose import decompose

__all__ = [
    "NUTS",
    "SVGD",
    "SVI",
    "AdaptiveImportance",
    "BayesianFewShotClassifier",
    "DeepKernelGP",
    "Embeddings",
    "EpisodeBatch",
    "Exact",
    "GaussianHierarchy",
    "HeldOutGroups",
    "HeldOutUsers",
    "Posterior",
    "Predictive",
    "PredictiveScore",
    "SharedClasses",
    "Standardise",
    "Study",
    "backbone_of",
    "decompose",
    "default_population",
    "embed",
    "explain",
    "infer",
    "make_episode",
    "open_store",
    "predict",
    "sample_episodes",
]

_HOME = {
    "AdaptiveImportance": "inference.adaptive_importance",
    "BayesianFewShotClassifier": "sklearn",
    "DeepKernelGP": "models.gp.deep_kernel_gp",
    "Embeddings": "types",
    "EpisodeBatch": "types",
    "Exact": "inference.exact",
    "GaussianHierarchy": "models.gaussian.hierarchy",
    "HeldOutGroups": "evaluation.held_out_groups",
    "HeldOutUsers": "evaluation.held_out_users",
    "NUTS": "inference.nuts.nuts",
    "Posterior": "types",
    "Predictive": "types",
    "PredictiveScore": "models.objectives",
    "SVGD": "inference.svgd.svgd",
    "SVI": "inference.svi.svi",
    "SharedClasses": "models.gaussian.shared_classes",
    "Standardise": "features.standardisation",
    "Study": "study",
    "backbone_of": "features.backbones.spec",
    "decompose": "uncertainty.decompose",
    "default_population": "training.shared_population",
    "embed": "features.extraction.embed",
    "explain": "explanation.explain",
    "infer": "inference.plain",
    "make_episode": "data.from_arrays",
    "open_store": "data.store",
    "predict": "prediction",
    "sample_episodes": "data.sampling",
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
