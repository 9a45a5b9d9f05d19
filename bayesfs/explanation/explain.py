"""What a video shows, how sure that is, why, and what to do about it: start with `explain`.

The reasons are numbers: uncertainty by kind and level (`bayesfs.uncertainty.by_level`), by measured
cause (`bayesfs.uncertainty.by_quality`), and what one more video of each object is worth
(`bayesfs.uncertainty.information_gain`). From them comes at most one piece of advice:

- several things in view, of which two windows of the frames are sure: to show one at a time;
- sure: none;
- unlike anything taught: to teach it so, if it is one of theirs; seen in some frames and not in
  most: to keep it in the picture;
- else whichever takes more nats off this video: to mend its costliest measured cause (hold
  steadier, more light, ...), to turn the camera to where a window shows one of the likely objects
  clearly, or to record what it shows once more, in the condition in which that is worth most. The
  model could only guess which of these that is, and the person knows;
- where neither takes off enough: to show another side where the video leaves the doubt, and
  "enough" where teaching leaves it and one more video of every object would hardly help.

A reason is given only where the frames support it: a measured cause where its measure is far from
typical (`EVIDENCE`), "out of view" where other frames of the video show what was taught, a place
or a second object where windows of the frames show it (`bayesfs.explanation.framing`). How large an
object is is not measured, and nothing is said of it; a doubt without such evidence is said to have
no known reason.

An explanation is data; `Explanation.sentence` puts it into words (`bayesfs.explanation.sentences`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from bayesfs.decisions.rules import Rules
from bayesfs.errors import DataError
from bayesfs.explanation.advice import ENOUGH
from bayesfs.explanation.conclude import Numbers, concluded
from bayesfs.explanation.evidence import Evidence, gather
from bayesfs.explanation.explanation import Explanation
from bayesfs.protocols import Model
from bayesfs.types import CONDITIONS, EpisodeBatch, Posterior, Predictive
from bayesfs.uncertainty.by_quality import CARRIED, CARRIES
from bayesfs.uncertainty.parts import is_epistemic, told_apart

EVIDENCE: Mapping[str, tuple[str, float]] = {
    "dark": ("brightness", -1.0),
    "bright": ("brightness", 1.0),
    "flat": ("contrast", -1.0),
    "blurred": ("focus", -1.0),
}
"""Cause -> the measure that must be so many sds from typical before it is named."""


def explain(
    model: Model,
    population: Posterior,
    episodes: EpisodeBatch,
    predictive: Predictive,
    *,
    rules: Rules | None = None,
    enough: float = ENOUGH,
    condition_known: bool = True,
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
        condition_known: whether queries are in the recording condition that the batch says.
        seed: of the draws behind levels, causes and gain.

    Returns:
        For each task, one explanation a query video.

    Example:
        >>> explain(model, population, episodes, predictive, seed=0)[0][0].sentence("en")
        ... # doctest: +SKIP
        'May be wrong: keys or wallet. The video is blurred; hold steadier.'
    """
    evidence = gather(
        model, population, episodes, predictive, condition_known=condition_known, seed=seed
    )
    return explain_all(evidence, rules=rules, enough=enough)


