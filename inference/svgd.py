"""Stein variational gradient descent: interacting particles, and a measure of how well they fit."""

from bayesfs.inference.adaptive_importance import AdaptiveImportance
from bayesfs.inference.svgd.svgd import SVGD

engine = SVGD(
    # Each particle stands for a hundredth of the posterior; KL to NUTS on a head is about .003.
    particles=100,
    # Half at full rate, left early once the Stein discrepancy has stalled, half decaying.
    steps=300,
    # The models here are non-centred: their latents are already alike in scale. Set True for a
    # model whose latents are correlated or badly scaled; it costs some Hessians per task.
    precondition=False,
)

# The population is learnt once, from all train users together: a Gaussian, then weights that
# follow what is skewed and bent in it.
population_engine = AdaptiveImportance()
