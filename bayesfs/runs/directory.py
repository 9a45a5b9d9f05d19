"""A run directory: what a run was given, how far it is, and what it found; safe to interrupt.

Use `RunDirectory` first. Every file is written under a temporary name and then renamed, and
`run.json` records the checksum of each finished file, so that whatever moment a run is killed at,
nothing half-written is ever taken for whole. One process at a time writes: the lock is the
operating system's (`flock`), which a killed process gives back.

Layout:
    run.json     what went in (recipes' checksums, seed, versions), what is finished, checksums
    recipes/     the text of the recipes that were run, for people; reading a run never runs them
    *.npz, *.nc  results: arrays and numbers only; nothing here is ever unpickled
    report.html  the report

Where thumbnails are wanted, `report.html` holds pictures from the data; nothing else does.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bayesfs._utils.atomic import remove_partial, write_whole
from bayesfs._utils.guarded_files import read_text
from bayesfs.errors import REFUSALS, RunError

STATE = "run.json"
LOCK = ".bayesfs-lock"
LOG = "log.txt"
FORMAT = 2
"""Version of the layout; a directory with another one is refused, not guessed at."""

FIELDS: Mapping[str, type] = {
    "status": str,
    "inputs": dict,
    "files": dict,
    "facts": dict,
    "warnings": list,
    "skipped": list,
    "shown": list,
    "store": str,
    "sampling": str,
    "note": str,
    "population_identity": str,
    "population_warnings": list,
}
"""What run.json may hold -> its kind; the first three always, the others once they are known."""


@contextlib.contextmanager
def explained(path: Path, deed: str = "write") -> Iterator[None]:
    """Turn an operating system's refusal into a message that names the path and the cause.

    Raises:
        RunError: in place of any OSError inside the block.
    """
    causes = {
        **REFUSALS,
        errno.EROFS: "the file system is read-only; choose another --out",
        errno.EEXIST: "a file with that name is in the way",
        errno.ELOOP: "a link is in the way; none is followed in there, delete it",
        errno.ENAMETOOLONG: "the name is too long for this file system",
    }
    try:
        yield
    except OSError as e:
        reason = causes.get(e.errno or 0, str(e))
        raise RunError(f"cannot {deed} {e.filename or path}: {reason}") from e


def write_atomically(
    path: Path, write: Callable[[Path], object], within: Path | None = None
) -> None:
    """`bayesfs._utils.atomic.write_whole`, with the operating system's refusal explained.

    Args:
        path: final name; an existing file there is replaced in one step.
        write: gets the temporary path (same name) and writes the whole file.
        within: folder below which no link is followed, such as a run directory.

    Raises:
        RunError: the operating system refuses, such as on a full disk; the temporary is removed.
    """
    with explained(path):
        write_whole(path, write, within=within)


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class RunDirectory:
    """One run's folder.

    Attributes:
        path: the folder; made when the run begins.

    Example:
        >>> run = RunDirectory(Path("runs/demo"))
        >>> with run.begin({"seed": 0}, recipes={}):  # doctest: +SKIP
        ...     run.keep("note.txt", lambda path: path.write_text("done"))
    """

    path: Path

    @contextlib.contextmanager
    def begin(self, inputs: Mapping[str, Any], recipes: Mapping[str, str]) -> Iterator[None]:
        """Hold the directory for one run with these inputs, new or interrupted.

        Args:
            inputs: what decides the result (JSON values): seed, settings, checksums, versions.
            recipes: file name -> text, kept under recipes/.

        Raises:
            RunError: another process is writing here, the folder holds a run with other inputs,
                files that are not a run's or links, or it cannot be written.
        """
        with explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self.refuse_links()
            lock = FileLock(self.path / LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise RunError(
                    f"{self.path}: another bayesfs run is writing here; wait for it or choose "
                    "another --out"
                ) from None
        try:
            self._open(dict(inputs), recipes)
            yield
        finally:
            lock.release()

    def _open(self, inputs: dict[str, Any], recipes: Mapping[str, str]) -> None:
        """Check that what is here is this run, or start it."""
        self._sweep()
        if not (self.path / STATE).exists():
            others = sorted(p.name for p in self.path.iterdir() if p.name != LOCK)
            if others:
                raise RunError(
                    f"{self.path}: expected a new folder or a run's, but it holds {others[0]!r} "
                    f"and no {STATE}; choose another --out"
                )
            self._start(inputs, recipes)
            return
        state = self.state()
        held = state["inputs"]
        differing = sorted(k for k in {*held, *inputs} if held.get(k) != inputs.get(k))
        if differing and state["files"]:
            raise RunError(
                f"{self.path}: holds a run that differs in {', '.join(differing)}; "
                "choose another --out, or delete the folder to start anew"
            )
        if differing:  # nothing was finished: a first try that was mistaken
            self._start(inputs, recipes)
        else:  # a kill may have come between the state and a recipe
            self._write_recipes({n: t for n, t in recipes.items() if not self.recipe(n).exists()})

    def _start(self, inputs: dict[str, Any], recipes: Mapping[str, str]) -> None:
        """The state first: by it the folder is known as a run's, and what is in it as ours."""
        self._save({"format": FORMAT, "status": "running", "inputs": inputs, "files": {}})
        self._write_recipes(recipes)

    def _write_recipes(self, recipes: Mapping[str, str]) -> None:
        for name, text in recipes.items():
            self._write_text(self.recipe(name), text)

    def recipe(self, name: str) -> Path:
        """Where the text of a recipe is kept."""
        return self.path / "recipes" / name

    def refuse_links(self) -> None:
        """Make sure that nothing in here stands for something elsewhere.

        Raises:
            RunError: there is a link.
        """
        for folder, folders, files in os.walk(self.path):
            for name in (*folders, *files):
                if os.path.islink(os.path.join(folder, name)):
                    raise RunError(
                        f"{os.path.join(folder, name)}: a link to another place; a run directory "
                        "holds none, since writing to one would write there. Delete it"
                    )

    def _sweep(self) -> None:
        """Remove what a killed run left under temporary names; the lock is held."""
        with explained(self.path, "clean"):
            remove_partial(self.path)

    def state(self) -> dict[str, Any]:
        """What run.json says.

        Raises:
            RunError: there is no run here, or run.json is not one of this format.
        """
        path = self.path / STATE
        try:
            if path.is_symlink():
                raise RunError("a link to another place")
            state = json.loads(read_text(path))
        except FileNotFoundError:
            what = f"holds no {STATE}" if self.path.is_dir() else "no such folder"
            raise RunError(
                f"{self.path}: {what}; expected the --out folder of `bayesfs run`"
            ) from None
        except (OSError, ValueError, RecursionError) as e:
            raise RunError(f"{path}: cannot be read ({e}); is it a run's, and whole?") from e
        found = state.get("format") if isinstance(state, dict) else None
        if found != FORMAT:
            raise RunError(
                f"{path}: expected run format {FORMAT}, got {found!r}; "
                "was it made by an earlier bayesfs? Run it again in another directory"
            )
        for name, kind in FIELDS.items():
            if name in state and not isinstance(state[name], kind):
                raise RunError(f"{path}: expected {name} to be {kind.__name__}; was it edited?")
        if not {"status", "inputs", "files"} <= set(state):
            raise RunError(f"{path}: expected status, inputs and files; was it edited?")
        return dict(state)

    def finished(self) -> dict[str, Any]:
        """What run.json says of a finished run.

        Raises:
            RunError: the run is not finished, there is none, or its folder holds links.
        """
        self.refuse_links()
        state = self.state()
        if state["status"] != "done":
            raise RunError(
                f"{self.path}: the run is not finished; run the same `bayesfs run` again"
            )
        return state

    def keep(self, name: str, write: Callable[[Path], object]) -> Path:
        """Write one finished file and record its checksum.

        Args:
            name: its name in the directory.
            write: gets the path to write to.
        """
        path = self.path / name
        write_atomically(path, write, within=self.path)
        state = self.state()
        state["files"][name] = checksum(path)
        self._save(state)
        return path

    def kept(self, name: str) -> Path | None:
        """A finished file, checked against its checksum; None where it is not finished.

        Raises:
            RunError: the file was finished but has changed or gone since.
        """
        recorded = self.state()["files"].get(name)
        if recorded is None:
            return None
        if Path(name).name != name:
            raise RunError(f"{self.path}: {STATE} names {name!r}, which is no file of a run")
        path = self.path / name
        with explained(path, "read"):
            found = checksum(path) if path.is_file() and not path.is_symlink() else None
        if found != recorded:
            raise RunError(
                f"{path}: {'is missing' if found is None else 'has changed'} since the run wrote "
                "it; delete the folder and run again"
            )
        return path

    def log(self, text: str) -> None:
        """Add a line with the time (UTC) to the run's log, for whoever looks in from elsewhere."""
        line = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z {text}\n"
        with explained(self.path / LOG), (self.path / LOG).open("a", encoding="utf-8") as file:
            file.write(line)

    def note(self, **facts: Any) -> None:
        """Add facts about the run (JSON values) to its state."""
        self._save({**self.state(), **facts})

    def finish(self, **facts: Any) -> None:
        """Mark the run as done, with facts about it (JSON values)."""
        self.note(**facts, status="done")

    @property
    def is_done(self) -> bool:
        """Whether the run is finished."""
        return (self.path / STATE).exists() and self.state()["status"] == "done"

    def _save(self, state: Mapping[str, Any]) -> None:
        self._write_text(self.path / STATE, json.dumps(state, indent=2, ensure_ascii=False) + "\n")

    def _write_text(self, path: Path, text: str) -> None:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, partial(Path.write_text, data=text, encoding="utf-8"), self.path)
