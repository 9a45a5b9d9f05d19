"""Rows of a data frame, tested on groups that the population has not seen."""

from bayesfs.evaluation.held_out_groups import HeldOutGroups

evaluation = HeldOutGroups(
    # 0 asks what classes of the same name in other groups say; a model without names takes (1, 3).
    shots=(0, 1, 3),
)
