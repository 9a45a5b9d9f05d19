"""Taught by clean videos, tested on cluttered ones, with users whom the population has not seen.

This is the ORBIT benchmark's question: an object is recorded by itself on a bare table, and must
then be found among other things.
"""

from bayesfs.evaluation.held_out_users import HeldOutUsers

evaluation = HeldOutUsers(
    # One video is the least a person can give; people record about five before they tire, and
    # teachable recognisers gain little beyond four (Theodorou et al. 2021).
    shots=(1, 5),
    support_conditions=("clean",),
    query_conditions=("clutter",),
    # Neighbouring frames of a video are near copies: eight, evenly spaced, hold most of what a
    # short video says, and the model knows that they are not eight independent shots.
    frames_per_video=8,
    # Every frame is scored, also those that hold no taught object: a person's camera finds
    # such frames too. ORBIT's protocol of December 2022 leaves them out; to do the same:
    # drop_flags=("flag_object_not_present_issue",)
)
