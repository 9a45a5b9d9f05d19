"""What a field may hold, said in its type: `Positive`, `Count`, ... and `check_ranges`.

The type says it once, for whoever reads the code, for `check_ranges` where a value is made, and for
`bayesfs.recipes.unrun`, which reads the text of a recipe and imports nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, reduce
from itertools import repeat
from numbers import Real
from operator import or_
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from bayesfs.errors import BayesfsError


@dataclass(frozen=True)
class Rule:
    """What the values of a type keep to besides.

    Attributes:
        words: it, after "expected".
        holds: whether a value keeps to it.
        known: names that it chooses among, one of which may have been meant.
    """

    words: str
    holds: Callable[[Any], bool]
    known: tuple[str, ...] = ()

    def refusal(self, value: Any) -> str:
        """What was expected and what came; empty where the value keeps to it."""
        try:
            if self.holds(value):
                return ""
        except TypeError:  # of another type, for which that is the fault
            return ""
        wrong = next((str(one) for one in value if one not in self.known), "") if self.known else ""
        near = difflib.get_close_matches(wrong, self.known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"expected {self.words}, got {value!r}{hint}"


@dataclass(frozen=True)
class OfData:
    """A word, or words, that must be in the data: values of a coordinate, or names of such.

    Attributes:
        coordinate: of which it is a value.
        prefix: of the coordinates that it names, where it names some.
    """

    coordinate: str = ""
    prefix: str = ""


def _number(words: str, holds: Callable[[float], bool]) -> Rule:
    """A rule of numbers; what is none, such as None or a tensor, is left to the type."""
    return Rule(words, lambda value: not isinstance(value, Real) or holds(float(value)))


def above(low: float) -> Rule:
    """Numbers above `low`."""
    return _number(f"above {low}", lambda x: x > low)


def at_least(low: float) -> Rule:
    """Numbers from `low` on."""
    return _number(f"{low} or more", lambda x: x >= low)


def below(high: float) -> Rule:
    """Numbers below `high`."""
    return _number(f"below {high}", lambda x: x < high)


def from_to(low: float, high: float) -> Rule:
    """Numbers from `low` to `high`, both included."""
    return _number(f"{low} to {high}", lambda x: low <= x <= high)


def inside(low: float, high: float) -> Rule:
    """Numbers between `low` and `high`, both left out."""
    return _number(f"between {low} and {high}", lambda x: low < x < high)


def one_of(*numbers: float) -> Rule:
    """These numbers."""
    return _number(f"one of {', '.join(map(str, numbers))}", lambda x: x in numbers)


def even() -> Rule:
    """Even numbers."""
    return _number("an even number", lambda x: x % 2 == 0)


def increasing(low: int) -> Rule:
    """Numbers in a tuple, each above the one before it, the first `low` or more."""
    return Rule(
        f"increasing numbers, the first {low} or more",
        lambda numbers: (*numbers[:1],) >= (low,) and [*numbers] == sorted({*numbers}),
    )


def among(known: tuple[str, ...]) -> Rule:
    """Names in a tuple, one at least, out of those that are known."""
    words = f"one or more of {', '.join(known)}"
    return Rule(words, lambda names: {*names} <= {*known} and bool(names), known)


Positive = Annotated[float, above(0)]
NonNegative = Annotated[float, at_least(0)]
Share = Annotated[float, inside(0, 1)]
Natural = Annotated[int, at_least(0)]
Count = Annotated[int, at_least(1)]
Several = Annotated[int, at_least(2)]
Shots = Annotated[tuple[int, ...], increasing(1)]
Split = Annotated[str, OfData(coordinate="split")]
Flags = Annotated[tuple[str, ...], OfData(prefix="flag_")]


def check_ranges(made: object, error: type[BayesfsError]) -> None:
    """Refuse fields of a dataclass that break the rules of their types.

    Args:
        made: the dataclass, in its `__post_init__`.
        error: what to raise.

    Raises:
        BayesfsError: of the type `error`; the message names the field.

    Example:
        >>> from bayesfs.models.gp.kernels import RBF
        >>> RBF(lengthscale=-1.0)
        Traceback (most recent call last):
        bayesfs.errors.ShapeError: RBF.lengthscale: expected above 0, got -1.0
    """
    owner: type = type(made)
    for name, wanted in _ruled_fields(owner).items():
        if told := refusal(wanted, getattr(made, name)):
            raise error(f"{owner.__name__}.{name}: {told}")


@cache
def _ruled_fields(owner: type) -> dict[str, Any]:
    """Field -> type, of those of which the types have rules."""
    for base in owner.__mro__:
        try:
            hints = get_type_hints(base, include_extras=True)
        except NameError:  # a person's own class may name what only type checkers import
            continue
        return {name: wanted for name, wanted in hints.items() if _is_ruled(wanted)}
    return {}


def _is_ruled(wanted: Any) -> bool:
    return get_origin(wanted) is Annotated or any(map(_is_ruled, get_args(wanted)))


def refusal(wanted: Any, value: object) -> str:
    """What the first rule of a type says against a value; empty for nothing."""
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is Annotated:
        inner, *rules = arguments
        told = [rule.refusal(value) for rule in rules if isinstance(rule, Rule)]
        told.append(refusal(inner, value))
    elif origin in (Union, UnionType) and value is not None:
        told = [refusal(one, value) for one in arguments if one is not NoneType]
    elif origin is tuple and isinstance(value, tuple | list):
        each = repeat(arguments[0]) if Ellipsis in arguments else arguments
        told = [refusal(one, inner) for one, inner in zip(each, value, strict=False)]
    else:
        told = []
    return next(filter(None, told), "")


def of_data(wanted: Any) -> OfData | None:
    """What a type says that the data must hold; None for nothing."""
    told = get_args(wanted)[1:] if get_origin(wanted) is Annotated else ()
    return next((one for one in told if isinstance(one, OfData)), None)


def bare(wanted: Any) -> Any:
    """A type without its rules."""
    if not _is_ruled(wanted):
        return wanted
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is Annotated:
        return bare(arguments[0])
    inner = tuple(map(bare, arguments))
    return reduce(or_, inner) if origin in (Union, UnionType) else origin[inner]
