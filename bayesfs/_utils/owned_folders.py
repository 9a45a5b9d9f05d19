"""Whether a folder is one that bayesfs made: `claim` it before files in it are made or removed.

A folder may have the name that bayesfs would give it and still be somebody's own. So each that
bayesfs makes holds a small file that says what for; whatever has files and not that one is refused.
"""

from __future__ import annotations

from pathlib import Path

from bayesfs._utils.atomic import PARTIAL, write_whole
from bayesfs._utils.guarded_files import read_text
from bayesfs.errors import DataError

MARK = ".bayesfs-made"
"""The file that says so."""


def claim(folder: Path, what: str) -> None:
    """Make a folder that is bayesfs's, or go on with one that is.

    Args:
        folder: the folder; folders above it are made, too.
        what: what for; a folder for something else is not taken over.

    Raises:
        DataError: it holds files, and bayesfs did not make it for this.
        OSError: the operating system refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if is_claimed(folder, what):
        return
    others = sorted(p.name for p in folder.iterdir() if not p.name.startswith(PARTIAL))
    if others and not is_claimed(folder, what):  # another process may just have claimed it
        raise DataError(
            f"{str(folder)!r} holds {others[0]!r} and was not made by bayesfs for {what}; nothing "
            "in it was touched. Choose another name, or move it away"
        )
    write_whole(folder / MARK, lambda path: path.write_text(f"{what}\n", encoding="utf-8"))


def is_claimed(folder: Path, what: str) -> bool:
    """Whether bayesfs made a folder for that."""
    mark = folder / MARK
    try:
        return not mark.is_symlink() and read_text(mark, 1000) == f"{what}\n"
    except (OSError, ValueError):
        return False
