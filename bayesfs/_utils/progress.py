"""Progress bars for the command, and text that is safe to print to a terminal.

Use `bar` first: a context that yields the callback which long work reports to. Standard error may
be closed or full; `say` writes a line there all the same.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from rich.markup import escape
from tqdm import tqdm

if TYPE_CHECKING:
    from bayesfs.protocols import Progress

EVERY = 20.0
"""Seconds between lines where there is no terminal."""

JOINERS = "\u200c\u200d"
"""Zero-width joiners: format characters that Persian, Hindi and emoji need."""


@contextlib.contextmanager
def bar(title: str) -> Iterator[Progress]:
    """A progress bar on standard error.

    Where that is no terminal or notebook, there is a line at each end, and one now and then with
    the time and what remains.

    Args:
        title: what is going on, shown before the bar.

    Yields:
        A callback (done, total, message) to report to; it may be called as often as one likes. An
        empty message leaves the last one.

    Example:
        >>> with bar("features") as progress:
        ...     progress(1, 10, "video P001--mug--clean--0")
    """
    notebook = type(sys.stderr).__module__.startswith("ipykernel")
    terminal = sys.stderr is not None and (sys.stderr.isatty() or notebook)
    shown = tqdm(desc=title, disable=not terminal, dynamic_ncols=True, leave=True)
    last, began = "", time.monotonic()
    told, first = began, (0, began)

    def report(done: int, total: int, message: str) -> None:
        nonlocal last, told, first
        last, now = terminal_safe(message) or last, time.monotonic()
        if not first[0]:
            first = done, now
        if shown.disable and now - told >= EVERY:
            told = now
            left = _left(done - first[0], total - done, now - first[1])
            note = f" ({last})" if last else ""
            say(f"{title}: {done} of {total}, {duration(now - began)}{left}{note}")
        shown.total = total
        shown.set_postfix_str(last, refresh=False)
        shown.update(done - shown.n)

    if shown.disable:
        say(f"{title} ...")
    with shown:
        yield report
    if shown.disable:
        took = duration(time.monotonic() - began)
        say(f"{title}: done in {took}{f' ({last})' if last else ''}")


def _left(done: int, left: int, seconds: float) -> str:
    """How long the rest takes at the pace of what was done since the first report.

    What comes before that, or was done by an earlier process, says nothing of the pace.
    """
    return f", about {duration(seconds / done * left)} to go" if done > 0 and left else ""


def duration(seconds: float) -> str:
    """A time as people say it.

    Example:
        >>> duration(4.2), duration(75), duration(4000)
        ('4 s', '1 min 15 s', '1 h 6 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def say(text: str) -> None:
    """A line on standard error; work never fails because nobody can read it."""
    if sys.stderr is None:
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        give_up(sys.stderr)


def give_up(stream: TextIO) -> None:
    """Let what a stream holds, and all that is to come, go nowhere: it cannot be written."""
    with contextlib.suppress(OSError):
        hole = os.open(os.devnull, os.O_WRONLY)
        os.dup2(hole, stream.fileno())
        os.close(hole)


def terminal_safe(text: str, *, longest: int = 200) -> str:
    r"""Text without what could move the cursor, hide or reorder: for names that come from data.

    Control characters (ANSI escapes start with one), format characters (right-to-left marks) and
    lone surrogates are replaced by U+FFFD; what is longer than `longest` characters is cut.

    Example:
        >>> terminal_safe("keys\x1b[2J")
        'keys�[2J'
    """
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return "".join(c if _is_harmless(c) else "�" for c in cut)


def table_text(text: object) -> str:
    r"""A name for a cell of a table on the terminal: safe, and never taken for rich's markup.

    Example:
        >>> table_text("P1 [/b]\x1b")
        'P1 \\[/b]�'
    """
    return escape(terminal_safe(str(text)))


def _is_harmless(character: str) -> bool:
    return character in JOINERS or unicodedata.category(character) not in ("Cc", "Cf", "Cs")
