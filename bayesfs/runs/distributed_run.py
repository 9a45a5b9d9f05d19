"""A study of very many users kept in a run directory: learnt here, scored on a cluster.

Use `run_on_cluster`. The directory holds what `bayesfs.runs.run` keeps there, but of a few users
only, drawn at random: everybody's predictions are in `results.zarr`, everybody's scores in
`scores.json`. The report has the scores of everybody, and shows these few.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

from bayesfs._utils.progress import bar
from bayesfs.data.user_rows import quick_fingerprint, read_rows, user_rows
from bayesfs.errors import DataError
from bayesfs.results.table_scores import save_summary, summary
from bayesfs.results.tables import scored_users
from bayesfs.runs.directory import RunDirectory
from bayesfs.runs.distributed import ScoringJob, connect, score_users
from bayesfs.runs.reading import SCORES_FILE, load_scores
from bayesfs.runs.run import (
    Finished,
    Order,
    answer_tasks,
    facts_of,
    finished,
    identity_with,
    keep_metrics,
    learn,
    noted,
)
from bayesfs.study import Learnt, Study
from bayesfs.types import Embeddings

RESULTS = "results.zarr"

SHOWN = 12
"""Users whom the report shows one by one."""


def run_on_cluster(order: Order, out: Path) -> Finished:
    """Learn, infer, predict, score and report, going on from where an interrupted run stopped.

    Args:
        order: what to do; `order.cluster` says where.
        out: run directory, new or of the same order.

    Returns:
        The report and the scores.

    Raises:
        RunError: the directory holds something else or is in use, or the cluster is lost.
        BayesfsError: the data, a recipe or an engine is at fault.
    """
    run = RunDirectory(out)
    inputs = {**identity_with(order, quick_fingerprint(order.store)), "cluster": True}
    with run.begin(inputs, {**order.sources, **order.full}):
        made: dict[int, xr.DataTree] = {}
        if not run.is_done:
            learnt = learn(run, order, lambda: shown_frames(order.study, order.store, ()))
            if run.kept(SCORES_FILE) is None:
                _score(run, order, learnt)
            made = conclude(run, order, learnt)
        return finished(run, order, made)


def job_of(run: RunDirectory, order: Order, learnt: Learnt) -> ScoringJob:
    """What everybody who scores is given."""
    results = run.path.resolve() / RESULTS
    return ScoringJob(order.study, learnt.on("cpu"), order.store.resolve(), results, order.seeds)


def conclude(run: RunDirectory, order: Order, learnt: Learnt) -> dict[int, xr.DataTree]:
    """Scores of everybody, once every group of results is there, and what is shown of a few."""
    if run.kept(SCORES_FILE) is None:
        results = run.path / RESULTS
        found = {shots: summary(results, shots) for shots in order.study.evaluation.shots}
        run.keep(SCORES_FILE, partial(save_summary, found))
    made = _show(run, order, learnt)
    rows = user_rows(order.store)
    frames = sum(high - low for ranges in rows.values() for low, high in ranges)
    keep_metrics(run, load_scores(run))
    run.finish(**facts_of(order, run.path, frames, len(rows)))
    return made


def shown_frames(study: Study, store: Path, shown: Sequence[str]) -> Embeddings:
    """Frames of the users that the population is learnt from, and of those that a report shows.

    Raises:
        DataError: there are no users to learn from.
    """
    split = study.evaluation.train_split
    train = user_rows(store, split)
    if not train:
        raise DataError(f"expected frames of the split {split!r} in {str(store)!r}, found none")
    rows = [r for ranges in train.values() for r in ranges]
    if shown:
        everybody = user_rows(store, study.evaluation.test_split)
        rows += [r for name in shown for r in everybody.get(name, ())]
    return read_rows(store, rows)


def _score(run: RunDirectory, order: Order, learnt: Learnt) -> None:
    """Everybody's results."""
    with (
        noted(run, "warnings"),
        connect(order.cluster or "local") as client,
        bar("users") as progress,
    ):
        score_users(client, job_of(run, order, learnt), progress=progress)


def _show(run: RunDirectory, order: Order, learnt: Learnt) -> dict[int, xr.DataTree]:
    """Everything that is known of a few users, drawn at random, and whom the report shows."""
    known = scored_users(run.path / RESULTS, order.study.evaluation.shots[-1])
    few = np.random.default_rng(order.seeds.fit).permutation(len(known))[:SHOWN]
    shown = [known[i] for i in sorted(few.tolist())]
    with noted(run, "warnings"):
        made = answer_tasks(run, order, shown_frames(order.study, order.store, shown), learnt)
    note = f"Scores are of all {len(known)} people. "
    if len(shown) < len(known):
        note += f"Everything else shows {len(shown)} of them, drawn at random."
    run.note(shown=shown, note=note.strip())
    return made
