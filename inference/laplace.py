"""Laplace's approximation of every task: a Gaussian at the mode. Fast, good for softmax heads."""

from bayesfs.inference.adaptive_importance import AdaptiveImportance
from bayesfs.inference.laplace.laplace import Laplace

engine = Laplace(
    # Dense precisions grow with the square of the number of latents; a head's weights have the
    # structure classes x features, which Kronecker factors keep.
    structure="kronecker",
    draws=256,
)

# The population is learnt once, from all train users together: a Gaussian, then weights that
# follow what is skewed and bent in it.
population_engine = AdaptiveImportance()
