"""Pólya-Gamma Gibbs sampling of linear heads: exact like NUTS, with nothing to tune."""

from bayesfs.inference.adaptive_importance import AdaptiveImportance
from bayesfs.inference.gibbs.gibbs import Gibbs

engine = Gibbs(
    # Every class is drawn exactly given the others: a hundred sweeps forget the start.
    burn_in=100,
    # 4 x 250 draws, every second sweep: neighbouring sweeps are alike.
    draws=250,
    thin=2,
    chains=4,
)

# The population is learnt once, from all train users together: a Gaussian, then weights that
# follow what is skewed and bent in it.
population_engine = AdaptiveImportance()
