"""The Gaussian hierarchy population -> user -> object -> video -> frame, learnt as a recogniser."""

from bayesfs.features.reduction import PrincipalAxes
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.objectives import PredictiveScore

model = GaussianHierarchy(
    # In clutter an object fills a part of the frame, so that about half of what makes it
    # different survives the pooling over positions; the data move this a good way (sd of its log).
    loading=0.5,
    loading_sd=0.5,
)

# Learn the population by how well it predicts left-out videos, not by how well it describes
# features: features are not Gaussian, and the evidence pays for that with the labels.
objective = PredictiveScore

# Axes of the train frames that are kept. More than a few hundred are noise of the train users.
reduction = PrincipalAxes(dim=256)
