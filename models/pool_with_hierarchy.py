"""Similarities and the Gaussian hierarchy together, weighed by other people's videos.

Most accurate where people of the same world were learnt from. Choose it with the inference recipe
`own`, since it brings its own approximation; all 1,280 features are kept.
"""

from bayesfs.features.reduction import UnitNorm
from bayesfs.models.objectives import PredictiveScore
from bayesfs.models.similarity.with_hierarchy import PoolWithHierarchy

model = PoolWithHierarchy()
reduction = UnitNorm()
objective = PredictiveScore
