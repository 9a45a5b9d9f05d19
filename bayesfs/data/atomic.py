"""Files and folders that appear whole or not at all: `write_whole`.

Whatever is written goes to a temporary name and is then renamed. So whatever moment a process is
killed at, a reader finds the old thing or the new one, and `sweep` removes what the killed process
left under temporary names. Files are forced to the disk before they are renamed; folders (Zarr)
are not, as their chunks carry checksums by which a loss of power shows.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

PARTIAL = ".bayesfs-partial-"
"""How every temporary name begins."""


def write_whole(path: Path, write: Callable[[Path], object], staging: Path | None = None) -> None:
    """Let `write` make a file or folder under a temporary name, then rename it to `path`.

    Args:
        path: final name. A file that is there is replaced in one step; a folder is first moved
            aside, so that a kill between two renames leaves nothing, never half of anything.
        write: gets the temporary path (same suffix) and makes the whole of it.
        staging: folder for the temporary, on the same disk; the one of `path` by default.

    Raises:
        OSError: the operating system refuses; the temporary is removed, `path` is as it was.
    """
    temporary = (staging or path.parent) / f"{PARTIAL}{os.getpid()}-{path.name}"
    try:
        write(temporary)
        if temporary.is_file():
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        _rename(temporary, path)
    finally:
        remove(temporary)


def sweep(folder: Path) -> None:
    """Remove everything below a folder that has a temporary name; nobody may be writing there."""
    for left in sorted(folder.rglob(f"{PARTIAL}*")):
        remove(left)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _rename(temporary: Path, path: Path) -> None:
    if not path.is_dir() or path.is_symlink():
        temporary.replace(path)
        return
    old = path.with_name(f"{PARTIAL}old-{os.getpid()}-{path.name}")
    path.rename(old)
    try:
        temporary.rename(path)
    except OSError:
        old.rename(path)
        raise
    remove(old)
