"""The numbers behind an explanation, as far as a model knows them: start with `gather`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
import xarray as xr
from torch import Tensor

from bayesfs.explanation.camera import Defect
from bayesfs.explanation.framing import Look
from bayesfs.protocols import Decomposition, KnowsTypical, Model, Simulates
from bayesfs.types import EpisodeBatch, Posterior, Predictive
from bayesfs.uncertainty.decompositions import FORESEEN, GAIN, KIND, LEVEL, QUALITY, decompose_by
from bayesfs.uncertainty.gain_from_own_videos import gain_from_own_videos
from bayesfs.uncertainty.information_gain import gain_of_round

QUERY = ("query", "query_mask", "query_condition", "query_labels", "query_quality", "query_frame")


@dataclass(frozen=True)
class Evidence:
    """The numbers behind explanations of the query videos of some tasks; None where not known.

    Attributes:
        episodes: the tasks.
        predictive: of their queries.
        kinds: from `bayesfs.uncertainty.decompose.decompose`.
        levels: from `bayesfs.uncertainty.by_level.by_level`.
        causes: from `bayesfs.uncertainty.by_quality.by_cause`.
        gain: (task, way, condition) from `bayesfs.uncertainty.gain_from_own_videos`, towards all
            that is asked; one column per recording condition in `CONDITIONS`. From
            `bayesfs.uncertainty.information_gain` where the model does not simulate.
        own_gain: (task, video, way, condition) information gain towards each query video by itself.
        round_most: (task,) nats that one more video of every object, each in the condition in which
            it is worth most, takes off a query at most, nine times out of ten.
        typical: (task, video) p-value of being like what was taught.
        looks: video -> window of its frames -> what is said of that, of videos that were looked at
            in parts; names of videos are those of all tasks.
        defects: video -> what is measured to be wrong with it beside what was taught, for models
            that do not know what a defect costs; see `bayesfs.explanation.camera.defect_of`.
    """

    episodes: EpisodeBatch
    predictive: Predictive
    kinds: xr.Dataset
    levels: xr.Dataset | None = None
    causes: xr.Dataset | None = None
    gain: Tensor | None = None
    own_gain: Tensor | None = None
    round_most: Tensor | None = None
    typical: Tensor | None = None
    looks: Mapping[str, Mapping[str, Look]] = field(default_factory=dict)
    defects: Mapping[str, Defect] = field(default_factory=dict)


def gather(
    model: Model,
    population: Posterior,
    episodes: EpisodeBatch,
    predictive: Predictive,
    *,
    condition_known: bool = True,
    level: Decomposition = LEVEL,
    seed: int,
) -> Evidence:
    """Everything that the model can say about these tasks.

    Args:
        model: see `bayesfs.explanation.explain.explain`.
        population: posterior of the population sites.
        episodes: T tasks, whose queries are all that the person asks.
        predictive: of their queries.
        condition_known: whether queries are in the recording condition that the batch says.
        level: how the levels are told apart.
        seed: of the draws.
    """
    known = without_gain(
        model,
        population,
        episodes,
        predictive,
        condition_known=condition_known,
        level=level,
        seed=seed,
    )
    own = gain_by_condition(model, population, episodes, predictive, seed=seed)
    if own is None:
        return known
    gain = own.nanmean(1)
    most = None
    if isinstance(model, Simulates):
        gain = gain_from_own_videos(model, population, episodes, gain).cpu()
        most = most_of_round(model, population, episodes, gain, seed=seed)
    return replace(known, gain=gain, own_gain=own, round_most=most)


def most_of_round(
    model: Simulates, population: Posterior, episodes: EpisodeBatch, gain: Tensor, *, seed: int
) -> Tensor:
    """(task,) what one more video of every object takes off a query at most; see `RoundGain`.

    Args:
        model: that simulates further videos.
        population: posterior of the population sites.
        episodes: T tasks.
        gain: (task, way, condition) of single videos, which says in which condition each is filmed.
        seed: of the simulation.
    """
    best = gain.to(episodes.support).nan_to_num().argmax(-1)
    count = torch.nn.functional.one_hot(best, gain.shape[-1])
    return gain_of_round(model, population, episodes, count, seed=seed).at_most()


def without_gain(
    model: Model,
    population: Posterior,
    episodes: EpisodeBatch,
    predictive: Predictive,
    *,
    condition_known: bool = True,
    level: Decomposition = LEVEL,
    seed: int,
) -> Evidence:
    """The same without what teaching is worth: every video is described by itself."""
    found = decompose_by(
        model,
        population,
        episodes,
        predictive,
        decompositions=(KIND, level, QUALITY),
        seed=seed,
    )
    levels, causes = found.get(LEVEL.name), found.get(QUALITY.name)
    typical = None
    if isinstance(model, KnowsTypical):
        typical = model.typicality(episodes, condition_known=condition_known)
    return Evidence(episodes, predictive, found[KIND.name], levels, causes, typical=typical)


def gain_by_condition(
    model: Model,
    population: Posterior,
    episodes: EpisodeBatch,
    predictive: Predictive,
    *,
    seed: int,
) -> Tensor | None:
    """(task, video, way, condition) what one more support video would tell of each query video."""
    found = decompose_by(
        model, population, episodes, predictive, decompositions=(GAIN, FORESEEN), seed=seed
    ).get(GAIN.name)
    return None if found is None else torch.from_numpy(found["video_gain"].to_numpy())


def looks_of(episodes: EpisodeBatch, predictive: Predictive, typical: Tensor) -> dict[str, Look]:
    """Query video of one task -> what is said of it, such as of windows of another's frames.

    Args:
        episodes: one task.
        predictive: of its query.
        typical: (1, video) p-values of being like what was taught.
    """
    (things,), (names,) = episodes.classes, episodes.videos
    each = zip(names, predictive.video.prob[0].tolist(), typical[0].tolist(), strict=False)
    return {name: Look(dict(zip(things, p, strict=False)), t) for name, p, t in each}


def of_video(episodes: EpisodeBatch, task: int, video: int) -> EpisodeBatch:
    """One task with one of its query videos."""
    one = episodes.select([task])
    cut = {n: getattr(one, n)[:, [video]] for n in QUERY if getattr(one, n) is not None}
    return one.changed(**cut, videos=tuple((own[video],) for own in one.videos))
