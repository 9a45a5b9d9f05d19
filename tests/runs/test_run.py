"""A run from store to report: what it keeps, that it goes on after a kill, and what it refuses."""

import base64
import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from bayesfs._utils.atomic import PARTIAL
from bayesfs.cli.main import FAILED, main
from bayesfs.data.store import Thumbnail, open_store, save_store, write_store
from bayesfs.errors import DataError, RunError
from bayesfs.recipes.load import recipe_folder
from bayesfs.report.write import render_html, render_markdown
from bayesfs.results.store import load_datatree
from bayesfs.runs.directory import RunDirectory
from bayesfs.runs.reading import load_trees, report_data, report_run
from bayesfs.runs.rules import load_rules, rules_for
from bayesfs.runs.run import load_learnt, store_fingerprint
from bayesfs.types import Embeddings

RECIPES = [
    str(recipe_folder() / name)
    for name in ("models/gaussian.py", "inference/exact.py", "evaluation/clutter.py")
]
SMALL = [
    argument
    for setting in (
        "population_engine.steps=15",
        "population_engine.draws=24",
        "reduction.dim=6",
        "engine.draws=24",
    )
    for argument in ("--set", setting)
]


def command(store: Path, out: Path, *more: str) -> list[str]:
    return ["run", *RECIPES, "--data", str(store), "--out", str(out), *SMALL, *more]


