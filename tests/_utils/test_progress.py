"""Progress on standard error, and names from data that cannot take over a terminal."""

import pytest
from rich.console import Console
from rich.table import Table

from bayesfs._utils.progress import bar, table_text, terminal_safe


def test_names_lose_what_moves_the_cursor_or_reorders() -> None:
    assert terminal_safe("keys\x1b[2J\r\n\u202ex\ud800") == "keys�[2J���x�"


def test_names_of_every_script_and_joined_emoji_stay() -> None:
    for name in ("мои ключи", "می\u200cخواهم", "👩\u200d🦯", "Blåbär"):
        assert terminal_safe(name) == name


@pytest.mark.parametrize("name", ["P1 [old]", "P1 [/b]", "[red]mug", "[link=file:///]keys"])
def test_a_table_shows_names_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    grid = Table("user")
    grid.add_row(table_text(name))
    Console(width=80).print(grid)
    assert name in capsys.readouterr().out


def test_a_huge_name_is_cut() -> None:
    assert len(terminal_safe("a" * 10_000_000)) == 200


def test_a_bar_without_a_terminal_says_when_it_begins_and_is_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with bar("features") as progress:
        for i in range(3):
            progress(i + 1, 3, f"video {i}\x1b")
    assert capsys.readouterr().err == "features ...\nfeatures: done in 0 s (video 2�)\n"


def test_a_bar_without_a_terminal_says_now_and_then_what_remains(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 10.0, 30.0, 40.0, 3700.0, 3700.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with bar("runs") as progress:
        for done in (1, 2, 3, 4):
            progress(done, 6, "")
    assert capsys.readouterr().err.splitlines() == [
        "runs ...",
        "runs: 2 of 6, 30 s, about 1 min 20 s to go",
        "runs: 4 of 6, 1 h 1 min, about 41 min 0 s to go",
        "runs: done in 1 h 1 min",
    ]
