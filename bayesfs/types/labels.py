"""What labels, conditions and tasks are called: constants that need no tensor."""

from __future__ import annotations

CONDITIONS = ("clean", "clutter")
"""Recording conditions; `support_condition` and `query_condition` index into this tuple."""

UNLABELLED = -1
"""Query label of a video whose object is unknown or is none of the taught ones."""


def user_of(task: str) -> str:
    """User of a task: its name up to the last "#", which numbers the tasks of one user.

    Example:
        >>> user_of("P001#7"), user_of("P001")
        ('P001', 'P001')
    """
    return task.rpartition("#")[0] or task
