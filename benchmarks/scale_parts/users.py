"""Ten thousand synthetic users through the cluster mode: throughput, memory, cost a user."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import xarray as xr

from bayesfs._utils.atomic import write_whole
from bayesfs.data.store import open_store, write_store
from bayesfs.data.user_rows import user_rows
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.features.reduction import PrincipalAxes
from bayesfs.inference.exact import Exact
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.gp.deep_kernel_gp import DeepKernelGP
from bayesfs.runs.distributed import ScoringJob, connect, score_users
from bayesfs.study import Seeds, Study
from bayesfs.synthetic.tasks import synthetic_embeddings
from bayesfs.types import Embeddings

BLOCK = 100
"""Users drawn at a time."""

SHOTS, FRAMES, QUERIES = 3, 4, 1
"""Support videos and frames of each object, and query videos."""


def make_store(path: Path, users: int, dim: int, seed: int = 0) -> Path:
    """A store of `users` test users of six to ten objects, and 8 train users, made in blocks."""
    blocks = [_block(8, "train", dim, seed)]
    sizes = [min(BLOCK, users - start) for start in range(0, users, BLOCK)]
    frames = [_block(n, f"test-{i:04d}", dim, seed + 1 + i) for i, n in enumerate(sizes)]
    blocks += frames
    count = sum(b.sizes["frame"] for b in blocks)
    write_whole(path, lambda place: write_store(place, blocks, count, {"backbone": "synthetic"}))
    return path


def _block(users: int, name: str, dim: int, seed: int) -> xr.Dataset:
    """Users with between six and ten objects each; names tell blocks apart."""
    size = {"way": 10, "shots": SHOTS, "frames": FRAMES, "query_videos": QUERIES, "dim": dim}
    made = synthetic_embeddings(users=users, seed=seed, **size)[0].dataset
    objects = np.random.default_rng(seed).integers(6, 11, users)
    user = np.unique(made["user"].values, return_inverse=True)[1]
    place = np.array([int(text[-2:]) for text in made["object"].values])
    made = made.isel(frame=np.flatnonzero(place <= objects[user]))
    text = {n: np.char.add(f"{name}-", made[n].values.astype(str)) for n in ("user", "video")}
    split = np.full(made.sizes["frame"], name.partition("-")[0])
    keep = made[["features"]].reset_coords(drop=True)
    columns = {n: ("frame", v) for n, v in {**text, "split": split}.items()}
    columns |= {n: ("frame", made[n].values) for n in ("object", "condition")}
    return keep.assign_coords(columns)


def studies(dim: int, smoke: bool) -> dict[str, Study]:
    """The exact Gaussian hierarchy, and the deep-kernel GP."""
    evaluation = HeldOutUsers(shots=(SHOTS,), train_shots=(1, SHOTS), frames_per_video=FRAMES)
    engine = Exact(draws=16 if smoke else 64, population_draws=2 if smoke else 4)
    svi, axes = SVI(steps=5 if smoke else 50, draws=8), PrincipalAxes(dim=dim)
    return {
        "exact": Study(GaussianHierarchy(), engine, evaluation, svi, reduction=axes),
        "gp": Study(DeepKernelGP(), engine, evaluation, svi, reduction=axes),
    }


def load_test(
    folder: Path,
    counts: tuple[int, ...],
    *,
    engines: tuple[str, ...] = ("exact", "gp"),
    dim: int = 32,
    workers: int = 2,
    smoke: bool = False,
) -> dict[str, float]:
    """Cost per user at each number of users, with both engines.

    Args:
        folder: scratch folder.
        counts: numbers of users, ascending; a store of the largest is made, others use its first.
        engines: "exact", "gp".
        dim: features.
        workers: processes.
        smoke: fewer draws and steps.

    Returns:
        ENGINE.users_per_second and ENGINE.cost_ratio (cost a user at the most over that at the
        fewest), ENGINE.worker_peak_gb, ENGINE.bytes_per_user, store_bytes_per_user.
    """
    store = make_store(folder / "store.zarr", counts[-1], dim)
    found: dict[str, float] = {"store_bytes_per_user": _bytes(store) / counts[-1]}
    train = Embeddings(open_store(store, users=_names(store, "train")).dataset)
    smaller = {n: make_store(folder / f"store-{n}.zarr", n, dim) for n in counts[:-1]}
    stores = {**smaller, counts[-1]: store}
    for name, study in studies(dim, smoke).items():
        if name not in engines:
            continue
        learnt, costs = study.learn(train, seed=0), {}
        with connect(f"local:{workers}") as client:
            for count in counts:
                results = folder / f"{name}-{count}.zarr"
                job = ScoringJob(study, learnt, stores[count], results, Seeds())
                warm = replace(job, store=stores[counts[0]], results=folder / "warm-up.zarr")
                if count == counts[0]:
                    score_users(client, warm, per_batch=16)
                repeats = 1 if smoke else max(1, 300 // count)
                costs[count], wall, peak = timed(client, job, workers, repeats)
                told = f"{1e3 * costs[count]:.2f} ms of a core, {1e3 * wall:.2f} ms in all, a user"
                print(f"  {name}: {count} users, {told}, {peak:.2f} GB a worker", flush=True)
        shutil.rmtree(folder / "warm-up.zarr")
        found[f"{name}.ms_per_user"] = 1e3 * costs[counts[-1]]
        found[f"{name}.users_per_second"] = 1.0 / wall
        found[f"{name}.cost_ratio"] = costs[counts[-1]] / costs[counts[0]]
        found[f"{name}.worker_peak_gb"] = peak
        found[f"{name}.bytes_per_user"] = _bytes(results) / counts[-1]
    return found


def timed(
    client: Any, job: ScoringJob, workers: int, repeats: int = 1
) -> tuple[float, float, float]:
    """Processor and wall seconds a user, and a worker's peak memory in GB.

    Processor time of the workers and of this process; unlike wall time, it does not depend on what
    else the machine does.
    """
    users = len(user_rows(job.store, "test"))
    per_batch = max(16, min(256, users // (2 * workers) // 16 * 16))
    pids = [os.getpid(), *client.run(os.getpid).values()]
    with peak_of(pids[1:]) as peak:
        began, spent = time.perf_counter(), _processor(pids)
        for number in range(repeats):
            place = job.results if not number else job.results / f"again-{number}"
            score_users(client, replace(job, results=place), per_batch=per_batch, progress=_say)
        total = repeats * users
        wall, spent = (time.perf_counter() - began) / total, _processor(pids) - spent
    for again in job.results.glob("again-*"):
        shutil.rmtree(again)
    return spent / total, wall, max(peak)


def _say(done: int, total: int, message: str) -> None:
    if done % 10 == 0:
        print(f"    {done} of {total} {message}", flush=True)


def _processor(pids: Sequence[int]) -> float:
    """Seconds of processor time that these processes have taken."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return float(sum(t.user + t.system for t in times))


@contextmanager
def peak_of(pids: Sequence[int]) -> Iterator[list[float]]:
    """Largest resident memory of any of these processes, in GB, looked at twice a second."""
    peak, stop = [0.0], threading.Event()

    def look() -> None:
        while not stop.wait(0.5):
            peak.append(max(psutil.Process(pid).memory_info().rss for pid in pids) / 1e9)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _names(store: Path, split: str) -> list[str]:
    return list(user_rows(store, split))


def _bytes(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
