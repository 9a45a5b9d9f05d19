"""Score many users on many processes, with dask.distributed (extra `scale`): `score_users`.

The driver knows names of users and where their frames are; each worker reads the features of its
users from the store, samples their tasks, infers, predicts, and adds a group to one Zarr store of
results:

    results.zarr/shots-05/batch-000012      the users 12 x USERS_PER_BATCH and on

Each group appears whole or not at all, so that a run that lost workers, or was killed, goes on
with the groups that are missing. Tasks are inferred `USERS_AT_ONCE` together, whatever the workers
are, so that the numbers do not depend on how many there are.

Messages between the processes of a cluster are dask's own and are unpickled by them, which runs
code: whoever can speak to a scheduler can do as the person who started it. So the local cluster
listens on this machine only, encrypted with a key that is made for it and that only its own
processes have, and serves no page. A cluster by its address is as safe as whoever started it made
it: give an address only of one that is yours. `tls://` with keys of your own, which dask takes from
its settings (`distributed.comm.tls`), keeps others out; `tcp://` does not.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from bayesfs._utils.atomic import write_whole
from bayesfs._utils.threads import limit_threads
from bayesfs.data.user_rows import Ranges, batches_of, read_rows, user_rows
from bayesfs.data.zarr_files import check_zarr
from bayesfs.errors import BayesfsError, DataError, RunError
from bayesfs.protocols import Conjugate, Progress
from bayesfs.results.tables import batch_path, join_tables, task_table, write_table
from bayesfs.runs.directory import explained
from bayesfs.study import Learnt, Seeds, Study
from bayesfs.types import EpisodeBatch, Predictive
from bayesfs.uncertainty.decompose import decompose

USERS_AT_ONCE = 16
"""Tasks in one vectorised inference."""

USERS_PER_BATCH = 256
"""Users of one group of results: what a lost worker can cost."""

LOOPBACK = "127.0.0.1"
"""Address of this machine that no other one reaches."""

ANSWER = 10.0
"""Seconds within which a scheduler must answer."""

_SEVERAL = (
    "expected dask workers of one thread each, got {name} with {threads}: only one thread of a "
    "process can run a model at a time; start them with `dask worker --nthreads 1`"
)

RETRIES = 2
"""Times that a batch is given to another worker after its own was lost."""


@dataclass(frozen=True)
class ScoringJob:
    """What every worker is given.

    Attributes:
        study: model, engine and evaluation.
        learnt: what holds for every user.
        store: feature store that every worker can read.
        results: Zarr store of results that every worker can write.
        seeds: of sampling and inference.
    """

    study: Study
    learnt: Learnt
    store: Path
    results: Path
    seeds: Seeds

    def group(self, shots: int, number: int) -> Path:
        """Where the results of a batch go."""
        return batch_path(self.results, shots, number)


@contextlib.contextmanager
def connect(where: str) -> Iterator[Any]:
    """A client of a cluster: "local", "local:WORKERS", or the address of a scheduler.

    Raises:
        RunError: distributed is not installed, or nothing answers at the address.
    """
    try:
        distributed = importlib.import_module("distributed")
    except ImportError as error:
        raise RunError("--cluster needs dask: pip install 'bayesfs[scale]'") from error
    with contextlib.ExitStack() as stack:
        kind, _, count = where.partition(":")
        if kind == "local":
            workers = int(count) if count.isdecimal() and int(count) else None
            if count and not workers:
                raise RunError(f"expected local, local:WORKERS or an address, got {where!r}")
            where = stack.enter_context(_local_cluster(distributed, workers))
        try:
            yield stack.enter_context(
                distributed.Client(where, timeout=ANSWER, set_as_default=False)
            )
        except (OSError, ValueError) as error:
            if isinstance(error, BayesfsError):
                raise
            raise RunError(f"no dask scheduler answers at {where!r} ({error})") from error


@contextlib.contextmanager
def _local_cluster(distributed: Any, workers: int | None) -> Iterator[Any]:
    """Workers of one thread each on this machine, to whom only this process can speak.

    Raises:
        RunError: there is nothing to make keys with.
    """
    try:
        security = distributed.Security.temporary()
    except ImportError as error:
        raise RunError(
            "--cluster local makes a key for its workers: pip install 'bayesfs[scale]'"
        ) from error
    config = importlib.import_module("dask").config
    with (
        config.set(
            {f"distributed.{who}.http.routes": [] for who in ("scheduler", "worker", "nanny")}
        ),
        tempfile.TemporaryDirectory(prefix="bayesfs-workers-") as scratch,  # nobody else may enter
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host=LOOPBACK,
            security=security,
            dashboard_address=None,
            local_directory=scratch,
        ) as cluster,
    ):
        yield cluster


def score_users(
    client: Any,
    job: ScoringJob,
    *,
    per_batch: int = USERS_PER_BATCH,
    progress: Progress | None = None,
) -> None:
    """Score every test user, at every number of shots, on the workers of a client.

    Args:
        client: from `connect`.
        job: what to do.
        per_batch: users per group of results, a multiple of `USERS_AT_ONCE`.
        progress: called with (batches done, batches, message).

    Raises:
        RunError: a worker has several threads; or a batch lost its worker again and again, and
            what is done is kept.
        BayesfsError: what a worker found to be wrong.
    """
    several = [name for name, threads in client.nthreads().items() if threads > 1]
    if several:
        raise RunError(_SEVERAL.format(name=several[0], threads=client.nthreads()[several[0]]))
    batches = all_batches(job, per_batch)
    todo = [(n, ranges) for n, ranges in batches if not is_done(job, n)]
    make_folders(job)
    shared = client.submit(bytes, _portable(job), pure=False)  # unlike scattered data, made again
    futures = [
        client.submit(told_batch, shared, number, ranges, per_batch, retries=RETRIES, pure=False)
        for number, ranges in todo
    ]
    _wait(client, futures, len(batches) - len(todo), len(batches), progress)


def all_batches(job: ScoringJob, per_batch: int) -> list[tuple[int, Ranges]]:
    """Number and frames of every batch of test users.

    Raises:
        DataError: there is no test user.
    """
    split = job.study.evaluation.test_split
    users = user_rows(job.store, split)
    if not users:
        raise DataError(f"expected frames of the split {split!r} in {str(job.store)!r}, found none")
    return [(n, ranges) for n, (_, ranges) in enumerate(batches_of(users, per_batch))]


def make_folders(job: ScoringJob) -> None:
    """The folders that groups of results are added to."""
    with explained(job.results):
        for shots in job.study.evaluation.shots:
            job.group(shots, 0).parent.mkdir(parents=True, exist_ok=True)


def score_batch(portable: bytes, number: int, ranges: Ranges, per_batch: int) -> int:
    """On a worker: results of one batch of users, at every number of shots; how many users.

    The folders of results are there already, from `score_users`: a worker that does not see them
    has another disk, and must not make its own.

    Args:
        portable: the job.
        number: of the batch.
        ranges: its users' frames in the store.
        per_batch: users in every batch but the last.

    Raises:
        RunError: there is no such folder, or the disk refuses.
    """
    _check_worker()
    job = _unpacked(portable)
    limit_threads(1)
    return write_batch(job, number, ranges, per_batch)


def write_batch(job: ScoringJob, number: int, ranges: Ranges, per_batch: int) -> int:
    """Infer and write one batch of users in this process; see `score_batch`."""
    with explained(job.results):
        names: list[str] = []
        for shots, parts in _tables(job, ranges, number * per_batch // USERS_AT_ONCE).items():
            table = join_tables(parts)
            names = table["task"].values.tolist()
            write_whole(job.group(shots, number), partial(write_table, table))
    return len(names)


def told_batch(portable: bytes, number: int, ranges: Ranges, per_batch: int) -> tuple[str, ...]:
    """On a worker: `score_batch`, and what it warned of, such as objects that were left out."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        score_batch(portable, number, ranges, per_batch)
    texts = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    return tuple(dict.fromkeys(texts))


