"""Video files: what is there, in time, as it is to be shown; what promises too much is refused."""

import os
import struct
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bayesfs.data.sources.video import Skipped, Video
from bayesfs.errors import DataError
from bayesfs.features.decoding import boxes, containers
from bayesfs.features.decoding import video as decoding
from bayesfs.features.decoding.boxes import check_boxes
from bayesfs.features.decoding.containers import Survey, survey
from bayesfs.features.decoding.sampling import Sampling
from bayesfs.features.decoding.video import MAX_NOTED, Frame, decode, displayed, frame_count

av = pytest.importorskip("av")

SIDE = 32


def levels(frames: int) -> list[int]:
    return [10 + 5 * n for n in range(frames)]


def record(
    target: Any,
    codec: str = "mpeg4",
    *,
    stamps: list[int] | None = None,
    frames: int = 20,
    shift: int = 0,
    pixels: str = "yuv420p",
    later: int = 0,
    coding: dict[str, str] | None = None,
    **settings: Any,
) -> None:
    """Flat frames, brighter and brighter, at stamps in milliseconds (by default 10 a second).

    Of every `later` + 1 frames, `later` refer to the frame after them.
    """
    times = stamps or [100 * n for n in range(frames)]
    with av.open(target, "w", **settings) as out:
        stream = out.add_stream(codec, rate=10)
        stream.width = stream.height = SIDE
        stream.pix_fmt = pixels
        stream.bit_rate = 8_000_000
        stream.codec_context.options = coding or {}
        stream.codec_context.max_b_frames = later
        if out.format.name != "avi":  # which stores frames for the times between, too
            stream.codec_context.time_base = Fraction(1, 1000)
        for level, stamp in zip(levels(len(times)), times, strict=True):
            image = np.full((SIDE, SIDE, 3), level, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            for packet in stream.encode(frame):
                write(out, packet, shift)
        for packet in stream.encode():
            write(out, packet, shift)


def write(out: Any, packet: Any, shift: int) -> None:
    packet.pts -= shift
    packet.dts -= shift
    out.mux(packet)


class Wire:
    """A target that can only be written to, as a browser's recorder or a stream writes."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")

    def write(self, data: bytes) -> int:
        return self.file.write(data)


def video(path: Path) -> Video:
    return Video("test", "u", "o", "clean", "v", path.parent, path.name)


def shown(path: Path, sampling: Sampling | None = None) -> list[int]:
    """Which of the recorded frames are decoded, by how bright they are."""
    items = list(decode(video(path), 16, sampling))
    assert all(isinstance(item, Frame) for item in items), items
    assert len(items) == frame_count(video(path), sampling)
    return [round((float(i.image.mean()) - 10) / 5) for i in items if isinstance(i, Frame)]


def reasons(path: Path) -> list[tuple[str, str]]:
    return [(i.level, i.reason) for i in decode(video(path), 16) if isinstance(i, Skipped)]


@pytest.mark.parametrize("form", ["webm", "matroska"])
def test_a_stream_whose_header_has_no_length(tmp_path: Path, form: str) -> None:
    path = tmp_path / "v.mkv"
    record(Wire(path), "libvpx" if form == "webm" else "mpeg4", frames=45, format=form)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 0
        assert container.duration is None
    assert shown(path, Sampling(max_frames=5)) == [0, 9, 18, 27, 36]
    assert shown(path) == list(range(45))


def test_a_trimmed_file_counts_what_is_left(tmp_path: Path) -> None:
    """Trimming without encoding anew keeps the frames before the cut and a list of edits."""
    path = tmp_path / "v.mp4"
    record(str(path), frames=40, shift=2500)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 40
    assert shown(path) == list(range(25, 40))
    assert shown(path, Sampling(max_frames=5)) == [25, 28, 31, 34, 37]
    assert len(shown(path, Sampling(max_frames=8))) == 8


def test_a_fragmented_file(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    record(str(path), frames=40, options={"movflags": "frag_keyframe+empty_moov"})
    assert shown(path, Sampling(max_frames=4)) == [0, 10, 20, 30]


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_frames_a_second_go_by_time_stamps(tmp_path: Path, suffix: str) -> None:
    """Ten frames in the first second, then one a second."""
    path = tmp_path / f"v.{suffix}"
    record(str(path), stamps=[*range(0, 1000, 100), *range(1000, 11000, 1000)])
    assert shown(path, Sampling(fps=1)) == [0, *range(10, 20)]
    assert shown(path, Sampling(max_frames=5))[:4] == [0, 12, 14, 16]
    assert shown(path, Sampling(max_frames=20)) == list(range(20))


def test_a_matroska_file_of_frames_that_refer_to_later_ones_has_times(tmp_path: Path) -> None:
    """FFmpeg knows no time of decoding of their first frames, which hid the times of them all."""
    path = tmp_path / "v.mkv"
    stamps = [*range(0, 1000, 100), *range(1000, 11000, 1000)]
    record(str(path), "libx264", stamps=stamps, later=2)
    with av.open(str(path)) as container:
        assert any(p.dts is None and p.size for p in container.demux(video=0))
    assert survey(path).stamped
    assert shown(path, Sampling(fps=1)) == [0, *range(10, 20)]


def test_frames_of_vp8_that_are_never_shown_do_not_count(tmp_path: Path) -> None:
    record(str(tmp_path / "plain.webm"), "libvpx", frames=40)
    path = tmp_path / "v.webm"
    with av.open(str(tmp_path / "plain.webm")) as whole, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if not packet.size:
                continue
            packet.stream = stream
            out.mux(packet)
            if packet.pts >= 2000:  # each frame of the second half once more, hidden
                hidden = av.Packet(bytes([bytes(packet)[0] & ~0x10]) + bytes(packet)[1:])
                hidden.stream, hidden.time_base = stream, packet.time_base
                hidden.pts = hidden.dts = packet.pts + 1
                out.mux(hidden)
    assert frame_count(video(path)) == 40
    assert shown(path, Sampling(max_frames=4)) == [0, 10, 20, 30]


def test_fewer_frames_than_were_chosen_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in interlaced recordings, where each of two packets is half a frame."""
    path = tmp_path / "v.avi"
    record(str(path), frames=20)
    monkeypatch.setattr(decoding, "survey", lambda _: Survey(np.arange(40), 0.05, False))
    *frames, told = decode(video(path), 16, Sampling(max_frames=8))
    assert len(frames) == 4
    assert isinstance(told, Skipped)
    assert "4 of the 8 frames" in told.reason


def test_where_stamps_are_no_times_the_order_counts(tmp_path: Path) -> None:
    """AVI knows the order in which frames are stored, which is not that of time."""
    path = tmp_path / "v.avi"
    record(str(path), "mpeg4", frames=30)
    assert not survey(path).stamped
    assert shown(path, Sampling(fps=5)) == list(range(0, 30, 2))


def test_the_end_of_a_file_that_is_cut_off_is_told(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    record(str(path), frames=40, options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 400])
    ((level, reason),) = reasons(path)
    assert level == "frame"
    assert "ends 400 bytes too early" in reason


def test_a_file_is_read_again_once_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    for frames in (10, 15):
        record(str(path), frames=frames)
        assert frame_count(video(path)) == frames


def with_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """The recording with this display matrix in its track header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    one = 1 << 16
    data[at : at + 36] = struct.pack(
        ">9i", a * one // 100, b * one // 100, 0, c * one // 100, d * one // 100, 0, 0, 0, 1 << 30
    )
    turned = path.with_name(f"{a}{b}{c}{d}.mp4")
    turned.write_bytes(data)
    return turned


def coloured(path: Path) -> NDArray[np.uint8]:
    """One frame of four colours, kept exactly."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    half = SIDE // 2
    image[:half, :half], image[:half, half:] = (250, 0, 0), (0, 250, 0)
    image[half:, :half] = (0, 0, 250)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("png", rate=10)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "rgb24"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode())
    return image


