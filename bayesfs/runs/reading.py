"""What a run directory tells: inputs, results, scores, and its report; no recipe is run.

Use `report_run`, which writes the report of a finished run again. Nothing here imports torch, so
that it is quick.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

import numpy as np
import xarray as xr
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from bayesfs._utils.guarded_files import opened
from bayesfs._utils.places import folder_name
from bayesfs.errors import DataError, RunError
from bayesfs.explanation.record import ExplanationRecord
from bayesfs.report.view import ReportData
from bayesfs.report.write import write_report
from bayesfs.results.store import load_datatree
from bayesfs.runs.directory import STATE, RunDirectory, write_atomically

if TYPE_CHECKING:
    from bayesfs.data.store import Thumbnail

EXPLANATIONS = "explanations.json"
"""File of a run directory: see `bayesfs.explanation.record`."""

UNREPORTED = (
    "frame_predictive",
    "frame_log_likelihood",
    "prior",
    "log_prior",
    "support_log_density",
)
"""Groups of a run's tree that no report shows, and the largest of all."""

REPORTED_ONCE = (
    "baseline",
    "monte_carlo",
    "population",
    "population_prior",
    "population_sample_stats",
    "prior_sensitivity",
    "prior_check",
    "posterior_check",
    "label_check",
)
"""Groups that a report shows of the largest number of support videos alone."""

SCORES_FILE = "scores.json"
"""File of the directory of a run on a cluster: see `bayesfs.results.table_scores`."""


class Inputs(TypedDict):
    """What decides the result of a run.

    Attributes:
        recipes: file name -> checksum of its text.
        settings: what was overridden.
        smoke: whether everything was made tiny.
        seed: of the inference.
        episode_seed: of the episodes; of a run that does not say, the same.
        data: fingerprint of the data.
        thumbnails: whether the report may show them.
        version: of bayesfs.
        cluster: whether it was scored on a cluster, or in parts.
        users_per_group: users of a group of results, of a run in parts.
        shard: which part of a run it is.
    """

    recipes: dict[str, str]
    settings: list[str]
    smoke: bool
    seed: int
    data: str
    thumbnails: bool
    version: str
    cluster: NotRequired[bool]
    episode_seed: NotRequired[int]
    users_per_group: NotRequired[int]
    shard: NotRequired[str]


def inputs_of(run: RunDirectory) -> Inputs:
    """What a run was given.

    Raises:
        RunError: run.json lacks some of it, or holds something else there.
    """
    try:
        return check_type(
            run.state()["inputs"],
            Inputs,
            collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS,
        )
    except TypeCheckError as error:
        raise RunError(f"{run.path / STATE}: not what `bayesfs run` wrote there: {error}") from None


def results_name(shots: int) -> str:
    """File of a run directory: the DataTree at a number of support videos."""
    return f"results-{shots:02d}.nc"


def load_trees(
    run: RunDirectory,
    made: Mapping[int, xr.DataTree] | None = None,
    *,
    without: Collection[str] = (),
    once: Collection[str] = (),
) -> dict[int, xr.DataTree]:
    """Number of support videos -> the DataTree of a run at that number.

    Args:
        run: the directory that keeps them.
        made: those that are in memory, which are not read again.
        without: groups that are not read.
        once: groups that are read at the largest number of support videos alone.
    """
    known = {results_name(shots): tree for shots, tree in (made or {}).items()}
    names = [name for name in run.state()["files"] if name.startswith("results-")]
    names.sort(key=lambda name: (len(name), name))
    paths = [path for name in names if (path := run.kept(name))]
    left = dict.fromkeys(paths[:-1], (*without, *once))
    trees = [
        known[p.name] if p.name in known else load_datatree(p, without=left.get(p, without))
        for p in paths
    ]
    return {int(tree.attrs["shots"]): tree for tree in trees}