@pytest.fixture(scope="module")
def finished(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main(command(small_store, out)) == 0
    return out


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process end with an empty report: what follows is about their results."""

    def write(data: object, path: Path, format: str) -> None:
        path.write_text("<title>bayesfs: ", encoding="utf-8")

    monkeypatch.setattr("bayesfs.runs.reading.write_report", write)


def assert_same_results(one: Path, other: Path) -> None:
    names = sorted(p.name for p in one.glob("results-*.nc"))
    assert names == sorted(p.name for p in other.glob("results-*.nc"))
    assert names
    for name in names:
        a, b = load_datatree(one / name), load_datatree(other / name)
        for group in a.subtree:
            xr.testing.assert_equal(group.to_dataset(), b[group.path].to_dataset())


def test_a_run_keeps_everything_and_prints_scores(
    finished: Path, small_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {p.name for p in finished.iterdir()}
    assert {"run.json", "recipes", "population.npz", "projection.npz", "report.html"} <= kept
    trees = load_trees(RunDirectory(finished))
    assert sorted(trees) == [1, 5]
    assert trees[5].attrs["model"] == "GaussianHierarchy"
    rules = load_rules(finished / "rules-05.json")
    assert (rules.users, rules.shots) == (3, 5)
    assert rules.promised == pytest.approx(3 / 4)
    once = load_rules(finished / "rules-01.json")
    assert once.shots == 1
    assert once.video.least_in_set != rules.video.least_in_set
    directory = RunDirectory(finished)
    assert rules_for(directory, 1) == once
    assert rules_for(directory, 9) == rules
    state = RunDirectory(finished).state()
    assert state["status"] == "done"
    assert state["facts"]["Seed"] == 0
    assert "torch" in state["facts"]["Versions"]
    log = (finished / "log.txt").read_text(encoding="utf-8")
    assert re.search(r"Z population begins\n.*Z population done in \d+ s\n", log)
    assert main(command(small_store, finished)) == 0
    said = capsys.readouterr().out
    assert re.search(r"5 videos per object:\n  frame accuracy +\d\.\d{3}", said)


def test_the_population_knows_no_test_user_and_no_task(finished: Path) -> None:
    learnt = load_learnt(RunDirectory(finished))
    assert all("task" not in axes for axes in learnt.population.dims.values())
    assert "task" not in learnt.population.coords


def test_a_second_run_does_nothing(finished: Path, small_store: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    assert main(command(small_store, finished)) == 0
    after = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    lock = finished / ".bayesfs-lock"
    assert {p: t for p, t in before.items() if p != lock} == {
        p: t for p, t in after.items() if p != lock
    }


def test_the_same_seed_gives_the_same_numbers(
    finished: Path, small_store: Path, tmp_path: Path, no_report: None
) -> None:
    assert main(command(small_store, tmp_path / "again")) == 0
    assert_same_results(finished, tmp_path / "again")


@pytest.mark.slow
def test_without_assertions_the_numbers_are_the_same(
    finished: Path, small_store: Path, tmp_path: Path
) -> None:
    """As with `python -O`; in a process of its own."""
    argv = [sys.executable, "-O", "-m", "bayesfs", *command(small_store, tmp_path / "run")]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same_results(finished, tmp_path / "run")


@pytest.mark.parametrize(
    ("more", "differs"),
    [
        (["--seed", "1"], "episode_seed, seed"),
        (["--fit-seed", "1"], "seed"),
        (["--set", "engine.population_draws=2"], "settings"),
        (["--smoke"], "smoke"),
    ],
)
def test_another_run_into_the_same_directory_is_refused(
    finished: Path,
    small_store: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    differs: str,
) -> None:
    assert main(command(small_store, finished, *more)) == FAILED
    assert f"holds a run that differs in {differs}" in capsys.readouterr().err


def test_other_data_are_refused(
    finished: Path, tmp_path: Path, make_embeddings: Callable[..., Embeddings]
) -> None:
    save_store(tmp_path / "s.zarr", make_embeddings(seed=1))
    with pytest.raises(RunError, match="differs in data"):
        main([*command(tmp_path / "s.zarr", finished), "--debug"])


@pytest.fixture(scope="module")
def undisturbed(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """Seconds of a run in a process of its own, imports included."""
    began = time.perf_counter()
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    argv = [sys.executable, "-m", "bayesfs.cli.main", *command(small_store, out)]
    subprocess.run(argv, check=True, capture_output=True)
    return time.perf_counter() - began


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.1, 0.4, 0.7, 0.9])
def test_a_killed_run_goes_on_to_the_same_result(
    finished: Path,
    small_store: Path,
    tmp_path: Path,
    undisturbed: float,
    moment: float,
    no_report: None,
) -> None:
    """Killed at this share of the time that an undisturbed run takes."""
    out = tmp_path / "killed"
    argv = [sys.executable, "-m", "bayesfs.cli.main", *command(small_store, out)]
    child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(moment * undisturbed)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert main(command(small_store, out)) == 0
    assert_same_results(finished, out)


@pytest.mark.parametrize("stage", ["population.npz", "results-01.nc", "results-05.nc"])
def test_a_run_goes_on_from_each_stage(
    finished: Path,
    small_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    no_report: None,
) -> None:
    """Stopped right after each file is kept, as a kill there would."""
    keep = RunDirectory.keep

    class Stopped(Exception):
        pass

    def stop_after(self: RunDirectory, name: str, write: object) -> Path:
        path = keep(self, name, write)  # type: ignore[arg-type]
        if name == stage:
            raise Stopped
        return path

    out = tmp_path / "stopped"
    with monkeypatch.context() as patched:
        patched.setattr(RunDirectory, "keep", stop_after)
        with pytest.raises(Stopped):
            main(command(small_store, out))
    assert not RunDirectory(out).is_done
    assert main(command(small_store, out)) == 0
    assert_same_results(finished, out)


def test_a_refusing_disk_is_told_and_loses_nothing(
    finished: Path,
    small_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    no_report: None,
) -> None:
    """Refused at the third, sixth, ... file forced to the disk, until nothing is refused."""
    real, out, refusals = os.fsync, tmp_path / "run", 0
    for after in range(3, 40, 3):
        left = [after]

        def fsync(handle: int, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(handle)

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fsync)
            if main(command(small_store, out)) == 0:
                break
        refusals += 1
        said = capsys.readouterr().err
        assert "the disk is full" in said
        assert "Traceback" not in said
    assert refusals >= 2
    assert not list(out.rglob(f"{PARTIAL}*"))
    assert_same_results(finished, out)


def test_a_changed_result_is_told_not_reported(
    small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(command(small_store, out, "--smoke")) == 0
    results = out / "results-01.nc"
    results.write_bytes(results.read_bytes()[:-1])
    assert main(["report", str(out)]) == FAILED
    assert "has changed since the run wrote it" in capsys.readouterr().err


def test_report_again_runs_no_recipe(finished: Path) -> None:
    mine = (finished / "recipes" / "model.py").read_text(encoding="utf-8")
    try:
        (finished / "recipes" / "model.py").write_text("raise SystemExit('ran')")
        assert main(["report", str(finished), "--format", "md"]) == 0
        assert main(["report", str(finished)]) == 0
    finally:
        (finished / "recipes" / "model.py").write_text(mine, encoding="utf-8")
    assert "accuracy" in (finished / "report.md").read_text(encoding="utf-8")


def test_a_report_is_written_without_an_engine(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    unneeded = ("torch", "pyro", "gpytorch", "zarr")
    code = (
        f"import sys; from bayesfs.cli.main import main; "
        f"main(['report', {str(run)!r}, '--format', 'md']); "
        f"print([m for m in {unneeded!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_report_lacks_nothing_of_what_it_does_not_read(finished: Path) -> None:
    run = RunDirectory(finished)
    whole, read = report_data(run, trees=load_trees(run)), report_data(run)
    assert min(len(tree.children) for tree in read.trees.values()) < min(
        len(tree.children) for tree in whole.trees.values()
    )
    assert render_html(read) == render_html(whole)
    assert render_markdown(read) == render_markdown(whole)


@pytest.mark.parametrize("wanted", [True, False])
def test_a_report_without_thumbnails_holds_no_pixel(
    finished: Path,
    small_store: Path,
    tmp_path: Path,
    holds_jpeg: Callable[[bytes], bool],
    wanted: bool,
) -> None:
    """With them it holds the store's pictures; without, no picture of any kind."""
    rng = np.random.default_rng(0)
    base = open_store(small_store)
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(stream, "JPEG")
    names = sorted(set(base.coord("video").tolist()))
    pictures = [Thumbnail(name, 1, stream.getvalue()) for name in names]
    write_store(tmp_path / "s.zarr", [base.dataset], len(base), {}, pictures)
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    state = json.loads((run / "run.json").read_text(encoding="utf-8"))
    state["store"] = str(tmp_path / "s.zarr")
    state["inputs"]["thumbnails"] = wanted
    (run / "run.json").write_text(json.dumps(state), encoding="utf-8")
    report_run(run)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert wanted or base64.b64encode(stream.getvalue()).decode()[:100] not in page
    assert ("data:image" in page) == wanted
    assert ("<image" in page) == wanted
    rest = [p for p in run.rglob("*") if p.is_file() and p.name != "report.html"]
    assert holds_jpeg(b"\xff\xd8\xff" + stream.getvalue())
    assert not any(holds_jpeg(p.read_bytes()) for p in rest)


def test_the_report_draws_the_prior_over_its_posterior_by_the_names_of_levels(
    finished: Path,
) -> None:
    tree = load_trees(RunDirectory(finished))[5]
    assert tree["population_prior"]["scale"].sizes["draw"] == 400
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "scale[task]" in page
    assert "scale[0]" not in page
    assert re.search(r"Draws of absent_odds: mean .*?; before any data mean .*?, sd [23]", page)


def test_names_are_escaped_in_the_report(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "<b>0</b>" not in page
    assert "&lt;b&gt;0&lt;/b&gt;" in page


def test_report_of_no_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == FAILED
    assert "expected the --out folder of `bayesfs run`" in capsys.readouterr().err


def test_a_recipe_in_the_data_is_refused(
    small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = small_store / "model.py"
    evil.write_text("raise SystemExit('ran')")
    try:
        data = ["--data", str(small_store)]
        argv = ["run", str(evil), *RECIPES[1:], *data, "--out", str(tmp_path / "r")]
        assert main(argv) == FAILED
    finally:
        evil.unlink()
    assert "lies in the data" in capsys.readouterr().err


def relabelled(base: Embeddings, path: Path, **labels: str) -> Path:
    columns = {name: ("frame", np.full(len(base), value)) for name, value in labels.items()}
    save_store(path, Embeddings(base.dataset.assign_coords(columns)))
    return path


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"split": "train"}, "expected frames of the split 'test', found only ['train']"),
        ({"condition": "clean"}, "one object with a support and a query"),
        ({"object": ""}, "object"),
    ],
)
def test_data_that_cannot_be_scored_are_told(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make_embeddings: Callable[..., Embeddings],
    labels: dict[str, str],
    message: str,
) -> None:
    store = relabelled(make_embeddings(), tmp_path / "s.zarr", **labels)
    assert main(command(store, tmp_path / "run", "--smoke")) == FAILED
    said = capsys.readouterr().err
    assert message in said.splitlines()[-1]
    assert "population ..." not in said


