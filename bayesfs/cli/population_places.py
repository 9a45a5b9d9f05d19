"""Where populations are put for others: a folder, or the Hugging Face hub (extra `hub`).

`push` writes `population.safetensors` and a card, `pull` reads and checks them. A folder on a
shared disk or in a git repository does as well as the hub, and needs no network.
"""

from __future__ import annotations

import importlib
import re
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from bayesfs.cli.answers import check_writable
from bayesfs.cli.share_populations import write_population
from bayesfs.errors import DataError, RunError
from bayesfs.runs.directory import explained, write_atomically
from bayesfs.training.population_card import CARD_MARK, card_text
from bayesfs.training.shared_population import SharedPopulation

FILE, CARD = "population.safetensors", "README.md"

FORMER = "population.npz"
"""What `push` wrote before."""

HUB = re.compile(r"hf:/{1,2}([\w.-]+/[\w.-]+)")
"""hf://OWNER/NAME, also as a path has it, with one slash."""


def push_population(path: Path, place: Path) -> None:
    """Put a population and its card where others find them.

    Raises:
        RunError: the folder holds something else, cannot be written, or the hub refuses.
        DataError: the file is no population.
    """
    shared = SharedPopulation.load(path)
    if repository := _hub_name(place):
        with tempfile.TemporaryDirectory(prefix="bayesfs-") as folder:
            _write_folder(shared, Path(folder))
            _on_hub("upload_folder", repo_id=repository, folder_path=folder)
    else:
        _refuse_strange(place)
        with explained(place):
            place.mkdir(parents=True, exist_ok=True)
        _write_folder(shared, place)
    print(f"{place}: {FILE} and {CARD}, {shared.card['people']} people")


def pull_population(place: Path, out: Path) -> None:
    """Fetch a population from where it was put, and write it to a file once it has been checked.

    Raises:
        RunError: the file cannot be written, or the hub refuses.
        DataError: there is no population, or a damaged one.
    """
    check_writable(out)
    repository = _hub_name(place)
    if repository:
        source = _from_hub(repository)
    elif not place.is_dir():
        raise DataError(f"{place}: expected a folder, or hf://OWNER/NAME; there is no such folder")
    else:
        source = next((p for p in (place / FILE, place / FORMER) if p.exists()), place / FILE)
    write_population(SharedPopulation.load(source.resolve()), out)


def _from_hub(repository: str) -> Path:
    """The population's file, on this machine."""
    try:
        return Path(_on_hub("hf_hub_download", repo_id=repository, filename=FILE))
    except RunError:
        try:
            return Path(_on_hub("hf_hub_download", repo_id=repository, filename=FORMER))
        except RunError:
            pass
        raise


def _write_folder(shared: SharedPopulation, folder: Path) -> None:
    write_atomically(folder / FILE, shared.save)
    write_atomically(
        folder / CARD, partial(Path.write_text, data=card_text(shared), encoding="utf-8")
    )


def _refuse_strange(folder: Path) -> None:
    """Overwrite a population with its card, and nothing else."""
    card = folder / CARD
    if card.exists() and CARD_MARK not in card.read_text("utf-8", errors="replace")[:200]:
        raise RunError(f"{card}: not a card that bayesfs wrote; choose another folder")


def _hub_name(place: Path) -> str | None:
    found = HUB.fullmatch(place.as_posix())
    if found is None and place.as_posix().startswith("hf:"):
        raise RunError(f"expected hf://OWNER/NAME, got {place.as_posix()!r}")
    return None if found is None else found[1]


def _on_hub(verb: str, **arguments: Any) -> Any:
    """One call of the hub's own client; whatever it says is passed on in one line."""
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise RunError("hf:// needs the hub's client: pip install 'bayesfs[hub]'") from error
    try:
        if verb == "upload_folder":
            hub.create_repo(arguments["repo_id"], exist_ok=True)
        return getattr(hub, verb)(**arguments)
    except Exception as error:  # its own, requests' and the operating system's
        told = " ".join(str(error).split())[:300]
        raise RunError(f"hf://{arguments['repo_id']}: {told}") from error
