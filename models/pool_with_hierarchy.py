"""Similarities and the Gaussian hierarchy together: for people like the train users.

The most accurate where others of the same world were learnt from. Take it with `inference/own.py`.
"""

from bayesfs.features.reduction import UnitNorm
from bayesfs.models.objectives import PredictiveScore
from bayesfs.models.similarity.with_hierarchy import PoolWithHierarchy

model = PoolWithHierarchy(
    # What the hierarchy has of the answer; the similarities have the rest.
    share=0.5,
    # One person in five is expected to be unlike the train users: the similarities answer alone.
    vague=0.2,
)

# The population of either part is learnt by how well it names left-out videos.
objective = PredictiveScore

# Full features of length 1; the hierarchy takes the leading principal axes of its own.
reduction = UnitNorm()
