"""The numbers behind an explanation, as far as a model knows them: start with `gather`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import xarray as xr
from torch import Tensor

from bayesfs.protocols import Conjugate, Hierarchical, Model, OpenSet, Simulates
from bayesfs.types import CONDITIONS, EpisodeBatch, Posterior, Predictive
from bayesfs.uncertainty.by_level import by_level
from bayesfs.uncertainty.by_quality import by_cause
from bayesfs.uncertainty.decompose import decompose
from bayesfs.uncertainty.information_gain import gain_by_video

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
        gain: (task, way, condition) from `bayesfs.uncertainty.information_gain`, towards all that
            is asked; one column per recording condition in `CONDITIONS`.
        own_gain: (task, video, way, condition) the same towards each query video by itself.
    """

    episodes: EpisodeBatch
    predictive: Predictive
    kinds: xr.Dataset
    levels: xr.Dataset | None = None
    causes: xr.Dataset | None = None
    gain: Tensor | None = None
    own_gain: Tensor | None = None


def gather(
    model: Model,
    population: Posterior,
    episodes: EpisodeBatch,
    predictive: Predictive,
    *,
    seed: int,
) -> Evidence:
    """Everything that the model can say about these tasks.

    Args:
        model: see `bayesfs.explanation.explain.explain`.
        population: posterior of the population sites.
        episodes: T tasks, whose queries are all that the person asks.
        predictive: of their queries.
        seed: of the draws.
    """
    known = without_gain(model, population, episodes, predictive, seed=seed)
    own = gain_by_condition(model, population, episodes, seed=seed)
    return known if own is None else replace(known, gain=own.nanmean(1), own_gain=own)


def without_gain(
    model: Model,
    population: Posterior,
    episodes: EpisodeBatch,
    predictive: Predictive,
    *,
    seed: int,
) -> Evidence:
    """The same without what teaching is worth: every video is described by itself."""
    return Evidence(
        episodes,
        predictive,
        decompose(predictive, episodes),
        by_level(model, population, episodes, seed=seed)
        if isinstance(model, Hierarchical)
        else None,
        by_cause(model, population, episodes, seed=seed)
        if isinstance(model, Conjugate) and isinstance(model, OpenSet)
        else None,
    )


def gain_by_condition(
    model: Model, population: Posterior, episodes: EpisodeBatch, *, seed: int
) -> Tensor | None:
    """(task, video, way, condition) `gain_by_video` for each recording condition."""
    if not isinstance(model, Simulates):
        return None
    each = [
        gain_by_video(model, population, episodes, condition=condition, seed=seed)
        for condition in CONDITIONS
    ]
    return torch.stack(each, -1)


def of_video(episodes: EpisodeBatch, task: int, video: int) -> EpisodeBatch:
    """One task with one of its query videos."""
    one = episodes.select([task])
    cut = {n: getattr(one, n)[:, [video]] for n in QUERY if getattr(one, n) is not None}
    return one.changed(**cut, videos=tuple((own[video],) for own in one.videos))
