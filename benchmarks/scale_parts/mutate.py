"""Fast mutations of small seeds: bytes that are nearly right, JSON with hostile values, names."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Read = Callable[[Path, random.Random], object]
"""Makes one hostile input in a folder and reads it."""

NAMES = (
    "<script>alert(1)</script>",
    "{{ 7 * 7 }}{% raw %}",
    "\x1b[2J\x1b]0;title\x07",
    "mug\u202egnp.exe",
    "../../../../tmp/evil",
    "/etc/passwd",
    "C:\\evil",
    "a\x00b",
    "\ud800",
    "",
    " ",
    ".",
    "..",
    "-rf",
    "$(touch evil)",
    "`touch evil`",
    "=cmd|'/c calc'!A1",
    "ключ 鍵 مفتاح",
    "e\u0301" * 40,
    "\n\r\t",
    "&amp;\"'|*_[x](javascript:alert(1))",
    "#7",
    "P001#7",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**63,
    10**400,
    -(10**25),
    1e308,
    float("inf"),
    float("nan"),
    "",
    "pickle",
    [],
    {},
    [[]],
    {"x": {}},
    *NAMES,
)
BYTES = (
    b"\x00",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\x80\x04",
    b"(R.",
    b"{",
    b"]",
)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to six small damages: a bit, a byte, a number, a piece lost, doubled, or the end cut."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        if not made:
            break
        at = rng.randrange(len(made))
        match rng.randrange(7):
            case 0:
                made[at] ^= 1 << rng.randrange(8)
            case 1:
                made[at] = rng.randrange(256)
            case 2:
                piece = rng.choice(BYTES)
                made[at : at + len(piece)] = piece
            case 3:
                del made[at : at + rng.randrange(1, 64)]
            case 4:
                made[at:at] = made[at : at + rng.randrange(1, 64)] * rng.choice((1, 1, 2, 50))
            case 5:
                del made[at:]
            case _:
                made[at:at] = rng.randbytes(rng.randrange(1, 16))
    return bytes(made)


def mutated_json(data: bytes, rng: random.Random) -> bytes:
    """Values of a JSON text replaced, renamed, nested or made huge; sometimes plain `mutated`."""
    if rng.random() < 0.3:
        return mutated(data, rng)
    tree = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        tree = _changed(tree, rng)
    text = json.dumps(tree)
    if rng.random() < 0.02:
        text = "[" * 20_000 + text
    return text.encode("utf-8", "surrogatepass")


@contextlib.contextmanager
def replaced(file: Path, rng: random.Random) -> Iterator[None]:
    """A file, damaged for a while."""
    kept = file.read_bytes()
    is_json = file.suffix == ".json" or file.name in (".zarray", ".zgroup", ".zattrs")
    file.write_bytes((mutated_json if is_json else mutated)(kept, rng))
    try:
        yield
    finally:
        file.write_bytes(kept)


def hostile_name(rng: random.Random) -> str:
    """A name that means harm, or random characters of all planes; now and then a long one."""
    match rng.randrange(4):
        case 0:
            return rng.choice(NAMES)
        case 1:
            return rng.choice(NAMES) + rng.choice(NAMES)
        case 2:
            return "".join(chr(rng.randrange(0x3000)) for _ in range(rng.randrange(1, 30)))
        case _:
            return rng.choice((*NAMES, "mug")) * rng.choice((1, 3, 100))


def _changed(tree: Any, rng: random.Random) -> Any:
    """The tree with one node, found by walking down at random, made hostile."""
    if isinstance(tree, dict) and tree and rng.random() < 0.8:
        key = rng.choice(list(tree))
        if rng.random() < 0.15:
            return {**{k: v for k, v in tree.items() if k != key}, hostile_name(rng): tree[key]}
        return {**tree, key: _changed(tree[key], rng)}
    if isinstance(tree, list) and tree and rng.random() < 0.8:
        at = rng.randrange(len(tree))
        return [*tree[:at], _changed(tree[at], rng), *tree[at + 1 :]]
    return rng.choice(VALUES)
