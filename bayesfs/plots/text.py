"""Text of a report: names from data made harmless and visible, numbers as people read them."""

from __future__ import annotations

import base64
import io
import math
import re
import unicodedata
from numbers import Integral

from markupsafe import Markup
from PIL import Image, UnidentifiedImageError

JOINERS = "\u200c\u200d"
"""Format characters that Persian, Indic scripts and emoji need."""

LONGEST = 120

LARGEST = 1e7
"""From here on a number is written with its power of ten."""

MOST_BYTES, MOST_PX = 2**18, 1024
"""Size of a thumbnail at most, encoded and along each side."""


def visible(text: object, longest: int = LONGEST) -> str:
    r"""Text in which nothing hides, reorders or breaks a line; not yet escaped.

    Control and format characters (bidirectional marks, zero-width spaces) and lone surrogates
    stand as their code point; what is longer than `longest` is cut in the middle.

    Example:
        >>> visible("mug\u202egnp")
        'mug⟨U+202E⟩gnp'
    """
    string = str(text)
    if len(string) > longest:
        half = (longest - 1) // 2
        string = string[:half] + "…" + string[-half:]
    return "".join(_shown(c) for c in string)


def harmless(value: object) -> object:
    """What a template puts out, made visible where it is text that nobody has dealt with yet."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return value if value.isprintable() else visible(value, len(value))


def harmless_markdown(value: object) -> object:
    """The same, without meaning to Markdown."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return markdown(value, len(value))


def _shown(character: str) -> str:
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
    return f"⟨U+{ord(character):04X}⟩" if hidden and character not in JOINERS else character


def markdown(text: object, longest: int = LONGEST) -> str:
    r"""Visible text in which no character means anything to Markdown or HTML.

    Example:
        >>> markdown("a_b|<c> 0.5 _x_"), markdown("1. www.x")
        ('a_b\\|&lt;c&gt; 0.5 \\_x\\_', '1\\. www\\.x')
    """
    plain = visible(text, longest)
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = re.sub(r"([\\`*{}\[\]|~@#!]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", plain)
    plain = re.sub(r"^(\s*)([-+=])", r"\1\\\2", plain)
    plain = re.sub(r"^(\s*\d+)([.)])(?=\s|$)", r"\1\\\2", plain)
    return re.sub(r"(?i)(:)(?=//)|(?<=www)(\.)", lambda m: "\\" + m.group(), plain)


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, "–" for nan; whole numbers as they are.

    Example:
        >>> number(0.63251), number(1234.5), number(4.46e16), number(float("nan"))
        ('0.633', '1234', '4.46e16', '–')
    """
    if isinstance(value, Integral):
        return f"{value}".replace("-", "−")
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= LARGEST:
        return f"{value:.{digits - 1}e}".replace("e+", "e").replace("-", "−")
    if size >= 1000 or (value == int(value) and size >= 10**digits):
        return f"{value:.0f}".replace("-", "−")
    places = max(0, digits - 1 - math.floor(math.log10(size))) if size >= 1 else digits
    return f"{value:.{places}f}".replace("-", "−")


def fixed(value: float, places: int = 2) -> str:
    """A number with so many decimals, for columns; "–" for nan.

    Example:
        >>> fixed(-0.004), fixed(-0.26)
        ('0.00', '−0.26')
    """
    if math.isnan(value) or math.isinf(value):
        return number(value)
    return f"{round(value, places) + 0.0:.{places}f}".replace("-", "−")


def margin(error: float, places: int = 2) -> str:
    """An error with so many decimals, and a bound on one that would round to nothing.

    Example:
        >>> margin(0.0301), margin(0.0004), margin(0.0004, 3), margin(0.0)
        ('± 0.03', '± < 0.005', '± < 0.0005', '± 0.00')
    """
    shown = fixed(error, places)
    if error > 0 and float(shown) == 0:
        return f"± < {0.5 * 10**-places:.{places + 1}f}"
    return f"± {shown}"


def share(value: float) -> str:
    """A share as a percentage without decimals, "–" for nan."""
    return "–" if math.isnan(value) else f"{100 * value:.0f} %"


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign; "–" for nan.

    Example:
        >>> points(0.104), points(-0.02), points(0.0)
        ('+10', '−2', '0')
    """
    if math.isnan(value):
        return "–"
    return f"{round(100 * value) + 0:+d}".replace("+0", "0").replace("-", "−")


def small_jpeg(jpeg: bytes, px: int, quality: int) -> bytes | None:
    """A picture no larger than px, re-encoded without metadata; None if it is no small JPEG.

    A thumbnail is small and has one scan. A progressive JPEG may have thousands, each of which
    costs as much as a whole picture, so none is decoded.
    """
    if len(jpeg) > MOST_BYTES:
        return None
    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
            if max(image.size) > MOST_PX or "progressive" in image.info:
                return None
            image.draft("RGB", (px, px))
            picture = image.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return None
    picture.thumbnail((px, px))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality, optimize=True)
    return stream.getvalue()


def data_uri(jpeg: bytes) -> str:
    """The picture as the source of an image."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
