"""The size that is told of a chunk is the size that its library makes of it."""

import contextlib
import gzip

import numcodecs
import numpy as np
import pytest

from bayesfs._utils.expansion import ZSTD_BLOCK, decoded_size
from bayesfs.errors import DataError

CODECS = {
    "": None,
    "zstd": numcodecs.Zstd(level=3),
    "blosc": numcodecs.Blosc(),
    "gzip": numcodecs.GZip(),
    "zlib": numcodecs.Zlib(),
}
MOST = 2**30


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [1, 100, 255, 256, 70_000, 300_000, 3_000_000])
@pytest.mark.parametrize("kind", ["zeros", "noise"])
def test_as_large_as_it_becomes(codec: str, size: int, kind: str) -> None:
    rng = np.random.default_rng(size)
    data = bytes(size) if kind == "zeros" else rng.bytes(size)
    made = CODECS[codec]
    chunk = data if made is None else bytes(made.encode(data))
    assert decoded_size(codec, chunk, MOST) == size


@pytest.mark.parametrize("codec", ["zstd", "gzip"])
def test_every_frame_or_member_counts(codec: str) -> None:
    made = CODECS[codec]
    chunk = bytes(made.encode(bytes(1000)))
    assert len(made.decode(chunk * 3)) == 3000  # as the library makes it
    assert decoded_size(codec, chunk * 3, MOST) == 3000


def test_a_bomb_is_not_gone_through() -> None:
    bomb = gzip.compress(bytes(20_000_000))
    assert 10**6 < decoded_size("gzip", bomb, 10**6) < 3 * 10**6


def test_a_frame_that_does_not_tell_its_size_is_bounded_by_its_blocks() -> None:
    block = (ZSTD_BLOCK << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"  # one byte, repeated
    frame = b"\x28\xb5\x2f\xfd" + bytes([0, 0x58]) + block
    assert decoded_size("zstd", frame, MOST) == ZSTD_BLOCK
    assert len(numcodecs.Zstd().decode(frame)) == ZSTD_BLOCK


@pytest.mark.parametrize("codec", ["zstd", "blosc", "gzip", "zlib"])
def test_what_is_no_such_chunk_is_refused(codec: str) -> None:
    with pytest.raises(DataError):
        decoded_size(codec, b"nonsense", MOST)
    whole = bytes(CODECS[codec].encode(bytes(1000)))
    rng = np.random.default_rng(0)
    for cut in range(len(whole)):  # an answer or an error of ours
        damaged = bytearray(whole[: cut + 1])
        damaged[int(rng.integers(len(damaged)))] ^= int(rng.integers(1, 256))
        with contextlib.suppress(DataError):
            assert decoded_size(codec, bytes(damaged), MOST) >= 0
