"""The same moment with and without one defect: nothing else differs."""

from __future__ import annotations

import numpy as np
import pytest

from bayesfs.features.quality import COVARIATES, quality
from bayesfs.synthetic.videos.objects import make_thing
from bayesfs.synthetic.videos.refilm import DEFECTS, Refilmed, refilm


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
        ("blurred", "sharpness", -1),
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
