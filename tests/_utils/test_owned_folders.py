"""A folder is bayesfs's own by what is in it, not by its name."""

from pathlib import Path

import pytest

from bayesfs._utils.atomic import PARTIAL
from bayesfs._utils.owned_folders import MARK, claim, is_claimed
from bayesfs.errors import DataError


def test_a_new_and_an_empty_folder_are_claimed_for_good(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new/below", "empty"):
        claim(tmp_path / name, "a trial")
        assert is_claimed(tmp_path / name, "a trial")
        (tmp_path / name / "more.txt").write_text("x")
        claim(tmp_path / name, "a trial")
        with pytest.raises(DataError, match="not made by bayesfs for another"):
            claim(tmp_path / name, "another")


def test_what_a_kill_left_of_the_mark_does_not_count(tmp_path: Path) -> None:
    (tmp_path / f"{PARTIAL}1").mkdir()
    claim(tmp_path, "a trial")
    assert is_claimed(tmp_path, "a trial")


def test_somebody_s_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds 'letter\.txt'"):
        claim(tmp_path, "a trial")
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


def test_a_mark_behind_a_link_is_none(tmp_path: Path) -> None:
    claim(tmp_path / "ours", "a trial")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / MARK).symlink_to(tmp_path / "ours" / MARK)
    assert not is_claimed(tmp_path / "other", "a trial")
