"""Several data sets as one: people, objects and videos stay apart, frames stay theirs."""

import numpy as np
import pytest

from bayesfs.data.worlds import together
from bayesfs.errors import DataError
from bayesfs.synthetic.tasks import synthetic_embeddings
from bayesfs.types import Embeddings


def world(seed: int, dim: int = 5) -> Embeddings:
    return synthetic_embeddings(users=2, dim=dim, seed=seed)[0]


def test_people_of_the_same_name_stay_different_people() -> None:
    first, second = world(0), world(1)
    both = together([first, second])
    assert len(both) == len(first) + len(second)
    np.testing.assert_array_equal(both.features, np.vstack([first.features, second.features]))
    users = [f"{n}:{u}" for n, each in ((1, first), (2, second)) for u in each.coord("user")]
    assert both.coord("user").tolist() == users
    assert len(set(both.coord("video"))) == len(set(first.coord("video"))) + len(
        set(second.coord("video"))
    )
    assert both.coord("object").tolist() == [*first.coord("object"), *second.coord("object")]


def test_quality_is_kept_where_every_world_has_the_same() -> None:
    first, second = world(0), world(1)
    sharp, dark = (
        Embeddings(
            each.dataset.assign(
                quality=(("frame", "covariate"), np.full((len(each), 1), i, np.float32))
            ).assign_coords(covariate=[name])
        )
        for i, (each, name) in enumerate(((first, "sharpness"), (second, "brightness")))
    )
    assert "quality" not in together([sharp, dark]).dataset
    assert "quality" not in together([sharp, second]).dataset
    kept = together([sharp, sharp]).dataset["quality"]
    assert kept.shape == (2 * len(first), 1)
    assert kept["covariate"].values.tolist() == ["sharpness"]


def test_one_world_is_itself_and_none_or_another_backbone_is_refused() -> None:
    first = world(0)
    assert together([first]) is first
    with pytest.raises(DataError, match="got none"):
        together([])
    with pytest.raises(DataError, match=r"got \[5, 6\]; were the stores made with different"):
        together([first, world(1, dim=6)])
