"""What `bayesfs export` writes answers as torch does, without torch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bayesfs.cli import name_videos, watch_video
from bayesfs.cli.main import main
from bayesfs.deploy.runner import TaughtObjects
from bayesfs.features.decoding.stream import stream
from bayesfs.protocols import TorchBackbone
from bayesfs.synthetic.videos.render import render_tree

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

FRAMES = 3


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One person's folders of taught objects, some frames to name, and what was exported."""
    root = tmp_path_factory.mktemp("person")
    tree = render_tree(
        root / "tree", train_users=1, test_users=1, objects=2, clean_videos=2, clean_frames=2,
        clutter_videos=1, clutter_frames=3, size=64,
    )  # fmt: skip
    for thing in next((tree / "test").iterdir()).iterdir():
        for video in (thing / "clean").iterdir():
            shutil.copytree(video, root / "teach" / thing.name / video.name)
        for video in (thing / "clutter").iterdir():
            shutil.copytree(video, root / "new" / thing.name)
    shown = np.asarray(Image.open(next((root / "new").rglob("*.jpg"))))
    Image.fromarray(shown // 4).save(root / "new" / "by night.png")
    Image.fromarray(np.tile(shown[:, ::2], (1, 2, 1))).save(root / "new" / "twice.png")
    noise = np.random.default_rng(0).integers(0, 256, shown.shape, np.uint8)
    Image.fromarray(noise).save(root / "new" / "noise.png")
    (root / "new" / "broken.png").write_bytes(b"no picture")
    argv = ["export", str(root / "teach"), "--onnx", str(root / "out"), "--frames", str(FRAMES)]
    assert main(argv) == 0
    return root


@pytest.mark.parametrize("count", [1, 2, 3])
def test_answers_are_those_of_torch(person: Path, count: int) -> None:
    source = next(p for p in (person / "new").iterdir() if p.is_dir())
    teacher = name_videos.boxed("cpu")
    assert isinstance(teacher.backbone, TorchBackbone)
    watcher = watch_video.Watcher.of(
        teacher, watch_video.taught_frames(person / "teach", teacher), "clutter"
    )
    arrived = [*watch_video.embedded_frames(str(source), teacher.backbone)][:count]
    wanted = watcher.answer(arrived)
    images = [frame.image for frame in stream(str(source), teacher.backbone.px)][:count]
    found = TaughtObjects(person / "out")(np.stack(images))
    assert found.prob == pytest.approx(wanted.prob, abs=1e-5)
    assert found.in_set == wanted.answer
    assert found.aleatoric == pytest.approx(wanted.parts["aleatoric"], abs=1e-5)
    assert found.epistemic == pytest.approx(wanted.parts["epistemic"], abs=1e-5)


@pytest.mark.parametrize("told", ["unknown", "clean"])
def test_predict_says_the_same_without_torch(
    person: Path, tmp_path: Path, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """To 1e-5, of videos, of photographs, of what is spoilt and of what cannot be read."""
    exported, new = person / "out", str(person / "new")
    if told != "unknown":
        exported = tmp_path / "out"
        argv = ["export", str(person / "teach"), "--onnx", str(exported), "--condition", told]
        assert main([*argv, "--frames", str(FRAMES)]) == 0
    capsys.readouterr()
    argv = ["predict", str(person / "teach"), new, "--condition", told]
    assert main([*argv, "--table", str(tmp_path / "full.csv")]) == 0
    full = capsys.readouterr()
    for name in ("torch", "pyro"):  # importing either fails
        (tmp_path / f"{name}.py").write_text("raise ImportError")
    argv = [sys.executable, "-m", "bayesfs", "predict", str(exported), new, "--condition", told]
    done = subprocess.run(
        [*argv, "--table", str(tmp_path / "quick.csv")],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, full.out), done.stderr
    told = [line for line in full.err.splitlines() if not line.endswith(("...", "frames)"))]
    assert told == done.stderr.splitlines()
    a, b = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("full", "quick"))
    assert len(a) == 6
    pd.testing.assert_frame_equal(a, b, rtol=0, atol=1e-5)


def test_what_an_exported_folder_cannot_be_asked_is_told(
    person: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["predict", str(person / "out"), str(person / "new")]
    assert main([*asked, "--backbone", "efficientnet-lite2"]) == 2
    assert "takes no --backbone" in capsys.readouterr().err
    assert main([*asked, "--condition", "clean"]) == 2
    assert "export it anew with --condition clean" in capsys.readouterr().err
    shutil.copytree(person / "out", tmp_path / "old")
    header = json.loads((tmp_path / "old" / "taught.json").read_text())
    del header["rules"]
    (tmp_path / "old" / "taught.json").write_text(json.dumps(header))
    assert main(["predict", str(tmp_path / "old"), str(person / "new")]) == 2
    assert "by another version" in capsys.readouterr().err


def test_more_frames_than_heads_are_spread(person: Path) -> None:
    taught = TaughtObjects(person / "out")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, taught.px, taught.px, 3), np.uint8)
    assert taught(images).prob == pytest.approx(taught(images[[0, 2, 4]]).prob)


def test_its_program_runs_where_torch_is_not(person: Path, tmp_path: Path) -> None:
    taught = TaughtObjects(person / "out")
    images = np.zeros((1, taught.px, taught.px, 3), np.uint8)
    np.save(tmp_path / "frames.npy", images)
    for name in ("torch", "bayesfs"):  # importing either fails
        (tmp_path / f"{name}.py").write_text("raise ImportError")
    argv = [sys.executable, str(person / "out" / "recognise.py"), str(tmp_path / "frames.npy")]
    done = subprocess.run(
        argv, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)}, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in taught.classes)


def test_what_was_exported_says_what_it_is(person: Path) -> None:
    header = json.loads((person / "out" / "taught.json").read_text())
    assert header["frames"] == FRAMES
    assert sorted(header["classes"]) == sorted(p.name for p in (person / "teach").iterdir())
    text = "".join(p.read_text(errors="replace") for p in (person / "out").iterdir())
    assert str(person) not in text


@pytest.mark.parametrize("images", [np.zeros((0, 160, 160, 3), np.uint8), np.zeros((1, 9, 9, 3))])
def test_frames_of_another_kind_are_refused(person: Path, images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        TaughtObjects(person / "out")(images)


def test_a_folder_that_is_there_is_left_alone(
    person: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(p.name for p in (person / "out").iterdir())
    assert main(["export", str(person / "teach"), "--onnx", str(person / "out")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["export", str(person / "teach"), "--onnx", "x", "--frames", "0"]) == 2
    assert sorted(p.name for p in (person / "out").iterdir()) == before
