"""Contracts as tests: inherit `ModelContract` or `EngineContract` and supply a maker.

A model or engine is finished when it passes. `GaussianToy` is the smallest complete model, with
the closed-form posterior that engines are compared with.
"""

from bayesfs.testing.engines import EngineContract
from bayesfs.testing.models import ModelContract
from bayesfs.testing.toy import GaussianToy

__all__ = ["EngineContract", "GaussianToy", "ModelContract"]
