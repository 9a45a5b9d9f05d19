"""Every page of the documentation does what it says: its Python runs, its links lead somewhere.

A ```text block right after a ```python block is what that block prints; numbers may differ in their
last digits. Classes that inherit a contract have its checks run.
"""

import contextlib
import io
import math
import os
import pkgutil
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bayesfs.cli.main import main
from bayesfs.testing import BackboneContract, EngineContract, ModelContract

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
PAGES = sorted(p for p in DOCS.rglob("*.md") if "```python" in p.read_text(encoding="utf-8"))
LINKED = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"]
CONTRACTS = (ModelContract, EngineContract, BackboneContract)
GUIDES = ("new-model.md", "new-engine.md")
LONG = (
    "new-engine.md",
    "data-frame.md",
    "diagnostics.md",
    "workflow.md",
    "inference/any-program.md",
    "inference/checked.md",
)
"""Half a minute and more each, of what tests of the same engines and models ask by day."""
SHORT_GUIDES = ("new-decomposition.md", "new-report-section.md", "new-backbone.md")
NUMBER = re.compile(r"[-+]?\d+\.\d+(?:e[-+]?\d+)?")


def blocks(path: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(path.read_text(encoding="utf-8"))


def steps(path: Path) -> Iterator[tuple[str, str | None]]:
    """The Python of a page, each with what it is said to print."""
    found = blocks(path)
    for (language, code), after in zip(found, [*found[1:], ("", "")], strict=True):
        if language == "python":
            yield code, after[1] if after[0] == "text" else None


def assert_prints(said: str, printed: str) -> None:
    """Equal text; numbers with a decimal point agree to a tenth, or to 0.01."""
    assert NUMBER.sub("#", said).split() == NUMBER.sub("#", printed).split(), printed
    for a, b in zip(NUMBER.findall(said), NUMBER.findall(printed), strict=True):
        assert math.isclose(float(a), float(b), rel_tol=0.1, abs_tol=0.01), printed


def check_contracts(names: dict[str, Any]) -> int:
    """Run every check of the contracts that a page fulfils; how many there were."""
    done = 0
    for value in list(names.values()):
        if isinstance(value, type) and issubclass(value, CONTRACTS):
            if value in CONTRACTS:
                continue
            for check in (n for n in dir(value) if n.startswith("test_")):
                getattr(value(), check)()
                done += 1
    return done


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=name, marks=[pytest.mark.slow] * (name in LONG))
        for path in PAGES
        for name in [path.relative_to(DOCS).as_posix()]
    ],
)
def test_its_python_runs_and_prints_what_it_says(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    for number, (code, said) in enumerate(steps(path), start=1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"{path.name}, block {number}", "exec"), names)
        if said is not None:
            assert_prints(said, printed.getvalue())
    assert check_contracts(names) >= 8 * (path.name in (*GUIDES, "new-backbone.md"))
    keep = os.environ.get("BAYESFS_KEEP_PICTURES")
    for picture in re.findall(r"!\[[^\]]*\]\((?!http)([^)]+)\)", path.read_text(encoding="utf-8")):
        made = tmp_path / Path(picture).name
        if made.exists() and keep:
            (path.parent / picture).write_bytes(made.read_bytes())


@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_is_short(name: str) -> None:
    code = [line for language, text in blocks(DOCS / name) if language == "python"
            for line in text.splitlines() if line.strip()]  # fmt: skip
    upto = next(i for i, line in enumerate(code) if "def make_" in line) + 2
    assert upto < 60, f"{name}: {upto} lines from equation to contract test"


@pytest.mark.parametrize("name", SHORT_GUIDES)
def test_a_worked_example_is_short(name: str) -> None:
    code = [text for language, text in blocks(DOCS / name) if language == "python"]
    lines = sum(bool(line.strip()) for text in code for line in text.splitlines())
    assert 10 < lines < 40, f"{name}: {lines} lines"


def test_the_index_leads_to_every_guide_and_to_the_glossary() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8").splitlines()
    pages = [*GUIDES, *SHORT_GUIDES, "glossary.md", "abilities.md"]
    assert {page.removesuffix(".md") for page in pages} <= set(index)


GLOSSARY = (DOCS / "glossary.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(bayesfs\.[\w.]+)`", GLOSSARY))))
def test_the_glossary_names_what_exists(path: str) -> None:
    pkgutil.resolve_name(path)


COMMANDS = sorted(
    {
        line
        for path in LINKED
        for language, text in blocks(path)
        if language == "sh"
        for line in text.splitlines()
        if line.startswith("bayesfs ")
    }
)


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands_and_options_exist(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, name, *arguments = shlex.split(line)
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for option in (a for a in arguments if a.startswith("--")):
        assert option in shown
    for recipe in (a for a in arguments if a.endswith(".py") and a.split("/")[0] != "my_model.py"):
        assert (ROOT / recipe).is_file(), recipe


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    text = BLOCK.sub("", path.read_text(encoding="utf-8"))
    heads = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", h.replace("`", "").lower()) for h in heads]
    return {h.strip().replace(" ", "-") for h in plain}


@pytest.mark.parametrize("path", LINKED, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_within_the_project_lead_somewhere(path: Path) -> None:
    text = BLOCK.sub("", path.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{path.name}: {target}"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), f"{path.name}: {target}"
