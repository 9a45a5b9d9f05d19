"""Deep-kernel Gaussian process on Dirichlet-transformed labels (Milios et al. 2018)."""

from bayesfs.features.reduction import PrincipalAxes
from bayesfs.models.gp.covariance import VideoCovariance
from bayesfs.models.gp.deep_kernel_gp import DeepKernelGP
from bayesfs.models.gp.feature_maps import OrderedAxes
from bayesfs.models.gp.kernels import Linear
from bayesfs.models.gp.likelihoods.dirichlet import Dirichlet
from bayesfs.models.objectives import PredictiveScore

model = DeepKernelGP(
    covariance=VideoCovariance(
        # Few axes: what lies in directions that the support has not shown is unknown to a
        # likelihood with a link, and with a thousand such directions it is never sure.
        features=OrderedAxes(latent=24),
        # Latent values are log odds here, so scales are larger than for regression on labels.
        base=Linear(signal=3.0),
        video=0.3,
        frame=0.3,
        shift=0.02,
    ),
    likelihood=Dirichlet(learnt=True),
)

# Learn by how well left-out clutter is recognised.
objective = PredictiveScore

reduction = PrincipalAxes(dim=64)
