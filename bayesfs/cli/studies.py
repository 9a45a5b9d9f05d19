"""The subcommands that make runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import xarray as xr

from bayesfs._utils.progress import terminal_safe
from bayesfs.errors import BayesfsError
from bayesfs.recipes.load import Recipes
from bayesfs.report.view import score_cells
from bayesfs.runs.compose import compose, tell_store
from bayesfs.runs.record import CONFIG, sources_of, written_in_full
from bayesfs.runs.run import Finished, Order, run_study
from bayesfs.study import Seeds
from bayesfs.types import LevelNames

PRINTED = ("accuracy", "nll", "brier", "ece")
"""Scores that the command prints; the report has all."""


def make_run(
    recipes: Recipes,
    store: Path,
    out: Path,
    *,
    seeds: Seeds,
    settings: Sequence[str] = (),
    smoke: bool = False,
    pictures: bool = True,
    device: str | None = None,
    cluster: str | None = None,
    shard: str | None = None,
    print_config: bool = False,
) -> None:
    """Run the study that three recipes make, and print its scores, or say what would run."""
    study = compose(recipes.roles, settings, smoke=smoke, device=device)
    full = written_in_full(recipes.roles, study, seeds, settings, smoke=smoke)
    if print_config:
        print(*(f"# {name}\n{text}" for name, text in full.items() if name != CONFIG), sep="\n")
        return
    sources = sources_of(recipes.roles, recipes.helpers)
    order = Order(study, store, sources, tuple(settings), smoke, seeds, pictures, cluster, full)
    if shard is not None:
        if cluster is not None:
            raise BayesfsError("expected --cluster or --shard, got both")
        found = make_shard(order, out, shard)
        if found is None:
            return
        done = found
    elif cluster is None:
        done = run_study(order, out)
    else:
        from bayesfs.runs.distributed_run import run_on_cluster

        done = run_on_cluster(order, out)
    tell_store(store)
    print_scores(done.scores)
    print(f"report: {done.report}")


def make_shard(order: Order, out: Path, text: str) -> Finished | None:
    """Make one part of a run, or join all of them, in which case there are scores."""
    from bayesfs.runs.parts import RunPart, folder_of, join_parts, run_part

    part = RunPart.parse(text)
    if part.number is None:
        return join_parts(order, out, part.of)
    groups = run_part(order, out, part)
    print(
        f"part {part.number} of {part.of}: {groups} groups of users in {part.folder(out)}; when "
        f"all parts in {folder_of(out)} are done, --shard all/{part.of} joins them"
    )
    return None


def print_scores(scores: Mapping[int, xr.Dataset]) -> None:
    """A table of the main scores at every number of support videos, with intervals over users."""
    notes = dict.fromkeys(str(table.attrs.get("interval_note", "")) for table in scores.values())
    for shots, table in sorted(scores.items()):
        levels = LevelNames.of_json(str(table.attrs.get("levels", "")))
        taught = levels.in_words(f"video{'s' if shots > 1 else ''} per object")
        print(terminal_safe(f"{shots} {taught}:"))
        for unit, score, low, value, high in score_cells(table):
            if score in PRINTED:
                interval = "" if math.isnan(low) else f"  ({low:.3f} to {high:.3f})"
                print(terminal_safe(f"  {levels.in_words(unit)} {score:9}{value:7.3f}{interval}"))
        if reason := table.attrs.get("interval_reason"):
            print(f"  no intervals: {terminal_safe(str(reason))}")
    for note in filter(None, notes):
        print(terminal_safe(note))
