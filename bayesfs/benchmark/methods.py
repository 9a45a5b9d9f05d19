"""Methods of a benchmark: recipes (model x engine) and baselines, learnt from one `Lesson`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bayesfs.data.from_arrays import stack
from bayesfs.features.projection import Projection
from bayesfs.features.reduction import FeatureReduction
from bayesfs.models.baselines.classifiers import Baseline, fit_temperature
from bayesfs.protocols import Collapsible, NamesClasses
from bayesfs.study import Learnt, Study, labels_over, population_of, with_names
from bayesfs.types import EpisodeBatch, LabelDraws, Predictive

Predict = Callable[[EpisodeBatch], Predictive]
"""Infers tasks from their support and predicts their query."""


@dataclass(frozen=True)
class Ready:
    """A method that has learnt, ready for tasks of so many support videos.

    Attributes:
        predict: probabilities, the quickest way.
        draw: the same probabilities, with draws by which uncertainty has kinds; where the method
            has none, as `predict`.
    """

    predict: Predict
    draw: Predict


@dataclass(frozen=True)
class Lesson:
    """What a method may learn from: nothing of what is scored.

    Attributes:
        projection: fitted on the train frames.
        support: what an objective learns from that asks for the support alone.
        tasks: few-shot tasks with labelled query, at the largest number of shots, projected by
            axes of other train users or classes than their own.
        shots: numbers of support videos to learn at.
    """

    projection: Projection
    support: EpisodeBatch
    tasks: EpisodeBatch
    shots: tuple[int, ...]

    @property
    def mixed(self) -> EpisodeBatch:
        """The tasks at every number of shots, together."""
        return stack([self.tasks.limit_shots(k) for k in self.shots])


class Method(Protocol):
    """One row of the table."""

    @property
    def name(self) -> str:
        """What the table calls it."""
        ...

    @property
    def identity(self) -> str:
        """Text that changes whenever the method's results could."""
        ...

    @property
    def reduction(self) -> FeatureReduction:
        """How many features it asks for."""
        ...

    def learn(self, lesson: Lesson, shots: tuple[int, ...], *, seed: int) -> dict[int, Ready]:
        """Number of support videos -> the method, ready for tasks of so many."""
        ...


@dataclass(frozen=True)
class RecipeMethod:
    """A model and an engine: the population is learnt once, for all numbers of shots.

    Attributes:
        name: of the row.
        study: model, engines and reduction; its evaluation is not used.
        source: text of the recipes.
    """

    name: str
    study: Study
    source: str

    @property
    def identity(self) -> str:
        """The recipes and the values they made."""
        return f"{self.source}\0{self.study!r}"

    @property
    def reduction(self) -> FeatureReduction:
        """That of the recipe."""
        return self.study.reduction

    def learn(self, lesson: Lesson, shots: tuple[int, ...], *, seed: int) -> dict[int, Ready]:
        """One population, by the recipe's objective."""
        study = self.study
        labels = study.objective is not None and study.objective.needs_query
        episodes = study.placed(lesson.mixed if labels else lesson.support)
        model = study.model_for(lesson.projection, labels=labels_over(episodes))
        program = model if study.objective is None else study.objective(model)
        engine = study.population_engine or study.engine
        found = engine.infer(program, episodes, seed=seed)
        if isinstance(model, NamesClasses):
            found = with_names(model, found, episodes, seed=seed)
        population = population_of(found)
        learnt = Learnt(lesson.projection, population)
        drawn = with_draws(study, learnt, seed)
        return dict.fromkeys(shots, Ready(without_draws(study, learnt) or drawn, drawn))


@dataclass(frozen=True)
class BaselineMethod:
    """A point classifier with a temperature of its own for every number of shots.

    Attributes:
        name: of the row.
        baseline: the classifier.
        reduction: how many features it gets.
    """

    name: str
    baseline: Baseline
    reduction: FeatureReduction

    @property
    def identity(self) -> str:
        """Its settings."""
        return f"{self.baseline!r}\0{self.reduction!r}"

    def learn(self, lesson: Lesson, shots: tuple[int, ...], *, seed: int) -> dict[int, Ready]:
        """Temperatures from the tasks at so many shots."""
        found = {}
        for k in shots:
            predict = fit_temperature(self.baseline, lesson.tasks.limit_shots(k)).predictive
            found[k] = Ready(predict, predict)
        return found


def with_draws(study: Study, learnt: Learnt, seed: int) -> Predict:
    """The study's predictive of tasks, on the CPU."""
    return lambda tasks: study.infer(study.placed(tasks), learnt, seed=seed).predictive.to("cpu")


def without_draws(study: Study, learnt: Learnt) -> Predict | None:
    """The study's predictive in closed form; None where the engine is not exact."""
    model = study.model_of(learnt)
    closed = study.engine.closed_form(model, learnt.population)
    if closed is None or not isinstance(model, Collapsible):
        return None
    predict = closed_form_predict(model, closed[0])
    return lambda tasks: predict(study.placed(tasks)).to("cpu")


def closed_form_predict(model: Collapsible, population: Mapping[str, Tensor]) -> Predict:
    """Predictive with the tasks integrated out exactly, averaged over the population's draws.

    Args:
        model: whose labels are averaged.
        population: site -> (draw, ...).
    """
    count = len(next(iter(population.values())))
    values = [{site: v[s] for site, v in population.items()} for s in range(count)]

    def method(episodes: EpisodeBatch) -> Predictive:
        with torch.no_grad():
            parts = zip(*(model.log_labels(episodes, value) for value in values), strict=True)
            frame, video = (torch.stack(p).logsumexp(0) - math.log(count) for p in parts)
        return Predictive(_one_draw(frame), _one_draw(video))

    return method


def _one_draw(log_prob: Tensor) -> LabelDraws:
    return LabelDraws(log_prob, log_prob[None], torch.zeros_like(log_prob[None, ..., 0]))


def digest(*parts: object) -> str:
    """Short checksum of what decides a cell."""
    return hashlib.sha256("\0".join(map(repr, parts)).encode()).hexdigest()[:16]
