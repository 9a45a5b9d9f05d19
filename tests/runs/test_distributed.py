"""Many users on many processes: the same numbers as in one, whatever is lost on the way."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from bayesfs.cli.main import main
from bayesfs.data.store import open_store, save_store
from bayesfs.data.user_rows import batches_of, quick_fingerprint, read_rows, user_rows
from bayesfs.errors import DataError, RunError
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.features.reduction import PrincipalAxes
from bayesfs.inference.exact import Exact
from bayesfs.inference.svi.svi import SVI
from bayesfs.metrics.score_table import score_table
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.recipes.load import recipe_folder
from bayesfs.results.table_scores import as_score_table, load_summary, save_summary, summary
from bayesfs.results.tables import PARTS, join_tables, read_tables
from bayesfs.runs import distributed as cluster_module
from bayesfs.runs import distributed_run
from bayesfs.runs.directory import RunDirectory
from bayesfs.runs.distributed import ScoringJob, batch_seed, connect, score_batch, score_users
from bayesfs.runs.reading import load_scores, load_trees
from bayesfs.study import Answer, Learnt, Seeds, Study
from bayesfs.synthetic.tasks import synthetic_embeddings
from bayesfs.types import Embeddings

USERS = 9


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three train users and nine test users of two to four objects."""
    path = tmp_path_factory.mktemp("many") / "store.zarr"
    size = {"way": 4, "shots": 2, "frames": 2, "query_videos": 1, "dim": 8, "ragged": True}
    save_store(path, synthetic_embeddings(users=3, test_users=USERS, seed=1, **size)[0])
    return path


@pytest.fixture(scope="module")
def study() -> Study:
    engine = Exact(draws=16, population_draws=2)
    evaluation = HeldOutUsers(shots=(1, 2), train_shots=(1, 2))
    svi = SVI(steps=10, draws=8)
    return Study(GaussianHierarchy(), engine, evaluation, svi, reduction=PrincipalAxes(dim=4))


@pytest.fixture(scope="module")
def learnt(study: Study, store: Path) -> Learnt:
    return study.learn(open_store(store), seed=0)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    pytest.importorskip("distributed")
    with connect("local:2") as found:
        yield found


@pytest.fixture
def job(study: Study, learnt: Learnt, store: Path, tmp_path: Path) -> ScoringJob:
    return ScoringJob(study, learnt, store, tmp_path / "results.zarr", Seeds())


def whole(job: ScoringJob, shots: int) -> Answer:
    """All test users in one process, in one batch, without any store of results."""
    tasks = job.study.tasks(open_store(job.store), job.learnt, seed=job.seeds.episodes)
    return job.study.infer(tasks.limit_shots(shots), job.learnt, seed=job.seeds.fit)


def table(job: ScoringJob, shots: int) -> xr.Dataset:
    return join_tables(list(read_tables(job.results, shots)))


def assert_the_same(found: xr.Dataset, answer: Answer, *, decomposed: bool) -> None:
    """To 1e-6, frame by frame and video by video."""
    tasks = answer.episodes
    assert found["task"].values.tolist() == list(tasks.tasks)
    for unit, mask in (("video", tasks.video_mask), ("frame", tasks.query_mask)):
        prob = getattr(answer.predictive, unit).prob[mask].numpy()
        np.testing.assert_allclose(found[f"{unit}_prob"].values, prob, atol=1e-6)
        for part in PARTS if decomposed else ("total",):
            want = answer.uncertainty[f"{unit}_{part}"].values[mask.numpy()]
            np.testing.assert_allclose(found[f"{unit}_{part}"].values, want, atol=1e-6)


@pytest.mark.parametrize("shots", [1, 2])
def test_two_workers_give_the_numbers_of_one_process(
    client: Any, job: ScoringJob, shots: int
) -> None:
    told: list[tuple[int, int, str]] = []
    score_users(client, job, per_batch=16, progress=lambda *args: told.append(args))
    assert_the_same(table(job, shots), whole(job, shots), decomposed=True)
    assert told[-1][:2] == (1, 1)


