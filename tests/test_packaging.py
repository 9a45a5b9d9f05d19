"""What a release is: one version everywhere, types shipped, archives that an index would take."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import bayesfs

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_the_version_is_one() -> None:
    version = PROJECT["project"]["version"]
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    newest = re.search(r"^## (\S+)", changes, flags=re.MULTILINE)
    assert newest
    assert newest[1] == version
    assert f"Version {version}." in (ROOT / "docs" / "stability.md").read_text("utf-8")


def test_types_are_shipped() -> None:
    assert (Path(bayesfs.__file__).parent / "py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["project"]["classifiers"]


def test_every_public_name_exists() -> None:
    assert sorted(set(bayesfs.__all__)) == sorted(bayesfs.__all__)
    assert all(hasattr(bayesfs, name) for name in bayesfs.__all__)
    assert importlib.metadata.version("bayesfs")
