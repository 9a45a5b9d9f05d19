"""From videos to a store: the right rows, resumable, never mixed, never half a store."""

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from bayesfs._utils.owned_folders import claim
from bayesfs.data.sources.open import read_tree
from bayesfs.data.sources.video import FLAGS, Skipped, Video
from bayesfs.data.store import (
    MAX_SKIPPED,
    open_store,
    read_skipped,
    skipped_attrs,
    store_attrs,
    thumbnails,
)
from bayesfs.errors import DataError
from bayesfs.features.decoding.pictures import read_image
from bayesfs.features.decoding.sampling import Sampling
from bayesfs.features.extraction import extract as extract_module
from bayesfs.features.extraction import job as job_module
from bayesfs.features.extraction import shards as shards_module
from bayesfs.features.extraction.batches import batches
from bayesfs.features.extraction.extract import extract
from bayesfs.features.extraction.job import UNFINISHED, content_digest
from bayesfs.features.quality import COVARIATES, quality


class MeanColour:
    """A backbone that anyone can check: mean and spread of each colour."""

    dim = 6

    def __init__(self, px: int = 32, batch: int = 8, name: str = "mean-colour") -> None:
        self.px, self.batch, self.name = px, batch, name
        self.frames = 0

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.frames += len(images)
        x = images.astype(np.float32)
        return np.concatenate([x.mean((1, 2)), x.std((1, 2))], axis=1)


def make_tree(root: Path, videos: int = 12, frames: int = 8) -> Path:
    rng = np.random.default_rng(0)
    for n in range(videos):
        user, condition = f"P{n % 2}", ("clean", "clutter")[n // 2 % 2]
        name = f"{user}--mug--{n:02d}"
        folder = root / "train" / user / f"mug {n // 4}" / condition / name
        folder.mkdir(parents=True)
        for k in range(1, frames + 1):
            pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            image = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC)
            image.save(folder / f"{name}-{k:05d}.jpg")
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "SHARD_FRAMES", 20)


def digest(path: Path) -> dict[str, str]:
    """Checksum of every file of a store."""
    return {
        p.relative_to(path).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(path.rglob("*"))
        if p.is_file()
    }


def test_every_frame_with_its_labels(tree: Path, tmp_path: Path) -> None:
    videos, told = read_tree(tree).videos, []
    got = extract(
        videos, MeanColour(), tmp_path / "s.zarr", progress=lambda *args: told.append(args)
    )
    paths = [p for v in videos for p in v.frames]
    images = np.stack([read_image(p, 32) for p in paths])
    np.testing.assert_array_equal(got.features, MeanColour()(images))
    np.testing.assert_allclose(got.dataset["quality"], quality(images), rtol=1e-5, atol=1e-6)
    assert got.dataset["covariate"].values.tolist() == list(COVARIATES)
    assert [str(tree / p) for p in got.coord("path")] == [str(p) for p in paths]
    for label in ("user", "object", "condition", "split"):
        assert got.coord(label).tolist() == [getattr(v, label) for v in videos for _ in v.files]
    assert got.coord("video").tolist() == [v.name for v in videos for _ in v.files]
    assert got.coord("frame_number").tolist() == list(range(1, 9)) * 12
    assert told[-1] == (96, 96, "embedding frames")
    assert not (tmp_path / "s.zarr.partial").exists()


def test_annotations_become_coordinates(turntable: Path, tmp_path: Path) -> None:
    videos = [v for v in read_tree(turntable).videos if v.user == "P007"][::6]
    got = extract(videos, MeanColour(), tmp_path / "s")
    for flag in FLAGS:
        want = np.concatenate([v.flags[flag] for v in videos])
        np.testing.assert_array_equal(got.coord(f"flag_{flag}"), want)
    boxes = np.concatenate([v.boxes for v in videos])
    for column, side in enumerate(("x", "y", "width", "height")):
        np.testing.assert_array_equal(got.coord(f"box_{side}"), boxes[:, column])


