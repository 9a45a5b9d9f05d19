"""Memory of a process: `keep_freed_memory` lets it use again what it has freed."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of the options in `malloc.h` of glibc."""

KEPT = 2**29
"""Freed bytes that stay with the process."""

OWN_PAGES = 2**25
"""Bytes from which a block gets pages of its own; glibc's largest on machines of 64 bits."""


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
