"""Taught by clean videos and tested on other clean videos of users not seen before.

Easier than `clutter.py`: what is left over here is not the clutter's doing. Compare the two to see
how much of the uncertainty comes from the change of scene.
"""

from bayesfs.evaluation.held_out_users import HeldOutUsers

evaluation = HeldOutUsers(
    # One clean video per object is set aside as query, so that four of five can teach.
    shots=(1, 4),
    support_conditions=("clean",),
    query_conditions=("clean",),
    frames_per_video=8,
)
