"""A Gaussian process classifier of videos with a learnt kernel, one function per object."""

from bayesfs.features.reduce import PrincipalAxes
from bayesfs.models.deep_kernel_gp import DeepKernelGP
from bayesfs.models.gp_objective import HeldOutScore

model = DeepKernelGP(
    # Learn hyperparameters by predicting some of a train user's videos from the others: the
    # evidence of coded labels rewards explaining labels that are already known.
    objective=HeldOutScore(shots=(1, 3, 5)),
)

# The kernel rescales every axis, so that superfluous ones do no harm.
reduction = PrincipalAxes(dim=256)
