"""The command `bayesfs`: reads the arguments, runs one subcommand, and tells errors in one line."""

from __future__ import annotations

import importlib.metadata
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

import tyro

from bayesfs.commands.subcommands import COMMANDS
from bayesfs.errors import BayesfsError

FAILED = 2
"""Exit status of a command that could not do what it was asked."""

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status.

    A `BayesfsError` becomes one line on standard error and the status `FAILED`; with `--debug`
    it is raised, with its traceback.

    Args:
        argv: arguments after the command's name; those of the process by default.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    if arguments == ["--version"]:
        print(f"bayesfs {importlib.metadata.version('bayesfs')}")
        return 0
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            tyro.extras.subcommand_cli_from_dict(
                COMMANDS,
                prog="bayesfs",
                description="Bayesian few-shot recognition of objects in short, real, messy "
                "videos. Each command has --help with an example; --debug shows tracebacks; "
                "--version says the version.",
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except BayesfsError as error:
        if debug:
            raise
        _say(f"bayesfs: error: {error}")
        return FAILED
    except KeyboardInterrupt:
        _say("bayesfs: interrupted; the same command goes on from here")
        return INTERRUPTED
    return 0


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if issubclass(category, UserWarning):
        _say(f"bayesfs: warning: {message}")


def _say(text: str) -> None:
    from bayesfs.progress import terminal_safe

    print(terminal_safe(" ".join(text.splitlines()), longest=2000), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