@pytest.mark.parametrize("cluster", [[], ["--cluster", "local:1"]], ids=["here", "cluster"])
@pytest.mark.parametrize("other", ["train", "validation"])
def test_a_person_among_those_learnt_from_and_those_scored_is_refused(
    cluster: list[str],
    other: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make_embeddings: Callable[..., Embeddings],
) -> None:
    """By the same check, whether the study is scored here or on a cluster."""
    base = make_embeddings()
    split = base.coord("split").copy().astype("U10")
    split[np.flatnonzero(base.coord("user") == "u3")[0]] = other
    leak = Embeddings(base.dataset.assign_coords(split=("frame", split)))
    save_store(tmp_path / "s.zarr", leak)
    argv = command(tmp_path / "s.zarr", tmp_path / "run", "--smoke", *cluster)
    assert main(argv) == FAILED
    said = capsys.readouterr().err.splitlines()[-1]
    assert "user 'u3' has frames in the split" in said
    assert "held-out users must be other people" in said


def test_a_warning_is_shown_once_and_stands_in_the_report(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make_embeddings: Callable[..., Embeddings],
) -> None:
    store = relabelled(make_embeddings(), tmp_path / "s.zarr", object="one thing")
    assert main(command(store, tmp_path / "run", "--smoke")) == 0
    said = capsys.readouterr().err
    assert said.count("3 users have one object only") == 1
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "3 users have one object only" in page


def test_a_store_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.zarr"):
        main([*command(tmp_path / "none.zarr", tmp_path / "run"), "--debug"])


def test_the_fingerprint_sees_everything_of_a_frame(small_store: Path) -> None:
    """Quality and annotations change results, so that a run must not go on with others."""
    plain = open_store(small_store)
    quality = (("frame", "covariate"), np.zeros((len(plain), 2), np.float32))
    flag = ("frame", np.zeros(len(plain), np.int8))
    store = Embeddings(plain.dataset.assign(quality=quality).assign_coords(flag_blur=flag))
    changed = [plain, store.with_features(store.features * 2)]
    for name in ("quality", "flag_blur", "object"):
        values = store.dataset[name].copy(deep=True)
        values[0] = "another" if name == "object" else values[0] + 1
        changed.append(Embeddings(store.dataset.assign({name: values})))
    assert len({store_fingerprint(e) for e in [store, *changed]}) == 1 + len(changed)
    assert store_fingerprint(open_store(small_store)) == store_fingerprint(plain)
