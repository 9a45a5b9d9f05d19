"""Paths of the machine and its user's name stay on the machine."""

from pathlib import Path

import pytest

from bayesfs._utils.places import folder_name, place_from, without_places

HOME = "/home/anna smith"


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", HOME)
    for name in ("USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "anna smith")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot identify image file '/data/my videos/v.jpg'", "…image file '…/v.jpg'"),
        ('no "/a b/c d/e.mp4" there', '"…/e.mp4"'),
        (f"{HOME}/videos/keys 2/v.mp4: truncated", "…/"),
        ("[Errno 1]: /srv/disk/v.mp4", "[Errno 1]: …/v.mp4"),
        ("path:/srv/disk/v.mp4;", "path:…/v.mp4;"),
    ],
)
def test_folders_of_the_machine_are_cut(text: str, shown: str) -> None:
    told = without_places(text)
    assert shown.removeprefix("…image") in told or shown in told
    for secret in ("anna", "srv", "my videos", "a b", "/data"):
        assert secret not in told


@pytest.mark.parametrize(
    "text",
    ["3/4 of them", "and/or", "https://a.org/b/c", "train/P1/mug/v-1.jpg: damaged", "/tmp"],
)
def test_other_slashes_stay(text: str) -> None:
    assert without_places(text) == text


def test_a_place_nearby_is_told_and_no_other(tmp_path: Path) -> None:
    run, store = tmp_path / "runs" / "first", tmp_path / "s.zarr"
    assert place_from(run, store) == "../../s.zarr"
    assert place_from(Path("/srv/run"), Path("/data/s.zarr")) == ""
    shared = tmp_path / "people"
    assert place_from(shared / "run", shared / "anna smith" / "s.zarr") == ""


def test_a_folder_named_as_its_owner_has_another_name(tmp_path: Path) -> None:
    assert folder_name(tmp_path / "my-videos") == "my-videos"
    assert folder_name(tmp_path / "anna smith") == "person"
