"""What `bayesfs export` writes answers as torch does, without torch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bayesfs.cli import name_videos, watch_video
from bayesfs.cli.main import main
from bayesfs.deploy.runner import TaughtObjects
from bayesfs.features.decoding.stream import stream
from bayesfs.protocols import TorchBackbone
from bayesfs.synthetic.videos.render import render_tree

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

FRAMES = 2


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
    argv = ["export", str(root / "teach"), "--onnx", str(root / "out"), "--frames", str(FRAMES)]
    assert main(argv) == 0
    return root


@pytest.mark.parametrize("count", [1, 2])
def test_answers_are_those_of_torch(person: Path, count: int) -> None:
    source = next((person / "new").iterdir())
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


def test_more_frames_than_heads_are_spread(person: Path) -> None:
    taught = TaughtObjects(person / "out")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, taught.px, taught.px, 3), np.uint8)
    assert taught(images).prob == pytest.approx(taught(images[[0, 4]]).prob)


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
