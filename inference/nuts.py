"""The no-U-turn sampler: the reference that other engines are judged by, in minutes."""

from bayesfs.inference.adaptive_importance import AdaptiveImportance
from bayesfs.inference.nuts.nuts import NUTS

engine = NUTS(
    # Stan's schedule needs some hundred transitions to find step sizes and scales.
    warmup=500,
    # 4 x 250 draws give means to a twentieth of a standard deviation.
    draws=250,
    # Four chains from independent starts, so that R-hat can tell when they disagree.
    chains=4,
)

# The population is learnt once, from all train users together: a Gaussian, then weights that
# follow what is skewed and bent in it.
population_engine = AdaptiveImportance()