def _check_worker() -> None:
    """Refuse a worker with several threads, which may have joined after the run began."""
    distributed = importlib.import_module("distributed")
    try:
        worker = distributed.get_worker()
    except ValueError:  # called in the driver itself
        return
    if worker.state.nthreads > 1:
        raise RunError(_SEVERAL.format(name=worker.address, threads=worker.state.nthreads))


def _tables(job: ScoringJob, ranges: Ranges, first: int) -> dict[int, list[xr.Dataset]]:
    """Shots -> tables of consecutive small batches, the first of which has the number `first`."""
    found: dict[int, list[xr.Dataset]] = {shots: [] for shots in _shots(job)}
    embeddings = read_rows(job.store, ranges)
    names = np.unique(embeddings.coord("user")).tolist()
    for step, start in enumerate(range(0, len(names), USERS_AT_ONCE)):
        some = embeddings.where(user=names[start : start + USERS_AT_ONCE])
        tasks = job.study.tasks(some, job.learnt, seed=job.seeds.episodes)
        seed = batch_seed(job.seeds.fit, first + step)
        for shots in found:
            limited = tasks.limit_shots(shots)
            predictive = predictive_of(job.study, job.learnt, limited, seed)
            found[shots].append(task_table(predictive, decompose(predictive, limited), limited))
    return found


