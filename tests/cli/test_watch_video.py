"""Frames of a source are answered as they arrive, as a whole video would be."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bayesfs.cli import name_videos, watch_video
from bayesfs.cli.main import FAILED, main
from bayesfs.errors import DataError
from bayesfs.features.decoding import stream as streaming
from bayesfs.features.decoding.stream import camera, stream
from bayesfs.features.decoding.video import Frame
from bayesfs.features.quality import quality
from bayesfs.features.windows import WINDOWS
from bayesfs.synthetic.videos.render import render_tree


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One person's folders of taught objects, and a folder of frames of one of them."""
    root = tmp_path_factory.mktemp("person")
    tree = render_tree(
        root / "tree", train_users=1, test_users=1, objects=2, clean_videos=2, clean_frames=3,
        clutter_videos=1, clutter_frames=5, size=64,
    )  # fmt: skip
    for thing in next((tree / "test").iterdir()).iterdir():
        for video in (thing / "clean").iterdir():
            shutil.copytree(video, root / "teach" / thing.name / video.name)
        for video in (thing / "clutter").iterdir():
            shutil.copytree(video, root / "new" / thing.name)
    return root


def test_each_frame_has_a_line_and_the_latency_is_said(
    person: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = next((person / "new").iterdir())
    assert main(["watch", str(person / "teach"), str(source), "--every", "2"]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["1", "3", "5"]
    things = [p.name for p in (person / "teach").iterdir()]
    for line in lines:
        found = re.fullmatch(
            r"\d+: (.+) (\d\.\d\d); set: (.+); doubt (\d\.\d\d) nats, (\d\.\d\d) of it .*", line
        )
        assert found is not None, line
        assert found[1] in things
        assert 1 / len(things) <= float(found[2]) <= 1
        assert float(found[5]) <= float(found[4]) + 0.01
    assert re.search(r"3 answers, each \d+ ms", said.err + said.out)


def test_the_last_answer_is_that_of_the_whole_video(person: Path) -> None:
    """What `predict` says of the same frames, in the same condition."""
    source = next((person / "new").iterdir())
    teacher = name_videos.boxed("cpu")
    watcher = watch_video.Watcher.of(
        teacher, watch_video.taught_frames(person / "teach", teacher), "clutter"
    )
    frames = [*watch_video.embedded_frames(str(source), teacher.backbone)]
    found = watcher.answer(frames)
    whole = name_videos.read_personal(person / "teach", person / "new", teacher)
    tasks = name_videos.asked_tasks(teacher, whole.embeddings, "clutter")
    at = next(i for i, name in enumerate(tasks.videos[0]) if name.endswith(f"--{source.name}"))
    answer = teacher.study.infer(tasks, teacher.learnt, seed=0)
    want = dict(zip(tasks.classes[0], answer.predictive.video.prob[0, at].tolist(), strict=True))
    assert found.prob == pytest.approx(want, abs=1e-4)
    parts = ("total", "aleatoric", "epistemic")
    here = {p: float(answer.uncertainty[f"video_{p}"][0, at]) for p in parts}
    assert {p: found.parts[p] for p in parts} == pytest.approx(here, abs=1e-3)


def test_what_cannot_be_watched_is_told(
    person: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["watch", str(person / "teach"), str(tmp_path / "no.mp4")]) == FAILED
    assert "expected a video file" in capsys.readouterr().err
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.jpg").write_bytes(b"no picture")
    assert main(["watch", str(person / "teach"), str(tmp_path / "bad")]) == FAILED
    assert "left out" in (said := capsys.readouterr().err)
    assert "no frame of" in said
    assert main(["watch", str(person / "teach"), "0", "--every", "0"]) == FAILED


def test_a_camera_is_called_as_its_system_calls_it() -> None:
    assert camera(1, "linux") == ("/dev/video1", "v4l2")
    assert camera(0, "darwin") == ("0", "avfoundation")
    with pytest.raises(DataError, match="give a file"):
        camera(0, "plan9")


def test_frames_of_a_camera_are_read_through_pyav(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg's test picture stands in for a camera."""
    pytest.importorskip("av")
    monkeypatch.setattr(
        streaming, "camera", lambda number: (f"color=c=red:r={number}:s=64x48", "lavfi")
    )
    try:
        found = [frame for frame, _ in zip(stream("7", 32), range(3), strict=False)]
    except DataError as error:
        pytest.skip(f"no lavfi here: {error}")
    assert [f.number for f in found if isinstance(f, Frame)] == [1, 2, 3]
    red = np.array([254, 0, 0])
    assert all(abs(f.image[5, 5] - red).max() < 6 for f in found if isinstance(f, Frame))
    monkeypatch.setattr(streaming, "camera", lambda number: ("/nowhere", "v4l2"))
    with pytest.raises(DataError, match="is it connected"):
        next(iter(stream("0", 32)))


def test_a_step_is_advised_where_the_answer_is_unsure(person: Path) -> None:
    """Of dark frames: more light. A window of the frame is answered as the frame itself is."""
    teacher = name_videos.boxed("cpu")
    taught = watch_video.taught_frames(person / "teach", teacher)
    watcher = watch_video.Watcher.of(teacher, taught, "clutter")
    source = next((person / "new").iterdir())
    frames = list(watch_video.embedded_frames(str(source), teacher.backbone))
    looks = watcher.windows(frames[-1])
    assert {*looks} == {*WINDOWS}
    window = WINDOWS["left"].of(frames[-1].image[None])
    same = replace(frames[-1], features=teacher.backbone(window)[0])
    alone = watcher.answer([same])
    assert looks["left"].prob == pytest.approx(alone.prob, abs=1e-6)
    assert looks["left"].typical == pytest.approx(alone.typical)
    dark = replace(frames[-1], quality=quality(frames[-1].image[None] // 4)[0])
    things = tuple(alone.prob)
    unsure, sure = (replace(alone, answer=things[:n]) for n in (2, 1))
    assert watcher.step(unsure, [dark]) == "more light"
    assert watcher.step(sure, [dark]) == ""
    assert watch_video.line_of(unsure, "turn top").endswith("; try: turn up")