def test_a_second_run_does_nothing(tree: Path, tmp_path: Path) -> None:
    videos = read_tree(tree).videos
    extract(videos, MeanColour(), tmp_path / "s")
    before = digest(tmp_path / "s")
    again = MeanColour()
    extract(videos, again, tmp_path / "s")
    assert again.frames == 0
    assert digest(tmp_path / "s") == before


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_the_same_whatever_the_batches(
    tree: Path, tmp_path: Path, workers: int, batch: int
) -> None:
    videos = read_tree(tree).videos
    a = extract(videos, MeanColour(), tmp_path / "a")
    b = extract(videos, MeanColour(batch=batch), tmp_path / "b", workers=workers)
    np.testing.assert_allclose(a.features, b.features, rtol=1e-6)
    assert digest(tmp_path / "a").keys() == digest(tmp_path / "b").keys()


class Interrupted(Exception):
    """Stands for a kill that the process survives, so that the test can look at the folder."""


class Fails(MeanColour):
    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self.after <= 0:
            raise Interrupted
        self.after -= 1
        return super().__call__(images)


def test_goes_on_where_it_was(tree: Path, tmp_path: Path) -> None:
    videos = read_tree(tree).videos
    extract(videos, MeanColour(), tmp_path / "whole")
    spent = 0
    for after in (0, 1, 4, 5, 3):
        backbone = Fails(after)
        with pytest.raises(Interrupted):
            extract(videos, backbone, tmp_path / "s", workers=1)  # more would make it a race
        assert not (tmp_path / "s").exists()
        spent += backbone.frames
    last = MeanColour()
    extract(videos, last, tmp_path / "s")
    assert last.frames < 96
    assert digest(tmp_path / "s") == digest(tmp_path / "whole")
    threads = [t for t in threading.enumerate() if "_work" in t.name]
    assert not threads


def test_torn_shards_are_made_again(tree: Path, tmp_path: Path) -> None:
    videos = read_tree(tree).videos
    extract(videos, MeanColour(), tmp_path / "whole")
    rng = random.Random(0)
    for _ in range(3):
        with pytest.raises(Interrupted):
            extract(videos, Fails(7), tmp_path / "s")
        for shard in (tmp_path / "s.partial").glob("*.npz"):
            data = bytearray(shard.read_bytes())
            if rng.random() < 0.5:
                data = data[: rng.randrange(len(data))]
            else:
                data[rng.randrange(200, 400)] ^= 1
            shard.write_bytes(data)
    extract(videos, MeanColour(), tmp_path / "s")
    assert digest(tmp_path / "s") == digest(tmp_path / "whole")


