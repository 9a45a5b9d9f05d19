"""A study kept in a run directory: learnt once, scored at every number of shots, then reported.

Use `run_study`; `bayesfs.runs.reading` reads what it keeps, and reports.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
import xarray as xr

from bayesfs._utils.places import place_from, without_places
from bayesfs._utils.progress import bar, duration
from bayesfs._utils.threads import torch_threads
from bayesfs.data.store import open_store, read_skipped, store_attrs
from bayesfs.diagnostics.prior_sensitivity import prior_sensitivity
from bayesfs.errors import RunError
from bayesfs.explanation.recording import MOST_TASKS, record_explanations
from bayesfs.features.extraction.job import sampling_of, sampling_text
from bayesfs.protocols import Conjugate, Progress
from bayesfs.recipes.written import differences
from bayesfs.results.store import as_saved, save_datatree
from bayesfs.runs.compose import run_versions
from bayesfs.runs.directory import RunDirectory
from bayesfs.runs.lending import IDENTITY, WARNINGS, alone, borrow, population_identity
from bayesfs.runs.reading import (
    EXPLANATIONS,
    Inputs,
    load_scores,
    load_trees,
    report_run,
    results_name,
)
from bayesfs.runs.record import values_of
from bayesfs.runs.rules import keep_rules
from bayesfs.runs.scored import keep_scored
from bayesfs.study import Learnt, Seeds, Study
from bayesfs.training.checkpoint import (
    load_posterior,
    load_projection,
    load_scatter,
    save_posterior,
    save_projection,
    save_scatter,
)
from bayesfs.types import Embeddings

METRICS = "metrics.json"
"""File of a run directory: scores for DVC and MLflow."""


@dataclass(frozen=True)
class Order:
    """What a run is asked to do.

    Attributes:
        study: model, engines and evaluation.
        store: feature store with the frames of all users.
        sources: recipe -> its text, kept in the run directory and part of the run's identity.
        settings: what was overridden, as on the command line.
        smoke: whether everything was made tiny.
        seeds: of the episodes and of the inference.
        pictures: whether the report may show thumbnails.
        cluster: score on a cluster, see `bayesfs.runs.distributed.connect`; in this process by
            default.
        full: file name -> text of what says every field, kept beside `sources`.
    """

    study: Study
    store: Path
    sources: Mapping[str, str]
    settings: tuple[str, ...] = ()
    smoke: bool = False
    seeds: Seeds = field(default_factory=Seeds)
    pictures: bool = True
    cluster: str | None = None
    full: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """What a run ends with.

    Attributes:
        report: where it is.
        scores: number of support videos -> scores with intervals over users.
    """

    report: Path
    scores: Mapping[int, xr.Dataset]


def run_study(order: Order, out: Path) -> Finished:
    """Learn, infer, predict, score and report, from where an interrupted run stopped.

    Args:
        order: what to do.
        out: run directory, new or of the same order.

    Returns:
        The report and the scores.

    Raises:
        RunError: the directory holds something else, is in use, or cannot be written.
        BayesfsError: the data, a recipe or an engine is at fault.
    """
    with completed(order, out) as (run, made):
        return finished(run, order, made)


@contextlib.contextmanager
def completed(
    order: Order, out: Path, beside: Path | None = None
) -> Iterator[tuple[RunDirectory, dict[int, xr.DataTree]]]:
    """The directory of a run with all its results, held, without a report.

    Args:
        order: what to do.
        out: run directory.
        beside: folder of runs that may have learnt the same population already.

    Yields:
        The directory, and number of support videos -> the DataTree of those that were made now.

    Raises:
        BayesfsError: as `run_study`.
    """
    embeddings = open_store(order.store)
    run = RunDirectory(out)
    with run.begin(identity(order, embeddings), {**order.sources, **order.full}):
        made: dict[int, xr.DataTree] = {}
        if not run.is_done:
            with noted(run, "warnings"):
                order.study.check(embeddings, seed=order.seeds.episodes)
                learnt = learn(run, order, lambda: embeddings, beside)
                made = answer_tasks(run, order, embeddings, learnt)
            users = len(np.unique(embeddings.coord("user")))
            trees = load_trees(run, made)
            keep_metrics(run, load_scores(run, trees))
            keep_scored(run, trees)
            run.finish(**facts_of(order, out, len(embeddings), users))
        yield run, made


@contextlib.contextmanager
def stage(run: RunDirectory, title: str) -> Iterator[Progress]:
    """A part of a run: a bar, and a line in the run's log where it begins and where it ends."""
    began = time.monotonic()
    run.log(f"{title} begins")
    with bar(title) as progress:
        yield progress
    run.log(f"{title} done in {duration(time.monotonic() - began)}")


def keep_metrics(run: RunDirectory, scores: Mapping[int, xr.Dataset]) -> None:
    """Keep the scores as one flat JSON object, as DVC and MLflow read metrics."""
    text = json.dumps(flat_metrics(scores), indent=2, allow_nan=False) + "\n"
    run.keep(METRICS, lambda path: path.write_text(text, encoding="utf-8"))