@pytest.mark.parametrize(
    "matrix",
    [
        (100, 0, 0, 100),
        (0, 100, -100, 0),
        (-100, 0, 0, -100),
        (0, -100, 100, 0),
        (-100, 0, 0, 100),
        (100, 0, 0, -100),
        (0, 100, 100, 0),
        (0, -100, -100, 0),
        (-200, 1, -1, 200),
    ],
)
def test_display_matrices_mirrored_ones_too(
    tmp_path: Path, matrix: tuple[int, int, int, int]
) -> None:
    image = coloured(tmp_path / "v.mp4")
    (got,) = decode(video(with_matrix(tmp_path / "v.mp4", *matrix)), SIDE)
    assert isinstance(got, Frame)
    a, b, c, d = (round(m / 100) for m in matrix)
    a, d = int(np.sign(a)), int(np.sign(d))
    want, last = np.zeros_like(image), SIDE - 1
    for q in range(SIDE):
        for p in range(SIDE):
            x, y = a * p + c * q, b * p + d * q
            want[y + last * (b + d < 0), x + last * (a + c < 0)] = image[q, p]
    np.testing.assert_array_equal(got.image, want)


def test_a_matrix_that_is_no_quarter_turn_is_refused(tmp_path: Path) -> None:
    coloured(tmp_path / "v.mp4")
    ((level, reason),) = reasons(with_matrix(tmp_path / "v.mp4", 70, 70, -70, 70))
    assert level == "video"
    assert "no quarter turn" in reason
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    np.testing.assert_array_equal(displayed(image, (0,) * 9), image)