def load_scores(
    run: RunDirectory, trees: Mapping[int, xr.DataTree] | None = None
) -> dict[int, xr.Dataset]:
    """Number of support videos -> scores with intervals over users.

    A run on a cluster has those of everybody, not only of the people whose DataTree it keeps.

    Args:
        run: finished run.
        trees: from `load_trees`, where they are loaded already.
    """
    path = run.kept(SCORES_FILE)
    if path is not None:
        from bayesfs.results.table_scores import as_score_table, load_summary

        return {shots: as_score_table(found) for shots, found in load_summary(path).items()}
    trees = load_trees(run) if trees is None else trees
    return {shots: tree["scores"].to_dataset() for shots, tree in trees.items()}


def store_of(run: RunDirectory, state: Mapping[str, Any]) -> Path | None:
    """Where a run says that its store is, as seen from the run; None where it does not."""
    said = str(state.get("store", ""))
    return run.path / said if said else None


def report_data(
    run: RunDirectory,
    store: Path | None = None,
    trees: Mapping[int, xr.DataTree] | None = None,
    *,
    pictures: bool = True,
) -> ReportData:
    """Everything a report shows, from the results and the store's thumbnails.

    Args:
        run: finished run.
        store: see `report_run`.
        trees: see `report_run`.
        pictures: whether the report has a place for them.
    """
    state = run.state()
    place = store or store_of(run, state)
    trees = load_trees(run, without=UNREPORTED, once=REPORTED_ONCE) if trees is None else trees
    facts = {k: str(v) for k, v in state.get("facts", {}).items()}
    kept, shown = run.kept(EXPLANATIONS), pictures and inputs_of(run)["thumbnails"]
    told = ExplanationRecord({}, []) if kept is None else ExplanationRecord.load(kept)
    return ReportData(
        title=f"bayesfs: {folder_name(run.path)}",
        trees=trees,
        scores=load_scores(run, trees),
        facts=facts,
        note=state.get("note", ""),
        warnings=[str(w) for w in (*state.get("warnings", ()), *state.get("skipped", ()))],
        pictures=_pictures(place, trees) if shown and place else {},
        advice=told.report_advice(),
        said=told.said,
        level_errors=told.level_errors,
        words=told.words,
    )


def _pictures(store: Path, trees: Mapping[int, xr.DataTree]) -> dict[str, tuple[Thumbnail, ...]]:
    """Thumbnails of the query videos, if the store is still where it was."""
    from bayesfs.data.store import thumbnails  # zarr takes a while, and Markdown has no pictures

    groups = [tree["constant_data"].to_dataset() for tree in trees.values()]
    names = {str(name) for group in groups for name in np.ravel(group["video_name"].values)}
    with contextlib.suppress(DataError):  # a report without its store is a report without pictures
        return thumbnails(store, sorted(names - {""}))
    return {}


def report_run(
    out: Path,
    format: Literal["html", "md"] = "html",
    *,
    store: Path | None = None,
    trees: Mapping[int, xr.DataTree] | None = None,
) -> Path:
    """Write the report of a finished run again, from its results alone.

    Args:
        out: run directory.
        format: of the report.
        store: feature store, for its thumbnails; where the run says that it is by default.
        trees: from `load_trees`, where they are loaded already.

    Raises:
        RunError: there is no finished run, or another file has the report's name.
    """
    run = RunDirectory(out)
    run.finished()
    path = out / f"report.{format}"
    _refuse_others(path)
    data = report_data(run, store, trees, pictures=format == "html")
    write = partial(write_report, data, format=format)
    write_atomically(path, write, within=out)
    return path


def _refuse_others(path: Path) -> None:
    """Refuse to write a report over something that is none.

    Raises:
        RunError: a file is there that no report of bayesfs begins like.
    """
    try:
        with opened(path) as file:
            start = file.read(4000)
    except FileNotFoundError:
        return
    except (OSError, DataError) as error:
        raise RunError(f"{path}: in the way of the report ({error})") from error
    if b"<title>bayesfs: " not in start and not start.startswith(b"# bayesfs: "):
        raise RunError(f"{path}: not a report of bayesfs, which would take its place; move it away")
