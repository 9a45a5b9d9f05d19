"""Sources: every author and year that the package names is in refs.bib; formulas are typeset."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
BIB = (ROOT / "docs/refs.bib").read_text(encoding="utf-8")
KEYS = re.findall(r"^@\w+\{(\w+),", BIB, flags=re.MULTILINE)
TEXTS = [
    path
    for room in ("bayesfs", "models", "inference", "evaluation")
    for path in sorted((ROOT / room).rglob("*.py"))
    if re.search(r"\b(19|20)\d\d\b", path.read_text(encoding="utf-8"))
]


DOCSTRINGS = SimpleNamespace(**runpy.run_path(str(ROOT / "docs/_ext/docstrings.py")))


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_source_that_is_named_has_an_entry(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for match, key in DOCSTRINGS.citations(text):
        assert any(k.startswith(key) for k in KEYS), f"{' '.join(match[0].split())}: no {key}"
    for named in re.findall(r"refs\.bib: ((?:\w+,\s+)*\w+)", text):
        for key in re.split(r",\s+", named):
            assert key in KEYS, f"refs.bib has no {key}"


def test_every_source_block_is_read() -> None:
    """A `Source:` in a form that the pattern does not know would go unchecked."""
    for path in TEXTS:
        for block in re.findall(
            r"Source:(.*?)(?:\n\s*\n|\"\"\")", path.read_text(encoding="utf-8"), flags=re.DOTALL
        ):
            if re.search(r"\b(19|20)\d\d\b", block):
                assert any(True for _ in DOCSTRINGS.citations(block)), f"{path.name}: {block}"


def test_entries_are_whole_and_sorted() -> None:
    """Each field on one line, as conf.py reads them."""
    assert sorted(set(KEYS)) == KEYS
    for entry in BIB.split("\n@")[1:]:
        fields = dict(re.findall(r"^  (\w+) = \{(.+)\},$", entry, flags=re.MULTILINE))
        assert {"author", "title", "year"} <= set(fields), entry
        assert {"journal", "booktitle", "publisher", "howpublished"} & set(fields), entry
        assert re.fullmatch(r"\d{4}", fields["year"]), entry
        assert entry.count("{") == entry.count("}"), entry


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("Guo et al. 2017, eq. 3.", ["guo2017"]),
        ("Bissiri, Holmes and Walker (2016), JRSS B 78; Kish 1965.", ["bissiri2016", "kish1965"]),
        ("Säilynoja, Bürkner and Vehtari 2022", ["sailynoja2022"]),
        ("Geifman, Uziel and\n    El-Yaniv 2019", ["geifman2019"]),
        ("Bickford Smith et al. (2023), AISTATS", ["bickfordsmith2023"]),
        ("the protocol of December 2022", []),
        ("a JPEG 2000 picture", []),
    ],
)
def test_citations_are_found(text: str, keys: list[str]) -> None:
    assert [key for _, key in DOCSTRINGS.citations(text)] == keys
    linked = DOCSTRINGS.linked(text, KEYS)
    assert linked.count(":ref:`") == len(keys)


def test_formulas_are_typeset_and_other_blocks_kept() -> None:
    lines = [
        "Text:",
        "",
        "    p(y | x, D) = sum_s w_s p(y | x, theta_s),",
        "",
        "and a table:",
        "",
        "    posterior             every site of the model",
        "    one two three four five",
        "",
        "Example:",
        "    >>> 1 + 1",
    ]
    made = "\n".join(DOCSTRINGS.blocks(lines))
    assert r".. math::" in made
    assert r"\theta_{s}" in made
    assert ".. code-block:: text" in made
    assert "    >>> 1 + 1" in made


@pytest.mark.parametrize(
    ("line", "tex"),
    [
        ("aleatoric = E_theta H[p(. | theta)]", r"\mathrm{aleatoric}"),
        ("a_t ~ N(0, A)      task effect", r"\qquad \text{task effect}"),
        ("a <= b ~ x^2", r"a\le b\sim x^2"),
        ("w_s proportional to p(x | theta_s)", r"w_{s}\propto p(x\mid \theta_{s})"),
    ],
)
def test_a_line_of_a_formula(line: str, tex: str) -> None:
    assert tex in DOCSTRINGS.to_tex(line)


def test_a_sentence_is_no_formula() -> None:
    assert DOCSTRINGS.to_tex("the model believes that videos differ") is None
