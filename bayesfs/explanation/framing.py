"""Where the things are, from windows of a video's frames named each by itself: `framing_of`.

One vector of a whole frame does not say what stands where in it. A recogniser that looks at parts
of the frames (`bayesfs.features.windows`) does: with p_w(k) the probability of thing k in window w
and t_w the p-value that what w shows is like anything taught, a window is clear where

    max_k p_w(k) >= SURE    and    t_w >= LIKE.

- Two windows that are clear of different things: both are in view.
- Clear windows of one thing k: it lies towards w and away from the opposite window w' as far as

    log p_w(k) t_w - log p_w'(k) t_w'

  says, in nats; from `ASIDE` on it is said to lie there, which is a reason for doubt where the
  whole frames leave one.

Nothing is said where no window is clear.

Source: evidence by what a change of the picture does to the answer, as in Fong and Vedaldi (2017),
with crops in place of masks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bayesfs.explanation.sentences import SURE

LIKE = 0.2
"""A window is as typical of what was taught as this p-value at least.

On composed photographs .05 takes 3 of 20 pictures with somebody else's thing for one with two of
one's own, .1 takes 1 and .2 none; it finds 16 of 20 with two, .05 finds 17."""

ASIDE = 1.0
"""Nats by which a window speaks for a thing more than the opposite one does."""

TINY = 1e-4
"""Chance below which a window that shows nothing says no more than that."""

Side = Literal["left", "right", "top", "bottom"]

OPPOSITE: Mapping[Side, Side] = {
    "left": "right",
    "right": "left",
    "top": "bottom",
    "bottom": "top",
}


@dataclass(frozen=True)
class Look:
    """What is said of one window of a video's frames by itself.

    Attributes:
        prob: thing -> probability.
        typical: p-value of being like what was taught.
    """

    prob: Mapping[str, float]
    typical: float

    @property
    def likeliest(self) -> str:
        """The thing."""
        return max(self.prob, key=lambda thing: self.prob[thing])

    @property
    def clear(self) -> bool:
        """Whether it shows one thing, without doubt."""
        return self.prob[self.likeliest] >= SURE and self.typical >= LIKE

    @property
    def doubt(self) -> float:
        """Entropy in nats."""
        return -sum(p * math.log(p) for p in self.prob.values() if p > 0)

    def speaks_for(self, thing: str) -> float:
        """Log of the probability times the p-value."""
        return self.agrees({thing: 1.0})

    def agrees(self, prob: Mapping[str, float]) -> float:
        """Log chance that it shows a thing of this distribution, and something that was taught."""
        same = sum(p * self.prob[thing] for thing, p in prob.items())
        return math.log(same + TINY) + math.log(self.typical + TINY)


@dataclass(frozen=True)
class Framing:
    """What windows show that the whole does not.

    Attributes:
        things: in view; one of which `side` says where it is, or several.
        side: where the one lies, "" for several.
        nats: that the windows' doubt, which is what following the advice would leave, is below
            that of the whole.
    """

    things: tuple[str, ...]
    side: Side | Literal[""]
    nats: float


def framing_of(looks: Mapping[str, Look], doubt: float) -> Framing | None:
    """What stands where, None where the windows do not tell.

    Args:
        looks: window -> what is said of it; sides are named as in `OPPOSITE`.
        doubt: entropy of the whole frames' answer, in nats.

    Example:
        >>> keys = Look({"keys": 0.95, "mug": 0.05}, 0.6)
        >>> framing_of({"left": keys, "right": Look({"keys": 0.5, "mug": 0.5}, 0.01)}, 0.6).side
        'left'
    """
    clear = sorted((look for look in looks.values() if look.clear), key=lambda look: -look.typical)
    things = tuple(dict.fromkeys(look.likeliest for look in clear))
    if not clear:
        return None
    left = sum(look.doubt for look in clear) / len(clear)
    if len(things) > 1:
        return Framing(things, "", doubt - left)
    side, nats = _side(looks, things[0])
    return Framing(things, side, doubt - left) if nats >= ASIDE else None


def _side(looks: Mapping[str, Look], thing: str) -> tuple[Side, float]:
    """The side that speaks most for a thing, and by how many nats more than the opposite one."""
    pairs = [(w, o) for w, o in OPPOSITE.items() if w in looks and o in looks]
    ahead = {w: looks[w].speaks_for(thing) - looks[o].speaks_for(thing) for w, o in pairs}
    side: Side = max(ahead, key=lambda w: ahead[w], default="left")
    return side, ahead.get(side, -math.inf)
