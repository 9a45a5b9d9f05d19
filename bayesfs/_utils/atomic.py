"""Files and folders that appear whole or not at all: `write_whole`.

Whatever is written goes to a temporary name and is then renamed. So whatever moment a process is
killed at, a reader finds the old thing or the new one, and `remove_partial` removes what the killed
process left under temporary names. Files are forced to the disk before they are renamed; folders
(Zarr) are not, as their chunks carry checksums by which a loss of power shows.

Nobody else can say where it goes. The temporary stands in a new folder of a random name, which
nobody but this process may enter, so that no link can be waiting there; and the folders are held
open meanwhile, so that none can be exchanged.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL = ".bayesfs-partial-"
"""How every temporary name begins."""

KEPT_NAME = 80
"""Characters of the final name that a temporary one ends in."""

FOLDER = os.O_RDONLY | os.O_DIRECTORY


def write_whole(
    path: Path,
    write: Callable[[Path], object],
    staging: Path | None = None,
    within: Path | None = None,
) -> None:
    """Let `write` make a file or folder under a temporary name, then rename it to `path`.

    Args:
        path: final name. A file or link that is there is replaced in one step; a folder is first
            moved aside, so that a kill between two renames leaves nothing, never half of anything.
        write: gets the temporary path (same name, in another folder) and makes the whole of it.
        staging: folder for the temporary, on the same disk; the one of `path` by default.
        within: folder above `path` below which no link is followed; those that a person names
            are, by default.

    Raises:
        OSError: the operating system refuses; the temporary is removed, `path` is as it was.
    """
    name = f"{PARTIAL}{secrets.token_hex(8)}-{path.name[:KEPT_NAME]}"
    place = staging or path.parent
    with held(place, within) as source, held(path.parent, within) as target:
        try:
            os.mkdir(name, 0o700, dir_fd=source)
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error
        try:
            with held(Path(name), source=source) as own:
                if not os.path.samestat(os.stat(place / name), os.fstat(own)):
                    raise OSError(errno.ELOOP, "its folder was exchanged", str(path))
                temporary = place / name / path.name
                write(temporary)
                if temporary.is_file():
                    with temporary.open("rb+") as file:
                        os.fsync(file.fileno())
                _rename(path.name, own, target)
        finally:
            shutil.rmtree(name, ignore_errors=True, dir_fd=source)


@contextmanager
def held(folder: Path, within: Path | None = None, source: int | None = None) -> Iterator[int]:
    """A folder's descriptor: it stays that folder, whatever its name comes to stand for.

    Args:
        folder: the folder.
        within: one above it, below which no link is followed.
        source: descriptor of the folder that `folder` is in, which then is no link.

    Raises:
        OSError: there is no such folder; ELOOP where it is behind a link.
    """
    first, parts = (folder, ()) if within is None else (within, folder.relative_to(within).parts)
    follow = 0 if source is None else os.O_NOFOLLOW
    found = [os.open(first, FOLDER | follow, dir_fd=source)]
    try:
        for part in parts:
            try:
                found.append(os.open(part, FOLDER | os.O_NOFOLLOW, dir_fd=found[-1]))
            except NotADirectoryError as error:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(folder)) from error
        yield found[-1]
    finally:
        for descriptor in found:
            os.close(descriptor)


def remove_partial(folder: Path) -> None:
    """Remove everything below a folder that has a temporary name; nobody may be writing there."""
    for left in sorted(folder.rglob(f"{PARTIAL}*")):
        remove(left)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _rename(name: str, own: int, target: int) -> None:
    """Move what was made from the temporary folder to its place, a folder there out of the way."""
    aside = f"{PARTIAL}old"
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=target, follow_symlinks=False).st_mode):
            os.rename(name, aside, src_dir_fd=target, dst_dir_fd=own)
    try:
        os.rename(name, name, src_dir_fd=own, dst_dir_fd=target)
    except OSError:
        with suppress(FileNotFoundError):
            os.rename(aside, name, src_dir_fd=own, dst_dir_fd=target)
        raise