def test_more_batches_than_workers(
    client: Any, job: ScoringJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each user's predictive is as in one process; the draws of the decomposition are others."""
    score_users(client, job, per_batch=2)
    assert len(list((job.results / "shots-02").iterdir())) == 5
    assert_the_same(table(job, 2), whole(job, 2), decomposed=False)


def test_scores_are_those_of_the_score_table(client: Any, job: ScoringJob) -> None:
    """The intervals too, as far as two bootstraps of nine people agree."""
    score_users(client, job, per_batch=4)
    answer = whole(job, 2)
    want = score_table(answer.predictive, answer.episodes, draws=4000)
    found = as_score_table(summary(job.results, 2))
    for unit in ("video", "frame"):
        for score in ("accuracy", "nll", "brier", "ece"):
            one, other = (t.sel(item=unit, score=score) for t in (found, want))
            assert float(one["estimate"]) == pytest.approx(float(other["estimate"]), abs=1e-6)
            if score != "ece":
                for name in ("user_mean", "worst"):
                    assert float(one[name]) == pytest.approx(float(other[name]), abs=1e-6)
                width = float(other["high"] - other["low"])
                for end in ("low", "high"):
                    assert abs(float(one[end] - other[end])) < 0.35 * width
    assert found.attrs["units"] == USERS
    assert found.attrs["interval_reason"] == ""


def test_a_summary_comes_back(client: Any, job: ScoringJob, tmp_path: Path) -> None:
    score_users(client, job, per_batch=4)
    found = {shots: summary(job.results, shots) for shots in (1, 2)}
    found[1]["video"]["ece_low"] = np.nan
    save_summary(found, tmp_path / "scores.json")
    back = load_summary(tmp_path / "scores.json")
    assert np.isnan(back[1]["video"].pop("ece_low"))
    found[1]["video"].pop("ece_low")
    assert back == found
    (tmp_path / "scores.json").write_text("[]")
    with pytest.raises(DataError, match="not what bayesfs wrote"):
        load_summary(tmp_path / "scores.json")


def test_only_what_is_missing_or_damaged_is_done_again(client: Any, job: ScoringJob) -> None:
    score_users(client, job, per_batch=2)
    before = {p: p.stat().st_mtime_ns for p in job.results.rglob("zarr.json")}
    want = table(job, 2)
    shutil.rmtree(job.group(2, 1))
    chunk = next(p for p in (job.group(2, 3) / "video_prob").rglob("0") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1])
    score_users(client, job, per_batch=2)
    xr.testing.assert_equal(table(job, 2), want)
    after = {p: p.stat().st_mtime_ns for p in before}
    again = {p.parts[-2] for p in before if before[p] != after[p] and "batch" in p.parts[-2]}
    assert again == {"batch-000001", "batch-000003"}


class DiesOnce(Exact):
    """Takes its worker along the first time it is asked, as a lack of memory would."""

    def infer(self, *args: Any, **kwargs: Any) -> Any:
        mark = Path(os.environ["BAYESFS_TEST_MARK"])
        if not mark.exists():
            mark.touch()
            os._exit(9)
        return super().infer(*args, **kwargs)

    def closed_form(self, *args: Any) -> None:
        return None  # so that `infer` is called


