"""The Gaussian hierarchy on principal axes that the train users' labels have turned.

On the development tree, with six train users, it predicts left-out users no better than
`gaussian.py` (docs/models/learnt-embedding.md): take it where there are dozens of train users, and
look whether the steps that it chooses are more than a few.
"""

from bayesfs.features.reduction import PrincipalAxes
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.learned_map import LearnedLinearMap
from bayesfs.models.objectives import PredictiveScore
from bayesfs.training.supervised_projection import LearnedProjection

model = GaussianHierarchy(loading=0.5, loading_sd=0.5)

objective = PredictiveScore

reduction: PrincipalAxes = LearnedProjection(
    # Numbers of axes to choose from, by users that are left out.
    dims=(128, 256),
    # A feature may change by a tenth of its sd; three times that over-fits three dozen objects.
    feature_map=LearnedLinearMap(spread=0.1),
    # Left-out users are predicted best after 20 to 60 steps; more is never looked at.
    steps=60,
)
