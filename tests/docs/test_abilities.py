"""docs/abilities.md says what the code says."""

import runpy
from pathlib import Path
from types import SimpleNamespace

from bayesfs.inference.exact import Exact
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.protocols import Conjugate, LinearHead, Model, missing_members

HOME = Path(__file__).parents[2] / "docs" / "_ext" / "abilities.py"


def test_the_page_is_the_one_that_the_code_makes() -> None:
    made = SimpleNamespace(**runpy.run_path(str(HOME)))
    said = made.PAGE.read_text(encoding="utf-8")
    assert said == made.page(), "run: python docs/_ext/abilities.py"
    assert "| `NUTS` | `Model` | every model |" in said
    conjugate = ("DeepKernelGP", "GaussianHierarchy", "NIWClasses", "NIWMode", "SharedClasses")
    assert f"| `Exact` | `Conjugate` | {', '.join(f'`{name}`' for name in conjugate)} |" in said


def test_an_ability_is_had_by_its_members() -> None:
    assert isinstance(GaussianHierarchy(), Conjugate)
    assert not isinstance(HierarchicalHead(), Conjugate)
    assert isinstance(HierarchicalHead(), LinearHead)
    assert missing_members(HierarchicalHead(), Conjugate) == (
        "condition",
        "log_evidence",
        "log_labels",
        "population_dims",
        "predictive",
        "sample_population",
    )


def test_what_is_optional_has_a_default() -> None:
    head = HierarchicalHead()
    assert head.fit_to((1.0, 0.5)) is head
    assert head.covariates == ()
    assert GaussianHierarchy().default_population(3) is None
    assert SVI.requires is Model
    assert Exact.requires is Conjugate
