"""Exact inference of every task, for models with a closed form; the population by SVI."""

from bayesfs.inference.exact import Exact
from bayesfs.inference.svi.svi import SVI

# Nothing is iterated. Each draw has a value of the population of its own, so that they are
# independent: of the demo's uncertainty the epistemic share then is known to .6 of a percentage
# point (8 values of the population: 4 points), for 4 s in place of 1. Where it is known to less
# than a point, a run makes more draws, up to those of the population.
engine = Exact(draws=128, population_draws=128)

# The population has a dozen numbers and is learnt once.
population_engine = SVI(steps=300, draws=500)
