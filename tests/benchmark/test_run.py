"""`bayesfs benchmark`: cells of users' tasks and of stills, kept, gone on from, and added to."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesfs.benchmark.tasks import limit_objects
from bayesfs.cli.main import FAILED, main
from bayesfs.recipes.load import recipe_folder
from bayesfs.types import Embeddings

MODELS = [str(recipe_folder() / "models" / f"{name}.py") for name in ("gaussian", "deep_kernel_gp")]
COLUMNS = {"method", "shots", "way", "noise", "item", "score", "estimate", "low", "high"}


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 Gaussian classes with 30 pictures of each of two splits."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(20), 60)
    feat = rng.normal(size=(20, 12))[label] + 0.8 * rng.normal(size=(len(label), 12))
    path = tmp_path_factory.mktemp("stills") / "features.npz"
    np.savez(
        path, feat=feat.astype(np.float32), label=label, split=np.tile([0, 2], len(label) // 2)
    )
    return path


def command(data: Path, out: Path, *more: str) -> list[str]:
    return ["benchmark", str(data), "--out", str(out), "--smoke", "--axes", "6", *more]


def test_stills_with_every_baseline_and_sweeps(
    stills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table"
    argv = command(stills, out, "--models", MODELS[1], "--shots", "1", "--ways", "3")
    assert main([*argv, "--noise", "2.0"]) == 0
    said = capsys.readouterr().out
    assert "pictures, 1 shot" in said
    assert "query noise 2" in said
    table = pd.read_csv(out / "table.csv", keep_default_na=True)
    assert set(table.columns) >= COLUMNS
    assert table["method"].nunique() == 7
    assert not table["failed"].notna().any()
    nll = table[table["score"] == "nll"].set_index(["method", "way", "noise"])["estimate"]
    for name in table["method"].unique():
        assert nll[name, 0, 2.0] > nll[name, 0, 0.0] > 0
        assert nll[name, 3, 0.0] < nll[name, 0, 0.0]
    auroc = table[table["score"] == "out_auroc"]["estimate"]
    assert auroc.between(0, 1).all()
    assert len(json.loads((out / "table.json").read_text())) == len(table)
    assert len(list(out.glob("cell-*.json"))) == 7 * 3


def test_users_are_scored_and_the_second_time_nothing_is_computed(
    small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "table"
    argv = command(small_store, out, "--models", MODELS[0], "--shots", "1")
    assert main(argv) == 0
    table = pd.read_csv(out / "table.csv")
    assert set(table["item"]) == {"frame", "video"}
    assert table["worst"].notna().any()
    outside = table[table["score"] == "out_auroc"]
    assert (outside["item"] == "frame").all()
    assert outside["estimate"].between(0, 1).all()
    assert outside.set_index("method")["estimate"]["gaussian / exact"] > 0.7
    first = table[(table["method"] == "gaussian / exact") & (table["score"] == "nll")]
    assert first["nll_minus_first"].isna().all()
    other = table[(table["method"] == "prototypes") & (table["score"] == "nll")]
    gap = other["estimate"].to_numpy() - first["estimate"].to_numpy()
    np.testing.assert_allclose(other["nll_minus_first"], gap, atol=1e-6)
    monkeypatch.setattr("bayesfs.benchmark.run._learn", None)  # a call would fail
    assert main(argv) == 0
    pd.testing.assert_frame_equal(pd.read_csv(out / "table.csv"), table)


def test_more_videos_than_anybody_has_are_refused(
    small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = command(small_store, tmp_path / "t", "--no-baselines", "--models", MODELS[0])
    assert main([*argv, "--shots", "99"]) == FAILED
    assert "99 support videos of an object" in capsys.readouterr().err


def test_what_is_missing_is_computed_and_only_that(stills: Path, tmp_path: Path) -> None:
    out = tmp_path / "table"
    argv = command(stills, out, "--shots", "1", "--no-baselines", "--models")
    assert main([*argv, MODELS[1]]) == 0
    (first,) = out.glob("cell-*.json")
    written = first.stat().st_mtime_ns
    assert main([*argv, *MODELS]) == 0
    assert first.stat().st_mtime_ns == written
    assert len(list(out.glob("cell-*.json"))) == 2


def test_another_protocol_and_a_recipe_named_twice_are_refused(
    stills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = command(stills, tmp_path / "t", "--shots", "1", "--no-baselines", "--models", MODELS[1])
    assert main(argv) == 0
    assert main([*argv, "--seed", "4"]) == FAILED
    assert "holds a run that differs in" in capsys.readouterr().err
    assert main([*argv, MODELS[1]]) == FAILED
    assert "two recipes would both be called 'deep_kernel_gp / exact'" in capsys.readouterr().err


def test_an_engine_that_does_not_fit_is_a_row_with_its_reason(
    stills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = str(recipe_folder() / "models" / "linear_head.py")
    argv = command(stills, tmp_path / "t", "--shots", "1", "--no-baselines", "--models", head)
    assert main([*argv, MODELS[1]]) == 0
    table = pd.read_csv(tmp_path / "t" / "table.csv")
    failed = table[table["method"] == "linear_head / exact"]
    assert failed["failed"].str.contains("Exact needs a model with the ability Conjugate").all()
    assert failed["estimate"].isna().all()
    assert "Exact needs a model with the ability Conjugate" in capsys.readouterr().out


def test_unlabelled_videos_are_no_object_to_choose() -> None:
    x = np.ones((8, 3), np.float32)
    things = ["mug", "keys", "cane", "", "mug", "keys", "", ""]
    users = ["A"] * 4 + ["B"] * 4
    videos = [f"v{i}" for i in range(8)]
    store = Embeddings.from_arrays(x, user=users, object=things, video=videos, split="test")
    for seed in range(5):
        few = limit_objects(store, 2, "test", seed)
        found = set(zip(few.coord("user").tolist(), few.coord("object").tolist(), strict=True))
        assert {u for u, _ in found} == {"A", "B"}
        assert len([1 for u, o in found if u == "A" and o]) == 2
    with pytest.warns(UserWarning, match=r"1 test users have fewer than 3 objects.*'B'"):
        only = limit_objects(store, 3, "test", 0)
    assert set(only.coord("user").tolist()) == {"A"}
