"""Deep kernel transfer as published (Patacchiola et al. 2020): the sigmoid of the mean.

A yardstick, not a recommendation: its probabilities ignore the predictive variance.
"""

from bayesfs.features.reduce import PrincipalAxes
from bayesfs.models.deep_kernel_gp import DeepKernelGP
from bayesfs.models.gp_covariance import VideoCovariance
from bayesfs.models.gp_features import Identity
from bayesfs.models.gp_transfer import SigmoidOfMean
from bayesfs.models.kernels import Linear
from bayesfs.models.objectives import Evidence

model = DeepKernelGP(
    # Frames are independent and inputs exact, as in the paper.
    covariance=VideoCovariance(features=Identity(), base=Linear(1.0), video=None, shift=None),
    likelihood=SigmoidOfMean(),
)

# Marginal likelihood of -1 / +1 labels.
objective = Evidence

reduction = PrincipalAxes(dim=1000)
