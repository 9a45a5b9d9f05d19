"""Every object has a covariance of its own, about one that is learnt across users.

Take it where objects differ in how much they vary from video to video. Exact, like `gaussian.py`,
and level with it on left-out train users of the development tree (docs/models/niw.md).
"""

from bayesfs.features.reduction import PrincipalAxes
from bayesfs.models.niw.classes import NIWClasses
from bayesfs.models.objectives import PredictiveScore

model = NIWClasses(
    # In clutter about half of what makes an object different survives; see `gaussian.py`.
    loading=0.5,
    # Objects lie further apart than the videos of one: their mean is worth a third of a video.
    kappa=0.3,
    # A short video holds no more than eight independent frames, however many there are.
    most_frames=8.0,
)

# Learn the population by how well it predicts left-out videos; see `gaussian.py`.
objective = PredictiveScore

# The most axes for which a matrix per object stays quick; 64 lose .1 nats, 32 lose .2 and more.
reduction = PrincipalAxes(dim=128)