def explain_all(
    evidence: Evidence, *, rules: Rules | None = None, enough: float = ENOUGH
) -> tuple[tuple[Explanation, ...], ...]:
    """For each task, one explanation a query video, from the numbers."""
    mask = evidence.episodes.video_mask
    return tuple(
        tuple(
            explain_video(evidence, task, int(video), rules=rules, enough=enough)
            for video in mask[task].nonzero()[:, 0]
        )
        for task in range(len(mask))
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
    name = episodes.videos[task][video] if episodes.videos else str(video)
    defects = [evidence.defects[name]] if name in evidence.defects else []
    threshold = rules.frame.most_absent if rules else 0.5
    found = Numbers(
        video=name,
        prob=dict(zip(things, evidence.predictive.video.prob[task, video].tolist(), strict=False)),
        parts=_parts(evidence, task, video),
        absent=_absent(evidence, task, video),
        typical=math.nan if evidence.typical is None else float(evidence.typical[task, video]),
        missing=_missing(evidence, task, video, threshold),
        causes=_causes(evidence, task, video) or dict.fromkeys(defects, math.nan),
        gain=_gain(None if evidence.gain is None else evidence.gain[task], things),
        own_gain=_gain(
            None if evidence.own_gain is None else evidence.own_gain[task, video], things
        ),
        round_most=math.nan if evidence.round_most is None else float(evidence.round_most[task]),
        levels=episodes.levels,
        looks=evidence.looks.get(name, {}),
    )
    return concluded(found, rules=rules, enough=enough)


def _parts(evidence: Evidence, task: int, video: int) -> dict[str, float]:
    """Nats by kind and level; kinds are sums of levels where those are known."""
    if evidence.levels is None:
        names = ("total", "aleatoric", "epistemic")
        return {n: float(evidence.kinds[f"video_{n}"][task, video]) for n in names}
    levels = {
        part: float(evidence.levels[f"video_{part}"][task, video])
        for part in told_apart(evidence.levels)
    }
    epistemic = sum(levels[part] for part in levels if is_epistemic(part))
    total = sum(levels.values())
    return {"total": total, "aleatoric": total - epistemic, "epistemic": epistemic, **levels}


def evident_causes(measures: Sequence[str], quality: np.ndarray[Any, Any]) -> list[str]:
    """What the measured quality shows to be wrong.

    Every defect moves a measure of its own most (`bayesfs.features.quality`). What is blown out is
    flat by that, and what is dark or flat is blurred besides only where its focus is further from
    typical than `bayesfs.uncertainty.by_quality.CARRIED`.

    Args:
        measures: names of the covariates.
        quality: (covariate,) standardised, of a frame or on average over some.
    """
    shown = [
        cause
        for cause, (measure, least) in EVIDENCE.items()
        if measure in measures and quality[measures.index(measure)] / least >= 1.0
    ]
    if "bright" in shown and "flat" in shown:
        shown.remove("flat")
    if "blurred" in shown and quality[measures.index("focus")] > -CARRIED:
        carried = not {*CARRIES}.isdisjoint(shown)
        return [cause for cause in shown if not carried or cause != "blurred"]
    return shown


def evident_cost(
    measures: Sequence[str], quality: np.ndarray[Any, Any], cost: Mapping[str, float]
) -> dict[str, float]:
    """Evident cause -> what it costs, costliest first; of those that cost anything.

    Args:
        measures: names of the covariates.
        quality: (covariate,) standardised.
        cost: cause -> nats, of each that the model knows.
    """
    shown = {c: cost[c] for c in evident_causes(measures, quality) if cost.get(c, 0.0) > 0.0}
    return dict(sorted(shown.items(), key=lambda item: -item[1]))


def _causes(evidence: Evidence, task: int, video: int) -> dict[str, float]:
    """Measured cause -> mean nats per frame, of those that the video's frames show."""
    if evidence.causes is None or evidence.episodes.query_quality is None:
        return {}
    mask = evidence.episodes.query_mask[task, video].cpu().numpy()
    quality = evidence.episodes.query_quality[task, video].cpu().numpy()[mask]
    measures = evidence.causes["covariate"].values.tolist()
    cost = evidence.causes["frame_cause"].values[task, video][mask].mean(0).tolist()
    known = dict(zip(evidence.causes["cause"].values.tolist(), cost, strict=True))
    return evident_cost(measures, quality.mean(0), known) if measures else {}


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
    """(object, condition) -> nats, from (way, condition)."""
    if gain is None:
        return {}
    values = gain.detach().cpu().numpy()
    return {
        (thing, condition): float(values[way, k])
        for way, thing in enumerate(things)
        for k, condition in enumerate(CONDITIONS)
        if np.isfinite(values[way, k])
    }


def _classes(episodes: EpisodeBatch, task: int) -> tuple[str, ...]:
    if episodes.classes:
        return episodes.classes[task]
    return tuple(str(way) for way in range(int(episodes.way_mask[task].sum())))
