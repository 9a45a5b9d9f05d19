"""Deep kernel transfer as published (Patacchiola et al. 2020): the sigmoid of the mean.

A yardstick, not a recommendation: its probabilities ignore the predictive variance.
"""

from bayesfs.features.reduction import PrincipalAxes
from bayesfs.models.gp.covariance import VideoCovariance
from bayesfs.models.gp.deep_kernel_gp import DeepKernelGP
from bayesfs.models.gp.feature_maps import Identity
from bayesfs.models.gp.kernels import Linear
from bayesfs.models.gp.likelihoods.sigmoid_of_mean import SigmoidOfMean
from bayesfs.models.objectives import MarginalLikelihood

model = DeepKernelGP(
    # Frames are independent and inputs exact, as in the paper.
    covariance=VideoCovariance(features=Identity(), base=Linear(1.0), video=None, shift=None),
    likelihood=SigmoidOfMean(),
)

# Marginal likelihood of -1 / +1 labels.
objective = MarginalLikelihood

reduction = PrincipalAxes(dim=1000)
