"""Exact inference of every task, for models with a closed form; the population by SVI."""

from bayesfs.inference.exact import Exact
from bayesfs.inference.svi.svi import SVI

# Nothing is iterated: draws are independent, so 128 give epistemic uncertainty to a few per cent.
engine = Exact(draws=128, population_draws=8)

# The population has a dozen numbers and is learnt once.
population_engine = SVI(steps=300, draws=200)
