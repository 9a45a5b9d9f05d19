"""Exact inference of every task, for models with a closed form."""

from bayesfs.inference.adaptive_importance import AdaptiveImportance
from bayesfs.inference.exact import Exact

# Nothing is iterated. Each draw has a value of the population of its own, so that they are
# independent: of the demo's uncertainty the epistemic share then is known to .6 of a percentage
# point (8 values of the population: 4 points), for 4 s in place of 1. Where it is known to less
# than a point, a run makes more draws, up to those of the population.
engine = Exact(draws=128, population_draws=128)

# The population has a dozen numbers that matter, and is learnt once: a Gaussian, then weights that
# follow what is skewed and bent in it.
population_engine = AdaptiveImportance(draws=500)
