"""Variational inference: for every model, in seconds, and it says how far to trust it (k-hat)."""

from bayesfs.inference.adaptive_importance import AdaptiveImportance
from bayesfs.inference.svi.svi import SVI

engine = SVI(
    # Enough for the non-centred models here; early stopping leaves when the ELBO is flat.
    steps=600,
    # Draws are cheap. 256 give epistemic uncertainty to a few per cent.
    draws=256,
)

# The population is learnt once, from all train users together: a Gaussian, then weights that
# follow what is skewed and bent in it.
population_engine = AdaptiveImportance()
