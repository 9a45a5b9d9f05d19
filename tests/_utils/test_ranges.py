"""Rules of fields in their types, and what they say against values."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import pytest

from bayesfs._utils.ranges import (
    Count,
    NonNegative,
    Positive,
    Share,
    Shots,
    among,
    at_least,
    bare,
    below,
    check_ranges,
    even,
    from_to,
    increasing,
    one_of,
    refusal,
)
from bayesfs.errors import ShapeError

if TYPE_CHECKING:
    from elsewhere import Unknown

Names = Annotated[tuple[str, ...], among(("clean", "clutter"))]


@pytest.mark.parametrize(
    ("wanted", "kept", "broken", "words"),
    [
        (Positive, (1e-9, 3, math.inf), (0, -1.0, math.nan), "expected above 0, got"),
        (NonNegative, (0, 2.5), (-1e-9, math.nan), "expected 0 or more, got"),
        (Share, (0.5,), (0, 1.0, 2, math.nan), "expected between 0 and 1, got"),
        (Count, (1, 7), (0, -3), "expected 1 or more, got"),
        (Annotated[int, from_to(1, 10)], (1, 10), (0, 11), "expected 1 to 10, got"),
        (Annotated[float, at_least(0), below(1)], (0, 0.9), (1.0,), "expected below 1, got 1.0"),
        (Annotated[float, one_of(0.5, 1.5)], (0.5, 1.5), (1.0,), "expected one of 0.5, 1.5, got"),
        (Annotated[int, at_least(2), even()], (2, 8), (5,), "expected an even number, got 5"),
        (Shots, ((1,), [1, 5]), ((), (0, 1), (5, 1), (1, 1)), "expected increasing numbers"),
        (Annotated[tuple[int, ...], increasing(0)], ((0, 3),), ((-1, 3),), "the first 0 or more"),
        (Names, (("clean",),), ((), ("cleen",)), "expected one or more of clean, clutter, got"),
        (Positive | None, (None, 1.0), (0.0,), "expected above 0, got 0.0"),
        (tuple[Positive, Positive], ((1.0, 2.0),), ((1.0, 0.0),), "expected above 0, got 0.0"),
        (tuple[Count, ...], ((), (1, 2, 3)), ((1, 0, 3),), "expected 1 or more, got 0"),
    ],
)
def test_values_keep_to_the_rules_of_a_type(
    wanted: Any, kept: tuple[Any, ...], broken: tuple[Any, ...], words: str
) -> None:
    assert [refusal(wanted, value) for value in kept] == [""] * len(kept)
    assert all(words in refusal(wanted, value) for value in broken)


def test_the_name_that_was_meant_is_told() -> None:
    assert refusal(Names, ("cleen",)).endswith("got ('cleen',); did you mean 'clean'?")
    assert "did you mean" not in refusal(Names, ("dark",))


@pytest.mark.parametrize("value", [None, "x", object()])
def test_what_is_no_number_is_left_to_the_type(value: object) -> None:
    assert refusal(Positive, value) == ""
    assert refusal(Shots, value) == "" or value == "x"


def test_a_type_without_its_rules() -> None:
    assert bare(Positive) is float
    assert bare(Positive | None) == float | None
    assert bare(tuple[Count, ...]) == tuple[int, ...]
    assert bare(dict[str, Count]) == dict[str, int]
    assert bare(str | None) == str | None


@dataclass(frozen=True)
class Base:
    sd: Positive = 1.0

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)


@dataclass(frozen=True)
class Wider(Base):
    sd: float = 1.0
    draws: Count = 3


@dataclass(frozen=True)
class Odd(Base):
    what: "Unknown | None" = None


def test_a_field_out_of_range_is_refused_by_its_name() -> None:
    with pytest.raises(ShapeError, match=r"^Base.sd: expected above 0, got -1.0$"):
        Base(sd=-1.0)
    assert Base(sd=2.0).sd == 2.0


def test_a_class_has_the_rules_of_its_own_fields_and_of_those_it_takes_over() -> None:
    assert Wider(sd=-1.0).sd == -1.0, "it gives the field another type"
    with pytest.raises(ShapeError, match=r"Wider.draws: expected 1 or more, got 0"):
        Wider(draws=0)
    with pytest.raises(ShapeError, match=r"Odd.sd: expected above 0"):
        Odd(sd=0.0)  # a type that only checkers import hides nothing
