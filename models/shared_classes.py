"""Classes that mean the same in every group by their names, for rows of a data frame."""

from bayesfs.features.standardisation import Standardise
from bayesfs.models.gaussian.shared_classes import SharedClasses
from bayesfs.models.objectives import MarginalLikelihood

model = SharedClasses(
    # Prior sd of the log of one feature's sd against the level's: a factor of 1.6 either way.
    spread=0.5,
    # The population's mean lies within a few sds of the rows' own mean.
    centre_sd=1.0,
)

# What names share is integrated out of the evidence, and drawn exactly afterwards.
objective = MarginalLikelihood

# Lengths are kept, whatever the units; no row is brought to unit norm.
reduction = Standardise()
