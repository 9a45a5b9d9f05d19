"""A study of very many users kept in a run directory: learnt here, scored on a cluster.

Use `run_on_cluster`. The directory holds what `bayesfs.runs` keeps there, with `results.zarr` and
`scores.json` in place of the DataTrees and the report.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from bayesfs.cluster import Job, connect, score_users
from bayesfs.data.rows import quick_fingerprint, read_rows, user_rows
from bayesfs.errors import DataError
from bayesfs.evaluation.tables import summary
from bayesfs.progress import bar
from bayesfs.rundir import RunDirectory
from bayesfs.runs import Order, identity_with, learn, study_names, versions
from bayesfs.types import Embeddings

RESULTS = "results.zarr"
SCORES = "scores.json"


def run_on_cluster(order: Order, out: Path) -> Path:
    """Learn, infer, predict and score, going on from where an interrupted run stopped.

    Args:
        order: what to do; `order.cluster` says where.
        out: run directory, new or of the same order.

    Returns:
        The path of the scores.

    Raises:
        RunError: the directory holds something else or is in use, or the cluster is lost.
        BayesfsError: the data, a recipe or an engine is at fault.
    """
    run = RunDirectory(out)
    inputs = {**identity_with(order, quick_fingerprint(order.store)), "cluster": True}
    with run.begin(inputs, recipes=order.sources):
        if run.is_done:
            return out / SCORES
        learnt = learn(run, order, lambda: _train_frames(order))
        results = out.resolve() / RESULTS
        job = Job(order.study, learnt, order.store.resolve(), results, order.seed)
        with connect(order.cluster or "local") as client, bar("users") as progress:
            score_users(client, job, progress=progress)
        found = {str(shots): summary(results, shots) for shots in order.study.evaluation.shots}
        text = json.dumps(found, indent=1)
        run.keep(SCORES, lambda path: path.write_text(text, encoding="utf-8"))
        names = {k.capitalize(): v for k, v in study_names(order.study).items()}
        run.finish(facts={**names, "Versions": str(versions())}, store=str(order.store.resolve()))
    return out / SCORES


def load_summary(out: Path) -> Mapping[int, Mapping[str, Mapping[str, float]]]:
    """Shots -> unit -> scores, as `bayesfs.evaluation.tables.summary` gives them.

    Raises:
        RunError: the file has changed since.
        DataError: there is none.
    """
    path = RunDirectory(out).kept(SCORES)
    if path is None:
        raise DataError(f"{out}: holds no scores of a cluster run; give the same command again")
    return {int(k): v for k, v in json.loads(path.read_text(encoding="utf-8")).items()}


def lines(found: Mapping[int, Mapping[str, Mapping[str, float]]]) -> Iterator[str]:
    """The scores as lines of text."""
    for shots, units in sorted(found.items()):
        yield f"{shots} video{'s' if shots > 1 else ''} per object:"
        for unit, values in units.items():
            for score in ("accuracy", "nll", "brier"):
                low, high = values[f"{score}_low"], values[f"{score}_high"]
                yield f"  {unit} {score:9}{values[score]:7.3f}  (users: {low:.3f} to {high:.3f})"


def _train_frames(order: Order) -> Embeddings:
    """Frames of the users that the population is learnt from."""
    split = getattr(order.study.evaluation, "train_split", "train")
    users = user_rows(order.store, split)
    if not users:
        raise DataError(f"expected frames of the split {split!r} in {str(order.store)!r}")
    return read_rows(order.store, [r for ranges in users.values() for r in ranges])