def flat_metrics(scores: Mapping[int, xr.Dataset]) -> dict[str, float]:
    """Name, such as video_nll_5_shots, -> value, of every score that is known."""
    found = {
        f"{item}_{score}_{shots}_shots": float(table["estimate"].sel(item=item, score=score))
        for shots, table in sorted(scores.items())
        for item in table["item"].to_numpy().tolist()
        for score in table["score"].to_numpy().tolist()
    }
    return {name: value for name, value in found.items() if np.isfinite(value)}


def finished(run: RunDirectory, order: Order, made: Mapping[int, xr.DataTree]) -> Finished:
    """The end of a run: its report, unless there is one, and its scores.

    Args:
        run: finished run.
        order: what was asked.
        made: from `answer_tasks`.
    """
    trees = load_trees(run, made)
    report = run.path / "report.html"
    if not report.exists():
        report_run(run.path, store=order.store, trees=trees)
    return Finished(report, load_scores(run, trees))


def seeds_of(inputs: Inputs) -> Seeds:
    """Seeds of a run."""
    return Seeds(inputs.get("episode_seed", inputs["seed"]), inputs["seed"])


def identity(order: Order, embeddings: Embeddings) -> Inputs:
    """What decides the result of a run; a directory goes on with the same identity only."""
    return identity_with(order, store_fingerprint(embeddings))


def identity_with(order: Order, data: str) -> Inputs:
    """The same with a fingerprint of the data that is known."""
    return {
        "recipes": {name: recipe_digest(text) for name, text in order.sources.items()},
        "settings": list(order.settings),
        "smoke": order.smoke,
        "seed": order.seeds.fit,
        "episode_seed": order.seeds.episodes,
        "data": data,
        "thumbnails": order.pictures,
        "version": version("bayesfs"),
    }


def store_fingerprint(embeddings: Embeddings) -> str:
    """SHA-256 of everything that is known of every frame: features, quality, labels, flags."""
    digest = hashlib.sha256()
    for name in sorted(map(str, embeddings.dataset.variables)):
        values = embeddings.dataset[name].values
        text = values.dtype.kind in "OSU"
        digest.update(f"{name} {'text' if text else values.dtype} {values.shape}\0".encode())
        digest.update(
            "\0".join(map(str, values.ravel().tolist())).encode("utf-8", "surrogatepass")
            if text
            else np.ascontiguousarray(values).tobytes()
        )
    return digest.hexdigest()


def load_learnt(run: RunDirectory) -> Learnt:
    """What a run has learnt about people in general.

    Raises:
        RunError: it has not come so far.
    """
    projection, population = run.kept("projection.npz"), run.kept("population.npz")
    if projection is None or population is None:
        raise RunError(f"{run.path}: has no population yet; run the same `bayesfs run` again")
    scatter, axes = run.kept("scatter.npz"), run.kept("axes.npz")
    return Learnt(
        load_projection(projection),
        load_posterior(population),
        None if scatter is None else load_scatter(scatter),
        None if axes is None else load_projection(axes),
    )


def learn(
    run: RunDirectory,
    order: Order,
    frames: Callable[[], Embeddings],
    beside: Path | None = None,
) -> Learnt:
    """What is known about people in general, learnt unless the run or another one has it already.

    Args:
        run: the directory that keeps it.
        order: what to do.
        frames: gives the frames of the train users at least.
        beside: folder of runs to look in; none by default.
    """
    if run.kept("population.npz") is None:
        embeddings = frames()
        if beside is None:
            _learn(run, order, embeddings)
        else:
            identity = _note_population(run, order, embeddings)
            with alone(beside, identity):
                if not borrow(run, beside, identity):
                    _learn(run, order, embeddings)
    return load_learnt(run).on(order.study.place)


def _note_population(run: RunDirectory, order: Order, embeddings: Embeddings) -> str:
    """Keep what the population follows from, for other runs that may learn the same."""
    inputs = run.state()["inputs"]
    source = json.dumps([inputs[n] for n in ("recipes", "data", "smoke", "version")])
    lesson = order.study.lesson(embeddings, seed=order.seeds.episodes)
    found = population_identity(order.study, lesson, order.seeds.fit, source)
    run.note(**{IDENTITY: found})
    return found


def _learn(run: RunDirectory, order: Order, embeddings: Embeddings) -> None:
    seeds = order.seeds
    with noted(run, WARNINGS), stage(run, "population") as progress:
        learnt = order.study.learn(
            embeddings, seed=seeds.fit, episode_seed=seeds.episodes, progress=progress
        )
    run.keep("projection.npz", lambda path: save_projection(learnt.projection, path))
    if (scatter := learnt.scatter) is not None:
        run.keep("scatter.npz", lambda path: save_scatter(scatter, path))
    if (axes := learnt.axes) is not None:
        run.keep("axes.npz", lambda path: save_projection(axes, path))
    run.keep("population.npz", lambda path: save_posterior(learnt.population, path))


