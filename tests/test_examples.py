"""Examples in docstrings that claim a result are run."""

import doctest
import importlib
import pkgutil
import warnings

import pytest

import bayesfs

RUN_NOTHING = {"bayesfs.__main__"}
MODULES = sorted(
    m.name for m in pkgutil.walk_packages(bayesfs.__path__, "bayesfs.") if m.name not in RUN_NOTHING
)


def has_examples(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    with open(spec.origin, encoding="utf-8") as file:
        return ">>> " in file.read()


@pytest.mark.parametrize("name", [name for name in MODULES if has_examples(name)])
def test_examples_give_what_they_say(name: str) -> None:
    module = importlib.import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = doctest.testmod(module, optionflags=flags)
    assert result.failed == 0
