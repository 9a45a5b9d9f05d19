"""Populations pushed to a folder or a hub, with a card, and pulled from there."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from bayesfs.cli.main import FAILED, main
from bayesfs.training.population_card import card_text
from bayesfs.training.shared_population import SharedPopulation, default_path, default_population


def test_a_folder_gives_back_what_it_got(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, back = tmp_path / "shared" / "ours", tmp_path / "back.npz"
    for _ in range(2):  # again, over what is there
        assert main(["population", "push", str(default_path()), str(place)]) == 0
    assert sorted(p.name for p in place.iterdir()) == ["README.md", "population.safetensors"]
    assert main(["population", "pull", str(place), str(back)]) == 0
    assert f"{default_population().card['people']} people" in capsys.readouterr().out
    sent, got = default_population(), SharedPopulation.load(back)
    assert got.card == sent.card
    for site, draws in sent.population.draws.items():
        assert torch.equal(draws, got.population.draws[site])


def test_what_was_pushed_as_npz_is_pulled(tmp_path: Path) -> None:
    place = tmp_path / "old"
    place.mkdir()
    shutil.copy(default_path(), place / "population.npz")
    assert main(["population", "pull", str(place), str(tmp_path / "x.safetensors")]) == 0
    assert SharedPopulation.load(tmp_path / "x.safetensors").card == default_population().card


def test_the_card_says_of_whom_how_well_and_what_fails(tmp_path: Path) -> None:
    shared = default_population()
    text = card_text(shared)
    assert text.startswith("---\nlibrary_name: bayesfs\n")
    card = shared.card
    assert f"{card['people']} people and {card['objects']} objects" in text
    assert "photographs of groceries in shops (MIT)" in text
    for scores in card["calibration"].values():
        five = " | ".join(str(scores["5"][name]) for name in ("accuracy", "ece", "nll"))
        assert f"| 5 | {five} |" in text
    assert "## Fails" in text
    assert "objects that fill a small part of the frame" in text


def test_nothing_in_a_card_is_markup() -> None:
    strange = {"worlds": ["<script>x</script>\n# title | cell `code`"]}
    shared = default_population()
    text = card_text(replace(shared, card={**shared.card, **strange}))
    assert "<script>" not in text
    assert "\n# title" not in text
    assert "&lt;script&gt;x&lt;/script&gt; # title \\| cell 'code'" in text


def test_other_folders_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README.md").write_text("# Somebody's project\n")
    assert main(["population", "push", str(default_path()), str(tmp_path)]) == FAILED
    assert "not a card that bayesfs wrote" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == "# Somebody's project\n"
    assert main(["population", "pull", str(tmp_path / "no"), str(tmp_path / "x.npz")]) == FAILED
    assert "no such folder" in capsys.readouterr().err
    (tmp_path / "population.npz").write_bytes(b"PK no archive")
    assert main(["population", "pull", str(tmp_path), str(tmp_path / "x.npz")]) == FAILED
    assert "no population that bayesfs wrote" in capsys.readouterr().err
    assert not (tmp_path / "x.npz").exists()


class Hub(ModuleType):
    """As much of the hub's client as is called, with a folder in place of the network."""

    def __init__(self, disk: Path) -> None:
        super().__init__("huggingface_hub")
        self.disk = disk

    def create_repo(self, repo_id: str, exist_ok: bool) -> None:
        (self.disk / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(self, repo_id: str, folder_path: str) -> None:
        shutil.copytree(folder_path, self.disk / repo_id, dirs_exist_ok=True)

    def hf_hub_download(self, repo_id: str, filename: str) -> Any:
        path = self.disk / repo_id / filename
        if not path.exists():
            raise OSError(f"404: no {filename}\nin {repo_id}")
        return str(path)


def test_the_hub_is_asked_by_its_own_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(tmp_path / "hub"))
    back = tmp_path / "back.npz"
    assert main(["population", "push", str(default_path()), "hf://me/mine"]) == 0
    assert (tmp_path / "hub" / "me" / "mine" / "README.md").exists()
    assert main(["population", "pull", "hf://me/mine", str(back)]) == 0
    assert SharedPopulation.load(back).card["people"] == default_population().card["people"]
    mine = tmp_path / "hub" / "me" / "mine"
    (mine / "population.safetensors").unlink()
    shutil.copy(default_path(), mine / "population.npz")  # as it was pushed once
    assert main(["population", "pull", "hf://me/mine", str(back)]) == 0
    assert main(["population", "pull", "hf://me/other", str(back)]) == FAILED
    assert "hf://me/other: 404: no population.safetensors in me/other" in capsys.readouterr().err
    assert main(["population", "pull", "hf://me", str(back)]) == FAILED
    assert "expected hf://OWNER/NAME" in capsys.readouterr().err


def test_without_the_client_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(["population", "pull", "hf://me/mine", str(tmp_path / "x.npz")]) == FAILED
    assert "pip install 'bayesfs[hub]'" in capsys.readouterr().err
