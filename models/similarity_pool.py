"""A pool of similarities to the taught videos, which every person's own videos correct.

It takes the features as they are, so that nothing a new object differs in is thrown away: take it
for people of another world than the train users', and take `gaussian.py` for people like them.
"""

from bayesfs.features.reduction import UnitNorm
from bayesfs.models.objectives import PredictiveScore
from bayesfs.models.similarity.pool import SimilarityPool

model = SimilarityPool(
    # One person in five is expected to be unlike the train users.
    vague=0.2,
)

# Scales and weights are learnt by how well left-out videos are named.
objective = PredictiveScore

# Full features of length 1: similarities cost the same in any number of dimensions.
reduction = UnitNorm()
