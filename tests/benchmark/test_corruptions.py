"""Corrupted pictures: each corruption does what it says; frames of a store are embedded again."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesfs.benchmark.corrupted_frames import Frames, frames_of_tree
from bayesfs.benchmark.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from bayesfs.cli.main import FAILED, main
from bayesfs.data.sources.open import read_tree
from bayesfs.data.store import open_store
from bayesfs.errors import DataError, ShapeError
from bayesfs.features.backbones.efficientnet_lite0 import EfficientNetLite0
from bayesfs.features.decoding.pictures import read_image
from bayesfs.features.extraction.extract import extract
from bayesfs.features.quality import COVARIATES, quality
from bayesfs.recipes.load import recipe_folder
from bayesfs.synthetic.videos.render import render_tree
from bayesfs.types import Embeddings

PX = 64
MEASURE = {  # corruption -> covariate that tells it, and whether it rises
    "noise": ("focus", 1),
    "blur": ("focus", -1),
    "darkness": ("brightness", -1),
    "overexposure": ("bright_clipped", 1),
    "low_contrast": ("contrast", -1),
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_tree(
        tmp_path_factory.mktemp("rendered") / "tree",
        train_users=3,
        test_users=2,
        objects=2,
        clean_videos=2,
        clean_frames=2,
        clutter_videos=1,
        clutter_frames=3,
        size=PX,
    )


@pytest.fixture(scope="module")
def store(tree: Path) -> Path:
    path = tree.parent / "store.zarr"
    extract(read_tree(tree).videos, EfficientNetLite0(px=PX), path)
    return path


@pytest.fixture(scope="module")
def images(tree: Path) -> np.ndarray:
    """Rendered clutter."""
    videos = [v for v in read_tree(tree).videos if v.condition == "clutter"]
    return np.stack([read_image(path, PX) for v in videos for path in v.frames])


def worse(images: np.ndarray, name: str, severity: int, seed: int = 0) -> np.ndarray:
    return corrupt(images, name, severity, frames=range(len(images)), seed=seed)


@pytest.mark.parametrize("name", MEASURE)
def test_measured_quality_tells_what_is_wrong_and_how_much(images: np.ndarray, name: str) -> None:
    covariate, sign = MEASURE[name]
    at = COVARIATES.index(covariate)
    means = [quality(images)[:, at].mean()]
    means += [quality(worse(images, name, s))[:, at].mean() for s in SEVERITIES]
    assert (np.diff(sign * np.array(means)) > 0).all()


@pytest.mark.parametrize(("name", "strengths"), [(n, c[1]) for n, c in CORRUPTIONS.items()])
def test_more_is_changed_at_each_severity(images: np.ndarray, name: str, strengths) -> None:
    found = [worse(images, name, s) for s in SEVERITIES]
    assert len(strengths) == len(SEVERITIES)
    assert all(f.shape == images.shape and f.dtype == np.uint8 for f in found)
    change = [np.abs(f.astype(float) - images).mean() for f in found]
    assert (np.diff(change) > 0).all()


def test_shares_that_are_hidden_and_lost(images: np.ndarray) -> None:
    white = np.full_like(images, 255)
    hidden = (worse(white, "occlusion", 3) != 255).any(-1).mean((1, 2))
    np.testing.assert_allclose(hidden, 0.3, atol=0.02)
    rows = np.broadcast_to(np.arange(PX, dtype=np.uint8)[:, None, None], (4, PX, PX, 3))
    seen = [len(np.unique(image)) for image in worse(rows, "cut_off", 5)]
    assert seen == [PX - PX // 2] * 4
    noise = worse(np.full_like(images, 128), "noise", 1) / 255 - 128 / 255
    assert noise.std() == pytest.approx(0.08, rel=0.02)


def test_a_frame_depends_on_its_own_number_and_the_seed_only(images: np.ndarray) -> None:
    both = worse(images[:4], "occlusion", 4)
    alone = corrupt(images[2:3], "occlusion", 4, frames=[2], seed=0)
    np.testing.assert_array_equal(both[2:3], alone)
    assert (both != worse(images[:4], "occlusion", 4, seed=1)).any()


def test_what_there_is_not_is_refused(images: np.ndarray) -> None:
    with pytest.raises(DataError, match="expected a corruption out of noise, blur"):
        worse(images, "fog", 1)
    with pytest.raises(DataError, match="severity from 1 to 5, got 6"):
        worse(images, "blur", 6)
    with pytest.raises(ShapeError, match="expected uint8"):
        worse(images.astype(float), "blur", 1)
    with pytest.raises(ShapeError, match="a number for each"):
        corrupt(images, "blur", 1, frames=[0], seed=0)


def test_only_the_chosen_frames_change_and_as_the_backbone_sees_them(
    tree: Path, store: Path
) -> None:
    embeddings = open_store(store)
    rows = np.flatnonzero(embeddings.coord("condition") == "clutter")[[4, 0, 1]]
    frames = frames_of_tree(embeddings, rows, store, tree)
    features, measures = frames.measured("blur", 5, seed=3)
    changed = frames.replaced(features, measures)
    same = np.isclose(changed.features, embeddings.features).all(1)
    assert set(np.flatnonzero(~same)) == set(rows)
    pictures = [read_image(tree / embeddings.coord("path")[row], PX) for row in rows]
    blurred = corrupt(np.stack(pictures), "blur", 5, frames=rows.tolist(), seed=3)
    np.testing.assert_allclose(EfficientNetLite0(px=PX)(blurred), features, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(changed.dataset["quality"].values[rows], quality(blurred))


def test_other_recordings_are_refused(tree: Path, store: Path, tmp_path: Path) -> None:
    embeddings, rows = open_store(store), np.array([0])
    other = render_tree(
        tmp_path / "other", train_users=1, test_users=1, objects=1, clean_videos=1, size=PX
    )
    with pytest.raises(DataError, match="does not hold the recordings"):
        frames_of_tree(embeddings, rows, store, other)
    drawn = embeddings.dataset.drop_vars("frame_number")
    with pytest.raises(DataError, match="does not number its frames"):
        Frames(Embeddings(drawn), rows, {}, EfficientNetLite0(px=PX))
    with pytest.raises(DataError, match="videos of the store are not among these"):
        Frames(embeddings, rows, {}, EfficientNetLite0(px=PX))


def test_the_benchmark_sweeps_corruptions_and_keeps_their_features(
    tree: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    out = tmp_path / "table"
    models = [str(recipe_folder() / "models" / f"{n}.py") for n in ("gaussian", "deep_kernel_gp")]
    argv = ["benchmark", str(store), "--out", str(out), "--smoke", "--no-baselines", "--shots", "1"]
    argv += ["--tree", str(tree), "--corruptions", "noise", "--models"]
    assert main([*argv, models[0]]) == 0
    assert "corrupted: mean of noise" in capsys.readouterr().out
    table = pd.read_csv(out / "table.csv", keep_default_na=False, na_values=[""])
    swept = table[table["corruption"].notna()]
    assert set(zip(swept["corruption"], swept["severity"], strict=True)) == {
        ("none", 0),
        ("noise", 5),
    }
    ours = swept[swept["method"] == "gaussian / exact"].groupby("severity")["score"]
    assert ours.apply(set).map({"aleatoric", "epistemic"}.issubset).all()
    plain = table[table["corruption"].isna() & (table["shots"] == 1)]
    columns = ["method", "item", "score"]
    both = plain.merge(swept[swept["severity"] == 0], on=columns)
    nll = both[both["score"] == "nll"]
    np.testing.assert_allclose(nll["estimate_x"], nll["estimate_y"], rtol=1e-6)
    assert len(list(out.glob("frames-noise-5-*.npz"))) == 1
    monkeypatch.setattr(
        "bayesfs.benchmark.corrupted_frames.Frames.measured", None
    )  # a call would fail
    assert main([*argv, *models]) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--corruptions", "noise"], "together with --tree"),
        (["--corruptions", "fog", "--tree", "."], "expected a corruption out of"),
        (["--corruptions", "blur", "--severities", "0", "--tree", "."], "severity from 1 to 5"),
    ],
)
def test_a_sweep_that_cannot_be_is_one_line(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options, said: str
) -> None:
    argv = ["benchmark", str(store), "--out", str(tmp_path / "t"), "--no-baselines", *options]
    assert main(argv) == FAILED
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error
