"""One table of models x engines and baselines on one data set: `run_benchmark`.

Every cell (a method under a condition) is a file of the benchmark's folder, written when it is
finished. A benchmark that was interrupted goes on from there; with another model added, only the
new cells are computed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from bayesfs._utils.devices import usable_device
from bayesfs._utils.guarded_files import read_text
from bayesfs._utils.progress import bar
from bayesfs.benchmark.conditions import Condition, sweeps
from bayesfs.benchmark.corrupted_queries import corrupted_queries
from bayesfs.benchmark.corruptions import SEVERITIES
from bayesfs.benchmark.methods import BaselineMethod, Method, Ready, RecipeMethod, digest
from bayesfs.benchmark.table import print_table, write_tables
from bayesfs.benchmark.tasks import Rows, StillTasks, Tasks, UserTasks, unit_sums
from bayesfs.data.stills import read_stills, split_classes
from bayesfs.data.store import open_store
from bayesfs.errors import DataError, InferenceError, RecipeError, RunError
from bayesfs.evaluation.few_shot import FewShotProtocol
from bayesfs.evaluation.few_shot_scores import out_of_episode_auroc
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.features.reduction import PrincipalAxes
from bayesfs.models.baselines.classifiers import standard_baselines
from bayesfs.recipes.load import Recipe, load_recipe, recipe_folder
from bayesfs.recipes.overrides import shrink
from bayesfs.runs.compose import tell_store
from bayesfs.runs.directory import RunDirectory
from bayesfs.runs.run import store_fingerprint
from bayesfs.study import Study
from bayesfs.types import Embeddings

DEFAULTS = {
    "models": ("models/gaussian.py", "models/deep_kernel_gp.py"),
    "engines": ("inference/exact.py",),
    "evaluation": ("evaluation/clutter.py",),
}
"""Shipped recipes that are used where none is named."""


@dataclass(frozen=True)
class Plan:
    """What a benchmark is asked to do.

    Attributes:
        data: feature store, or labelled stills (npz or Zarr).
        models: recipes of models.
        engines: recipes of engines; every model goes with every engine.
        evaluation: recipe that says which users' tasks are scored; stills do not use it.
        baselines: whether the baselines are rows, too.
        axes: principal axes that baselines get.
        shots: numbers of support videos (pictures) per class.
        way: classes per task; 0 takes all of a user's, and 5 of the stills.
        ways: further numbers of classes, at the most shots.
        noises: levels of noise on the query's features, at the most shots.
        tree: recordings that the feature store was made from, to corrupt its query frames.
        corruptions: what to do to them, at the most shots.
        severities: how badly, 1 to 5.
        device: where frames are embedded again.
        episodes: episodes of stills per seed.
        seeds: seeds of the episodes of stills.
        meta_train: classes of stills to learn from; None takes three fifths.
        draws: bootstrap samples.
        seed: of everything random.
        smoke: make everything tiny.

    Raises:
        DataError: a condition cannot be, or corruptions lack recordings.
    """

    data: Path
    models: tuple[Path, ...] = ()
    engines: tuple[Path, ...] = ()
    evaluation: Path | None = None
    baselines: bool = True
    axes: int = 256
    shots: tuple[int, ...] = (1, 5)
    way: int = 0
    ways: tuple[int, ...] = ()
    noises: tuple[float, ...] = ()
    tree: Path | None = None
    corruptions: tuple[str, ...] = ()
    severities: tuple[int, ...] = SEVERITIES
    device: str | None = None
    episodes: int = 600
    seeds: int = 5
    meta_train: int | None = None
    draws: int = 1000
    seed: int = 0
    smoke: bool = False

    def __post_init__(self) -> None:
        if bool(self.corruptions) != bool(self.tree):
            raise DataError(
                "pictures are corrupted in recordings: expected --corruptions together with "
                "--tree, the tree that the feature store was made from"
            )
        if not self.shots or not self.severities:
            raise DataError("expected at least one number of shots, and one severity")
        _ = self.conditions  # refuses those that cannot be

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions of every method's cells."""
        shots = tuple(sorted(set(self.shots)))
        corruptions, severities = self.corruptions, tuple(sorted(set(self.severities)))
        if self.smoke:
            corruptions, severities = corruptions[:1], severities[-1:]
        found = sweeps(shots, self.way, self.ways, self.noises, corruptions, severities)
        return found[:1] + found[len(shots) :] if self.smoke else found


