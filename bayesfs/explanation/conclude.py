"""From the numbers on one video to what is said of it, in NumPy alone: `concluded`.

`bayesfs.explanation.explain` takes the numbers from a model's answer, a taught person's exported
folder has them from its files (`bayesfs.cli.name_exported`); what they mean is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bayesfs.decisions.words import answered
from bayesfs.explanation.advice import ENOUGH, advise
from bayesfs.explanation.explanation import Advice, Explanation
from bayesfs.explanation.framing import Look, framing_of
from bayesfs.explanation.sentences import likeliest
from bayesfs.types.level_names import VIDEOS, LevelNames
from bayesfs.uncertainty.parts import ALL_PARTS, is_epistemic

if TYPE_CHECKING:
    from bayesfs.decisions.rules import Rules

REJECTED = 0.05
"""Without rules: share of taught videos that may be taken for something new."""


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What is known of one query video; see `bayesfs.explanation.explanation.Explanation`.

    Attributes:
        video: its name.
        prob: object -> probability, in any order.
        parts: "total", "aleatoric", "epistemic", and levels where they are known -> nats.
        typical: p-value of being like what was taught, or NaN.
        absent: probability that nothing taught is shown, or NaN.
        missing: share of the frames that more likely than not show nothing taught.
        causes: measured cause -> nats per frame, NaN where that is not known.
        gain: (object, condition) -> fall in nats per query after one more such video.
        own_gain: the same for this video.
        round_most: see `Explanation`.
        levels: what the data call the levels.
        looks: window of the frames -> what is said of it by itself.
    """

    video: str
    prob: Mapping[str, float]
    parts: Mapping[str, float]
    typical: float = math.nan
    absent: float = math.nan
    missing: float = 0.0
    causes: Mapping[str, float] = field(default_factory=dict)
    gain: Mapping[tuple[str, str], float] = field(default_factory=dict)
    own_gain: Mapping[tuple[str, str], float] = field(default_factory=dict)
    round_most: float = math.nan
    levels: LevelNames = VIDEOS
    looks: Mapping[str, Look] = field(default_factory=dict)


def concluded(known: Numbers, *, rules: Rules | None = None, enough: float = ENOUGH) -> Explanation:
    """What is said of a video.

    Args:
        known: the numbers.
        rules: thresholds learnt on other people, if any.
        enough: nats below which one more video is not advised.
    """
    things, parts = tuple(known.prob), known.parts
    p = np.array([*known.prob.values()])
    none = known.absent > (rules.video.most_absent if rules else 0.5)
    none |= known.typical < (rules.rejected if rules else REJECTED)
    named = () if none else tuple(things[i] for i in _answer(p, rules))
    order = np.argsort(-p, kind="stable")
    levels = [part for part in ALL_PARTS if part in parts]
    kind: Literal["aleatoric", "epistemic"] = (
        "epistemic" if parts["epistemic"] >= parts["aleatoric"] else "aleatoric"
    )
    own = [part for part in levels if is_epistemic(part) == (kind == "epistemic")]
    found = Explanation(
        video=known.video,
        answer=named,
        prob={things[i]: float(p[i]) for i in order},
        absent=known.absent,
        typical=known.typical,
        kind=kind,
        level=max(own, key=lambda part: parts[part]) if own else "",
        parts=parts,
        causes=known.causes,
        confusable=things[order[1]] if len(things) > 1 else "",
        gain=known.gain,
        own_gain=known.own_gain,
        advice=Advice("nothing"),
        round_most=known.round_most,
        levels=known.levels,
        framing=framing_of(known.looks, parts["total"]),
    )
    return replace(found, advice=advise(found, known.missing, enough))


def _answer(prob: np.ndarray[Any, Any], rules: Rules | None) -> list[int]:
    """Classes to name, likeliest first; one alone only where the set and the risk allow it.

    What is called probable must be likelier than not, whatever train users would allow.
    """
    if rules is None:
        return likeliest(prob)
    named = answered(prob[None], rules.video)[0]
    return [int(i) for i in np.argsort(-prob, kind="stable") if named[i]]
