"""Contracts as tests: inherit `ModelContract`, `EngineContract` or `BackboneContract`.

Supply a maker: a model, engine or backbone is finished when it passes. `GaussianToy` is the
smallest complete model, with the closed-form posterior that engines are compared with.
"""

from bayesfs.testing.backbones import BackboneContract
from bayesfs.testing.engines import EngineContract
from bayesfs.testing.models import ModelContract
from bayesfs.testing.toy import GaussianToy

__all__ = ["BackboneContract", "EngineContract", "GaussianToy", "ModelContract"]
