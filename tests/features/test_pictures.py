"""Pictures: what a viewer shows is what is decoded, and nothing is decoded without bound."""

import os
import struct
import time
from pathlib import Path
from zlib import compress, crc32

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bayesfs.errors import DataError
from bayesfs.features import pictures
from bayesfs.features.pictures import content_kind, read_image

SIDE = 16


def picture() -> NDArray[np.uint8]:
    """Sixteen by sixteen colours, alike in no turn and no mirror."""
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path: Path) -> None:
    grey = (picture()[..., 0].astype(np.uint16) << 8) + 77
    Image.fromarray(grey).save(tmp_path / "a.png")
    got = read_image(tmp_path / "a.png", SIDE)
    np.testing.assert_array_equal(got, np.repeat(picture()[..., :1], 3, axis=-1))


def test_a_transparent_level_of_sixteen_bit_grey_is_white(tmp_path: Path) -> None:
    grey = picture()[..., 0].astype(np.uint16) << 8
    grey[:4] = 1234
    Image.fromarray(grey).save(tmp_path / "a.png", transparency=1234)
    got = read_image(tmp_path / "a.png", SIDE)
    assert (got[:4] == 255).all()
    np.testing.assert_array_equal(got[4:, :, 0], picture()[4:, :, 0])


def test_what_is_transparent_lies_on_white(tmp_path: Path) -> None:
    alpha = np.linspace(0, 255, SIDE).astype(np.uint8)[:, None].repeat(SIDE, 1)
    Image.fromarray(np.dstack([picture(), alpha])).save(tmp_path / "a.png")
    share = alpha[..., None] / 255.0
    want = picture() * share + 255 * (1 - share)
    assert np.abs(read_image(tmp_path / "a.png", SIDE) - want).max() <= 1


@pytest.mark.parametrize("mode", ["P", "L", "LA", "RGB"])
def test_transparency_of_every_mode(tmp_path: Path, mode: str) -> None:
    """The left half is declared transparent, whatever its hidden colour."""
    image = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 255))
    image.paste((0, 200, 0, 0), (0, 0, SIDE // 2, SIDE))
    if mode == "LA":
        image.convert("LA").save(tmp_path / "a.png")
    else:
        plain = image.convert("RGB").convert(mode, palette=Image.Palette.ADAPTIVE)
        hidden = plain.getpixel((0, 0))
        assert hidden is not None
        plain.save(tmp_path / "a.png", transparency=hidden)
    got = read_image(tmp_path / "a.png", SIDE)
    assert (got[:, : SIDE // 2] == 255).all()
    assert (got[:, SIDE // 2 :] == 0).all()


def png(depth: int, colour: int, hidden: tuple[int, ...], rows: list[bytes]) -> bytes:
    """A PNG of any bit depth, eight pixels wide, with a transparent level or colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    header = struct.pack(">IIBBBBB", 8, len(rows), depth, colour, 0, 0, 0)
    declared = struct.pack(f">{len(hidden)}H", *hidden)
    pixels = compress(b"".join(b"\0" + row for row in rows))
    parts = ((b"IHDR", header), (b"tRNS", declared), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_transparent_level_of_every_bit_depth(tmp_path: Path, depth: int) -> None:
    """The first four rows have level 0 and the others level 1, which is declared transparent."""
    ones = int("".join(["1".zfill(depth)] * 8), 2).to_bytes(depth, "big")
    rows = [bytes(depth)] * 4 + [ones] * 4
    (tmp_path / "a.png").write_bytes(png(depth, 0, (1,), rows))
    got = read_image(tmp_path / "a.png", 8)
    assert (got[:4] == 0).all()
    assert (got[4:] == 255).all()


def test_a_transparent_colour_of_sixteen_bits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(16, 2, (1, 2, 3), [bytes(48)] * 8))
    with pytest.raises(DataError, match="one is transparent"):
        read_image(tmp_path / "a.png", 8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_mirrored_ones_too(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    p = picture()
    turned = {
        1: p,
        2: p[:, ::-1],
        3: p[::-1, ::-1],
        4: p[::-1],
        5: p.swapaxes(0, 1),
        6: np.rot90(p, -1),
        7: p[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(p),
    }
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", SIDE), turned[orientation])


@pytest.mark.parametrize(("kind", "told"), [("WEBP", "WebP"), ("GIF", "GIF"), ("TIFF", "TIFF")])
def test_a_name_that_lies_is_told(tmp_path: Path, kind: str, told: str) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.jpg", format=kind)
    with pytest.raises(DataError, match=f"this is a {told} picture"):
        read_image(tmp_path / "a.jpg", SIDE)


def test_png_and_jpeg_may_have_each_others_names(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.jpg", format="PNG")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg", SIDE), picture())


def test_kinds_by_their_first_bytes() -> None:
    assert content_kind(b"\0\0\0\x18ftypheic") == "a HEIC picture"
    assert content_kind(b"\0\0\0\x18ftypisom") == "an MP4 or QuickTime video"
    assert content_kind(b"\xff\xd8\xff\xe0") == "a JPEG picture"
    assert content_kind(b"plain text") is None


def many_scans(path: Path, scans: int, side: int = 512) -> int:
    """A progressive JPEG whose last scan is repeated; its size in bytes."""
    Image.new("RGB", (side, side), (90, 120, 30)).save(path, "JPEG", progressive=True)
    data = path.read_bytes()
    last = data.rindex(b"\xff\xda")
    path.write_bytes(data[:last] + data[last:-2] * scans + data[-2:])
    return path.stat().st_size


def test_thousands_of_scans_are_refused_at_once(tmp_path: Path) -> None:
    assert many_scans(tmp_path / "bomb.jpg", 3000) < 200_000
    start = time.perf_counter()
    with pytest.raises(DataError, match=r"300\d scans"):
        read_image(tmp_path / "bomb.jpg", SIDE)
    assert time.perf_counter() - start < 1
    many_scans(tmp_path / "rich.jpg", 20)
    assert read_image(tmp_path / "rich.jpg", SIDE).shape == (SIDE, SIDE, 3)


def test_scans_of_large_pictures_are_bounded_by_their_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MAX_SCANNED", 512**2 * 20)
    many_scans(tmp_path / "a.jpg", 25)
    with pytest.raises(DataError, match="scans"):
        read_image(tmp_path / "a.jpg", SIDE)


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "folder.jpg").mkdir()
    for name in ("pipe.jpg", "zero.jpg", "folder.jpg"):
        with pytest.raises(DataError, match="not a regular file"):
            read_image(tmp_path / name, SIDE)


def test_reasons_hold_no_path_and_no_address(tmp_path: Path) -> None:
    for content in (b"plain text", b"\xff\xd8\xff\xe0cut", b"\x89PNG\r\n\x1a\nno chunk"):
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(DataError) as caught:
            read_image(tmp_path / "a.jpg", SIDE)
        assert str(tmp_path) not in str(caught.value)
        assert "0x" not in str(caught.value)


def test_empty_missing_and_too_large_files_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(DataError, match="empty file"):
        read_image(tmp_path / "a.jpg", SIDE)
    with pytest.raises(DataError, match="No such file"):
        read_image(tmp_path / "b.jpg", SIDE)
    monkeypatch.setattr(pictures, "MAX_BYTES", 10)
    (tmp_path / "a.jpg").write_bytes(b"x" * 11)
    with pytest.raises(DataError, match="at most 10"):
        read_image(tmp_path / "a.jpg", SIDE)
