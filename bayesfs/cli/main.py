"""The command `bayesfs`: reads the arguments, runs one subcommand, and tells errors in one line."""

from __future__ import annotations

import atexit
import errno
import gc
import importlib.metadata
import inspect
import io
import os
import sys
import textwrap
import warnings
from collections.abc import Sequence
from typing import TextIO

import tyro

from bayesfs._utils.progress import give_up, say, terminal_safe
from bayesfs.cli.subcommands import COMMANDS
from bayesfs.errors import NO_DOCSTRINGS, REFUSALS, BayesfsError

FAILED = 2
"""Exit status of a command that could not do what it was asked."""

INTERRUPTED = 130

CLOSED_PIPE = 141
"""Exit status where whoever read the output has gone, as with `| head`: 128 + SIGPIPE."""

COLLECT_AFTER = (50_000, 50, 50)
"""Thresholds of Python's garbage collector, in objects and in rounds.

The objects of the libraries that a command imports live as long as it does: looking for cycles
among them at Python's own pace took a tenth of a small run, and taking them apart at its end an
eighth.
"""

ABOUT = (
    "Bayesian few-shot recognition of objects in short, real, messy videos. Each command has "
    "--help with an example; --debug shows tracebacks; --version says the version."
)

GO_ON = ("demo", "features", "run", "sweep", "benchmark")
"""Commands that go on where they were interrupted."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status.

    A `BayesfsError` becomes one line on standard error and the status `FAILED`; with `--debug`
    it is raised, with its traceback. Standard streams may be closed, full, or of few characters.

    Args:
        argv: arguments after the command's name; those of the process by default.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    _mend_streams()
    gc.set_threshold(*COLLECT_AFTER)
    atexit.register(gc.freeze)
    if sys.flags.optimize > 1:
        _say(f"bayesfs: error: {NO_DOCSTRINGS}")
        return FAILED
    try:
        return _flushed(_run(arguments))
    except BayesfsError as error:
        if debug:
            raise
        _say(f"bayesfs: error: {error}")
        return _flushed(FAILED)
    except KeyboardInterrupt:
        known = next((a for a in arguments if not a.startswith("-")), "") in GO_ON
        _say(f"bayesfs: interrupted{'; the same command goes on from here' if known else ''}")
        return _flushed(INTERRUPTED)
    except OSError as error:
        if error.filename is not None or error.errno not in (*REFUSALS, errno.EPIPE, errno.EIO):
            raise
        return _unwritten(error)


def _run(arguments: Sequence[str]) -> int:
    if arguments == ["--version"]:
        print(f"bayesfs {importlib.metadata.version('bayesfs')}")
        return 0
    if arguments in (["--help"], ["-h"]):
        print(overview())
        return 0
    with warnings.catch_warnings():
        warnings.showwarning = _Told()
        try:
            tyro.extras.subcommand_cli_from_dict(
                COMMANDS,
                prog="bayesfs",
                description=ABOUT,
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
        except SystemExit as stop:  # help, or wrong usage
            if stop.code and (name := _parted(arguments)):
                _say(f"bayesfs: {name!r} is there: write it in quotes, as it has spaces")
            raise SystemExit(_flushed(stop.code if isinstance(stop.code, int) else 0)) from None
    return 0


def _parted(arguments: Sequence[str]) -> str:
    """A file or folder whose name the shell has taken apart at its spaces; "" for none."""
    runs = (
        " ".join(arguments[i:j])
        for i in range(len(arguments))
        for j in range(i + 2, len(arguments) + 1)
    )
    return next((name for name in runs if os.path.exists(name)), "")


def overview() -> str:
    """What the command is for, and the first sentence on each subcommand."""
    first = {name: (inspect.getdoc(made) or "").splitlines()[0] for name, made in COMMANDS.items()}
    width = max(map(len, first))
    lines = [f"  {name:{width}}  {sentence}" for name, sentence in first.items()]
    return "\n".join([*textwrap.wrap(ABOUT, 80), "", "bayesfs COMMAND ...", "", *lines])


def _mend_streams() -> None:
    """Closed streams lead nowhere, so that no file takes their place; all text can be written."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            hole = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            setattr(sys, name, os.fdopen(hole, "r" if number == 0 else "w", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _flushed(status: int) -> int:
    """The status, or another one where what was printed cannot be written."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return _unwritten(error)
    return status


def _unwritten(error: OSError) -> int:
    give_up(sys.stdout)
    if error.errno == errno.EPIPE:
        return CLOSED_PIPE
    reason = REFUSALS.get(error.errno or 0, str(error))
    _say(f"bayesfs: error: cannot write to standard output: {reason}")
    return FAILED


class _Told:
    """In place of `warnings.showwarning`: each text once, in one line, wherever it comes from."""

    def __init__(self) -> None:
        self.texts: set[str] = set()

    def __call__(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, UserWarning) and str(message) not in self.texts:
            self.texts.add(str(message))
            _say(f"bayesfs: warning: {message}")


def _say(text: str) -> None:
    say(terminal_safe(" ".join(text.splitlines()), longest=2000))


if __name__ == "__main__":
    sys.exit(main())
