"""Threads of a process, of torch as of BLAS: `share_cores` where it begins, the others in it.

Threads of BLAS wait for one another in busy loops. On cores that other processes use they wait
most of the time: an eigendecomposition of 1280 x 1280 that takes .6 s with one thread took 17 s
with two on two busy cores. A number that a person has set lower (`OMP_NUM_THREADS`) stays, and the
environment is left as it is (how long threads wait: `bayesfs._utils.process_settings`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_info, threadpool_limits


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def share_cores(processes: int = 1) -> None:
    """Let this process have its share of the cores: cores / processes threads, at least one.

    Args:
        processes: how many use the cores at a time.
    """
    limit_threads(max(1, cores() // processes))


def limit_threads(most: int) -> None:
    """From now on at most so many threads of torch and of BLAS."""
    torch.set_num_threads(min(most, torch.get_num_threads()))
    threadpool_limits(min(most, _threads_of_blas()), user_api="blas")


@contextmanager
def blas_threads(most: int = 1) -> Iterator[None]:
    """At most so many threads of BLAS inside; one is best for small matrices and on busy cores.

    The number belongs to the process: of several threads that ask at a time, threadpoolctl hears
    the first.
    """
    with threadpool_limits(min(most, _threads_of_blas()), user_api="blas"):
        yield


@contextmanager
def torch_threads(most: int = 1) -> Iterator[None]:
    """At most so many threads of torch inside; one for batches of small matrices.

    Their pieces are so short that threads wait for one another a third of the time.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(min(most, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _threads_of_blas() -> int:
    """Threads of the BLAS libraries that are loaded, NumPy's and SciPy's among them."""
    found = threadpool_info()
    return max((each["num_threads"] for each in found if each["user_api"] == "blas"), default=1)
