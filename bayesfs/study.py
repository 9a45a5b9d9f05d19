"""One study: learn a population from some users, infer, predict and score the tasks of others.

Use `Study` first: `learn` gives what is known about people in general, `infer` what follows for
the tasks that an evaluation asks about. `bayesfs.runs.run` keeps the results in a run directory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from bayesfs._utils.devices import usable_device
from bayesfs._utils.display import Card, Shown, short_number
from bayesfs._utils.progress import bar
from bayesfs.data.worlds import together
from bayesfs.diagnostics.densities import with_densities
from bayesfs.diagnostics.left_out import left_out_log_prob, support_log_prob
from bayesfs.diagnostics.population_prior import population_prior
from bayesfs.diagnostics.predictive_checks import label_check, posterior_check, prior_check
from bayesfs.diagnostics.shrinkage import shrinkage
from bayesfs.diagnostics.verdicts import SHARE_ERROR_MAX
from bayesfs.errors import DataError
from bayesfs.features.projection import Projection
from bayesfs.features.reduction import FeatureReduction, PrincipalAxes, fitted_on_others
from bayesfs.metrics.score_table import score_table
from bayesfs.models.population_draws import each_value, with_repeats
from bayesfs.models.similarity.heads import WithinScatter, likeness, unlikeness
from bayesfs.prediction import complete_draws, distinct_population, predict
from bayesfs.protocols import (
    Collapsible,
    Engine,
    Evaluation,
    Model,
    NamesClasses,
    Objective,
    Progress,
    TakesAxes,
    TakesScatter,
)
from bayesfs.results.assemble import assemble_tree, posterior_group
from bayesfs.results.baseline import baseline_group
from bayesfs.types import Embeddings, EpisodeBatch, Posterior, Predictive
from bayesfs.uncertainty.decompose import decompose
from bayesfs.uncertainty.monte_carlo import MonteCarlo, blocks_of, monte_carlo

SPARE = 1.2
"""Draws that are made for each that the error asks for, since it is itself an estimate."""


@dataclass(frozen=True)
class Seeds:
    """Where the randomness of a study comes from.

    Attributes:
        episodes: which videos teach and which are asked.
        fit: everything that engines draw.
    """

    episodes: int = 0
    fit: int = 0


@dataclass(frozen=True, repr=False)
class Learnt(Shown):
    """What holds for every user, learnt from the train users.

    Attributes:
        projection: from backbone features to those of the model.
        population: posterior of the population sites.
        scatter: of the train users' videos about their objects, for models that take it.
        axes: principal axes of the projected frames, for models that take them.
    """

    projection: Projection
    population: Posterior
    scatter: WithinScatter | None = None
    axes: Projection | None = None

    def on(self, device: torch.device | str) -> Learnt:
        """The same with the population on another device."""
        return replace(self, population=self.population.to(device))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of classes that the population knows."""
        return tuple(self.population.coords.get("class_name", ()))

    def _card(self) -> Card:
        """The projection's size, and the population as its posterior shows it."""
        size = f"{self.projection.input_dim} to {self.projection.dim} features"
        kind = type(self.projection).__name__
        return replace(self.population._card(), title=f"Learnt: {kind}, {size}; population")


