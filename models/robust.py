"""The Gaussian hierarchy with frames that may be poor or show nothing taught.

Take it to be told, frame by frame, whether the object is in the picture. It has no closed form, but
a quick approximation of its own: use it with `inference/own.py`.
"""

from bayesfs.features.reduction import PrincipalAxes
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.gaussian.robust import RobustHierarchy
from bayesfs.models.objectives import PredictiveScore

model = RobustHierarchy(
    base=GaussianHierarchy(loading=0.5, loading_sd=0.5),
    # Before any frame is seen: one in ten shows nothing taught, and it may well be none or a fifth.
    absent_prior=(1.0, 9.0),
)

# Learn the population by how well it predicts left-out videos; see `gaussian.py`.
objective = PredictiveScore

# Each frame is integrated over its own noise scale, feature by feature: four times fewer axes than
# `gaussian.py` keep that affordable, and lose little.
reduction = PrincipalAxes(dim=64)
