"""A Bayesian softmax head per user, whose scale is learnt across users.

It models labels given features and learns nothing from unlabelled frames. Take it where the
Gaussian hierarchy describes features badly; take `gaussian.py` to say where an object lies.
"""

from bayesfs.features.reduction import PrincipalAxes
from bayesfs.models.heads.linear import HierarchicalHead

model = HierarchicalHead(
    # Features have length 1, so weights of 5 give logits of up to 5: odds of a hundred to one.
    weight_scale=5.0,
    # A video is one observation however many frames it has; its frames share an offset.
    effective_frames=1.0,
    video_scale=1.0,
)

# One weight per class and axis is inferred from a handful of videos: keep few axes.
reduction = PrincipalAxes(dim=64)
