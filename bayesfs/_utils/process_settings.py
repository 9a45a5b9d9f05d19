"""What a process of the command sets before torch is loaded: memory and waiting of threads."""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of the options in `malloc.h` of glibc."""

KEPT = 2**29
"""Freed bytes that stay with the process."""

OWN_PAGES = 2**25
"""Bytes from which a block gets pages of its own; glibc's largest on machines of 64 bits."""

SPINS = 5000
"""Times that a thread of OpenMP looks for work before it sleeps: about a tenth of a millisecond.

By default it looks for milliseconds, longer than most pieces of work take: of a small run's
processor time an eighth, and the busier the cores, the more.
"""


def keep_freed_memory() -> None:
    """Do not give every large block back to the system; elsewhere than on glibc nothing happens.

    A layer of a network makes and frees some 20 MB in each pass. glibc returns them, and the system
    clears each page again before it is next used: a fifth of what features took.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(TRIM_THRESHOLD, KEPT)
        mallopt(MMAP_THRESHOLD, OWN_PAGES)


def wait_briefly() -> None:
    """Let threads of OpenMP that have no work sleep soon, unless a person has said how they wait.

    GNU's library, which torch brings on Linux, reads that from the environment when it is loaded.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)