def run_benchmark(plan: Plan, out: Path) -> pd.DataFrame:
    """Compute what is missing of a benchmark, print its table and write it as CSV and JSON.

    Args:
        plan: what to do.
        out: folder of the cells, table.csv and table.json; new, or of the same data and protocol.

    Returns:
        One row per method, condition, item and score.

    Raises:
        RunError: the folder holds something else, or is in use.
        RecipeError: a recipe cannot be used.
        DataError: the data are no feature store or labelled stills.
    """
    run = RunDirectory(out)
    tasks = read_tasks(plan, run)
    methods = methods_of(plan)
    with run.begin(_identity(plan, tasks), recipes={}):
        if isinstance(tasks, UserTasks) and tasks.corrupted is not None:
            for condition in plan.conditions:
                if condition.severity:
                    tasks.corrupted.measured(condition.corruption, condition.severity)
        cells = [cell for method in methods for cell in _cells(run, plan, tasks, method)]
        table = write_tables(cells, out)
    if isinstance(tasks, UserTasks):
        tell_store(plan.data)
    print_table(cells)
    print(f"tables: {out / 'table.csv'}, {out / 'table.json'}")
    return table


def read_tasks(plan: Plan, run: RunDirectory) -> Tasks:
    """Users' tasks of a feature store, or episodes of labelled stills.

    Args:
        plan: what to do.
        run: the benchmark's folder.
    """
    if plan.data.is_dir() and all((plan.data / n).is_dir() for n in Embeddings.REQUIRED):
        path = plan.evaluation or recipe_folder() / DEFAULTS["evaluation"][0]
        values = dict(load_recipe(path, "evaluation").values)
        evaluation = (shrink(values) if plan.smoke else values)["evaluation"]
        embeddings, evaluation = open_store(plan.data), replace(evaluation, shots=plan.shots)
        tasks = UserTasks(embeddings, evaluation, plan.seed)
        if plan.tree is None:
            return tasks
        device = usable_device(plan.device)
        worse = corrupted_queries(
            embeddings, evaluation, plan.data, plan.tree, run, device=device, seed=plan.seed
        )
        return replace(tasks, corrupted=worse)
    if plan.tree is not None:
        raise DataError(
            f"{plan.data}: labelled features without recordings; pictures are corrupted for a "
            "feature store of `bayesfs features` only, features by --noise"
        )
    pictures = read_stills(plan.data)
    classes = len(np.unique(pictures.coord("object")))
    learn, score = split_classes(pictures, plan.meta_train or 3 * classes // 5, seed=plan.seed)
    protocol = FewShotProtocol(
        way=plan.way or 5,
        shots=max(plan.shots),
        episodes_per_seed=4 if plan.smoke else plan.episodes,
        seeds=tuple(range(1 if plan.smoke else plan.seeds)),
        query_split="test" if (pictures.coord("split") == "test").any() else "train",
    )
    return StillTasks(pictures, learn, score, protocol, plan.shots)


def methods_of(plan: Plan) -> list[Method]:
    """Every model with every engine, then the baselines.

    Raises:
        RecipeError: a recipe cannot be loaded, or two rows would have the same name.
    """
    shipped = recipe_folder()
    models = plan.models or tuple(shipped / name for name in DEFAULTS["models"])
    engines = plan.engines or tuple(shipped / name for name in DEFAULTS["engines"])
    read_models = [load_recipe(path, "model") for path in models]  # each is read once
    read_engines = [load_recipe(path, "engine") for path in engines]
    found: list[Method] = [
        _recipe(m, e, plan.smoke, plan.device) for m in read_models for e in read_engines
    ]
    if plan.baselines:
        axes = PrincipalAxes(16 if plan.smoke else plan.axes)
        baselines = standard_baselines(seed=plan.seed)
        found += [BaselineMethod(name, baseline, axes) for name, baseline in baselines.items()]
    names = [method.name for method in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecipeError(f"two recipes would both be called {twice[0]!r}; rename one file")
    return found


def _recipe(model: Recipe, engine: Recipe, smoke: bool, device: str | None) -> RecipeMethod:
    values = {**model.values, **engine.values}
    study = Study(**(shrink(values) if smoke else values), evaluation=HeldOutUsers())
    study = replace(study, device=usable_device(device, study.dtype))
    source = f"{model.source}\0{engine.source}"
    return RecipeMethod(f"{model.path.stem} / {engine.path.stem}", study, source)


def _identity(plan: Plan, tasks: Tasks) -> dict[str, Any]:
    """What all cells of a folder share; the methods may change."""
    if isinstance(tasks, UserTasks):
        protocol, data = repr(replace(tasks.evaluation, shots=(1,))), tasks.embeddings
    else:
        protocol, data = f"{tasks.protocol!r} {tasks.learn}", tasks.pictures
    return {
        "benchmark": 1,
        "data": store_fingerprint(data),
        "protocol": digest(protocol, plan.shots, plan.draws),
        "seed": plan.seed,
        "smoke": plan.smoke,
        "version": version("bayesfs"),
    }


def _cells(run: RunDirectory, plan: Plan, tasks: Tasks, method: Method) -> list[dict[str, Any]]:
    """The cells of one method, computed where they are not kept already."""
    names = {c: f"cell-{digest(method.name, method.identity, c)}.json" for c in plan.conditions}
    missing = [condition for condition, name in names.items() if run.kept(name) is None]
    if missing:
        with bar(method.name) as progress:
            learnt = _learn(plan, tasks, method)
            for i, condition in enumerate(missing):
                progress(i, len(missing), f"{condition.shots} shots")
                cell = _cell(plan, tasks, method, condition, learnt)
                text = json.dumps(cell, allow_nan=False)
                run.keep(names[condition], lambda path, text=text: path.write_text(text))  # type: ignore[misc]
    return [json.loads(read_text(_kept(run, name))) for name in names.values()]


def _kept(run: RunDirectory, name: str) -> Path:
    path = run.kept(name)
    if path is None:
        raise RunError(f"{run.path / name}: is missing; run the same command again")
    return path


@dataclass(frozen=True)
class _Learnt:
    """A method that has learnt, for each number of shots, or why it could not."""

    ready: dict[int, Ready]
    tasks_of: Callable[[Condition], Any]
    seconds: float
    failed: str = ""


def _learn(plan: Plan, tasks: Tasks, method: Method) -> _Learnt:
    torch.manual_seed(plan.seed)
    lesson = tasks.lesson(method.reduction)
    start = time.perf_counter()
    ready: dict[int, Ready] = {}
    failed = ""
    try:
        ready = method.learn(lesson, plan.shots, seed=plan.seed)
    except InferenceError as reason:
        failed = str(reason)
    seconds = time.perf_counter() - start
    return _Learnt(ready, lambda c: tasks.batches(lesson.projection, c), seconds, failed)


def _cell(
    plan: Plan, tasks: Tasks, method: Method, condition: Condition, learnt: _Learnt
) -> dict[str, Any]:
    """Everything that is kept of one method under one condition, as JSON values."""
    cell = {"method": method.name, **asdict(condition), "seconds_to_learn": learnt.seconds}
    if learnt.failed:
        return cell | {"failed": learnt.failed}
    try:
        rows, outside, seconds = _predict(tasks, condition, learnt)
    except InferenceError as reason:
        return cell | {"failed": str(reason)}
    unit = tasks.unit(rows)
    scores = tasks.summary(rows, outside, plan.draws)
    found = {
        "failed": "",
        "tasks": len(outside),
        "seconds_per_task": seconds / len(outside),
        "unit": "episode" if unit == "task" else unit,
        "scores": json.loads(scores.to_json(orient="records")),
        "units": unit_sums(rows, unit),
    }
    return cell | found


def _predict(
    tasks: Tasks, condition: Condition, learnt: _Learnt
) -> tuple[Rows, pd.DataFrame, float]:
    """Rows of all tasks of a condition, AUROC of each task, and the seconds that it took."""
    parts: list[Rows] = []
    outside, seconds = [], 0.0
    ready = learnt.ready[condition.shots]
    predict = ready.draw if condition.corruption else ready.predict
    for batch in learnt.tasks_of(condition):
        episodes = batch.to(torch.float64)
        start = time.perf_counter()
        predictive = predict(episodes)
        seconds += time.perf_counter() - start
        rows = tasks.rows(predictive, episodes)
        if condition.corruption and isinstance(tasks, UserTasks):
            rows = tasks.unsure(rows, predictive, episodes)
        parts.append(rows)
        auroc = out_of_episode_auroc(predictive, episodes)
        outside.append(pd.DataFrame({"task": episodes.tasks, "auroc": auroc}))
    rows = {item: pd.concat([p[item] for p in parts], ignore_index=True) for item in parts[0]}
    return rows, pd.concat(outside, ignore_index=True), seconds
