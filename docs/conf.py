"""Sphinx: `sphinx-build -W docs build/docs` makes the site, offline, without scripts for maths."""

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
from docstrings import blocks, linked  # noqa: E402

project = "bayesfs"
author = copyright = "The bayesfs developers"
release = version = version_of("bayesfs")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.apidoc",
    "sphinx.ext.napoleon",
]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"bayesfs {release}"
html_math_renderer = "mathml"
exclude_patterns = ["_ext", "build"]
default_role = "py:obj"
apidoc_modules = [
    {
        "path": "../bayesfs",
        "destination": "api",
        "separate_modules": True,
        "module_first": True,
        "exclude_patterns": ["../bayesfs/_recipes", "../bayesfs/testing/__pycache__"],
    }
]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
suppress_warnings = ["ref.python", "myst.xref_missing"]
KEYS = re.findall(r"^@\w+\{(\w+),", (HERE / "refs.bib").read_text(encoding="utf-8"), re.MULTILINE)


def plain_docstring(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Before napoleon: formulas and citations of a docstring."""
    lines[:] = linked("\n".join(blocks(lines)), KEYS).split("\n")


def plain_types(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """After napoleon: `numpy.str_` is a type, not a link to "numpy.str"."""
    lines[:] = [re.sub(r"(numpy\.\w+)_(?=\])", r"\1\_", line) for line in lines]


def skipped(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what scikit-learn adds to every estimator, and what stands in its own module."""
    page, home = app.env.docname, getattr(obj, "__module__", None) or ""
    twice = name == "predict" and page == "api/bayesfs"
    twice |= page == "api/bayesfs.types" and home.startswith("bayesfs.types.")
    return True if twice or re.fullmatch(r"set_\w+_request", name) else None


def inline_math(self: Any, node: nodes.math) -> None:
    """MathML of a formula in a line."""
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def block_math(self: Any, node: nodes.math_block) -> None:
    """MathML of a formula by itself."""
    self.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def bibliography(app: Any) -> None:
    """references.rst, made from refs.bib: one target an entry."""
    text = (HERE / "refs.bib").read_text(encoding="utf-8")
    rows = ["References", "==========", ""]
    for key, body in re.findall(r"^@\w+\{(\w+),\n(.*?)^\}", text, re.DOTALL | re.MULTILINE):
        entry = {k: clean(v) for k, v in re.findall(r"^  (\w+) = \{(.*)\},$", body, re.MULTILINE)}
        where = next(
            entry[k] for k in ("journal", "booktitle", "publisher", "howpublished") if k in entry
        )
        who = ", ".join(" ".join(reversed(a.split(", "))) for a in entry["author"].split(" and "))
        rows += [
            f".. _ref-{key}:",
            "",
            f"**{key}.** {who} ({entry['year']}). *{entry['title']}*. {where}.",
            "",
        ]
    target = HERE / "references.rst"
    made = "\n".join(rows)
    if not target.exists() or target.read_text(encoding="utf-8") != made:
        target.write_text(made, encoding="utf-8")


def clean(value: str) -> str:
    """BibTeX's accents as letters, its braces gone."""
    import unicodedata

    mark = {'"': "\u0308", "'": "\u0301", "`": "\u0300", "v": "\u030c", "c": "\u0327"}
    value = re.sub(r"\{?\\(['\"`v])\{?([A-Za-z])\}?\}?", lambda m: m[2] + mark[m[1]], value)
    value = value.replace(r"{\aa}", "å").replace("--", "–")
    return unicodedata.normalize("NFC", re.sub(r"[{}]", "", value))


def setup(app: Any) -> None:
    """What Sphinx calls."""
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    app.connect("autodoc-process-docstring", plain_docstring, priority=100)
    app.connect("autodoc-process-docstring", plain_types, priority=900)
    app.connect("autodoc-skip-member", skipped)
    app.connect("builder-inited", bibliography, priority=100)