def predictive_of(study: Study, learnt: Learnt, tasks: EpisodeBatch, seed: int) -> Predictive:
    """The predictive of `Study.infer`, without posterior draws where it does not need them.

    With the exact engine the class means, or the functions, are integrated out in closed form;
    drawing them as well would cost several times the predictive.
    """
    learnt = learnt.on(tasks.support.device)
    model, engine = study.model_of(learnt), study.engine
    closed = engine.closed_form(model, learnt.population)
    if closed is None or not isinstance(model, Conjugate):
        return study.infer(tasks, learnt, seed=seed).predictive
    population, draws = closed
    with torch.no_grad():
        return model.predictive(tasks, population, draws=draws, seed=seed)


def batch_seed(seed: int, number: int) -> int:
    """Seed of the inference of a small batch; the first has the run's own."""
    if not number:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")


def _shots(job: ScoringJob) -> tuple[int, ...]:
    return job.study.evaluation.shots


def is_done(job: ScoringJob, number: int) -> bool:
    """Whether the results of a batch are there and whole; damaged ones are made again."""
    return all(_is_whole(job.group(shots, number)) for shots in _shots(job))


def _is_whole(group: Path) -> bool:
    try:
        return group.exists() and bool(check_zarr(group))
    except DataError:
        return False


def _wait(
    client: Any, futures: Sequence[Any], done: int, total: int, progress: Progress | None
) -> None:
    """Wait for every batch; cancel the rest where one cannot be done."""
    distributed = importlib.import_module("distributed")
    try:
        for future in distributed.as_completed(futures, loop=client.loop):
            for text in future.result():
                warnings.warn(text, stacklevel=3)
            done += 1
            if progress is not None:
                progress(done, total, "batches of users")
    except distributed.KilledWorker as error:
        raise RunError(
            f"a batch of users lost its worker {RETRIES + 1} times (out of memory?); what is done "
            "is kept, and the same command goes on"
        ) from error
    finally:
        client.cancel(list(futures))


def _portable(job: ScoringJob) -> bytes:
    """The job as bytes for dask; classes that a recipe defines travel with it."""
    cloudpickle = importlib.import_module("cloudpickle")
    for name, module in list(sys.modules.items()):
        if name.startswith("_bayesfs_recipe_"):
            cloudpickle.register_pickle_by_value(module)
    return bytes(cloudpickle.dumps(job))


def _unpacked(portable: bytes) -> ScoringJob:
    """What `_portable` packed; comes from this run's own driver only, never from a file."""
    job: ScoringJob = importlib.import_module("cloudpickle").loads(portable)
    return job
