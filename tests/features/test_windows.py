"""Windows of frames: what they hold, and a backbone of them."""

import numpy as np
import pytest

from bayesfs.errors import DataError
from bayesfs.features.windows import WINDOWS, Window, Windowed
from bayesfs.types import Embeddings


class Colours:
    """A backbone of mean colours, which are known."""

    name, dim, px, batch = "colours@40px", 3, 40, 8

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return images.mean((1, 2)).astype(np.float32)


def quarters() -> np.ndarray:
    """One frame whose left, right, top and bottom middles have a colour each."""
    image = np.zeros((40, 40, 3), np.uint8)
    rows, columns = np.mgrid[:40, :40]
    image[columns < np.minimum(rows, 39 - rows)] = (200, 0, 0)
    image[39 - columns < np.minimum(rows, 39 - rows)] = (0, 200, 0)
    image[rows < np.minimum(columns, 39 - columns)] = (0, 0, 200)
    return image[None]


def test_a_window_of_half_the_side_doubles_what_is_in_it() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    flat = np.repeat(np.repeat(images, 8, 1), 8, 2)  # 64 x 64, of squares of 8 pixels
    found = Window(1.0, 0.0, 0.5).of(flat)
    assert found.shape == flat.shape
    corner = np.repeat(np.repeat(images[:, :4, 4:], 16, 1), 16, 2)
    centres = (slice(None), slice(8, None, 16), slice(8, None, 16))
    np.testing.assert_array_equal(found[centres], corner[centres])


def test_the_whole_frame_is_a_window() -> None:
    images = quarters()
    np.testing.assert_array_equal(Window(0.5, 0.5, 1.0).of(images), images)
    assert Window(0.0, 0.0, 0.5).of(images[:0]).shape == (0, 40, 40, 3)


def test_every_side_is_seen_by_its_own_window_most() -> None:
    windowed = Windowed(Colours())
    features = windowed(quarters())
    assert features.shape == (1, windowed.dim)
    each = dict(zip(WINDOWS, features.reshape(len(WINDOWS), 3), strict=True))
    for colour, side in enumerate(("left", "right", "top")):
        assert max(each, key=lambda name: each[name][colour]) == side


def test_windows_apart_are_what_the_backbone_says_of_each() -> None:
    windowed, images = Windowed(Colours()), np.concatenate([quarters(), quarters() // 2])
    found = Embeddings.from_arrays(windowed(images), object=["a", "b"])
    apart = windowed.apart(found)
    assert list(apart) == list(WINDOWS)
    for name, own in apart.items():
        features = Colours()(WINDOWS[name].of(images))
        np.testing.assert_array_equal(own.dataset["features"].values, features)
        assert own.coord("object").tolist() == ["a", "b"]
        assert own.dataset.attrs["backbone"] == Colours.name


@pytest.mark.parametrize("wrong", [(-0.1, 0.5, 0.5), (0.5, 1.1, 0.5), (0.5, 0.5, 0.0)])
def test_a_window_outside_the_frame_is_refused(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(DataError, match="expected x and y"):
        Window(*wrong)
