"""Where things are on this machine, kept out of what is shared: `without_places`, `place_from`.

A path of the machine tells who its owner is and how their disk is laid out. Stores, runs, reports
and tables hold names and relative places only.
"""

from __future__ import annotations

import getpass
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

QUOTED = re.compile(r"(['\"])/[^'\"\n]*/([^'\"/\n]*)\1")
BARE = re.compile(r"(?<![\w/…])(?!//)/(?:[^/\s'\"<>|;,()]+/)+")


def without_places(text: str) -> str:
    """A message without the folders of this machine that it names; last parts of paths stay.

    Example:
        >>> without_places("cannot read '/home/anna/my videos/v.jpg', see /etc/a/b.c")
        "cannot read '…/v.jpg', see …/b.c"
    """
    for known in (Path.home(), Path.cwd(), Path(tempfile.gettempdir())):
        if known != Path(known.anchor):
            text = re.sub(re.escape(str(known)) + r"(?=/)", "/…", text)
    text = QUOTED.sub(r"\1…/\2\1", text)
    return BARE.sub("…/", text)


def place_from(start: Path, place: Path) -> str:
    """Where something is as seen from a folder; "" where that would name this machine or its owner.

    Args:
        start: the folder.
        place: the thing.
    """
    here, there = os.path.realpath(start), os.path.realpath(place)
    if os.path.commonpath([here, there]) == Path(here).anchor:
        return ""
    relative = Path(os.path.relpath(there, here))
    return "" if owners() & set(relative.parts) else relative.as_posix()


def owners() -> set[str]:
    """What this machine calls the person at it."""
    found = {Path.home().name}
    with suppress(OSError, KeyError):  # a process without a user's entry, as in a container
        found.add(getpass.getuser())
    return found - {""}


def folder_name(folder: Path) -> str:
    """The name of a folder, unless it names the owner of this machine."""
    name = folder.resolve().name
    return "person" if name in owners() or not name else name