def test_transparent_frames_lie_on_white(tmp_path: Path) -> None:
    path = tmp_path / "v.mov"
    image = np.zeros((SIDE, SIDE, 4), np.uint8)
    image[:, : SIDE // 2] = (200, 0, 0, 0)
    image[:, SIDE // 2 :] = (0, 60, 0, 255)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("qtrle", rate=10)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "argb"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgba")))
        out.mux(stream.encode())
    (got,) = decode(video(path), SIDE)
    assert isinstance(got, Frame)
    assert (got.image[:, : SIDE // 2] == 255).all()
    assert (got.image[:, SIDE // 2 :] == (0, 60, 0)).all()


def test_transparency_that_the_decoder_leaves_out_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.webm"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libvpx", rate=10, options={"auto-alt-ref": "0"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuva420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((SIDE, SIDE, 4), np.uint8), format="rgba")
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    assert "transparent" in reasons(path)[0][1]


def with_cover(path: Path, moving: bool, sound: bool = False) -> None:
    """A file whose first stream of pictures is a white cover."""
    with av.open(str(path), "w") as out:
        cover = out.add_stream("png", rate=10)
        cover.width = cover.height = SIDE
        cover.pix_fmt = "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        streams = [cover]
        if moving:
            stream = out.add_stream("mpeg4", rate=10)
            stream.width = stream.height = SIDE
            stream.pix_fmt = "yuv420p"
            streams.append(stream)
        if sound:
            heard = out.add_stream("aac", rate=44100)
        out.start_encoding()
        for stream in streams:
            white = 255 if stream is cover else 40
            image = np.full((SIDE, SIDE, 3), white, np.uint8)
            for _ in range(1 if stream is cover else 5):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            out.mux(stream.encode())
        if sound:
            noise = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            noise.sample_rate = 44100
            out.mux(heard.encode(noise))
            out.mux(heard.encode())


def with_cover_first(path: Path) -> None:
    """The same file with its user data, which holds the cover, before its tracks."""
    data = path.read_bytes()
    start = data.index(b"moov") - 4
    (length,) = struct.unpack(">I", data[start : start + 4])
    at, children = start + 8, []
    while at < start + length:
        (size,) = struct.unpack(">I", data[at : at + 4])
        children.append(data[at : at + size])
        at += size
    children.sort(key=lambda child: child[4:8] == b"trak")
    path.write_bytes(data[: start + 8] + b"".join(children) + data[start + length :])


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    with_cover(path, moving=True)
    with_cover_first(path)
    with av.open(str(path)) as container:
        cover, moving = container.streams.video
        assert (cover.codec_context.name, moving.codec_context.name) == ("png", "mpeg4")
    got = [item for item in decode(video(path), SIDE) if isinstance(item, Frame)]
    assert len(got) == 5
    assert all(item.image.max() < 60 for item in got)


@pytest.mark.parametrize("what", ["sound", "cover and sound", "empty", "picture", "page"])
def test_what_is_no_video_says_what_it_is(tmp_path: Path, what: str) -> None:
    path = tmp_path / "v.mp4"
    if what == "cover and sound":
        with_cover(path, moving=False, sound=True)
    elif what == "sound":
        with av.open(str(path), "w") as out:
            heard = out.add_stream("aac", rate=44100)
            noise = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            noise.sample_rate = 44100
            out.mux(heard.encode(noise))
            out.mux(heard.encode())
    elif what == "picture":
        Image.new("RGB", (9, 9)).save(path, format="JPEG")
    else:
        path.write_bytes(b"<!DOCTYPE html>" if what == "page" else b"")
    told = {
        "sound": "sound only",
        "cover and sound": "a cover picture beside the sound",
        "empty": "an empty file",
        "picture": "this is a JPEG picture",
        "page": "this is a web page",
    }
    ((level, reason),) = reasons(path)
    assert level == "video"
    assert told[what] in reason


def test_reasons_hold_no_path_of_this_machine(tmp_path: Path) -> None:
    for content in (b"plain text", b"\0\0\0\x10ftypisom\0\0\0\0" * 3, b"RIFF\0\0\0\0AVI nothing"):
        (tmp_path / "v.mp4").write_bytes(content)
        ((_, reason),) = reasons(tmp_path / "v.mp4")
        assert str(tmp_path) not in reason


def test_pipes_and_devices_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "v.mp4")
    (tmp_path / "w.mp4").symlink_to("/dev/zero")
    for name in ("v.mp4", "w.mp4"):
        ((_, reason),) = reasons(tmp_path / name)
        assert "not a regular file" in reason


def box(name: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + name + content


def table(name: bytes, *numbers: int) -> bytes:
    return box(name, struct.pack(f">{len(numbers) + 1}I", 0, *numbers))


def promising(samples: int, extra: bytes = b"") -> bytes:
    """An MP4 of some 600 bytes with a track of so many samples of one byte."""
    entry = box(b"mp4v", bytes(6), b"\0\1", bytes(16), b"\0\x40\0\x40", bytes(50))
    description = box(b"stsd", struct.pack(">2I", 0, 1), entry)
    samples_of = box(
        b"stbl",
        description,
        table(b"stts", 1, samples, 1),
        table(b"stsc", 1, 1, samples, 1),
        table(b"stsz", 1, samples),
        table(b"stco", 1, 600),
        extra,
    )
    references = box(b"dinf", table(b"dref", 1) + box(b"url ", b"\0\0\0\1"))
    media = box(
        b"mdia",
        table(b"mdhd", 0, 0, 1000, samples, 0),
        box(b"hdlr", bytes(8), b"vide", bytes(13)),
        box(b"minf", table(b"vmhd", 0, 0), references, samples_of),
    )
    header = table(b"tkhd", 0, 0, 1, 0, samples, *[0] * 15)
    movie = table(b"mvhd", 0, 0, 1000, samples, 0x10000, *[0] * 20)
    whole = box(b"moov", movie, box(b"trak", header, media))
    return box(b"ftyp", b"isom", bytes(8)) + whole + box(b"mdat", bytes(20))


MEASURED = """
import resource, sys, time
from pathlib import Path
from bayesfs.data.sources.video import Video
from bayesfs.features.decoding.video import decode
import av
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
(got,) = decode(Video("test", "u", "o", "clean", "v", Path(sys.argv[1]), "v.mp4"), 16)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(got.reason, (after - before) // 1024, time.perf_counter() - start, sep="|")
"""


def test_a_tiny_file_of_many_samples_takes_no_memory(tmp_path: Path) -> None:
    """FFmpeg alone takes 2 GB and several seconds to open it."""
    (tmp_path / "v.mp4").write_bytes(promising(60_000_000))
    assert (tmp_path / "v.mp4").stat().st_size < 800
    command = [sys.executable, "-c", MEASURED, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    reason, megabytes, seconds = done.stdout.split("|")
    assert "promise 60000000 samples" in reason
    assert int(megabytes) < 20
    assert float(seconds) < 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("runs", box(b"moov", box(b"trak", table(b"ctts", 2, 9, 1, 10**6, 1)))),
        ("fragment", box(b"moof", box(b"traf", table(b"trun", 10**6)))),
        ("odd nesting", box(b"moov", box(b"udta", box(b"wave", table(b"stsz", 1, 10**6))))),
        ("no nesting", table(b"stsz", 1, 10**6)),
        ("impossible length", box(b"moov", b"\x7f\xff\xff\xffstbl" + table(b"stsz", 1, 10**6))),
        ("deep", box(b"moov", box(b"moov") * 3) + b"".join([b"\0\0\xff\xffmoov"] * 5000)),
        ("edits", box(b"moov", box(b"trak", box(b"edts", table(b"elst", 10**6))))),
        ("compressed", box(b"moov", box(b"cmov", box(b"cmvd", b"zlib")))),
        ("broken", b"\0\0\0\3moov"),
    ],
)
def test_promises_are_found_wherever_they_are(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(box(b"ftyp", b"isom", bytes(8)) + content)
    if name == "deep":  # no promise, and no recursion without end
        check_boxes(path)
        return
    with pytest.raises(DataError, match=r"promise|broken"):
        check_boxes(path)


def test_media_data_promises_nothing(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(box(b"mdat", table(b"stsz", 1, 10**6)))
    check_boxes(tmp_path / "v.mp4")


def test_boxes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "v.mp4").write_bytes(box(b"free") * 20)
    check_boxes(tmp_path / "v.mp4")
    monkeypatch.setattr(boxes, "MAX_BOXES", 10)
    with pytest.raises(DataError, match="box 11"):
        check_boxes(tmp_path / "v.mp4")


@pytest.mark.parametrize("suffix", ["mp4", "mov", "3gp"])
def test_honest_files_pass(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"v.{suffix}"
    record(str(path), frames=50)
    check_boxes(path)
    assert len(shown(path)) == 50


@pytest.mark.parametrize("bound", ["MAX_FRAMES", "PIXELS_PER_BYTE", "MAX_PIXELS"])
def test_bounds_are_held_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    path = tmp_path / "v.mkv"
    record(str(path), frames=50)
    if bound == "PIXELS_PER_BYTE":
        monkeypatch.setattr(containers, "FREE_PIXELS", 0)
    monkeypatch.setattr(containers, bound, 1)
    start = time.perf_counter()
    ((level, reason),) = reasons(path)
    assert level == "video"
    told = {
        "MAX_FRAMES": "packets",
        "PIXELS_PER_BYTE": "1 a byte",
        "MAX_PIXELS": "more than 1 pixels",
    }
    assert told[bound] in reason
    assert frame_count(video(path)) == 0
    assert time.perf_counter() - start < 5


def test_scans_of_jpeg_frames_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame of a hundred scans costs a hundred frames."""
    path = tmp_path / "v.mkv"
    record(str(path), "mjpeg", frames=5, pixels="yuvj420p")
    assert len(shown(path)) == 5
    monkeypatch.setattr(containers, "FREE_PIXELS", 50 * SIDE**2)
    monkeypatch.setattr(containers, "PIXELS_PER_BYTE", 0)
    monkeypatch.setattr(containers, "scan_count", lambda data: 10)
    assert len(shown(path)) == 5
    containers._survey.cache_clear()
    monkeypatch.setattr(containers, "scan_count", lambda data: 11)
    assert "a bomb" in reasons(path)[0][1]


def test_damaged_frames_are_named_and_then_counted(tmp_path: Path) -> None:
    path = tmp_path / "v.mkv"
    record(str(path), "mjpeg", frames=45, pixels="yuvj420p")
    path.write_bytes(path.read_bytes().replace(b"\xff\xc0", b"\x00\xc0"))
    told = reasons(path)
    assert [level for level, _ in told] == ["frame"] * (MAX_NOTED + 1)
    assert told[-1][1] == f"{45 - MAX_NOTED} more frames are damaged"


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.gif", "gif", "gray"),
        ("a.ogv", "libtheora", "yuv420p"),
        ("a.wmv", "wmv2", "yuv420p"),
        ("a.flv", "flv", "yuv420p"),
    ],
)
def test_further_containers_are_read(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    """As far as the FFmpeg here can write them for the test."""
    container = {"wmv": "asf", "ogv": "ogg"}
    if codec not in av.codecs_available:
        pytest.skip(f"no encoder {codec} here")
    suffix = name[2:]
    record(tmp_path / name, codec, pixels=pixels, format=container.get(suffix, suffix))
    video = Video("test", "u", "o", "clean", "v", tmp_path, name)
    found = list(decode(video, SIDE, Sampling(max_frames=5)))
    assert not [item for item in found if isinstance(item, Skipped)]
    means = [float(item.image.mean()) for item in found if isinstance(item, Frame)]
    want = np.array(levels(20))[[0, 4, 8, 12, 16]]
    np.testing.assert_allclose(means, want, atol=6)
    assert frame_count(video) == 20


def test_the_largest_of_several_streams_is_taken(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.mkv", "w") as out:
        sides = (16, 64, 32)
        streams = [out.add_stream("mpeg4", rate=10) for _ in sides]
        for stream, side in zip(streams, sides, strict=True):
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
        for number in range(3):
            for stream, side in zip(streams, sides, strict=True):
                frame = av.VideoFrame.from_ndarray(
                    np.full((side, side, 3), side, np.uint8), "rgb24"
                )
                frame.pts, frame.time_base = number, Fraction(1, 10)
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))
    found = [f for f in decode(Video("test", "u", "o", "clean", "v", tmp_path, "a.mkv"), 32)]
    assert all(isinstance(f, Frame) and abs(f.image.mean() - 64) < 6 for f in found)


def test_a_photograph_is_one_frame(tmp_path: Path) -> None:
    Image.new("RGB", (50, 40), (9, 99, 199)).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    good, bad = (Video("test", "u", "o", "clean", n, tmp_path, n) for n in ("a.png", "b.jpg"))
    (frame,) = decode(good, SIDE, Sampling(max_frames=5))
    assert isinstance(frame, Frame)
    assert (frame.index, frame.number, frame.image[3, 3].tolist()) == (0, 1, [9, 99, 199])
    (lost,) = decode(bad, SIDE)
    assert isinstance(lost, Skipped)
    assert lost.level == "video"
    assert frame_count(good) == frame_count(bad) == 1
