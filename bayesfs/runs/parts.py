"""Many users on many machines without a scheduler of ours: `run_part`, then `join_parts`.

    bayesfs run ... --out runs/first --shard 2/8       writes runs/first.shards/2-of-8
    bayesfs run ... --out runs/first --shard all/8     joins the eight into runs/first

Whatever starts processes can drive it (Slurm arrays, Ray, Spark, make): part i of N scores every
N-th group of `USERS_AT_ONCE` test users and knows nothing of the others. Groups have the names and
seeds that they have in one process, so that joining is copying, and the numbers do not depend on
N. The population is learnt by whoever comes first and copied by the others, where they see one
disk; elsewhere each learns the same.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import xarray as xr

from bayesfs._utils.atomic import write_whole
from bayesfs._utils.progress import bar
from bayesfs.data.user_rows import quick_fingerprint
from bayesfs.errors import RunError
from bayesfs.runs.directory import RunDirectory, explained
from bayesfs.runs.distributed import (
    USERS_AT_ONCE,
    ScoringJob,
    all_batches,
    is_done,
    make_folders,
    write_batch,
)
from bayesfs.runs.distributed_run import conclude, job_of, shown_frames
from bayesfs.runs.lending import forget_waiting
from bayesfs.runs.reading import Inputs
from bayesfs.runs.run import Finished, Order, finished, identity_with, learn, noted
from bayesfs.study import Learnt


@dataclass(frozen=True)
class RunPart:
    """One of so many parts of a run.

    Attributes:
        number: from 1; None stands for all of them, joined.
        of: how many there are.
    """

    number: int | None
    of: int

    @classmethod
    def parse(cls, text: str) -> RunPart:
        """From "2/8", or "all/8".

        Raises:
            RunError: it is neither.
        """
        found = re.fullmatch(r"(all|[1-9]\d{0,5})/([1-9]\d{0,5})", text)
        if found is None or (found[1] != "all" and int(found[1]) > int(found[2])):
            raise RunError(f"expected --shard I/N with I from 1 to N, or all/N, got {text!r}")
        return cls(None if found[1] == "all" else int(found[1]), int(found[2]))

    def folder(self, out: Path) -> Path:
        """Where this part of a run is kept."""
        return folder_of(out) / f"{self.number}-of-{self.of}"

    def has(self, batch: int) -> bool:
        """Whether a batch of users is of this part."""
        return batch % self.of + 1 == self.number


def folder_of(out: Path) -> Path:
    """Folder of the parts of a run."""
    return out.with_name(f"{out.name}.shards")


def run_part(order: Order, out: Path, part: RunPart) -> int:
    """Score one part of the test users, going on from where an interrupted one stopped.

    Args:
        order: what to do.
        out: run directory that the parts are joined in later.
        part: which part.

    Returns:
        Number of groups of users that this part has.

    Raises:
        RunError: the part's folder holds something else, or is in use.
        BayesfsError: the data, a recipe or an engine is at fault.
    """
    run = RunDirectory(part.folder(out))
    with run.begin(_identity(order, part), {**order.sources, **order.full}):
        job = job_of(run, order, _learnt(run, order, out))
        own = [(n, ranges) for n, ranges in all_batches(job, USERS_AT_ONCE) if part.has(n)]
        make_folders(job)
        with noted(run, "warnings"), bar("users") as progress:
            for done, (number, ranges) in enumerate(own, start=1):
                if not is_done(job, number):
                    write_batch(job, number, ranges, USERS_AT_ONCE)
                progress(done, len(own), "groups of users")
        run.finish()
    return len(own)


def join_parts(order: Order, out: Path, of: int) -> Finished:
    """Join the parts of a run, score everybody and report.

    Args:
        order: what the parts were asked.
        out: run directory, new or of the same order.
        of: how many parts there are.

    Returns:
        The report and the scores.

    Raises:
        RunError: a part is missing, not finished, or of another run.
    """
    run = RunDirectory(out)
    with run.begin(_identity(order), {**order.sources, **order.full}):
        made: dict[int, xr.DataTree] = {}
        if not run.is_done:
            parts = _finished_parts(order, out, of)
            learnt = _learnt(run, order, out)
            _copy_groups(job_of(run, order, learnt), order, parts, out)
            made = conclude(run, order, learnt)
            forget_waiting(folder_of(out))
        return finished(run, order, made)


def _identity(order: Order, part: RunPart | None = None) -> Inputs:
    """What decides the results of a part, or of all."""
    told = identity_with(order, quick_fingerprint(order.store))
    told |= {"cluster": True, "users_per_group": USERS_AT_ONCE}
    if part is not None:
        told["shard"] = f"{part.number}/{part.of}"
    return told


def _learnt(run: RunDirectory, order: Order, out: Path) -> Learnt:
    """The population, copied from another part where one has it."""
    return learn(run, order, lambda: shown_frames(order.study, order.store, ()), folder_of(out))


def _finished_parts(order: Order, out: Path, of: int) -> list[RunPart]:
    parts = [RunPart(number, of) for number in range(1, of + 1)]
    missing = [s.number for s in parts if not RunDirectory(s.folder(out)).is_done]
    if missing:
        raise RunError(
            f"{folder_of(out)}: parts {missing} of {of} are missing or not finished; run "
            f"--shard {missing[0]}/{of} and so on first"
        )
    for part in parts:
        held = RunDirectory(part.folder(out)).finished()["inputs"]
        expected = _identity(order, part)
        differing = sorted(k for k in {*held, *expected} if held.get(k) != expected.get(k))
        if differing:
            raise RunError(f"{part.folder(out)}: of a run that differs in {', '.join(differing)}")
    return parts


def _copy_groups(job: ScoringJob, order: Order, parts: list[RunPart], out: Path) -> None:
    """Groups of all parts under their own names, each checked."""
    make_folders(job)
    for number, _ in all_batches(job, USERS_AT_ONCE):
        if is_done(job, number):
            continue
        part = next(part for part in parts if part.has(number))
        there = job_of(RunDirectory(part.folder(out)), order, job.learnt)
        if not is_done(there, number):
            raise RunError(
                f"{part.folder(out)}: group {number} is gone or damaged; delete the folder and "
                f"run --shard {part.number}/{part.of} again"
            )
        for shots in order.study.evaluation.shots:
            with explained(job.results):
                write_whole(job.group(shots, number), partial(_copy, there.group(shots, number)))


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True)