def answer_tasks(
    run: RunDirectory, order: Order, embeddings: Embeddings, learnt: Learnt
) -> dict[int, xr.DataTree]:
    """Score the tasks at every number of support videos, and explain them at the largest.

    What the run keeps already is not made again; more than `MOST_TASKS` tasks are not explained.

    Returns:
        Number of support videos -> the DataTree, of those that were made now.
    """
    study, seeds, seed = order.study, order.seeds, order.seeds.fit
    made: dict[int, xr.DataTree] = {}
    scored = [shots for shots in study.evaluation.shots if run.kept(results_name(shots))]
    if len(scored) == len(study.evaluation.shots) and run.kept(EXPLANATIONS) is not None:
        return made
    tasks = study.tasks(embeddings, learnt, seed=seeds.episodes)
    small = isinstance(study.model, Conjugate)  # then a task's answer is the algebra of its classes
    with torch_threads() if small else contextlib.nullcontext():
        for shots in study.evaluation.shots:
            last = shots == max(study.evaluation.shots)
            explained = not last or len(tasks) > MOST_TASKS or run.kept(EXPLANATIONS) is not None
            if shots in scored and explained:
                continue
            title = f"tasks at {shots} video{'s' if shots > 1 else ''} per object"
            with stage(run, title) as progress:
                answer = study.settled(
                    tasks.limit_shots(shots), learnt, seed=seed, progress=progress
                )
                if shots not in scored:
                    tree = answer.to_datatree(learnt, {"shots": shots, **study_names(study)})
                    if last:
                        keep_sensitivity(tree)
                    run.keep(results_name(shots), partial(save_datatree, tree))
                    made[shots] = as_saved(tree)
            if not explained:
                with stage(run, "explanations"):
                    rules = keep_rules(run, study, learnt, embeddings, seeds=seeds).get(shots)
                    run.keep(
                        EXPLANATIONS, record_explanations(answer, learnt, rules, seed=seed).save
                    )
    return made


def keep_sensitivity(tree: xr.DataTree) -> None:
    """Put what the population's prior decides into the tree: its random deals take seconds."""
    table = prior_sensitivity(tree) if "population" in tree.children else pd.DataFrame()
    if len(table):
        tree["prior_sensitivity"] = xr.DataTree(xr.Dataset.from_dataframe(table))


def study_names(study: Study) -> dict[str, str]:
    """Classes of model, engine and evaluation."""
    parts = {"model": study.model, "engine": study.engine, "evaluation": study.evaluation}
    return {name: type(value).__name__ for name, value in parts.items()}


def facts_of(order: Order, out: Path, frames: int, users: int) -> dict[str, Any]:
    """What a report tells of a run: settings, data, and what was left out of these.

    Args:
        order: what was asked.
        out: run directory, from which the store is told.
        frames: number of frames.
        users: number of users.
    """
    attrs = store_attrs(order.store)
    skipped = [without_places(f"{s.path}: {s.reason}") for s in read_skipped(attrs)]
    facts = {
        **{name.capitalize(): kind for name, kind in study_names(order.study).items()},
        "Settings": ", ".join(order.settings) or "those of the recipes",
        "Differs from the defaults": "; ".join(differences(values_of(order.study))) or "nothing",
        **({"Smoke run": "everything tiny, the numbers mean nothing"} if order.smoke else {}),
        "Device": f"{order.study.place.type}, {str(order.study.dtype).removeprefix('torch.')}",
        "Seed": order.seeds.fit,
        **_episode_seed(order.seeds),
        "Pixels": attrs.get("px", "unknown"),
        "Backbone": attrs.get("backbone", "unknown"),
        "Sampling": sampling_text(sampling_of(attrs)),
        "Frames": frames,
        "Users": users,
        "Left out": f"{attrs.get('skipped_count', 0)} files, frames or videos",
        "Versions": ", ".join(f"{name} {v}" for name, v in run_versions().items()),
    }
    return {
        "facts": facts,
        "skipped": skipped,
        "store": place_from(out, order.store),
        "sampling": str(attrs.get("sampling", "")),
    }


def _episode_seed(seeds: Seeds) -> dict[str, int]:
    return {} if seeds.episodes == seeds.fit else {"Seed of the episodes": seeds.episodes}


@contextlib.contextmanager
def noted(run: RunDirectory, name: str) -> Iterator[None]:
    """Show each of a person's warnings once, and keep their texts in the run's state."""
    shown, texts = warnings.showwarning, list(run.state().get(name, []))

    def keep(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, UserWarning) and without_places(str(message)) not in texts:
            texts.append(without_places(str(message)))
            shown(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.showwarning = keep
        try:
            yield
        finally:
            run.note(**{name: texts})


def recipe_digest(text: str) -> str:
    """Checksum of a recipe's text, by which a run knows it."""
    return hashlib.sha256(text.encode()).hexdigest()
