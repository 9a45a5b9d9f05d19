"""How well a person's own objects are recognised, judged by their own videos: `self_estimate`.

Each taught video is asked about as if it were new, from all others: R of N come out right. With
Jeffreys' prior the long-run share of videos recorded like them that will is

    share ~ Beta(R + 1/2, N - R + 1/2),

and of m further videos the number that come out right is beta-binomial. An object with one video
cannot be left out and is not counted. What is asked of another video has one video less to go by
than a new recording will have, so that the estimate is a little low, and it is about videos like
those taught: queries in clutter are harder than taught ones that show the object alone.

Source: Brown, Cai and DasGupta (2001), Statistical Science 16, for the interval. refs.bib:
brown2001.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, betaln
from torch import Tensor

from bayesfs.diagnostics.left_out import left_out_labels
from bayesfs.protocols import Collapsible
from bayesfs.types import EpisodeBatch


@dataclass(frozen=True)
class SelfEstimate:
    """What a person's own videos say about how well they are recognised.

    Attributes:
        right: taught videos that are recognised from the others.
        asked: taught videos that can be left out.
    """

    right: int
    asked: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Long-run share of videos like these that will be recognised, equal-tailed."""
        ends = 0.5 - level / 2, 0.5 + level / 2
        low, high = (float(betaincinv(*self._shape, end)) for end in ends)
        return low, high

    def of_further(self, videos: int, level: float = 0.95) -> tuple[int, int]:
        """Least and largest number of so many further videos that will be, with probability level.

        Args:
            videos: number of further videos.
            level: at least the probability that the number lies between, ends included.
        """
        (a, b), count = self._shape, np.arange(videos + 1)
        choices = -np.log(videos + 1.0) - betaln(videos - count + 1, count + 1)
        log_prob = choices + betaln(count + a, videos - count + b) - betaln(a, b)
        below = np.exp(log_prob).cumsum()
        low, high = np.searchsorted(below, [0.5 - level / 2, 0.5 + level / 2])
        return int(low), min(int(high), videos)

    @property
    def _shape(self) -> tuple[float, float]:
        return self.right + 0.5, self.asked - self.right + 0.5


def self_estimate(
    model: Collapsible, population: Sequence[Mapping[str, Tensor]], episodes: EpisodeBatch
) -> tuple[SelfEstimate, ...]:
    """Of each task, how many of its taught videos are recognised from the others.

    Args:
        model: one that knows its labels in closed form.
        population: values of the population's sites, averaged over.
        episodes: T tasks.
    """
    found = [[0, 0] for _ in range(len(episodes))]
    places, labels = left_out_labels(model, population, episodes)
    for (task, way, _), law in zip(places.tolist(), labels, strict=True):
        found[task][0] += int(law.argmax()) == way
        found[task][1] += 1
    return tuple(SelfEstimate(right, asked) for right, asked in found)
