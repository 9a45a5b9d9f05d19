"""Decoding frames and files, good, damaged and hostile."""

import importlib
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from bayesfs.data.videos import Skipped, Video
from bayesfs.errors import DataError
from bayesfs.features.video import Frame, Sampling, decode, frame_count, read_image


def gradient(side: int = 48, level: int = 0) -> NDArray[np.uint8]:
    y, x = np.mgrid[:side, :side] * 200 // side
    return np.stack([y, x, np.full_like(x, level)], axis=-1).astype(np.uint8)


def folder(root: Path, frames: int = 5, suffix: str = "png") -> Video:
    (root / "v").mkdir(parents=True)
    files = tuple(f"{n}.{suffix}" for n in range(frames))
    for n, name in enumerate(files):
        Image.fromarray(gradient(level=10 * n)).save(root / "v" / name)
    return Video(
        *("test", "u", "o", "clean", "v", root, "v", files),
        numbers=np.arange(frames, dtype=np.int32) + 1,
        boxes=np.full((frames, 4), np.nan, np.float32),
    )


def recorded(root: Path, frames: int = 12, name: str = "v.mp4", rate: int = 10) -> Video:
    """A short video whose blue level tells the frame."""
    av = pytest.importorskip("av")
    with av.open(str(root / name), "w") as out:
        stream = out.add_stream("mpeg4", rate=rate)
        stream.width = stream.height = 64
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for n in range(frames):
            picture = av.VideoFrame.from_ndarray(gradient(64, 15 * n), format="rgb24")
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
    return Video("test", "u", "o", "clean", "v", root, name)


def good(items: Any) -> list[Frame]:
    return [item for item in items if isinstance(item, Frame)]


def bad(items: Any) -> list[Skipped]:
    return [item for item in items if isinstance(item, Skipped)]


def test_frames_of_a_folder(tmp_path: Path) -> None:
    got = good(decode(folder(tmp_path), 48))
    assert [(f.index, f.number) for f in got] == [(n, n + 1) for n in range(5)]
    np.testing.assert_array_equal(got[3].image, gradient(level=30))


def test_resized_as_pillow_does(tmp_path: Path) -> None:
    folder(tmp_path, 1)
    want = Image.fromarray(gradient()).resize((20, 20), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(read_image(tmp_path / "v/0.png", 20), np.asarray(want))


def test_large_jpegs_decode_alike_at_lower_scale(tmp_path: Path) -> None:
    image = Image.fromarray(gradient(1024))
    image.save(tmp_path / "a.jpg", quality=95)
    want = np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(read_image(tmp_path / "a.jpg", 64) - want).max() <= 3


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    Image.fromarray(gradient()).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 48), np.rot90(gradient(), -1))


def test_damaged_frames_are_skipped_and_named(tmp_path: Path) -> None:
    video = folder(tmp_path, 6, "jpg")
    files = list(video.frames)
    files[1].write_bytes(files[1].read_bytes()[:400])
    files[2].write_bytes(b"")
    files[3].write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    files[4].unlink()
    got = list(decode(video, 32))
    assert [f.index for f in good(got)] == [0, 5]
    assert [(s.path, s.level) for s in bad(got)] == [(f"v/{n}.jpg", "frame") for n in (1, 2, 3, 4)]
    assert "truncated" in bad(got)[0].reason


