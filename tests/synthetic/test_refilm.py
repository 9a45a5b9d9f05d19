"""The same moment with and without one defect: nothing else differs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bayesfs.features.quality import COVARIATES, quality
from bayesfs.synthetic.videos.objects import make_thing
from bayesfs.synthetic.videos.refilm import DEFECTS, STEPS, Refilmed, refilm
from bayesfs.synthetic.videos.refilm import moments as moments_of


@pytest.fixture(scope="module")
def moments() -> list[Refilmed]:
    things = [make_thing(np.random.default_rng(i)) for i in range(4)]
    return [
        moment
        for i, thing in enumerate(things)
        for moment in refilm(thing, things[:i], "clutter", 2, 64, (7, i))
    ]


def measured(moments: list[Refilmed], name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    j = COVARIATES.index(name)
    good = quality(np.stack([m.good for m in moments]))[:, j]
    spoilt = {d: quality(np.stack([m.spoilt[d] for m in moments]))[:, j] for d in DEFECTS}
    return good, spoilt


def test_every_defect_is_filmed_and_seen(moments: list[Refilmed]) -> None:
    assert len(moments) == 8
    for moment in moments:
        assert set(moment.spoilt) == set(DEFECTS)
        for image in moment.spoilt.values():
            assert image.shape == moment.good.shape
            assert image.dtype == np.uint8
            assert (image != moment.good).any()


@pytest.mark.parametrize(
    ("defect", "measure", "sign"),
    [
        ("blurred", "focus", -1),
        ("dark", "brightness", -1),
        ("bright", "brightness", 1),
        ("flat", "contrast", -1),
    ],
)
def test_a_measured_defect_moves_its_measure(
    moments: list[Refilmed], defect: str, measure: str, sign: int
) -> None:
    good, spoilt = measured(moments, measure)
    assert (sign * (spoilt[defect] - good) > 0).all()


def test_light_and_backdrop_stay_as_they_are(moments: list[Refilmed]) -> None:
    """Without the object, most of the picture is the same to the last grey level of its noise."""
    for moment in moments:
        same = np.abs(moment.spoilt["absent"].astype(int) - moment.good) <= 1
        assert same.all(-1).mean() > 0.3
        corner = np.abs(moment.spoilt["too small"].astype(int) - moment.spoilt["absent"]) <= 1
        assert corner.all(-1).mean() > 0.6


def test_the_same_seed_films_the_same() -> None:
    thing = make_thing(np.random.default_rng(0))
    one, two = (next(refilm(thing, (), "clean", 1, 48, (1, 2))) for _ in range(2))
    np.testing.assert_array_equal(one.good, two.good)
    for defect in DEFECTS:
        np.testing.assert_array_equal(one.spoilt[defect], two.spoilt[defect])


def test_a_step_undoes_its_defect_and_the_opposite_one_does_not() -> None:
    """Filmed again after the right step, the frame is that without the defect."""
    thing = make_thing(np.random.default_rng(0))
    for moment in moments_of(thing, (), "clutter", 2, 48, (3,)):
        good = moment.film(moment.pose)
        np.testing.assert_array_equal(moment.film(moment.pose), good)
        for spoilt, right, wrong in (
            (replace(moment.pose, gain=0.3), "more light", "less light"),
            (replace(moment.pose, gain=2.0), "less light", "more light"),
            (replace(moment.pose, blur=2.0), "steadier", "closer"),
            (replace(moment.pose, x=moment.pose.x - 0.25), "turn left", "turn right"),
            (replace(moment.pose, y=moment.pose.y + 0.25), "turn bottom", "turn top"),
        ):
            mended = STEPS[right](spoilt)
            if right == "steadier":
                assert mended.blur <= 0.35
                continue
            np.testing.assert_array_equal(moment.film(mended), good)
            assert (moment.film(STEPS[wrong](spoilt)) != good).any()
