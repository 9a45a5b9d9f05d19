"""Fields of frozen dataclasses by the names that scikit-learn gives nested parameters.

`nested_parameters` lists them, `with_parameters` gives the value with some of them changed: `draws`
of an engine, `family__scale` of a model whose `family` is a dataclass too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any


def nested_parameters(value: Any) -> dict[str, Any]:
    """Name -> value of the fields of a dataclass and of those within; none of anything else.

    Example:
        >>> from bayesfs.inference.exact import Exact
        >>> nested_parameters(Exact(draws=8))
        {'draws': 8, 'population_draws': 8}
    """
    found: dict[str, Any] = {}
    if not is_dataclass(value) or isinstance(value, type):
        return found
    for name in (field.name for field in fields(value) if field.init):
        own = getattr(value, name)
        found[name] = own
        found |= {f"{name}__{inner}": x for inner, x in nested_parameters(own).items()}
    return found


def with_parameters(value: Any, changes: Mapping[str, Any], called: str) -> Any:
    """The dataclass with other values of some fields, its own checks included.

    Args:
        value: the dataclass.
        changes: name, as `nested_parameters` has it, -> new value.
        called: what a message calls it.

    Raises:
        ValueError: it has no such field.
    """
    own = {name: x for name, x in changes.items() if "__" not in name}
    deeper: dict[str, dict[str, Any]] = {}
    for name, x in changes.items():
        first, _, rest = name.partition("__")
        if rest:
            deeper.setdefault(first, {})[rest] = x
    known = [name for name in nested_parameters(value) if "__" not in name]
    strange = sorted({*own, *deeper} - set(known))
    if strange:
        raise ValueError(f"{called} {value!r} has no parameter {strange[0]!r}; it has {known}")
    value = replace(value, **own) if own else value
    inner = {n: with_parameters(getattr(value, n), c, f"{called}__{n}") for n, c in deeper.items()}
    return replace(value, **inner) if inner else value