@dataclass(frozen=True, repr=False)
class Study(Shown):
    """A model, engines and an evaluation, composed.

    Attributes:
        model: what is believed.
        engine: infers each task, given the population.
        evaluation: which episodes to learn from and to score.
        population_engine: learns the population; `engine` by default.
        objective: turns the model into the program that the population is learnt with, such as
            `bayesfs.models.objectives.PredictiveScore`; the model itself by default.
        reduction: which features to keep.
        dtype: floating-point type of all inference.
        device: where tensors live, such as "cpu" or "cuda"; None takes the best there is that has
            the type. Draws are the same on every device up to rounding; what is labelled (tables,
            DataTrees, reports) is on the CPU as ever.

    Example:
        >>> learnt = study.learn(embeddings, seed=0)  # doctest: +SKIP
        >>> tasks = study.tasks(embeddings, learnt, seed=0)  # doctest: +SKIP
        >>> study.infer(tasks.limit_shots(1), learnt, seed=0).predictive  # doctest: +SKIP
    """

    model: Model
    engine: Engine
    evaluation: Evaluation
    population_engine: Engine | None = None
    objective: Objective | None = None
    reduction: FeatureReduction = field(default_factory=PrincipalAxes)
    dtype: torch.dtype = torch.float64
    device: torch.device | str | None = None

    def _card(self) -> Card:
        """What it is composed of, each a line."""
        objective = self.objective.__name__ if isinstance(self.objective, type) else self.objective
        told = {
            "model": self.model,
            "engine": self.engine,
            "evaluation": self.evaluation,
            "population engine": self.population_engine or "the same engine",
            "objective": objective or "the model itself",
            "reduction": self.reduction,
            "dtype, device": f"{self.dtype}, {self.device or 'the best there is'}",
        }
        return Card("Study", [*told.items()])

    @property
    def place(self) -> torch.device:
        """Where tensors live.

        Raises:
            DataError: this machine has no such device, or the device not this type.
        """
        return usable_device(self.device, self.dtype)

    def placed(self, episodes: EpisodeBatch) -> EpisodeBatch:
        """Tasks in the study's type, where its tensors live."""
        return episodes.to(self.dtype).to(self.place)

    def check(self, embeddings: Embeddings, *, seed: int) -> None:
        """Refuse data that cannot be scored, and a model that is not for the engine.

        What is wrong with the tasks, or to be warned of, is then known before anything is learnt.

        Args:
            embeddings: backbone features.
            seed: of the episodes.

        Raises:
            DataError: the evaluation cannot draw its tasks from these frames, or they were not
                measured as the model asks.
            InferenceError: the engine is not for this model.
        """
        self.engine.check_model(self.model)
        check_covariates(self.model, embeddings)
        self.evaluation.test_episodes(embeddings, seed=seed)

    def learn(
        self,
        embeddings: Embeddings | Sequence[Embeddings],
        *,
        seed: int,
        episode_seed: int | None = None,
        progress: Progress | None = None,
    ) -> Learnt:
        """Learn the projection and the population from the evaluation's train episodes.

        Args:
            embeddings: backbone features of one world or of several; only frames of the train
                episodes are used. Users of different worlds are different people, whatever their
                names.
            seed: of the inference.
            episode_seed: of the episodes; `seed` by default.
            progress: what the engine reports to; a bar on standard error by default.

        Returns:
            What the tasks are inferred with.

        Raises:
            DataError: the evaluation's episodes do not say which frames they hold, or the frames
                were not measured as the model asks.
            InferenceError: the engine is not for this model.
        """
        self.engine.check_model(self.model)
        if not isinstance(embeddings, Embeddings):
            embeddings = together(embeddings)
        check_covariates(self.model, embeddings)
        drawn = seed if episode_seed is None else episode_seed
        used = frames_of(embeddings, self.lesson(embeddings, seed=drawn))
        projection = self.reduction.fit(used)
        episodes = self.lesson(self.reduction.cross_fit(used, projection.dim), seed=drawn)
        names = labels_over(episodes)
        model, scatter, axes = self.model_for(projection, labels=names), None, None
        if isinstance(model, TakesScatter):
            unit = projection(used)
            scatter = scatter_of(unit)
            users = set(unit.coord("user").tolist())
            model = model.with_scatters({u: scatter_of(unit, without=u) for u in users})
        if isinstance(model, TakesAxes):
            unit = projection(used)
            axes = model.reduction.fit(unit)
            model = model.with_each_axes(axes, fitted_on_others(unit, model.reduction.fit))
        program = model if self.objective is None else self.objective(model)
        engine = self.population_engine or self.engine
        episodes = self.placed(episodes)
        with bar("population") if progress is None else nullcontext(progress) as report:
            posterior = engine.infer(program, episodes, seed=seed, progress=report)
        if set(program.dims) <= set(posterior.draws):
            posterior = with_densities(program, posterior, episodes)
        if isinstance(model, NamesClasses):
            posterior = with_names(model, posterior, episodes, seed=seed)
        posterior = with_coords(model, posterior)
        return Learnt(projection, population_of(posterior), scatter, axes)

    def lesson(self, embeddings: Embeddings, *, seed: int) -> EpisodeBatch:
        """What the objective learns from, as the evaluation draws it."""
        if self.objective is None or not self.objective.needs_query:
            return self.evaluation.train_episodes(embeddings, seed=seed)
        tasks = self.evaluation.train_tasks(embeddings, seed=seed)
        if tasks is None:
            raise DataError(
                f"{self.objective} learns from labelled queries, but the evaluation "
                f"{type(self.evaluation).__name__} draws none (train_tasks)"
            )
        return tasks

    def model_for(
        self,
        projection: Projection,
        scatter: WithinScatter | None = None,
        labels: tuple[str, ...] = (),
        axes: Projection | None = None,
    ) -> Model:
        """The model, fitted to the features' spectrum, told others' scatter, axes and names."""
        model = self.model.fit_to(tuple(projection.spectrum.tolist()))
        if isinstance(model, NamesClasses):
            model = model.with_labels(labels)
        if scatter is not None and isinstance(model, TakesScatter):
            model = model.with_scatter(scatter)
        if axes is not None and isinstance(model, TakesAxes):
            model = model.with_axes(axes)
        return model

    def model_of(self, learnt: Learnt) -> Model:
        """The model as it is for tasks, given what was learnt."""
        return self.model_for(learnt.projection, learnt.scatter, learnt.labels, learnt.axes)

    def tasks(self, embeddings: Embeddings, learnt: Learnt, *, seed: int) -> EpisodeBatch:
        """The episodes to score, at the largest number of shots, in the model's features."""
        projected = learnt.projection(embeddings)
        return self.placed(self.evaluation.test_episodes(projected, seed=seed))

    def train_tasks(
        self, embeddings: Embeddings, learnt: Learnt, *, seed: int
    ) -> EpisodeBatch | None:
        """Tasks of the train users, drawn as those to score are, for rules that are learnt on them.

        Each user's features are by axes fitted on the other users, as a new user's would be
        (`PrincipalAxes.cross_fit`); the population has seen him.

        Args:
            embeddings: backbone features.
            learnt: what was learnt from the train users; gives the number of features.
            seed: of the episodes.

        Returns:
            The tasks; None where the evaluation draws none (`Evaluation.calibration_episodes`).
        """
        drawn = self.evaluation.calibration_episodes(embeddings, seed=seed)
        if drawn is None:
            return None
        used = frames_of(embeddings, drawn)
        crossed = self.reduction.cross_fit(used, learnt.projection.dim)
        episodes = self.evaluation.calibration_episodes(crossed, seed=seed)
        return None if episodes is None else self.placed(episodes)

    def infer(
        self,
        episodes: EpisodeBatch,
        learnt: Learnt,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Answer:
        """Posterior, predictive and uncertainty of tasks, given the population.

        Args:
            episodes: tasks in the model's features, such as `tasks` gives.
            learnt: what was learnt from other users.
            seed: of the inference.
            progress: what the engine reports to.

        Returns:
            The answer, its tensors where the tasks are, its uncertainty labelled.
        """
        model, learnt = self.model_of(learnt), learnt.on(episodes.support.device)
        posterior = self.engine.infer(
            model, episodes, seed=seed, given=learnt.population, progress=progress
        )
        posterior = with_coords(model, posterior)
        predictive = predict(model, posterior, episodes, given=learnt.population)
        uncertainty = decompose(predictive, episodes)
        return Answer(episodes, model, posterior, predictive, uncertainty)

    def settled(
        self,
        episodes: EpisodeBatch,
        learnt: Learnt,
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Answer:
        """As `infer`, with more draws until the epistemic share is known well enough to print.

        That is to `bayesfs.diagnostics.verdicts.SHARE_ERROR_MAX`, where the engine has more draws
        to give (`bayesfs.protocols.Engine.with_more_draws`); else the error says what is lacking.
        """
        answer = self.infer(episodes, learnt, seed=seed, progress=progress)
        error = answer.monte_carlo(learnt).share_error
        if not error > SHARE_ERROR_MAX:
            return answer
        factor = SPARE * (error / SHARE_ERROR_MAX) ** 2
        more = self.engine.with_more_draws(factor, learnt.population)
        if more is None:
            return answer
        return replace(self, engine=more).settled(episodes, learnt, seed=seed, progress=progress)


@dataclass(frozen=True, repr=False)
class Answer(Shown):
    """What is known about a batch of tasks.

    Attributes:
        episodes: the tasks.
        model: the model, as it was told the features' spectrum.
        posterior: of the task-level sites.
        predictive: of every query frame and video.
        uncertainty: total, aleatoric and epistemic, in nats.
    """

    episodes: EpisodeBatch
    model: Model
    posterior: Posterior
    predictive: Predictive
    uncertainty: xr.Dataset

    def _card(self) -> Card:
        """The tasks' sizes and what was made of them, its own card each."""
        shape = self.episodes.query_labels.shape
        sites = ", ".join(self.posterior.draws)
        facts: list[tuple[str, object]] = [
            ("model", type(self.model).__name__),
            ("tasks × asked", " × ".join(map(str, shape))),
            ("posterior", f"{self.posterior.num_draws} draws ({self.posterior.kind}) of {sites}"),
        ]
        asked = self.episodes.video_mask.cpu().numpy()
        rows = [
            (part, short_number(float(self.uncertainty[f"video_{part}"].to_numpy()[asked].mean())))
            for part in ("total", "aleatoric", "epistemic")
        ]
        return Card("Answer", facts, ("uncertainty", "mean, nats"), rows)

    def to_datatree(self, learnt: Learnt, attrs: Mapping[str, str | int | float]) -> xr.DataTree:
        """Everything as one DataTree in ArviZ's schema, with scores and predictive checks besides.

        Args:
            learnt: what the tasks were inferred with.
            attrs: further root attributes.
        """
        learnt = learnt.on(self.episodes.support.device)
        draws = complete_draws(self.model, self.posterior, learnt.population)
        dims = {**self.model.dims, **self.posterior.dims}
        whole = self.posterior.changed(draws=draws, dims=dims)
        tree = assemble_tree(
            self.posterior,
            self.predictive,
            self.uncertainty,
            self.episodes,
            model=self.model,
            population=learnt.population,
            support_log_prob=support_log_prob(self.model, whole, self.episodes),
            left_out_log_prob=self._left_out(draws),
            attrs=attrs,
        )
        tree["baseline"] = xr.DataTree(baseline_group(self.episodes))
        tree["monte_carlo"] = xr.DataTree(xr.Dataset(self.monte_carlo(learnt)._asdict()))
        if (pulled := shrinkage(self.model, draws, self.episodes)) is not None:
            tree["shrinkage"] = xr.DataTree(pulled)
        tree["scores"] = xr.DataTree(score_table(self.predictive, self.episodes))
        tree["prior_check"] = xr.DataTree(
            prior_check(self.model, self.episodes, given=learnt.population)
        )
        tree["posterior_check"] = xr.DataTree(posterior_check(self.model, whole, self.episodes))
        tree["label_check"] = xr.DataTree(label_check(tree))
        if (prior := population_prior(self.model, self.episodes)) is not None:
            tree["population_prior"] = xr.DataTree(posterior_group(prior, None))
        return tree

    def monte_carlo(self, learnt: Learnt) -> MonteCarlo:
        """Mean uncertainty of the query videos and its epistemic share, with Monte Carlo errors."""
        population = learnt.on(self.episodes.support.device).population
        blocks = blocks_of(self.model, self.posterior, population)
        return monte_carlo(self.predictive.video, self.episodes.video_mask, blocks)

    def _left_out(self, draws: Mapping[str, Tensor]) -> Tensor | None:
        """Log probability of each support video without it, where that is known exactly."""
        if self.posterior.kind != "exact" or not isinstance(self.model, Collapsible):
            return None
        values = [*each_value(distinct_population(self.model, draws))]
        return left_out_log_prob(self.model, values, self.episodes)


def with_coords(model: Model, posterior: Posterior) -> Posterior:
    """The posterior with the model's names of the places along its axes."""
    axes = {axis for dims in posterior.dims.values() for axis in dims}
    names = {axis: places for axis, places in model.coords.items() if axis in axes}
    return posterior.changed(coords={**names, **posterior.coords})


def frames_of(embeddings: Embeddings, episodes: EpisodeBatch) -> Embeddings:
    """The frames that episodes hold, in the order of the embeddings.

    Raises:
        DataError: the episodes do not say which frames they hold.
    """
    if episodes.support_frame is None or episodes.query_frame is None:
        raise DataError(
            "expected episodes with support_frame and query_frame, so that the projection is "
            "fitted on their frames only; were they drawn by bayesfs.data.sampling?"
        )
    rows = torch.cat([episodes.support_frame.flatten(), episodes.query_frame.flatten()])
    used = np.unique(rows[rows >= 0].cpu().numpy())
    frames = Embeddings.of_own(embeddings.dataset.isel(frame=used))
    found, meant = set(frames.coord("user").tolist()), set(episodes.users)
    if episodes.tasks and found != meant:
        raise DataError(
            f"the episodes are of {sorted(meant)} but their rows are frames of {sorted(found)}; "
            "did the evaluation draw them from a part of the embeddings?"
        )
    return frames


def check_covariates(model: Model, embeddings: Embeddings) -> None:
    """Refuse frames whose measured qualities are others than the model's, or in another order.

    Args:
        model: whose covariates, if it has any, are named.
        embeddings: whose qualities may be named.

    Raises:
        DataError: the names differ.
    """
    data, wanted = embeddings.dataset, model.covariates
    named = "covariate" in data.coords or "quality" not in data
    held = tuple(map(str, data["covariate"].values)) if "covariate" in data.coords else ()
    if wanted and named and wanted != held:
        raise DataError(
            f"expected frames with the measured qualities {', '.join(wanted)}, as the model has "
            f"covariates, got {', '.join(held) or 'none'}; a model takes all of them, in this order"
        )


def scatter_of(embeddings: Embeddings, *, without: str | None = None) -> WithinScatter:
    """Scatter of the videos' mean frames, at unit length, about the objects of each user.

    Args:
        embeddings: frames at unit length.
        without: a user who is left out. Videos vary least along the axes that they were found by:
            in a metric that their own scatter had a part in, a user's objects lie further apart
            than a new user's will, and the head that uses it would be trusted too much.
    """
    if without is not None:
        rest = embeddings.coord("user") != without
        embeddings = Embeddings.of_own(embeddings.dataset.isel(frame=np.flatnonzero(rest)))
    names = ("user", "object", "condition", "video")
    labels = zip(*(embeddings.coord(n).tolist() for n in names), strict=True)
    table = np.array([*labels], str).reshape(-1, len(names))
    videos, row = np.unique(table, axis=0, return_inverse=True)
    total = np.zeros((len(videos), embeddings.features.shape[1]))
    np.add.at(total, row.ravel(), embeddings.features.astype(np.float64))
    length = np.linalg.norm(total, axis=1, keepdims=True)
    unit = total / np.where(length > 0, length, 1.0)
    thing, recorded, place = (
        np.unique(videos[:, columns], axis=0, return_inverse=True)[1].ravel()
        for columns in ([0, 1], [0, 1, 2], [0, 2])
    )
    like, unlike = likeness(unit, recorded), unlikeness(unit, thing, place)
    return replace(WithinScatter.fit(unit, thing), like=like, unlike=unlike)


def labels_over(episodes: EpisodeBatch) -> tuple[str, ...]:
    """Names of classes over all tasks, sorted."""
    return tuple(sorted({name for own in episodes.classes for name in own if name}))


def with_names(
    model: NamesClasses, posterior: Posterior, episodes: EpisodeBatch, *, seed: int
) -> Posterior:
    """The posterior of a population with what its names share, drawn where it was integrated out.

    It is drawn again for some draws of the scales, so that what it leaves open can be told from
    what the scales do (`bayesfs.uncertainty.by_level`).

    Args:
        model: with the labels of these tasks.
        posterior: of the scales at least.
        episodes: the tasks that it was learnt from.
        seed: of the draws.
    """
    coords = {**posterior.coords, "class_name": labels_over(episodes)}
    dims = {s: axes for s, axes in model.population_dims.items() if s not in model.scale_dims}
    with torch.no_grad():
        drawn = with_repeats(
            posterior, dims, lambda scales: model.pooled(episodes, scales, seed=seed)
        )
    return drawn.changed(coords=coords)


def population_of(posterior: Posterior) -> Posterior:
    """The population sites of a posterior alone: nothing of any single user."""
    draws = posterior.population
    dims = {site: posterior.dims[site] for site in draws}
    coords = {axis: labels for axis, labels in posterior.coords.items() if axis != "task"}
    return posterior.changed(draws=draws, dims=dims, coords=coords)
