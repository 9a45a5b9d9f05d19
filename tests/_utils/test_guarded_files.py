"""Only regular files are read, and no more of them than may be; arrays become no larger."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bayesfs._utils.guarded_files import (
    FREE,
    check_expansion,
    fixed_width,
    open_regular,
    opened,
    opened_npz,
    read_bounded,
    read_bytes,
    read_text,
)
from bayesfs.errors import DataError


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes("a\r\nä".encode())
    assert read_bytes(tmp_path / "f") == "a\r\nä".encode()
    assert read_text(tmp_path / "f") == "a\nä"
    assert read_bytes(tmp_path / "f", 5) == "a\r\nä".encode()
    with pytest.raises(DataError, match="at most 4"):
        read_bytes(tmp_path / "f", 4)
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "none")
    with pytest.raises(OSError, match="directory"):
        read_bytes(tmp_path)


def test_a_pipe_or_device_is_neither_waited_for_nor_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(DataError, match="regular file"):
            read_bytes(tmp_path / name)


def test_one_file_of_many_is_refused_with_its_reason_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "f").write_bytes(b"abc")
    assert read_bounded(tmp_path / "f", 3) == b"abc"
    with open_regular(tmp_path / "f") as file:
        assert file.read() == b"abc"
    reasons = {
        "pipe": "^not a regular file",
        ".": "^not a regular file",
        "none": "^cannot be read: No such file",
        "nul\0": "^cannot be read: (stat: )?embedded null",
        "empty": "^an empty file",
        "f": "^a file of 3 bytes; expected at most 2",
    }
    for name, reason in reasons.items():
        with pytest.raises(DataError, match=reason):
            read_bounded(tmp_path / name, 2)


def test_a_file_that_holds_more_than_it_says_is_refused() -> None:
    file = Path("/proc/self/maps")  # says 0 bytes
    if not file.exists():
        pytest.skip("needs Linux's /proc")
    with pytest.raises(DataError, match="at most 10 bytes"):
        read_bytes(file, 10)


def test_a_terabyte_of_nothing_is_refused_by_its_size(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match="expected at most"), opened(tmp_path / "f"):
        pass


def test_an_archive_is_opened_and_a_bare_array_is_not(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(3))
    with opened_npz(tmp_path / "a.npz") as archive:
        assert archive["x"].tolist() == [0, 1, 2]
    np.save(tmp_path / "b.npy", np.arange(3))
    with pytest.raises(DataError, match="no npz"), opened_npz(tmp_path / "b.npy"):
        pass
    np.savez(tmp_path / "c.npz", x=np.array([{}], object))
    with opened_npz(tmp_path / "c.npz") as archive, pytest.raises(ValueError, match="allow_pickle"):
        archive["x"]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_compressed_in_pieces_of_any_size_is_refused(
    tmp_path: Path, method: int
) -> None:
    """Of bzip2, 1.4 kB took 3 GB, whatever size its entry said it had."""
    path = tmp_path / "a.npz"
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.npy", stream.getvalue())
    with pytest.raises(DataError, match="compressed otherwise"), opened_npz(path):
        pass


def test_what_becomes_far_larger_is_refused() -> None:
    check_expansion(FREE, 10)
    check_expansion(10 * FREE, FREE)
    for claimed, stored in ((FREE + 1, 10), (2**40, 2**39)):
        with pytest.raises(DataError, match="bytes of memory"):
            check_expansion(claimed, stored)


def test_strings_of_one_width_are_bounded() -> None:
    names = np.array([["a", "bcd"], ["", "e"]], object)
    assert fixed_width(names).tolist() == names.tolist()
    assert fixed_width(names).dtype == np.dtype("<U3")
    assert fixed_width(np.array([], object)).shape == (0,)
    with pytest.raises(DataError, match="4097 characters"):
        fixed_width(np.array(["a" * 4097, "b"], object))
    with pytest.raises(DataError, match="similar length"):
        fixed_width(np.array(["a" * 4000, *["b"] * 20_000], object))
