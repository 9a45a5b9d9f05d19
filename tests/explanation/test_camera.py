"""One step for the camera: what is measured against what was taught, and where windows agree."""

import numpy as np
import pytest
from scipy import ndimage

from bayesfs.explanation.camera import camera_step, defect_of
from bayesfs.explanation.framing import OPPOSITE, Look
from bayesfs.features.quality import quality
from bayesfs.features.windows import WHOLE


def texture(seed: int) -> np.ndarray:
    """A grey frame of soft noise, sharp to the pixel or so."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(64, 64)), 1.0, mode="wrap")
    grey = np.clip(128 + 30 * noise / noise.std(), 0, 255)
    return np.repeat(grey[..., None], 3, 2).astype(np.uint8)


TAUGHT = np.stack([texture(i) for i in range(4)])
NOW = np.stack([texture(i) for i in range(10, 12)])
PLAIN = Look({"keys": 0.6, "mug": 0.4}, 0.3)
ALIKE = {WHOLE: PLAIN, "middle": Look(PLAIN.prob, 0.1), **dict.fromkeys(OPPOSITE, PLAIN)}


def step(images: np.ndarray = NOW, **looks: Look) -> str:
    return camera_step({**ALIKE, **looks}, quality(images), quality(TAUGHT))


def blurred(images: np.ndarray) -> np.ndarray:
    return np.stack([ndimage.gaussian_filter(i, (1.5, 1.5, 0)) for i in images])


def test_frames_like_the_taught_ones_ask_for_nothing() -> None:
    assert step() == ""


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (NOW // 3, "more light"),
        (np.clip(NOW.astype(int) * 2, 0, 255).astype(np.uint8), "less light"),
        (blurred(NOW), "steadier"),
        (blurred(NOW) // 3, "more light"),  # one at a time
    ],
)
def test_light_and_focus_are_measured_against_what_was_taught(
    images: np.ndarray, said: str
) -> None:
    assert step(images) == said


def test_less_contrast_or_light_alone_is_no_blur() -> None:
    """The Laplacian and the luma shrink together, down to the rounding of grey levels."""
    assert step((0.6 * NOW + 50).astype(np.uint8)) == ""
    assert step((0.7 * NOW).astype(np.uint8)) == ""


@pytest.mark.parametrize("side", [*OPPOSITE])
def test_the_camera_turns_to_the_window_that_shows_the_same(side: str) -> None:
    there, away = Look({"keys": 0.8, "mug": 0.2}, 0.6), Look({"keys": 0.2, "mug": 0.8}, 0.02)
    assert step(**{side: there, OPPOSITE[side]: away}) == f"turn {side}"  # type: ignore[index]
    assert step(**{side: there}) == ""  # by less than a nat
    assert step(blurred(NOW), **{side: there, OPPOSITE[side]: away}) == "steadier"  # type: ignore[index]


def test_a_middle_that_is_more_typical_asks_to_come_closer() -> None:
    assert step(middle=Look(PLAIN.prob, 0.5)) == "closer"


def test_without_windows_light_and_focus_are_still_known() -> None:
    alone = {WHOLE: Look({"keys": 1.0}, float("nan"))}
    assert camera_step(alone, quality(NOW // 3), quality(TAUGHT)) == "more light"
    assert camera_step(alone, quality(NOW), quality(TAUGHT)) == ""


def test_defects_are_of_the_frames_together() -> None:
    """One dark frame of three makes no dark video."""
    mixed = quality(np.stack([NOW[0] // 3, NOW[0], NOW[1]]))
    assert defect_of(mixed, quality(TAUGHT)) is None
    assert defect_of(mixed[:1], quality(TAUGHT)) == "dark"
