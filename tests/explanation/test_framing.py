"""What windows of the frames tell of place, and of several things: by hand, and by symmetry."""

import math

import pytest
from scipy.stats import entropy

from bayesfs.explanation.framing import ASIDE, LIKE, OPPOSITE, Look, framing_of

SIDES = tuple(OPPOSITE)


def look(keys: float, typical: float) -> Look:
    return Look({"keys": keys, "mug": 1 - keys}, typical)


BLANK = look(0.5, 0.01)


def test_a_look_is_clear_only_if_it_is_sure_and_typical() -> None:
    assert look(0.95, 0.5).clear
    assert not look(0.85, 0.5).clear
    assert not look(0.95, LIKE / 2).clear
    assert look(0.02, 0.5).clear
    assert look(0.02, 0.5).likeliest == "mug"


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_doubt_is_the_entropy(p: float) -> None:
    assert look(p, 0.5).doubt == pytest.approx(float(entropy([p, 1 - p])), abs=1e-12)


def test_two_windows_that_are_clear_of_different_things_show_both() -> None:
    looks = {"left": look(0.97, 0.4), "right": look(0.01, 0.7), "top": BLANK}
    found = framing_of(looks, 0.6)
    assert found is not None
    assert (found.things, found.side) == (("mug", "keys"), "")  # the more typical one first
    left = (looks["left"].doubt + looks["right"].doubt) / 2
    assert found.nats == pytest.approx(0.6 - left)


@pytest.mark.parametrize("side", SIDES)
def test_a_thing_lies_where_a_window_speaks_for_it_and_the_opposite_one_does_not(side: str) -> None:
    looks = {name: look(0.95, 0.5) if name == side else BLANK for name in SIDES}
    found = framing_of({**looks, "middle": BLANK}, 0.6)
    assert found is not None
    assert (found.things, found.side) == (("keys",), side)


def test_the_largest_contrast_decides_and_mirroring_the_windows_mirrors_the_side() -> None:
    looks = {
        "left": look(0.95, 0.5),
        "right": look(0.5, 0.2),
        "top": look(0.92, 0.4),
        "bottom": look(0.5, 0.01),
    }
    found = framing_of(looks, 0.6)
    mirrored = framing_of({OPPOSITE[name]: own for name, own in looks.items()}, 0.6)
    assert found is not None
    assert mirrored is not None
    assert (found.side, mirrored.side) == ("top", "bottom")


def test_nothing_is_said_of_what_is_seen_alike_on_both_sides_or_nowhere() -> None:
    assert framing_of(dict.fromkeys(SIDES, look(0.95, 0.5)), 0.6) is None
    assert framing_of(dict.fromkeys(SIDES, BLANK), 0.6) is None
    assert framing_of({}, 0.6) is None
    assert framing_of({"middle": look(0.95, 0.5)}, 0.6) is None  # nothing to compare it with


@pytest.mark.parametrize(("off", "said"), [(0.02, True), (-0.02, False)])
def test_it_is_said_from_a_nat_on(off: float, said: bool) -> None:
    other = look(0.95, 0.6 * math.exp(-(ASIDE + off)))
    looks = {"left": look(0.95, 0.6), "right": other}
    assert (framing_of(looks, 0.6) is not None) == said
