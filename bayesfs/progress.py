"""Progress bars for the command, and text that is safe to print to a terminal.

Use `bar` first: a context that yields the callback which long work reports to.
"""

from __future__ import annotations

import contextlib
import sys
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.markup import escape
from tqdm import tqdm

if TYPE_CHECKING:
    from bayesfs.contracts import Progress

JOINERS = "\u200c\u200d"
"""Zero-width joiners: format characters that Persian, Hindi and emoji need."""


@contextlib.contextmanager
def bar(title: str) -> Iterator[Progress]:
    """A progress bar on standard error; where that is no terminal, a line at each end.

    Args:
        title: what is going on, shown before the bar.

    Yields:
        A callback (done, total, message) to report to; it may be called as often as one likes.

    Example:
        >>> with bar("features") as progress:
        ...     progress(1, 10, "video P001--mug--clean--0")
    """
    shown = tqdm(desc=title, disable=not sys.stderr.isatty(), dynamic_ncols=True, leave=True)
    last = ""

    def report(done: int, total: int, message: str) -> None:
        nonlocal last
        last = terminal_safe(message)
        shown.total = total
        shown.set_postfix_str(last, refresh=False)
        shown.update(done - shown.n)

    if shown.disable:
        print(f"{title} ...", file=sys.stderr, flush=True)
    with shown:
        yield report
    if shown.disable:
        print(f"{title}: done{f' ({last})' if last else ''}", file=sys.stderr)


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
