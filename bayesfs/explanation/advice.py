"""The one piece of advice about a video: `advise`."""

from __future__ import annotations

import math
from collections.abc import Mapping

from bayesfs.explanation.explanation import Action, Advice, Explanation

ENOUGH = 0.01
"""One more video that is expected to take less than so many nats off a query is not worth it.

On train users of real objects the best video takes off .023 to .054 after one video an object,
.006 to .030 after three, and .003 to .012 after five, where accuracy levels off too."""

ROUND_ENOUGH = 0.05
"""More videos would hardly help where one more of every object takes less than so many nats off a
query, nine times out of ten."""

SAME = 1e-9
"""Nats by which two gains differ no more than numbers do."""

COSTLY = 0.01
"""A measured cause that costs fewer nats than this is none."""

REMEDY: Mapping[str, Action] = {
    "blurred": "steadier",
    "dark": "more light",
    "flat": "more light",
    "bright": "less light",
}
"""Cause -> what mends it; one that is not here is measured, but nothing is advised about it."""


def advise(found: Explanation, missing: float, enough: float = ENOUGH) -> Advice:
    """The one piece of advice; see the module.

    Args:
        found: the explanation without it.
        missing: share of the video's frames that show nothing taught.
        enough: nats below which one more video is not advised.
    """
    framing = found.framing
    if framing is not None and found.answer and len(framing.things) > 1:
        return Advice("one at a time", nats=framing.nats)
    mend = _costlier(_mend(found), _turn(found))
    if not found.answer:
        return mend or Advice("teach")
    if missing > 0.5 and len(found.answer) > 1:
        return Advice("show") if missing < 1.0 else Advice("teach")
    if len(found.answer) == 1:
        best = max(found.gain.values(), default=math.nan)
        return Advice("enough", nats=best) if settled(found, enough) else Advice("nothing")
    record = _record(found, enough)
    if record is None and mend is None:
        if found.kind == "epistemic":
            more = None if settled(found, enough) else _record(found, 0.0)
            return more or Advice("enough")
        if found.confusable not in found.answer:
            return Advice("other side", "alone")
        return Advice("other side", "several" if len(found.answer) > 2 else "")
    if record is None or mend is None:
        return record or mend or Advice("nothing")
    if math.isnan(mend.nats):
        return mend
    if math.isnan(record.nats):
        return record if found.kind == "epistemic" else mend
    return record if record.nats >= mend.nats else mend


def settled(found: Explanation, enough: float = ENOUGH) -> bool:
    """Whether more videos would hardly help: by `ROUND_ENOUGH`, or by single ones if unknown.

    Args:
        found: the explanation.
        enough: nats below which one more video is not advised.
    """
    if math.isfinite(found.round_most):
        return found.round_most < ROUND_ENOUGH
    return max(found.gain.values(), default=math.nan) < enough


def _record(found: Explanation, enough: float) -> Advice | None:
    """To record what the video shows once more, if that takes enough off this video.

    Whoever asks knows what it is, or can find out, as the model cannot. It is object k with
    probability p_k, and then a video of k moves p_k to p'_k: worth sum_k E[p'_k log(p'_k / p_k)],
    as E p'_k = p_k. Of the gain by a video of k, the divergence of p' from p, this is a share of
    1 - p_k as long as changes are small and the others keep their proportions. The sum is over the
    objects of the answer; others it hardly shows.
    """
    if not found.own_gain:
        return Advice("record it") if found.kind == "epistemic" else None
    worth = dict.fromkeys((condition for _, condition in found.own_gain), 0.0)
    for (thing, condition), nats in found.own_gain.items():
        worth[condition] += (thing in found.answer) * (1.0 - found.prob[thing]) * nats
    condition, nats = max(worth.items(), key=lambda item: item[1])
    reason = condition if nats - min(worth.values()) > SAME else ""
    return Advice("record it", reason, nats=nats) if nats >= enough else None


def matters(gain: Mapping[tuple[str, str], float], thing: str) -> bool:
    """Whether it matters in which condition an object is recorded."""
    own = [nats for (name, _), nats in gain.items() if name == thing]
    return max(own) - min(own) > SAME


def _turn(found: Explanation) -> Advice | None:
    """To turn the camera to where a window shows one of the likely objects."""
    framing = found.framing
    if framing is None or not framing.side or framing.nats < COSTLY:
        return None
    (thing,) = framing.things
    likely = not found.answer or thing in found.answer
    return Advice("turn", framing.side, thing, framing.nats) if likely else None


def _costlier(one: Advice | None, other: Advice | None) -> Advice | None:
    """Whichever of two takes more off; the first where that is not known of it."""
    if one is None or other is None:
        return one or other
    return other if other.nats > one.nats else one


def _mend(found: Explanation) -> Advice | None:
    """What would mend the costliest measured cause, if it costs anything, or nobody knows."""
    for cause, nats in found.causes.items():
        if not nats < COSTLY and cause in REMEDY:
            return Advice(REMEDY[cause], cause, nats=nats)
    return None