def test_a_full_disk_loses_nothing(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = read_tree(tree).videos
    real, left = np.savez, [2]

    def savez(*args: Any, **kwargs: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device", "shard")
        real(*args, **kwargs)

    monkeypatch.setattr(np, "savez", savez)
    with pytest.raises(DataError, match="disk is full"):
        extract(videos, MeanColour(), tmp_path / "s")
    monkeypatch.setattr(np, "savez", real)
    rest = MeanColour()
    extract(videos, rest, tmp_path / "s")
    assert rest.frames == 96 - 2 * 24


def test_where_nothing_can_be_written(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write"):
        extract(read_tree(tree).videos, MeanColour(), tmp_path / "file" / "s")


def test_two_runs_at_once(tree: Path, tmp_path: Path) -> None:
    claim(tmp_path / "s.partial", UNFINISHED)
    with (
        FileLock(tmp_path / "s.partial" / "lock"),
        pytest.raises(DataError, match="another run"),
    ):
        extract(read_tree(tree).videos, MeanColour(), tmp_path / "s")


@pytest.mark.parametrize("finished", [True, False])
def test_never_mixed(tree: Path, tmp_path: Path, finished: bool) -> None:
    videos = read_tree(tree).videos
    if finished:
        extract(videos, MeanColour(), tmp_path / "s")
    else:
        with pytest.raises(Interrupted):
            extract(videos, Fails(5), tmp_path / "s")
    kept = tmp_path / ("s" if finished else "s.partial")
    before = digest(kept)
    for match, arguments in (
        ("backbone 'mean-colour'", {"backbone": MeanColour(name="other")}),
        ("px 32", {"backbone": MeanColour(px=48)}),
        ("thumbnails 1", {"thumbnails": False}),
        ("sampling", {"sampling": Sampling(every=2)}),
        ("other frames", {"videos": videos[1:]}),
    ):
        settings: dict[str, Any] = {"videos": videos, "backbone": MeanColour()} | arguments
        with pytest.raises(DataError, match=rf"s.*{match}"):
            extract(store_path=tmp_path / "s", **settings)
    assert digest(kept) == before


def test_a_changed_tree_is_noticed(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", 2, 2)
    extract(read_tree(root).videos, MeanColour(), tmp_path / "s")
    (root / "annotations/train").mkdir(parents=True)
    name = read_tree(root).videos[0].name
    note = root / "annotations/train" / f"{name}.json"
    note.write_text(f'{{"{name}-00001.jpg": {{"blur_issue": true}}}}')
    with pytest.raises(DataError, match="annotations"):
        extract(read_tree(root).videos, MeanColour(), tmp_path / "s")


def corrected(path: Path) -> None:
    """Another picture of the same size in bytes, in the same place, with the same time."""
    before, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


@pytest.mark.parametrize("finished", [True, False])
def test_a_frame_corrected_in_place_is_noticed(tmp_path: Path, finished: bool) -> None:
    root = make_tree(tmp_path / "tree", 6, 8)
    videos = read_tree(root).videos
    if finished:
        extract(videos, MeanColour(), tmp_path / "s")
    else:
        with pytest.raises(Interrupted):
            extract(videos, Fails(5), tmp_path / "s", workers=1)
    extract(read_tree(root).videos, MeanColour(), tmp_path / "copy")
    corrected(videos[0].frames[3])
    for store in ("s", "copy"):
        with pytest.raises(DataError, match="other frames"):
            extract(read_tree(root).videos, MeanColour(), tmp_path / store)


def test_what_belongs_to_the_content_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, copy = tmp_path / "a", tmp_path / "b"
    file.write_bytes(bytes(range(100)))
    copy.write_bytes(file.read_bytes())
    os.utime(copy, (1, 1))
    assert content_digest(file) == content_digest(copy)  # whole: times do not count
    monkeypatch.setattr(job_module, "WHOLE", 40)
    first = content_digest(file)
    assert first != content_digest(copy)
    time_of = file.stat().st_mtime_ns
    for place in (0, 19, 80, 99):  # head and tail
        data = bytearray(file.read_bytes())
        data[place] ^= 1
        copy.write_bytes(data)
        os.utime(copy, ns=(time_of, time_of))
        assert content_digest(copy) != first
    copy.write_bytes(file.read_bytes())
    os.utime(copy, ns=(time_of, time_of))
    assert content_digest(copy) == first  # as `cp -p` leaves it
    assert content_digest(tmp_path / "missing") == "unreadable"


def test_the_store_says_how_frames_were_chosen(tree: Path, tmp_path: Path) -> None:
    sampling = Sampling(fps=5, max_frames=3)
    extract(read_tree(tree).videos, MeanColour(), tmp_path / "s", sampling=sampling)
    attrs = store_attrs(tmp_path / "s")
    assert Sampling(**json.loads(attrs["sampling"])) == sampling
    assert attrs["px"] == 32


def test_a_note_nested_without_end_is_damaged(tree: Path, tmp_path: Path) -> None:
    work = tmp_path / "s.partial"
    claim(work, UNFINISHED)
    (work / "manifest.json").write_text("[" * 200_000)
    with pytest.raises(DataError, match="damaged"):
        extract(read_tree(tree).videos, MeanColour(), tmp_path / "s")


def test_pipes_in_the_unfinished_work_are_not_waited_for(tree: Path, tmp_path: Path) -> None:
    videos = read_tree(tree).videos
    with pytest.raises(Interrupted):
        extract(videos, Fails(7), tmp_path / "s", workers=1)
    manifest = tmp_path / "s.partial/manifest.json"
    kept = manifest.read_bytes()
    manifest.unlink()
    os.mkfifo(manifest)
    with pytest.raises(DataError, match=r"manifest.json. is damaged \(not a regular file"):
        extract(videos, MeanColour(), tmp_path / "s")
    manifest.unlink()
    manifest.write_bytes(kept)
    shard = next((tmp_path / "s.partial").glob("shard-*.npz"))
    shard.unlink()
    os.mkfifo(shard)
    assert len(extract(videos, MeanColour(), tmp_path / "s")) == 96


def test_a_file_that_cannot_be_read_is_noted_once(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "own/keys/a").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "own/keys/a/1.png")
    (tmp_path / "own/keys/b.mp4").touch()
    got = extract(read_tree(tmp_path / "own").videos, MeanColour(), tmp_path / "s")
    ((path, reason),) = [(s.path, s.reason) for s in read_skipped(got.dataset.attrs)]
    assert path == "keys/b.mp4"
    assert "empty file" in reason


def test_something_else_is_never_overwritten(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="zarr"):
        extract(read_tree(tree).videos, MeanColour(), tmp_path / "s")
    assert (tmp_path / "s" / "thesis.tex").exists()
    (tmp_path / "empty").mkdir()
    assert len(extract(read_tree(tree).videos, MeanColour(), tmp_path / "empty")) == 96


def test_thumbnails_or_no_pixel(
    tree: Path, tmp_path: Path, holds_jpeg: Callable[[bytes], bool]
) -> None:
    videos = read_tree(tree).videos
    extract(videos, MeanColour(), tmp_path / "s")
    pictures = thumbnails(tmp_path / "s", [videos[3].name])[videos[3].name]
    assert [p.frame_number for p in pictures] == [1, 5, 8]
    for picture in pictures:
        assert picture.jpeg.startswith(b"\xff\xd8\xff")
        assert b"Exif" not in picture.jpeg
        assert len(picture.jpeg) < 10_000
    extract(videos, MeanColour(), tmp_path / "private", thumbnails=False)
    assert thumbnails(tmp_path / "private", [videos[3].name])[videos[3].name] == ()
    files = [p for p in (tmp_path / "private").rglob("*") if p.is_file()]
    assert not any(holds_jpeg(p.read_bytes()) for p in files)


def test_no_path_of_this_machine_in_the_store(tree: Path, tmp_path: Path) -> None:
    extract(read_tree(tree).videos, MeanColour(), tmp_path / "s")
    here = str(tree).encode()
    assert not any(here in p.read_bytes() for p in (tmp_path / "s").rglob("*") if p.is_file())


def test_damaged_frames_are_skipped_and_counted(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", 4, 4)
    found = read_tree(root)
    found.videos[0].frames[1].write_bytes(b"no picture")
    for frame in found.videos[2].frames:
        frame.write_bytes(frame.read_bytes()[:300])
    got = extract(read_tree(root).videos, MeanColour(), tmp_path / "s", skipped=found.skipped)
    assert len(got) == 16 - 5
    assert got.where(video=found.videos[0].name).coord("frame_number").tolist() == [1, 3, 4]
    assert found.videos[2].name not in got.coord("video")
    left_out = read_skipped(got.dataset.attrs)
    assert [s.level for s in left_out] == ["frame"] * 5 + ["video"]
    assert left_out[0].path.endswith("-00002.jpg")
    assert got.dataset.attrs["skipped_count"] == 6


def test_an_object_without_a_readable_frame_is_told_as_such(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", 8, 2)
    videos = read_tree(root).videos
    lost = next(v.object for v in videos if v.user == "P0")
    for video in videos:
        if (video.user, video.object) == ("P0", lost):
            for frame in video.frames:
                frame.write_bytes(b"?")
    got = extract(videos, MeanColour(), tmp_path / "s")
    told = [s for s in read_skipped(got.dataset.attrs) if s.level == "object"]
    assert [(s.path, s.reason) for s in told] == [
        (f"train/P0/{lost}", "an object of which no frame could be decoded")
    ]


def test_of_very_much_the_gravest_losses_are_kept() -> None:
    many = [Skipped(str(n), "", "frame") for n in range(MAX_SKIPPED + 5)]
    attrs = skipped_attrs([*many, Skipped("mug", "", "object")])
    kept = read_skipped(attrs)
    assert (attrs["skipped_count"], len(kept)) == (MAX_SKIPPED + 6, MAX_SKIPPED)
    assert kept[-1].path == "mug"
    assert [s.path for s in kept[:-1]] == [str(n) for n in range(MAX_SKIPPED - 1)]


def test_nothing_readable_at_all(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", 2, 2)
    for video in read_tree(root).videos:
        for frame in video.frames:
            frame.write_bytes(b"?")
    with pytest.raises(DataError, match=r"no frame of 1 videos.*00001\.jpg"):
        extract(read_tree(root).videos[:1], MeanColour(), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_backbone_that_gives_nan(tree: Path, tmp_path: Path) -> None:
    class Overflows(MeanColour):
        def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            features = super().__call__(images)
            features[-1, 0] = np.inf
            return features

    videos = read_tree(tree).videos
    with pytest.raises(DataError, match=rf"frame 8 of '{videos[0].path}'"):
        extract(videos, Overflows(), tmp_path / "s")


def test_one_video_of_one_frame(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", 1, 1)
    got = extract(read_tree(root).videos, MeanColour(), tmp_path / "s")
    assert len(got) == 1
    first = str(got.coord("video")[0])
    assert len(thumbnails(tmp_path / "s", [first])[first]) == 1


def test_sampling(tree: Path, tmp_path: Path) -> None:
    got = extract(read_tree(tree).videos, MeanColour(), tmp_path / "s", sampling=Sampling(every=3))
    assert got.coord("frame_number").tolist() == [1, 4, 7] * 12


def test_hostile_names_travel_as_text(tmp_path: Path) -> None:
    thing = "<img src=x onerror=alert(1)> ключ \x1b[2J"
    folder = tmp_path / "tree" / thing / "one"
    folder.mkdir(parents=True)
    Image.new("RGB", (40, 40), (9, 8, 7)).save(folder / "f.png")
    got = extract(read_tree(tmp_path / "tree").videos, MeanColour(), tmp_path / "s")
    assert got.coord("object").tolist() == [thing]


def test_files_through_pyav(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    for thing, level in (("keys", 40), ("unlabelled", 200)):
        (tmp_path / "own" / thing).mkdir(parents=True)
        with av.open(str(tmp_path / "own" / thing / "a.mp4"), "w") as out:
            stream = out.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for _ in range(9):
                frame = np.full((48, 64, 3), level, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            out.mux(stream.encode())
    got = extract(read_tree(tmp_path / "own").videos, MeanColour(), tmp_path / "s")
    assert len(got) == 18
    assert got.coord("object").tolist() == ["keys"] * 9 + [""] * 9
    assert got.coord("condition").tolist() == ["clean"] * 9 + ["clutter"] * 9
    assert set(got.coord("path")) == {"keys/a.mp4", "unlabelled/a.mp4"}
    assert (got.coord("flag_blur_issue") == -1).all()
    np.testing.assert_allclose(got.features[:, 0], np.repeat([40, 200], 9), atol=3)
    (pictures,) = thumbnails(tmp_path / "s", ["own--keys--a.mp4"]).values()
    assert [p.frame_number for p in pictures] == [1, 5, 9]


def test_decodes_while_the_backbone_works(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first shard is embedded, threads of their own decode the next ones."""
    begun: list[threading.Thread] = []
    at_work, all_begun = [], threading.Event()

    def watched(videos: list[Video], first: int, **settings: Any) -> Iterator[Any]:
        begun.append(threading.current_thread())
        if len(begun) == 3:
            all_begun.set()
        yield from batches(videos, first, **settings)

    class Waiting(MeanColour):
        def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            at_work.append(all_begun.wait(60.0))
            return super().__call__(images)

    monkeypatch.setattr(extract_module, "batches", watched)
    extract(read_tree(tree).videos, Waiting(), tmp_path / "s", workers=3)
    assert at_work[0]
    assert threading.current_thread() not in begun


def test_workers_report_every_frame_and_give_the_cores_back(tree: Path, tmp_path: Path) -> None:
    cores, told = torch.get_num_threads(), []
    extract(
        read_tree(tree).videos,
        MeanColour(),
        tmp_path / "s",
        workers=3,
        progress=lambda done, expected, _: told.append((done, expected)),
    )
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] == len(open_store(tmp_path / "s"))
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert torch.get_num_threads() == cores
    assert seen == [cores]


def test_what_is_gone_on_with_has_as_many_cores_as_the_rest(tree: Path, tmp_path: Path) -> None:
    """Rounding depends on how many cores share a pass: a resumed shard must have no more."""

    class Counts(Fails):
        def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            threads.add(torch.get_num_threads())
            return super().__call__(images)

    threads: set[int] = set()
    cores = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with pytest.raises(Interrupted):  # in the last shard
            extract(read_tree(tree).videos, Counts(15), tmp_path / "s", workers=2)
        extract(read_tree(tree).videos, Counts(100), tmp_path / "s", workers=2)
    finally:
        torch.set_num_threads(cores)
    assert threads == {2}


def test_a_failing_worker_stops_the_others(tree: Path, tmp_path: Path) -> None:
    class Fails(MeanColour):
        def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            if self.frames:
                raise RuntimeError("out of memory")
            return super().__call__(images)

    backbone = Fails()
    with pytest.raises(RuntimeError, match="out of memory"):
        extract(read_tree(tree).videos, backbone, tmp_path / "s", workers=3)
    assert backbone.frames < 96
    assert not [t for t in threading.enumerate() if t.name.startswith("embed")]


CHILD = """
import sys, time
import numpy as np
sys.path.insert(0, sys.argv[3])
from bayesfs.data.sources.open import read_tree
from bayesfs.features.extraction import shards
from bayesfs.features.extraction.extract import extract
from bayesfs.features.extraction.job import content_digest
shards.SHARD_FRAMES = 20

class Slow:
    name, px, batch, dim = "mean-colour", 32, 8, 6
    def __call__(self, images):
        time.sleep(0.01)
        x = images.astype(np.float32)
        return np.concatenate([x.mean((1, 2)), x.std((1, 2))], axis=1)

videos = read_tree(sys.argv[1]).videos
print("ready", flush=True)
extract(videos, Slow(), sys.argv[2])
print("done", flush=True)
"""


@pytest.mark.slow
def test_kill_9_at_twenty_random_moments(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", 120, 8)
    videos = read_tree(tree).videos
    extract(videos, MeanColour(), tmp_path / "whole")
    rng, store, kills = random.Random(0), tmp_path / "s", 0
    command = [sys.executable, "-c", CHILD, str(tree), str(store), str(Path.cwd())]
    while kills < 20:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.4))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        kills += 1
        if store.exists():
            assert digest(store) == digest(tmp_path / "whole")  # whole or not there
            store.rename(tmp_path / f"s{kills}")  # begin anew, so that the kills go on
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert digest(store) == digest(tmp_path / "whole")
    assert not (tmp_path / "s.partial").exists()
    assert len(open_store(store)) == 960
    assert store_attrs(store)["backbone"] == "mean-colour"
