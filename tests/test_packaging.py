"""What a release is: one version everywhere, types shipped, archives that an index would take."""

import importlib.metadata
import json
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


def test_conda_asks_for_what_pip_asks_for() -> None:
    """All but ArviZ's two lines, torch's other name, and weights that conda has no package of."""
    recipe = (ROOT / "packaging" / "conda" / "meta.yaml").read_text("utf-8")
    assert f'version = "{PROJECT["project"]["version"]}"' in recipe
    run = recipe.split("  run:\n")[1].split("\ntest:")[0]
    asked = dict(re.findall(r"^    - (\S+)(.*)$", run, flags=re.MULTILINE))
    others = {"torch": "pytorch", "matplotlib": "matplotlib-base", "arviz": "arviz-base"}
    for line in PROJECT["project"]["dependencies"]:
        found = re.match(r"([\w-]+)(?:\[\w+\])?([^;]*)", line)
        assert found
        name, limits = found[1], found[2]
        if name.startswith("efficientnet"):
            assert name in recipe
        elif name.startswith("arviz"):
            assert others.get(name, name) in asked
        else:
            assert asked[others.get(name, name)].strip() == limits, name


def test_the_notebook_runs() -> None:
    """Every cell but the one that installs."""
    notebook = json.loads((ROOT / "packaging" / "colab.ipynb").read_text("utf-8"))
    names: dict[str, object] = {}
    for cell in notebook["cells"]:
        code = "".join(cell["source"])
        if cell["cell_type"] == "code" and not code.startswith("%pip"):
            exec(code, names)
    assert "posterior" in names["tree"].children  # type: ignore[attr-defined]
