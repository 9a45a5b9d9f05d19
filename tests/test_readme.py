"""What README.md and docs/commands.md say works: Python runs, commands and options exist."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from bayesfs.cli.main import main
from bayesfs.cli.subcommands import COMMANDS
from bayesfs.types import Embeddings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS_PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
COMMAND_LINES = sorted(set(re.findall(r"(?:`|bin/)(bayesfs [^`\n]+)", README + COMMANDS_PAGE)))
MOST_LINES = 120
"""What a newcomer reads before they try it."""


def test_its_python_runs_on_arrays(make_embeddings: Callable[..., Embeddings]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert blocks
    frames = make_embeddings()
    names = {"features": frames.features}
    for plural in ("objects", "videos", "users", "conditions", "splits"):
        names[plural] = frames.coord(plural[:-1])
    for block in blocks:
        exec(block, names)
    assert "class_raw" in names["answer"].posterior.draws
    assert names["answer"].uncertainty["video_epistemic"].dims == ("task", "video")
    assert "posterior" in names["answer"].to_datatree(names["learnt"], {})


@pytest.mark.parametrize("name", ["demo", "test"])
def test_its_two_commands_are_marked_for_ci(name: str) -> None:
    block = re.search(rf"<!-- command: {name} -->\n```sh\n(.+)\n```", README)
    assert block
    assert block[1].startswith("python3 -m venv .venv && .venv/bin/pip install -e ")


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_its_commands_and_options_exist(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, name, *arguments = shlex.split(line)
    assert name in COMMANDS
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for option in (a for a in arguments if a.startswith("--")):
        assert option in shown


def test_every_command_is_told_of() -> None:
    assert {line.split()[1] for line in COMMAND_LINES} == set(COMMANDS)


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= MOST_LINES
