"""The approximation that a model such as that of `models/robust.py` brings along: no iterations."""

from bayesfs.inference.own_approximation import OwnApproximation
from bayesfs.inference.svi.svi import SVI

# Draws are independent, but a query gives each another weight: with 32 in 64 dimensions labels lose
# .06 nats. Each costs a pass over all query frames.
engine = OwnApproximation(draws=128, population_draws=8)

# The population is learnt once, from all train users together.
population_engine = SVI(steps=300, draws=200)
