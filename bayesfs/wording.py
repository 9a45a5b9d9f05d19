"""What is said to a person about one video: `verdict`, a sentence without jargon or percentages.

People who cannot see the picture find only half of a recogniser's mistakes (Hong and Kacorri 2024)
and grow rightly careful when it says that it may be wrong (MacLeod et al. 2017), so the sentence
names the alternatives and what would help, not a number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

SURE = 0.9
"""Probability that the named objects together must have."""

MOST_NAMES = 3
"""More alternatives than these say nothing."""


def verdict(classes: Sequence[str], prob: ArrayLike, *, aleatoric: float, epistemic: float) -> str:
    """One sentence, or two where the answer is not sure.

    Args:
        classes: names of the objects.
        prob: (way,) probability of each.
        aleatoric: expected entropy given the parameters, in nats: the video's own part.
        epistemic: the part that more examples could remove, in nats.

    Returns:
        Such as "Keys." or "Not sure: keys or wallet. One more video of each would help."

    Example:
        >>> verdict(["keys", "wallet"], [0.97, 0.03], aleatoric=0.1, epistemic=0.03)
        'keys.'
        >>> verdict(["keys", "wallet"], [0.6, 0.4], aleatoric=0.2, epistemic=0.4)
        'Not sure: keys or wallet. One more video of each would help.'
    """
    p = np.asarray(prob, dtype=float)
    order = np.argsort(-p, kind="stable")
    needed = 1 + int(np.searchsorted(np.cumsum(p[order]), SURE * p.sum() - 1e-12))
    names = [classes[i] for i in order[:needed]]
    if len(names) == 1:
        return f"{names[0]}."
    help_ = (
        "One more video of each would help."
        if epistemic >= aleatoric
        else "The video does not show it clearly; try another view or hold steadier."
    )
    if len(names) > MOST_NAMES:
        return f"Not recognised; perhaps {names[0]}. {help_}"
    return f"Not sure: {', '.join(names[:-1])} or {names[-1]}. {help_}"
