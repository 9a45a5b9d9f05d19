"""What a video shows, how sure that is, why, and what to do about it: start with `explain`.

The reasons are numbers: uncertainty by kind and level (`bayesfs.levels`), by measured cause
(`bayesfs.causes`), and what one more video of each object is worth (`bayesfs.gain`). From them
comes at most one piece of advice:

- sure: none; nothing taught in sight, or in most frames: to show the object;
- else whichever takes more nats off this video: to mend its costliest measured cause (hold
  steadier, more light, ...), or to record one more video of one of the likely objects, in the
  condition in which it is worth most;
- where neither takes off enough: to show another side where the video leaves the doubt, and
  "enough" where teaching leaves it, since more of it would hardly help.

An explanation is data; `Explanation.sentence` puts it into words (`bayesfs.wording`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor

from bayesfs.deciding import Rules
from bayesfs.errors import DataError
from bayesfs.evidence import Evidence, gather
from bayesfs.levels import EPISTEMIC, PARTS
from bayesfs.types import KINDS, EpisodeBatch, Posterior, Predictive
from bayesfs.wording import advice_text, answer_text, likeliest

ENOUGH = 0.01
"""One more video that is expected to take less than so many nats off a query is not worth it.

On train users of real objects the best video takes off .023 to .054 after one video an object,
.006 to .030 after three, and .003 to .012 after five, where accuracy levels off too."""

COSTLY = 0.01
"""A measured cause that costs fewer nats than this is none."""

CAUSES: Mapping[tuple[str, bool], str] = {
    ("sharpness", False): "blurred",
    ("sharpness", True): "busy",
    ("brightness", False): "dark",
    ("brightness", True): "bright",
    ("contrast", False): "flat",
    ("contrast", True): "busy",
    ("dark_clipped", True): "dark",
    ("bright_clipped", True): "bright",
}
"""Measured quality, and whether it is above the typical -> cause."""

Action = Literal[
    "nothing", "enough", "record", "steadier", "more light", "less light", "closer", "show",
    "other side",
]  # fmt: skip

REMEDY: Mapping[str, Action] = {
    "blurred": "steadier",
    "dark": "more light",
    "flat": "more light",
    "bright": "less light",
    "busy": "closer",
    "absent": "show",
}
"""Cause -> what mends it."""


@dataclass(frozen=True)
class Advice:
    """The one thing to do.

    Attributes:
        action: "nothing" needs no words, "enough" says that more teaching would hardly help.
        reason: the cause that it mends, or the condition to record in; "" where there is none.
        thing: object to record, or "".
        nats: what it is expected to take off: per query for "record" and "enough", per frame for a
            measured cause; NaN where that is not known.
    """

    action: Action
    reason: str = ""
    thing: str = ""
    nats: float = math.nan


@dataclass(frozen=True)
class Explanation:
    """One query video, explained.

    Attributes:
        video: its name.
        answer: objects that it may show, likeliest first; empty where that is none of them.
        prob: object -> probability.
        absent: probability that nothing taught is shown; NaN where the model does not know.
        kind: "aleatoric" or "epistemic", whichever part is larger.
        level: the level of the hierarchy that adds most; "" where levels are not known.
        parts: "total", "aleatoric", "epistemic" and each level -> nats, of the whole video.
        causes: measured cause -> nats per frame that it costs, costliest first.
        confusable: the likeliest wrong object, or "".
        gain: (object, condition) -> expected fall in nats per query after one more such video.
        own_gain: the same for this video.
        advice: what to do.
    """

    video: str
    answer: tuple[str, ...]
    prob: Mapping[str, float]
    absent: float
    kind: Literal["aleatoric", "epistemic"]
    level: str
    parts: Mapping[str, float]
    causes: Mapping[str, float]
    confusable: str
    gain: Mapping[tuple[str, str], float]
    own_gain: Mapping[tuple[str, str], float]
    advice: Advice

    def sentence(self, language: str | None = None) -> str:
        """What is said, such as "May be wrong: keys or wallet. It is dark; use more light".

        Args:
            language: such as "de"; that of the environment by default.
        """
        only = next(iter(self.prob)) if len(self.prob) == 1 else ""
        said = answer_text(self.answer, none=not self.answer, only=only, language=language)
        sure = len(self.answer) == 1
        advice = self.advice
        if sure and advice.action == "enough":
            return said
        first = self.answer[0] if self.answer else ""
        names = {"name": advice.thing, "first": first, "second": self.confusable}
        done = advice_text(advice.action, reason=advice.reason, names=names, language=language)
        return f"{said} {done}".strip()


def explain(
    model: object,
    population: Posterior,
    episodes: EpisodeBatch,
    predictive: Predictive,
    *,
    rules: Rules | None = None,
    enough: float = ENOUGH,
    seed: int,
) -> tuple[tuple[Explanation, ...], ...]:
    """Explain every query video.

    Args:
        model: what it can say decides how much is explained; `GaussianHierarchy` with covariates
            says everything, any other model the kind.
        population: posterior of the population sites.
        episodes: T tasks.
        predictive: of their queries.
        rules: thresholds learnt on train users; without them a set holds nine tenths of the
            probability.
        enough: nats per query below which one more video is not advised.
        seed: of the draws behind levels, causes and gain.

    Returns:
        For each task, one explanation a query video.

    Example:
        >>> explain(model, population, episodes, predictive, seed=0)[0][0].sentence("en")
        ... # doctest: +SKIP
        'May be wrong: keys or wallet. The video is blurred; hold steadier.'
    """
    evidence = gather(model, population, episodes, predictive, seed=seed)
    return tuple(
        tuple(
            explain_video(evidence, task, int(video), rules=rules, enough=enough)
            for video in episodes.video_mask[task].nonzero()[:, 0]
        )
        for task in range(len(episodes))
    )


def explain_video(
    evidence: Evidence,
    task: int,
    video: int,
    *,
    rules: Rules | None = None,
    enough: float = ENOUGH,
) -> Explanation:
    """Explain one query video from the numbers.

    Raises:
        DataError: it is padding.
    """
    episodes = evidence.episodes
    if not episodes.video_mask[task, video]:
        raise DataError(f"task {episodes.task_name(task)!r} has no query video {video}")
    things = _classes(episodes, task)
    p = evidence.predictive.video.prob[task, video, : len(things)].detach().cpu().numpy()
    absent = _absent(evidence, task, video)
    none = absent > (rules.video.most_absent if rules else 0.5)
    named = () if none else tuple(things[i] for i in _answer(p, rules))
    order = np.argsort(-p, kind="stable")
    parts = _parts(evidence, task, video)
    levels = [part for part in PARTS if part in parts]
    kind: Literal["aleatoric", "epistemic"] = (
        "epistemic" if parts["epistemic"] >= parts["aleatoric"] else "aleatoric"
    )
    own = [part for part in levels if (part in EPISTEMIC) == (kind == "epistemic")]
    found = Explanation(
        video=episodes.videos[task][video] if episodes.videos else str(video),
        answer=named,
        prob={things[i]: float(p[i]) for i in order},
        absent=absent,
        kind=kind,
        level=max(own, key=lambda part: parts[part]) if own else "",
        parts=parts,
        causes=_causes(evidence, task, video),
        confusable=things[order[1]] if len(things) > 1 else "",
        gain=_gain(None if evidence.gain is None else evidence.gain[task], things),
        own_gain=_gain(
            None if evidence.own_gain is None else evidence.own_gain[task, video], things
        ),
        advice=Advice("nothing"),
    )
    threshold = rules.frame.most_absent if rules else 0.5
    return replace(found, advice=advise(found, _missing(evidence, task, video, threshold), enough))


def advise(found: Explanation, missing: float, enough: float = ENOUGH) -> Advice:
    """The one piece of advice; see the module.

    Args:
        found: the explanation without it.
        missing: share of the video's frames that show nothing taught.
        enough: nats below which one more video is not advised.
    """
    if not found.answer or (missing > 0.5 and len(found.answer) > 1):
        return Advice("show", "absent")
    if len(found.answer) == 1:
        best = max(found.gain.values(), default=math.nan)
        return Advice("enough", nats=best) if best < enough else Advice("nothing")
    record, mend = _record(found, enough), _mend(found)
    if record is None and mend is None:
        if found.kind == "epistemic":
            return Advice("enough")
        if found.confusable not in found.answer:
            return Advice("other side", "alone")
        return Advice("other side", "several" if len(found.answer) > 2 else "")
    if record is None or mend is None:
        return record or mend or Advice("nothing")
    if math.isnan(record.nats):
        return record if found.kind == "epistemic" else mend
    return record if record.nats >= mend.nats else mend


def _record(found: Explanation, enough: float) -> Advice | None:
    """The recording of a likely object that takes most off this video, if that is enough."""
    worth = {key: nats for key, nats in found.own_gain.items() if key[0] in found.answer}
    if not worth:
        unknown = not found.own_gain and found.kind == "epistemic"
        return Advice("record", thing=found.answer[0]) if unknown else None
    (thing, condition), nats = max(worth.items(), key=lambda item: item[1])
    return Advice("record", condition, thing, nats) if nats >= enough else None


def _mend(found: Explanation) -> Advice | None:
    """What would mend the costliest measured cause, if it costs anything."""
    for cause, nats in found.causes.items():
        if nats >= COSTLY and cause in REMEDY:
            return Advice(REMEDY[cause], cause, nats=nats)
    return None


def _answer(prob: np.ndarray[Any, Any], rules: Rules | None) -> list[int]:
    """Classes to name, likeliest first; one alone only where the set and the risk allow it.

    What is called probable must be likelier than not, whatever train users would allow.
    """
    if rules is None:
        return likeliest(prob)
    chosen = rules.video.in_set(prob)
    order = [int(i) for i in np.argsort(-prob, kind="stable")]
    named = [i for i in order if chosen[i]]
    alone = rules.video.alone(prob) and prob[order[0]] > 0.5
    return named if len(named) > 1 or alone else order[:2]


def _parts(evidence: Evidence, task: int, video: int) -> dict[str, float]:
    """Nats by kind and level; kinds are sums of levels where those are known."""
    if evidence.levels is None:
        names = ("total", "aleatoric", "epistemic")
        return {n: float(evidence.kinds[f"video_{n}"][task, video]) for n in names}
    levels = {part: float(evidence.levels[f"video_{part}"][task, video]) for part in PARTS}
    epistemic = sum(levels[part] for part in EPISTEMIC)
    total = sum(levels.values())
    return {"total": total, "aleatoric": total - epistemic, "epistemic": epistemic, **levels}


def _causes(evidence: Evidence, task: int, video: int) -> dict[str, float]:
    """Measured cause -> mean nats per frame.

    A cause that two qualities show costs what the costlier one does, since drops do not add up.
    """
    if evidence.causes is None or evidence.episodes.query_quality is None:
        return {}
    mask = evidence.episodes.query_mask[task, video].cpu().numpy()
    drop = evidence.causes["frame_drop"].values[task, video][mask]
    quality = evidence.episodes.query_quality[task, video].cpu().numpy()[mask]
    names = [str(name) for name in evidence.causes["covariate"].values]
    found: dict[str, float] = {}
    for j, name in enumerate(names):
        above = bool((np.abs(drop[:, j]) * quality[:, j]).sum() > 0)
        cause, nats = CAUSES.get((name, above), ""), float(drop[:, j].mean())
        if cause and nats > found.get(cause, 0.0):
            found[cause] = nats
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _absent(evidence: Evidence, task: int, video: int) -> float:
    if evidence.causes is None:
        return math.nan
    return float(evidence.causes["video_absent"][task, video])


def _missing(evidence: Evidence, task: int, video: int, threshold: float) -> float:
    """Share of the video's frames that more likely than not show nothing taught."""
    if evidence.causes is None:
        return 0.0
    mask = evidence.episodes.query_mask[task, video].cpu().numpy()
    return float((evidence.causes["frame_absent"].values[task, video][mask] > threshold).mean())


def _gain(gain: Tensor | None, things: tuple[str, ...]) -> dict[tuple[str, str], float]:
    """(object, condition) -> nats, from (way, kind)."""
    if gain is None:
        return {}
    values = gain.detach().cpu().numpy()
    return {
        (thing, kind): float(values[way, k])
        for way, thing in enumerate(things)
        for k, kind in enumerate(KINDS)
        if np.isfinite(values[way, k])
    }


def _classes(episodes: EpisodeBatch, task: int) -> tuple[str, ...]:
    if episodes.classes:
        return episodes.classes[task]
    return tuple(str(way) for way in range(int(episodes.way_mask[task].sum())))
