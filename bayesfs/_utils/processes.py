"""Processes that begin afresh, without what this one has loaded or holds: `fresh_processes`."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from bayesfs.errors import RunError


@contextmanager
def fresh_processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """So many processes; what they have not begun when something is raised is not begun.

    They import the main module of this one, which has to be guarded by `__name__`.

    Raises:
        RunError: one was killed.
    """
    pool = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield pool
    except BrokenProcessPool:
        raise RunError(
            "a process was killed, for want of memory as a rule; the same command goes on, with "
            "fewer at a time (--jobs)"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
