"""The Gaussian hierarchy with noise that depends on how good each frame is: it can name causes.

Takes some minutes longer to learn than `gaussian.py`. `bayesfs explain` then says what a blurred,
dark, glaring or flat picture costs in nats, and the report shows it.
"""

from bayesfs.features.quality import COVARIATES, SLOPES
from bayesfs.features.reduction import PrincipalAxes
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.objectives import PredictiveScore

model = GaussianHierarchy(
    loading=0.5,
    loading_sd=0.5,
    # Focus, exposure and contrast, as `bayesfs features` measures them.
    covariates=COVARIATES,
    # One sd of a covariate changes the noise by a factor of e^.25 up or down, as a rule: what a
    # person would call a poor picture is two or three sds away. It is expected to be noisier.
    slope_sd=0.25,
    slope_mean=SLOPES,
)

objective = PredictiveScore

# As in `gaussian.py`.
reduction = PrincipalAxes(dim=256)
