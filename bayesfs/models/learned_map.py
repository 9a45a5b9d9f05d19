"""A map of the features that is learnt together with the population: `MapScore`.

The principal axes of a backbone's features know nothing of objects. A map of them can be learnt
from the labels of the train users, jointly with the population parameters; with a few dozen train
objects it over-fits within minutes unless it stays close to the axes, which its prior sees to.
`bayesfs.training.supervised_projection.LearnedProjection` trains it and stops early on users that
are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import ClassVar, Protocol

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesfs._linalg.directions import unit
from bayesfs.errors import InferenceError
from bayesfs.models.objectives import label_score, task_weight
from bayesfs.protocols import Collapsible, Model
from bayesfs.types import EpisodeBatch


class LearnedMap(Protocol):
    """A map of unit-norm features to unit-norm features, with a prior; 0 is the identity."""

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Site -> axes."""
        ...

    def sample(self, like: Tensor) -> dict[str, Tensor]:
        """Pyro program of the sites; `like` (..., feature) gives size, dtype and device."""
        ...

    def apply(self, z: Tensor, sites: Mapping[str, Tensor], spectrum: Tensor) -> Tensor:
        """(..., feature) -> (..., feature)."""
        ...


@dataclass(frozen=True)
class LearnedLinearMap:
    """Each axis is turned a little towards all others.

        z'_j = z_j + spread s_j sum_i z_i W_ij,   W ~ N(0, I),   z' scaled to length 1,

    with s_j the sd of feature j: since the features have length 1, `spread` is the size of the
    change of an axis relative to its sd, a priori.

    Attributes:
        spread: prior size of the change; 0.1 is a strong shrinkage to the principal axes.
    """

    spread: float = 0.1

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Site -> axes."""
        return {"map_raw": ("feature", "output")}

    def sample(self, like: Tensor) -> dict[str, Tensor]:
        """W."""
        zero = like.new_zeros(like.shape[-1], like.shape[-1])
        return {"map_raw": pyro.sample("map_raw", dist.Normal(zero, zero + 1.0).to_event(2))}

    def matrix(self, sites: Mapping[str, Tensor], spectrum: Tensor) -> Tensor:
        """(feature, output) z' before scaling = z @ matrix."""
        raw = sites["map_raw"]
        return torch.eye(len(raw)).to(raw) + self.spread * raw * spectrum

    def apply(self, z: Tensor, sites: Mapping[str, Tensor], spectrum: Tensor) -> Tensor:
        """The map; zeros (padding) stay zeros."""
        return unit(z @ self.matrix(sites, spectrum))


@dataclass(frozen=True)
class MapScore(Model):
    """Map and population, learnt by the predictive log score of query labels.

    The program of `PredictiveScore`, on features that a `LearnedMap` has changed. The evidence will
    not do: features of length 1 have no density that could be compared between maps.

    Attributes:
        model: whose population is learnt; its task level must be known in closed form.
        feature_map: what is done to the features.
        spectrum: sd of each feature over the train frames, relative to their root sum of squares.
    """

    model: Collapsible
    feature_map: LearnedMap
    spectrum: tuple[float, ...]

    needs_query: ClassVar[bool] = True

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        """Population site -> axes, those of the map among them."""
        return {**self.model.population_dims, **self.feature_map.dims}

    def __call__(self, episodes: EpisodeBatch) -> None:
        """The Pyro program: sites of the map, of the population, and the score as a factor."""
        sites = self.feature_map.sample(episodes.support)
        sites |= self.model.sample_population(episodes.support)
        pyro.factor("score", self.score(sites, episodes))

    def score(self, sites: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """Sum over users of the label score, as `PredictiveScore` has it; in nats."""
        frame, video = self.model.for_learning().log_labels(self.mapped(episodes, sites), sites)
        score = label_score(frame, video, episodes)
        return (task_weight(episodes).to(score) * score).sum()

    def mapped(self, episodes: EpisodeBatch, sites: Mapping[str, Tensor]) -> EpisodeBatch:
        """The tasks in mapped features; their values are not looked at, as vmap demands."""
        spectrum = torch.tensor(self.spectrum, dtype=torch.float64).to(episodes.support)
        mapped = copy(episodes)
        for name in ("support", "query"):
            value = self.feature_map.apply(getattr(episodes, name), sites, spectrum)
            object.__setattr__(mapped, name, value)
        return mapped

    def log_joint_frame(self, draws: Mapping[str, Tensor], episodes: EpisodeBatch) -> Tensor:
        """Not known: a map is learnt before any task is inferred."""
        raise InferenceError("expected draws of a model, got MapScore, which learns a map alone")

    log_joint_video = log_joint_frame
