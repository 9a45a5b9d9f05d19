"""Laplace's approximation of every task: a Gaussian at the mode. Fast, good for softmax heads."""

from bayesfs.inference.laplace.laplace import Laplace
from bayesfs.inference.svi.svi import SVI

engine = Laplace(
    # Dense precisions grow with the square of the number of latents; a head's weights have the
    # structure classes x features, which Kronecker factors keep.
    structure="kronecker",
    draws=256,
)

# The population is learnt once; its posterior is skewed (scales), which SVI in log space follows.
population_engine = SVI(steps=300, draws=200)
