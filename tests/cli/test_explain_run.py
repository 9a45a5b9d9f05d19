"""`bayesfs explain`: on a small finished run, from its list of videos to the picture."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bayesfs.cli.main import FAILED, main
from bayesfs.data.store import open_store, save_store
from bayesfs.features.quality import COVARIATES
from bayesfs.recipes.load import load_recipe, recipe_folder
from bayesfs.runs.compose import compose
from bayesfs.runs.directory import RunDirectory
from bayesfs.runs.run import Order, identity, learn, recipe_digest
from bayesfs.types import Embeddings

SHIPPED = {
    "model": recipe_folder() / "models/gaussian.py",
    "engine": recipe_folder() / "inference/exact.py",
    "evaluation": recipe_folder() / "evaluation/clutter.py",
}
SMALL = (
    "population_engine.steps=3",
    "population_engine.draws=24",
    "reduction.dim=6",
    "engine.draws=24",
)


def learnt_run(store: Path, out: Path, recipes: Mapping[str, Path] = SHIPPED) -> Path:
    """A finished run without results and report, which `explain` has no need of."""
    loaded = {role: load_recipe(path, role) for role, path in recipes.items()}
    texts = {f"{role}.py": recipe.source for role, recipe in loaded.items()}
    order = Order(compose(loaded, SMALL), store, texts, SMALL)
    frames = open_store(store)
    run = RunDirectory(out)
    with run.begin(identity(order, frames), recipes=texts):
        learn(run, order, lambda: frames)
        run.finish(store=str(store))
    return out


@pytest.fixture(scope="module")
def finished(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on five users, two of them for testing."""
    return learnt_run(small_store, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGUAGE", "en")


def listed(run: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    assert main(["explain", str(run)]) == 0
    return capsys.readouterr().out.splitlines()


def test_without_a_video_they_are_listed_by_user(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = listed(finished, capsys)
    assert [line for line in lines if not line.startswith(" ")] == ["u3:", "u4:"]
    assert "  u3-0-clutter-0" in lines
    assert len(lines) == 2 + 2 * 3 * 2


def test_a_video_is_explained_and_its_doubt_drawn(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "why.png"
    argv = ["explain", str(finished), "--video", "u3-1-clutter-1", "--out", str(picture)]
    assert main(argv) == 0
    said = capsys.readouterr().out
    first = said.splitlines()[0]
    assert re.match(r"(Probably|May be wrong:|Not recognised;|This may be none)", first)
    for heading in (
        "answer: ",
        "doubt in nats: ",
        "  by level: too few people were learnt from ",
        "measured causes",
        "probability that nothing taught is shown: ",
        "one more video would take off this question, in nats: ",
        "one more video would take off any question, in nats: ",
        "rests most on, nats: ",
        f"picture: {picture}",
        "  Doubt about each of 3 frames in nats",
    ):
        assert heading in said
    parts = re.search(r"nats: ([\d.]+); the video itself ([\d.]+), what was taught ([\d.]+)", said)
    assert parts is not None
    total, video, taught = map(float, parts.groups())
    assert total == pytest.approx(video + taught, abs=0.011)
    assert re.search(r"rests most on, nats: u3-\d-clean-\d 0\.\d+ (for|against) it", said)
    with Image.open(picture) as image:
        assert image.width > 800
        assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_rules_come_from_train_users_and_explaining_writes_a_picture_only(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    argv = ["explain", str(finished), "--video", "u4-0-clutter-0", "--shots", "1"]
    before = {p: p.stat().st_mtime_ns for p in finished.iterdir() if p.is_file()}
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert "promised for 75% of people, from 3 train users" in said
    assert "not known, since each object has one video only" in said
    assert (finished / "explained" / "u4-0-clutter-0~01.png").is_file()
    assert main(argv) == 0
    assert capsys.readouterr().out == said
    assert {p: p.stat().st_mtime_ns for p in finished.iterdir() if p.is_file()} == before


def test_the_rules_are_checked_user_by_user(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["explain", str(finished), "--rules"]) == 0
    said = capsys.readouterr().out
    assert said.count("plain_size") == 4
    assert len(re.findall(r"^ *u[0-2] ", said, re.MULTILINE)) == 2 * 3
    assert len(re.findall(r"^ *u[34] ", said, re.MULTILINE)) == 2 * 2
    rows = re.findall(r"^ *(?:probably|may be wrong|not recognised) +(\d+) ", said, re.MULTILINE)
    videos = re.findall(r"^ *u[34] +(\d+) ", said, re.MULTILINE)[:2]
    assert sum(map(int, rows)) == sum(map(int, videos)), "every video has one of three sentences"


def test_a_wrong_name_or_number_is_told(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(finished), "--video", "u3-0-cluter-0"]) == FAILED
    assert "nearest: u3-0-clutter-0" in capsys.readouterr().err
    assert main(["explain", str(finished), "--video", "u3-0-clutter-0", "--shots", "9"]) == FAILED
    assert "--shots between 1 and 5" in capsys.readouterr().err
    named = ["explain", str(finished), "--video", "u3-0-clutter-0"]
    assert main([*named, "--out", "why.doc"]) == FAILED
    assert "ends in .png" in capsys.readouterr().err


def test_a_video_that_was_left_out_is_told_with_the_reason(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    RunDirectory(run).note(skipped=["test/u3/mug/clutter/lost: no frame of it could be decoded"])
    assert main(["explain", str(run), "--video", "lost"]) == FAILED
    said = capsys.readouterr().err
    assert "no query video 'lost'; it was left out: test/u3/mug/clutter/lost: no frame" in said


def test_recipes_that_bayesfs_does_not_ship_need_trust(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    recipe = run / "recipes" / "engine.py"
    recipe.write_text("raise SystemExit('ran')", encoding="utf-8")
    for more in ([], ["--trust"]):
        assert main(["explain", str(run), *more]) == FAILED
        assert "has changed since the run was made with it" in capsys.readouterr().err
    state = json.loads((run / "run.json").read_text(encoding="utf-8"))
    state["inputs"]["recipes"]["engine.py"] = recipe_digest(recipe.read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps(state), encoding="utf-8")
    assert main(["explain", str(run)]) == FAILED
    assert "is not a recipe that bayesfs ships" in capsys.readouterr().err
    assert main(["explain", str(run), "--trust"]) == FAILED
    assert "SystemExit: ran" in capsys.readouterr().err


def test_a_run_whose_data_changed_or_that_is_not_done_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    state = json.loads((run / "run.json").read_text(encoding="utf-8"))
    other = tmp_path / "other.zarr"
    rng = np.random.default_rng(0)
    save_store(
        other,
        Embeddings.from_arrays(
            rng.normal(size=(4, 12)), object=["mug"] * 4, video=["a", "a", "b", "b"]
        ),
    )
    (run / "run.json").write_text(json.dumps({**state, "store": str(other)}), encoding="utf-8")
    assert main(["explain", str(run)]) == FAILED
    assert "other data than when" in capsys.readouterr().err
    (run / "run.json").write_text(json.dumps({**state, "status": "running"}), encoding="utf-8")
    assert main(["explain", str(run)]) == FAILED
    assert "is not finished" in capsys.readouterr().err


def test_measured_causes_are_drawn_and_named(
    tmp_path: Path, small_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a model that has slopes of quality, on a store that has quality."""
    frames = open_store(small_store)
    rng = np.random.default_rng(0)
    quality = (("frame", "covariate"), rng.normal(size=(len(frames), len(COVARIATES))))
    measured = frames.dataset.assign(quality=quality).assign_coords(covariate=list(COVARIATES))
    store, run = tmp_path / "quality.zarr", tmp_path / "run"
    save_store(store, Embeddings(measured))
    model = tmp_path / "model.py"
    model.write_text(
        "from bayesfs.models.gaussian.hierarchy import GaussianHierarchy\n"
        "from bayesfs.models.objectives import PredictiveScore\n"
        "from bayesfs.features.reduction import PrincipalAxes\n"
        f"model = GaussianHierarchy(covariates={COVARIATES}, slope_sd=1.0)\n"
        "objective = PredictiveScore\nreduction = PrincipalAxes(dim=6)\n",
        encoding="utf-8",
    )
    learnt_run(store, run, {**SHIPPED, "model": model})
    picture = tmp_path / "why.svg"
    asked = ["explain", str(run), "--trust", "--video", "u3-1-clutter-1", "--out", str(picture)]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert re.search(r"measured causes, nats a frame: \w+", said)
    assert re.search(r"By cause: \w+|No measured cause", said)
    assert picture.read_text(encoding="utf-8").count('<g id="axes_') == 3
