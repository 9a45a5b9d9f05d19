"""The approximation that a model such as that of `models/robust.py` brings along: no iterations."""

from bayesfs.inference.own import OwnApproximation
from bayesfs.inference.svi import SVI

# Draws are independent; 64 give epistemic uncertainty to some per cent, and each costs a pass over
# all query frames.
engine = OwnApproximation(draws=64, population_draws=8)

# The population is learnt once, from all train users together.
population_engine = SVI(steps=300, draws=200)