def test_a_lost_worker_costs_nothing(
    job: ScoringJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setenv("BAYESFS_TEST_MARK", str(tmp_path / "mark"))
    import cloudpickle

    cloudpickle.register_pickle_by_value(__import__("sys").modules[__name__])
    dying = replace(job, study=replace(job.study, engine=DiesOnce(draws=16, population_draws=2)))
    with connect("local:2") as client:
        score_users(client, dying, per_batch=16)
    assert (tmp_path / "mark").exists()
    assert_the_same(table(job, 2), whole(job, 2), decomposed=True)


class Refuses(Exact):
    def infer(self, *args: Any, **kwargs: Any) -> Any:
        raise DataError("a worker found this")

    def closed_form(self, *args: Any) -> None:
        return None


def test_what_a_worker_finds_wrong_is_told(client: Any, job: ScoringJob) -> None:
    import cloudpickle

    cloudpickle.register_pickle_by_value(__import__("sys").modules[__name__])
    with pytest.raises(DataError, match="a worker found this"):
        score_users(client, replace(job, study=replace(job.study, engine=Refuses())))


def test_where_no_results_can_be_written(client: Any, job: ScoringJob, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="part of the path is a file"):
        score_users(client, replace(job, results=tmp_path / "file" / "results.zarr"))


@pytest.mark.parametrize("where", ["local:none", "tcp://127.0.0.1:1"])
def test_no_such_cluster(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(cluster_module, "ANSWER", 0.5)
    with pytest.raises(RunError, match=r"expected local|no dask scheduler"), connect(where):
        pass


def test_without_dask_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(cluster_module.importlib, "import_module", absent)
    with pytest.raises(RunError, match=r"bayesfs\[scale\]"), connect("local"):
        pass


def test_rows_of_users(store: Path) -> None:
    everything, rows = open_store(store), user_rows(store, "test")
    assert list(rows) == sorted(set(everything.where(split="test").coord("user").tolist()))
    for name, ranges in rows.items():
        xr.testing.assert_equal(
            read_rows(store, ranges).dataset, everything.where(user=name).dataset
        )
    groups = batches_of(rows, 4)
    assert [len(names) for names, _ in groups] == [4, 4, 1]
    assert len(user_rows(store)) == USERS + 3


def test_users_whose_frames_are_scattered(
    tmp_path: Path, make_embeddings: Callable[..., Embeddings]
) -> None:
    base = make_embeddings()
    video = base.coord("video")
    mixed = Embeddings(base.dataset.isel(frame=np.argsort(video, kind="stable")[::-1]))
    names = np.where(np.arange(len(base)) // 3 % 2, "one", "two")
    mixed = Embeddings(mixed.dataset.assign_coords(user=("frame", names)))
    save_store(tmp_path / "s", mixed)
    for name, ranges in user_rows(tmp_path / "s").items():
        assert len(ranges) > 1
        xr.testing.assert_equal(
            read_rows(tmp_path / "s", ranges).dataset, mixed.where(user=name).dataset
        )


def test_the_fingerprint_sees_every_chunk(store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "copy"))
    assert quick_fingerprint(copy) == quick_fingerprint(store)
    save_store(tmp_path / "other", Embeddings(open_store(store).dataset * 1.5))
    assert quick_fingerprint(tmp_path / "other") != quick_fingerprint(store)


def test_seeds_of_batches_differ() -> None:
    assert batch_seed(3, 0) == 3
    assert len({batch_seed(seed, b) for seed in range(5) for b in range(1, 50)}) == 245


@pytest.mark.slow
def test_the_command(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores of everybody, a report that shows some, and an explanation of what it shows."""
    pytest.importorskip("distributed")
    monkeypatch.setattr(distributed_run, "SHOWN", 3)
    recipes = [
        str(recipe_folder() / name)
        for name in ("models/gaussian.py", "inference/exact.py", "evaluation/clutter.py")
    ]
    small = ("population_engine.steps=5", "reduction.dim=4", "engine.draws=8")
    argv = ["run", *recipes, "--data", str(store), "--out", str(tmp_path / "run")]
    argv += [part for s in small for part in ("--set", s)] + ["--cluster", "local:1"]
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert "5 videos per object:" in said
    run = RunDirectory(tmp_path / "run")
    assert {t.attrs["units"] for t in load_scores(run).values()} == {USERS}
    assert {tree["uncertainty"].sizes["task"] for tree in load_trees(run).values()} == {3}
    page = (run.path / "report.html").read_text()
    assert f"Scores are of all {USERS} people. Everything else shows 3 of them" in page
    accuracy = float(load_scores(run)[5].sel(item="video", score="accuracy")["estimate"])
    assert f"{accuracy:.3f}" in page
    before = page, (run.path / "scores.json").stat().st_mtime_ns
    assert main(argv) == 0  # finished: nothing is done again
    assert main(["report", str(run.path), "--format", "md"]) == 0
    assert "drawn at random" in (run.path / "report.md").read_text()
    assert before == ((run.path / "report.html").read_text(), before[1])
    shown = run.state()["shown"]
    video = next(
        name
        for name in np.unique(open_store(store, users=shown).coord("video"))
        if "clutter" in name
    )
    capsys.readouterr()
    assert main(["explain", str(run.path), "--video", video]) == 0
    assert "picture:" in capsys.readouterr().out


def test_what_a_worker_leaves_out_is_told_here(
    client: Any, job: ScoringJob, tmp_path: Path
) -> None:
    everything = open_store(job.store)
    user = sorted(set(everything.where(split="test").coord("user").tolist()))[0]
    thing = everything.where(user=user).coord("object")[0]
    gone = (everything.coord("user") == user) & (everything.coord("object") == thing)
    gone &= everything.coord("condition") == "clutter"
    store = tmp_path / "less.zarr"
    save_store(store, Embeddings(everything.dataset.isel(frame=np.flatnonzero(~gone))))
    with pytest.warns(UserWarning, match=f"1 objects are left out.*{user}/{thing}"):
        score_users(client, replace(job, store=store))


def test_a_batch_by_itself(job: ScoringJob) -> None:
    """What a worker runs, without dask, where the driver has made the folders."""
    pytest.importorskip("cloudpickle")
    for shots in (1, 2):
        job.group(shots, 0).parent.mkdir(parents=True)
    ranges = tuple(r for each in user_rows(job.store, "test").values() for r in each)
    threads = torch.get_num_threads()
    assert score_batch(cluster_module._portable(job), 0, ranges, 16) == USERS
    torch.set_num_threads(threads)
    assert_the_same(table(job, 1), whole(job, 1), decomposed=True)


def test_workers_with_several_threads_are_refused(
    study: Study, learnt: Learnt, store: Path, tmp_path: Path
) -> None:
    """Before anything is done, and on a worker that joined later."""
    distributed = pytest.importorskip("distributed")
    job = ScoringJob(study, learnt, store, tmp_path / "results.zarr", Seeds())
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        with pytest.raises(RunError, match=r"one thread each, got .* with 2"):
            score_users(client, job)
        assert not (tmp_path / "results.zarr").exists()
        late = client.submit(score_batch, b"", 0, (), 16, pure=False)
        with pytest.raises(RunError, match="one thread each"):
            late.result()