def png(side: int) -> bytes:
    """A small PNG that says it is large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1_000_000)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_000, 60_000])  # Pillow alone lets the first pass
def test_decompression_bombs_are_refused(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png(side))
    with pytest.raises(DataError, match="pixels"):
        read_image(tmp_path / "bomb.png", 32)


@pytest.fixture(scope="module")
def jpeg(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("jpeg") / "a.jpg"
    Image.fromarray(gradient()).save(path)
    return path.read_bytes()


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=20), st.data())
def test_any_bytes_give_a_frame_or_a_data_error(
    jpeg: bytes, tmp_path: Path, edits: list[tuple[int, int]], data: Any
) -> None:
    spoilt = bytearray(jpeg[: data.draw(st.integers(0, len(jpeg)))])
    for place, value in edits:
        if spoilt:
            spoilt[place % len(spoilt)] = value
    path = tmp_path / "fuzz.jpg"
    path.write_bytes(spoilt)
    with suppress(DataError):
        assert read_image(path, 32).shape == (32, 32, 3)


def test_frames_of_a_file(tmp_path: Path) -> None:
    video = recorded(tmp_path)
    got = good(decode(video, 64))
    assert [(f.index, f.number) for f in got] == [(n, n + 1) for n in range(12)]
    for n, frame in enumerate(got):
        assert np.abs(frame.image.astype(int) - gradient(64, 15 * n)).mean() < 6
    assert frame_count(video) == 12


@pytest.mark.parametrize(
    ("sampling", "want"),
    [
        (Sampling(every=5), [0, 5, 10]),
        (Sampling(fps=5), [0, 2, 4, 6, 8, 10]),
        (Sampling(fps=100), list(range(12))),
        (Sampling(max_frames=3), [0, 4, 8]),
        (Sampling(max_frames=5), [0, 3, 5, 8, 10]),
        (Sampling(every=2, max_frames=100), [0, 2, 4, 6, 8, 10]),
        (Sampling(every=2, max_frames=1), [0]),
    ],
)
def test_sampling_a_file(tmp_path: Path, sampling: Sampling, want: list[int]) -> None:
    video = recorded(tmp_path)
    assert [f.index for f in good(decode(video, 32, sampling))] == want
    assert frame_count(video, sampling) == len(want)


def test_sampling_a_folder(tmp_path: Path) -> None:
    video = folder(tmp_path, 12)
    for sampling in (Sampling(every=5), Sampling(fps=10), Sampling(max_frames=5)):
        want = sampling.select(np.arange(12) / 30.0).tolist()
        got = [f.index for f in good(decode(video, 32, sampling))]
        assert got == want
        assert frame_count(video, sampling) == len(got)


@pytest.mark.parametrize("content", ["truncated", "empty", "text", "playlist", "audio only"])
def test_files_that_are_no_videos(tmp_path: Path, content: str) -> None:
    video = recorded(tmp_path)
    path = video.location
    if content == "audio only":
        av = pytest.importorskip("av")
        with av.open(str(path), "w") as out:
            stream = out.add_stream("aac", rate=44100)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            sound.sample_rate = 44100
            out.mux(stream.encode(sound))
            out.mux(stream.encode())
    else:
        secret = recorded(tmp_path, name="secret.mp4").location
        playlist = f"#EXTM3U\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n"
        texts = {"empty": b"", "text": b"no video", "playlist": playlist.encode()}
        path.write_bytes(texts.get(content, path.read_bytes()[: path.stat().st_size // 2]))
    got = list(decode(video, 32))
    assert not good(got)
    assert [(s.path, s.level) for s in bad(got)] == [("v.mp4", "video")]
    assert frame_count(video) == 0


def test_a_damaged_stream_gives_what_can_be_decoded(tmp_path: Path) -> None:
    video = recorded(tmp_path, frames=60, name="v.avi")
    data = bytearray(video.location.read_bytes())
    rng = np.random.default_rng(0)
    for place in rng.integers(len(data) // 4, len(data) // 2, 400):
        data[place] = rng.integers(256)
    video.location.write_bytes(data)
    got = list(decode(video, 32))
    assert all(isinstance(item, Frame | Skipped) for item in got)


@pytest.mark.parametrize("seed", range(3))
def test_spoilt_files_never_raise(tmp_path: Path, seed: int) -> None:
    video = recorded(tmp_path)
    data = video.location.read_bytes()
    rng = np.random.default_rng(seed)
    for _ in range(15):
        spoilt = bytearray(data[: rng.integers(1, len(data))] if rng.random() < 0.3 else data)
        for place in rng.integers(0, len(spoilt), rng.integers(1, 30)):
            spoilt[place] = rng.integers(256)
        video.location.write_bytes(spoilt)
        assert all(isinstance(i, Frame | Skipped) for i in decode(video, 32))
        assert frame_count(video) >= 0


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "v.mp4").touch()
    video = Video("test", "u", "o", "clean", "v", tmp_path, "v.mp4")
    real = importlib.import_module

    def missing(name: str, *rest: Any) -> Any:
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    for use in (lambda: list(decode(video, 32)), lambda: frame_count(video)):
        with pytest.raises(DataError, match=r"bayesfs\[video\]"):
            use()
