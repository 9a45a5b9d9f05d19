"""What the tables of an MP4 or QuickTime file promise, before FFmpeg believes it: `check_boxes`.

A sample (a frame, or a piece of sound) has at least a byte, so a file whose tables stsz, stz2,
stts, ctts or trun hold more samples than it has bytes is refused. Boxes are walked where their
nesting is the usual one. Where it is not, tables are searched for by name, so that no odd nesting
hides one: FFmpeg finds boxes in many places. Only media data (`mdat`) is passed over.

Source: ISO/IEC 14496-12, 4.2 (boxes), 8.6.1, 8.6.6, 8.7.3 and 8.8.8 (tables).
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bayesfs._utils.guarded_files import open_regular
from bayesfs.errors import DataError

FIRST_BOXES = frozenset(
    b"ftyp moov mdat pnot udta wide free junk pict skip uuid prfl styp sidx moof".split()
)
"""Boxes by which FFmpeg knows an MP4 or QuickTime file."""

CONTAINERS = frozenset(b"moov trak edts mdia minf stbl mvex moof traf".split())

COUNTED = {b"stsz": 12, b"stz2": 12, b"trun": 8, b"elst": 8, b"stts": 8, b"ctts": 8}
"""Table -> bytes from its name to its number of samples, edits, or runs of equal samples."""

UNCOUNTED = frozenset(b"stco co64 stss stsc stps sdtp sbgp".split())
"""Tables that make nothing of themselves."""

COMPRESSED = b"cmov"
"""Compressed boxes, of QuickTime before 2005, which may hold any number of tables."""

MAX_BOXES = 2**18
"""Boxes of the outermost level at most; a fragment of a stream has two."""

MAX_TABLES = 2**28
"""Bytes of an outermost box at most, media data aside."""

MAX_EDITS = 64
"""Edits of the order of play at most, each of which may repeat the whole file."""

DEPTH = 8
"""Depth of the usual nesting at most."""


def check_boxes(path: Path) -> int:
    """Refuse a file of boxes that promises more than it can hold.

    Returns:
        How many bytes its last box should have beyond the end of the file.

    Raises:
        DataError: it does; or its outermost boxes are too many, too large, or broken.
    """
    promised: Counter[bytes] = Counter()
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        start = boxes = 0
        while start + 8 <= size:
            length, name = _outermost(file, start, size)
            boxes += 1
            held = 0 if name == b"mdat" else min(length, size - start)
            if length < 8 or boxes > MAX_BOXES or held > MAX_TABLES:
                raise DataError(f"box {boxes} of {length} bytes is broken, or one too many")
            file.seek(start)
            _walk(memoryview(file.read(held)), promised, 0)
            start += length
    edits = promised.pop(b"elst", 0)
    samples = max(promised.values(), default=0)
    if samples > size or edits > MAX_EDITS or promised[COMPRESSED]:
        raise DataError(
            f"its tables promise {samples} samples and {edits} edits in a file of {size} bytes; "
            "damaged, or a bomb?"
        )
    return max(0, start - size)


def _outermost(file: BinaryIO, start: int, size: int) -> tuple[int, bytes]:
    """Length and name of an outermost box, which may reach to the end or be very long."""
    file.seek(start)
    head = file.read(16)
    length, name = struct.unpack(">I4s", head[:8])
    if length == 1 and len(head) == 16:
        (length,) = struct.unpack(">Q", head[8:])
    return length or size - start, name


def _walk(box: memoryview, promised: Counter[bytes], depth: int) -> None:
    """Add what some boxes, end to end, promise."""
    start = 0
    while start + 8 <= len(box):
        length, name = struct.unpack(">I4s", box[start : start + 8])
        if length < 8 or start + length > len(box) or depth > DEPTH:
            _search(box[start:], promised)
            return
        content = box[start + 4 : start + length]
        if name in CONTAINERS:
            _walk(content[4:], promised, depth + 1)
        elif name in COUNTED:
            promised[name] += _count(content, name)
        elif name not in UNCOUNTED:
            _search(content, promised)
        start += length


def _search(content: memoryview, promised: Counter[bytes]) -> None:
    """Add what tables of a known name promise, wherever they are in some bytes."""
    text = bytes(content)
    for name in (*COUNTED, COMPRESSED):
        at = text.find(name)
        while at >= 0:
            promised[name] += 1 if name == COMPRESSED else _count(content[at:], name)
            at = text.find(name, at + 4)


def _count(content: memoryview, name: bytes) -> int:
    """Samples or edits that a table, beginning with its name, promises."""
    place = COUNTED[name]
    count = int.from_bytes(content[place : place + 4], "big")
    if name not in (b"stts", b"ctts"):
        return count
    held = min(count, max(0, len(content) - place - 4) // 8)
    runs = np.frombuffer(content, ">u4", 2 * held, place + 4) if held else np.zeros(0)
    return int(runs[::2].sum(dtype=np.float64))
