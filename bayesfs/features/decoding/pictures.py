"""Picture files -> small square RGB frames: `read_image`.

What a picture shows is what a viewer shows: 16-bit grey is scaled to 8 bits, what is transparent
lies on white, and the camera's orientation is applied. What it may cost is bounded before it is
decoded: bytes, pixels, and scans of a progressive JPEG, each of which goes over all pixels.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from bayesfs._utils.guarded_files import read_bounded
from bayesfs.errors import DataError

MAX_PIXELS = 50_000_000
"""Largest picture that is decoded, in pixels: more is taken for a decompression bomb."""

MAX_BYTES = 2**27
"""Largest picture file that is read."""

MAX_SCANS = 100
"""Scans of a JPEG at most; cameras and programs write 1 to about 20."""

MAX_SCANNED = 20 * MAX_PIXELS
"""Pixels times scans of a JPEG at most."""

SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (8, b"WEBP", "a WebP picture"),
    (0, b"GIF8", "a GIF picture"),
    (0, b"BM", "a BMP picture"),
    (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"),
    (4, b"ftypheic", "a HEIC picture"),
    (4, b"ftypheix", "a HEIC picture"),
    (4, b"ftypmif1", "a HEIF picture"),
    (4, b"ftypavif", "an AVIF picture"),
    (4, b"JXL ", "a JPEG XL picture"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (4, b"jP  ", "a JPEG 2000 picture"),
    (0, b"8BPS", "a Photoshop picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"\x89PNG", "a PNG picture"),
    (4, b"ftyp", "an MP4 or QuickTime video"),
    (0, b"\x1a\x45\xdf\xa3", "a Matroska or WebM video"),
    (8, b"AVI ", "an AVI video"),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"PK\3\4", "a ZIP archive"),
    (0, b"<!DO", "a web page"),
    (0, b"<htm", "a web page"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"version https://git-lfs", "a Git LFS pointer; fetch the file itself"),
)
"""Offset, bytes, and what a file that has them there is, whatever its name says."""

_DECODED = ("a JPEG picture", "a PNG picture")


def content_kind(head: bytes) -> str | None:
    """What a file is by its first bytes, None where that is not known."""
    found = (kind for at, magic, kind in SIGNATURES if head[at : at + len(magic)] == magic)
    return next(found, None)


def read_image(path: Path, px: int) -> NDArray[np.uint8]:
    """(px, px, 3) uint8 RGB of a JPEG or PNG file, whichever of the two its name says.

    Raises:
        DataError: no complete JPEG or PNG; another kind of file under such a name; no regular
            file; empty; or more than `MAX_BYTES`, `MAX_PIXELS`, `MAX_SCANS` or `MAX_SCANNED`.
    """
    data = read_bounded(path, MAX_BYTES)
    kind = content_kind(data[:32])
    if kind is not None and kind not in _DECODED:
        raise DataError(f"expected a JPEG or PNG picture, but this is {kind}; convert it")
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as opened:
            _check_size(opened, data)
            if opened.format == "PNG":
                _scale_transparency(opened.info, depth=data[24])
            opened.draft("RGB", (px, px))  # decode a large JPEG at the lowest scale that has px
            image = eight_bit_rgb(ImageOps.exif_transpose(opened))
            return np.asarray(image.resize((px, px), Image.Resampling.BILINEAR, reducing_gap=2.0))
    except DataError:
        raise
    except Exception as error:  # Pillow raises many kinds on bytes that nobody vouches for
        raise DataError(f"corrupt or truncated image ({brief(error)})") from error


def eight_bit_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode as 8-bit RGB, on white where it is transparent.

    Of 16-bit grey the high byte is kept, as Pillow does with 16-bit colours.
    """
    if image.mode.startswith(("I", "F")):
        image = _eight_bit_grey(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


def scan_count(jpeg: bytes) -> int:
    """Scans of a JPEG: in coded data a byte 0xff is followed by 0 or a restart marker only."""
    return jpeg.count(b"\xff\xda")


def brief(error: BaseException) -> str:
    """The first words of another library's error, printable, without paths and addresses."""
    if isinstance(error, UnidentifiedImageError):
        return "its first bytes are no picture's"
    told = getattr(error, "strerror", None) or str(error)
    text = " ".join(told.split())[:100] or type(error).__name__
    return text.encode(errors="backslashreplace").decode()


def _eight_bit_grey(image: Image.Image) -> Image.Image:
    """L, or LA where one grey level is declared transparent, of 16-bit grey."""
    values = np.asarray(image)
    grey = Image.fromarray((values.clip(0, 65535).astype(np.uint16) >> 8).astype(np.uint8))
    hidden = image.info.get("transparency")
    if hidden is None:
        return grey
    alpha = Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8))
    return Image.merge("LA", (grey, alpha))


def _scale_transparency(info: dict[str | tuple[int, int], Any], depth: int) -> None:
    """Bring the declared transparent level of a PNG to 8 bits, in which Pillow compares it."""
    hidden = info.get("transparency")
    if isinstance(hidden, tuple) and depth == 16:
        raise DataError("16-bit colours of which one is transparent are not read; convert it")
    if isinstance(hidden, int) and depth in (2, 4):
        info["transparency"] = hidden * 255 // (2**depth - 1)


def _check_size(opened: Image.Image, data: bytes) -> None:
    pixels = math.prod(opened.size)
    if pixels > MAX_PIXELS:
        raise DataError(f"{opened.size} pixels; expected at most {MAX_PIXELS} in all")
    scans = scan_count(data) if opened.format != "PNG" else 1
    if scans > MAX_SCANS or scans * pixels > MAX_SCANNED:
        raise DataError(
            f"a JPEG of {scans} scans of {pixels} pixels; expected at most {MAX_SCANS} scans and "
            f"{MAX_SCANNED} pixels in all of them; a bomb?"
        )
