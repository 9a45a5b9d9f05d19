"""Measured quality against SciPy and against pictures spoilt on purpose."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from bayesfs.errors import ShapeError
from bayesfs.features.quality import COVARIATES, LUMA, quality, second_differences


@pytest.fixture(scope="module")
def scene() -> NDArray[np.float64]:
    """Soft noise with edges, in grey levels, far from 0 and 255."""
    rng = np.random.default_rng(0)
    soft = ndimage.gaussian_filter(rng.normal(size=(64, 72, 3)), (2, 2, 0))
    image = 120 + 300 * soft
    image[20:40, 20:40] += 40
    return np.asarray(image.clip(20, 220))


def measure(images: list[NDArray[np.float64]]) -> dict[str, NDArray[np.float32]]:
    table = quality(np.stack([i.round().clip(0, 255).astype(np.uint8) for i in images]))
    return dict(zip(COVARIATES, table.T, strict=True))


def measure_of_edges(image: NDArray[np.float64]) -> float:
    """ln var(L), which light moves as much as focus does."""
    luma = (image.astype(np.float32) @ LUMA)[None]
    return float(np.log(min(d.var() for d in second_differences(luma))))


def test_second_differences_are_scipys(scene: NDArray[np.float64]) -> None:
    luma = (scene.astype(np.float32) @ LUMA)[None]
    got = np.stack([d[0] for d in second_differences(luma)])
    for place, (i, j) in enumerate([(1, 2), (2, 1), (2, 2), (2, 0)]):
        kernel = np.zeros((3, 3))
        kernel[i, j] = kernel[2 - i, 2 - j] = 1.0
        kernel[1, 1] = -2.0
        want = ndimage.correlate(luma[0].astype(np.float64), kernel)[1:-1, 1:-1]
        np.testing.assert_allclose(got[place], want, atol=1e-3)


def test_a_frame_worked_out_by_hand() -> None:
    image = np.full((1, 4, 4, 3), 100, np.uint8)
    image[0, 0, 0] = 255  # bright
    image[0, 3, 3] = (0, 1, 2)  # dark
    image[0, 1, 1] = (104, 104, 104)
    focus, brightness, contrast, dark, bright = quality(image)[0]
    dark_luma = 0.299 * 0 + 0.587 * 1 + 0.114 * 2
    assert brightness == pytest.approx((13 * 100 + 104 + 255 + dark_luma) / 16 / 255, rel=1e-5)
    assert (dark, bright) == (1 / 16, 1 / 16)
    least = [-8.0, 0.0, 0.0, 0.0]  # down to the left; to the right -8, 4, 0, 0
    spread = np.std([100.0] * 13 + [104.0, 255.0, dark_luma])
    assert focus == pytest.approx(
        np.log((np.var(least) - 0.2235 + 0.01) / (spread**2 + 400)), rel=1e-4
    )
    relative = spread / 255 / (float(brightness) + 0.01)
    assert contrast == pytest.approx(np.log(relative + 0.01), rel=1e-4)


def test_focus_falls_with_blur(scene: NDArray[np.float64]) -> None:
    sigmas = (0, 0.5, 1, 2, 4, 8)
    got = measure([ndimage.gaussian_filter(scene, (s, s, 0)) for s in sigmas])
    assert (np.diff(got["focus"]) < 0).all()
    assert np.ptp(got["brightness"]) < 0.02


@pytest.mark.parametrize("axis", [0, 1])
def test_focus_falls_with_motion_along_any_axis(scene: NDArray[np.float64], axis: int) -> None:
    """By more than a sharp direction across it could hide."""
    got = measure([ndimage.uniform_filter1d(scene, n, axis=axis) for n in (1, 3, 5, 9)])
    assert (np.diff(got["focus"]) < -0.3).all()


def test_exposure_moves_what_it_should(scene: NDArray[np.float64]) -> None:
    got = measure([scene * gain for gain in (0.02, 0.25, 0.5, 1, 1.5, 2, 3)])
    assert (np.diff(got["brightness"]) > 0).all()
    assert (np.diff(got["bright_clipped"]) >= 0).all()
    assert (np.diff(got["dark_clipped"]) <= 0).all()
    assert got["dark_clipped"][0] > 0.1
    assert got["dark_clipped"][3] == got["bright_clipped"][3] == 0
    assert got["bright_clipped"][-1] > 0.5


def test_contrast_is_the_spread_of_luma_beside_its_mean(scene: NDArray[np.float64]) -> None:
    grey = scene.mean()
    got = measure([grey + k * (scene - grey) for k in (0.2, 0.5, 1)])
    spread = np.exp(got["contrast"]) - 0.01
    np.testing.assert_allclose(spread / spread[2], [0.2, 0.5, 1], rtol=0.02)


def test_a_defect_leaves_the_measures_of_others_alone(scene: NDArray[np.float64]) -> None:
    """Of dark and of flat pictures: what is blurred is told beside either of them."""
    grey = scene.mean()
    got = measure([scene, 0.4 * scene, grey + 0.4 * (scene - grey)])
    soft = measure([ndimage.gaussian_filter(v, (2, 2, 0)) for v in (scene, 0.4 * scene)])
    plain = measure_of_edges(scene) - measure_of_edges(0.4 * scene)
    assert abs(got["focus"] - got["focus"][0]).max() < 0.75 * plain
    np.testing.assert_allclose(got["contrast"][:2], got["contrast"][0], atol=0.05)
    assert (soft["focus"] < got["focus"][:2] - 1.0).all()


def test_flat_frames_are_finite() -> None:
    images = np.stack([np.full((8, 8, 3), v, np.uint8) for v in (0, 128, 255)])
    got = quality(images)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got[:, 0], np.log(0.01 / 400), rtol=1e-4)
    np.testing.assert_array_equal(got[:, 3:], [[1, 0], [0, 0], [0, 1]])
    assert quality(images[:0]).shape == (0, len(COVARIATES))


def test_each_frame_alone(scene: NDArray[np.float64]) -> None:
    frames = np.stack([scene, scene[::-1] * 0.5, scene * 0.9]).astype(np.uint8)
    alone = np.concatenate([quality(f[None]) for f in frames])
    np.testing.assert_allclose(quality(frames), alone, rtol=1e-6)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((1, 8, 8, 1), np.uint8),
        np.zeros((1, 2, 8, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(images: NDArray[np.uint8]) -> None:
    with pytest.raises(ShapeError):
        quality(images)


def test_tells_the_spoilt_frames_of_real_objects(turntable: Path) -> None:
    """Area under the ROC curve of each covariate for the exact flags of composed frames."""
    from sklearn.metrics import roc_auc_score

    from bayesfs.data.sources.open import read_tree
    from bayesfs.features.decoding.pictures import read_image

    videos = [v for v in read_tree(turntable).videos if v.condition == "clean"][::8]
    got = quality(np.stack([read_image(p, 128) for v in videos for p in v.frames]))
    for flag, column, sign in (
        ("blur_issue", "focus", -1),
        ("overexposed_issue", "bright_clipped", 1),
        ("underexposed_issue", "brightness", -1),
    ):
        truth = np.concatenate([v.flags[flag] for v in videos])
        kept = truth >= 0
        score = sign * got[kept, COVARIATES.index(column)]
        assert roc_auc_score(truth[kept], score) > 0.9
