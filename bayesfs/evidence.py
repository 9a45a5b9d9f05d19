"""The numbers behind an explanation, as far as a model knows them: start with `gather`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import xarray as xr
from torch import Tensor

from bayesfs.causes import Attributable, by_cause
from bayesfs.gain import Foresighted, expected_gain
from bayesfs.levels import Levelled, by_level
from bayesfs.types import KINDS, EpisodeBatch, Posterior, Predictive
from bayesfs.uncertainty import decompose


@dataclass(frozen=True)
class Evidence:
    """The numbers behind explanations of the query videos of some tasks; None where not known.

    Attributes:
        episodes: the tasks.
        predictive: of their queries.
        kinds: from `bayesfs.uncertainty.decompose`.
        levels: from `bayesfs.levels.by_level`.
        causes: from `bayesfs.causes.by_cause`.
        gain: (task, way, kind) from `bayesfs.gain.expected_gain`, one column per recording
            condition in `KINDS`.
    """

    episodes: EpisodeBatch
    predictive: Predictive
    kinds: xr.Dataset
    levels: xr.Dataset | None = None
    causes: xr.Dataset | None = None
    gain: Tensor | None = None


def gather(
    model: object,
    population: Posterior,
    episodes: EpisodeBatch,
    predictive: Predictive,
    *,
    seed: int,
    gain: Tensor | None = None,
) -> Evidence:
    """Everything that the model can say about these tasks.

    Args:
        model: see `bayesfs.explain.explain`.
        population: posterior of the population sites.
        episodes: T tasks.
        predictive: of their queries.
        seed: of the draws.
        gain: (task, way, kind) where it is known already: gain is about all that a person asks,
            so it is not computed from a part of the queries.
    """
    return Evidence(
        episodes,
        predictive,
        decompose(predictive, episodes),
        by_level(model, population, episodes, seed=seed) if isinstance(model, Levelled) else None,
        by_cause(model, population, episodes, seed=seed)
        if isinstance(model, Attributable)
        else None,
        gain_by_kind(model, population, episodes, seed=seed) if gain is None else gain,
    )


def gain_by_kind(
    model: object, population: Posterior, episodes: EpisodeBatch, *, seed: int
) -> Tensor | None:
    """(task, way, kind) expected gain of one more video of each object in each condition."""
    if not isinstance(model, Foresighted):
        return None
    each = [expected_gain(model, population, episodes, kind=kind, seed=seed) for kind in KINDS]
    return torch.stack(each, -1)


def of_video(episodes: EpisodeBatch, task: int, video: int) -> EpisodeBatch:
    """One task with one of its query videos."""
    one = episodes.select([task])
    names = ("query", "query_mask", "query_kind", "query_labels", "query_quality", "query_frame")
    cut = {n: getattr(one, n)[:, [video]] for n in names if getattr(one, n) is not None}
    return replace(one, **cut, videos=tuple((own[video],) for own in one.videos))
