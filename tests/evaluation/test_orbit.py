import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bayesfs.errors import DataError
from bayesfs.evaluation.orbit import ABSENT, OrbitProtocol
from bayesfs.evaluation.orbit_scores import orbit_metrics, run_orbit, video_metrics
from bayesfs.types import Embeddings, EpisodeBatch, LabelDraws, Predictive

VIDEOS = {
    # user, object, condition: numbers of frames of its videos
    ("P02", "mug", "clean"): (95, 31),
    ("P02", "mug", "clutter"): (60, 1300),
    ("P02", "bag", "clean"): (40,) * 7,
    ("P02", "bag", "clutter"): (250, 40),  # the second is too short
    ("P02", "axe", "clean"): (70, 80),
    ("P02", "axe", "clutter"): (49,),  # too short, so there is no query
    ("P02", "zoo", "clutter"): (90,),  # never taught
    ("P01", "cup", "clean"): (5,),
    ("P01", "cup", "clutter"): (55,),
    ("P01", "pen", "clean"): (100,) * 18,
    ("P01", "pen", "clutter"): (100,) * 17,
}


@pytest.fixture(scope="module")
def tree() -> Embeddings:
    """Two test users and a train user; the feature of a frame is its number in the video.

    Every third frame of P02's long cluttered mug video does not show the mug, nor does any of
    the last 5 of P01's cup. Rows of users and videos stand in no particular order.
    """
    columns: dict[str, list[str]] = {
        k: [] for k in ("user", "object", "condition", "video", "split")
    }
    feature, absent = [], []
    entries = [(u, o, k, i, n) for (u, o, k), c in VIDEOS.items() for i, n in enumerate(c)]
    entries += [
        ("P00", "hat", condition, i, 60) for condition in ("clean", "clutter") for i in range(2)
    ]
    order = np.random.default_rng(0).permutation(len(entries))
    for user, thing, condition, i, n in [entries[j] for j in order]:
        split = "train" if user == "P00" else "test"
        name = f"{user}--{thing}--{condition}--{i:02d}"
        for column, value in zip(columns, (user, thing, condition, name, split), strict=True):
            columns[column] += [value] * n
        feature += list(range(n))
        gone = [
            (n == 1300 and t % 3 == 0) or (thing == "cup" and n == 55 and t >= 50) for t in range(n)
        ]
        absent += [int(g) for g in gone]
    emb = Embeddings.from_arrays(np.array(feature, float)[:, None], **columns)  # type: ignore[arg-type]
    return Embeddings(emb.dataset.assign_coords({ABSENT: ("frame", np.array(absent))}))


def task_of(protocol: OrbitProtocol, tree: Embeddings, user: str) -> EpisodeBatch:
    return next(protocol.episodes(tree, users=[user], tasks_per_batch=1))


def test_users_objects_and_labels_are_sorted(tree: Embeddings) -> None:
    protocol = OrbitProtocol()
    assert protocol.users(tree) == ("P01", "P02")
    batches = list(protocol.episodes(tree, tasks_per_batch=20))
    assert [len(b) for b in batches] == [20, 20, 10] * 2
    names = [name for b in batches for name in b.tasks]
    assert names == [f"{u}#{i}" for u in ("P01", "P02") for i in range(1, 51)]
    assert all(c == ("cup", "pen") for b in batches[:3] for c in b.classes)
    assert all(c == ("bag", "mug") for b in batches[3:] for c in b.classes)


def test_videos_of_a_task(tree: Embeddings) -> None:
    task = task_of(OrbitProtocol(), tree, "P02")
    assert task.videos == (
        ("P02--bag--clutter--00", "P02--mug--clutter--00", "P02--mug--clutter--01"),
    )
    assert task.query_labels.tolist() == [[0, 1, 1]]
    assert task.shot_mask.sum(-1).tolist() == [[7, 2]]
    assert (task.query_condition == 1).all()
    assert (task.support_condition == 0).all()
    many = task_of(OrbitProtocol(), tree, "P01")
    assert many.shot_mask.sum(-1).tolist() == [[1, 15]]
    assert many.query_labels.sum() == 15
    assert list(many.videos[0]) == sorted(many.videos[0])


def test_support_frames_are_every_thirtieth(tree: Embeddings) -> None:
    task = task_of(OrbitProtocol(), tree, "P02")
    counts = {}
    for shot in range(2):
        frames = task.support[0, 1, shot, :, 0][task.support_mask[0, 1, shot]].tolist()
        counts[len(frames)] = frames
    assert counts == {4: [0, 30, 60, 90], 2: [0, 30]}
    capped = OrbitProtocol(max_support_frames=3)
    assert task_of(capped, tree, "P02").support_mask[0, 1].sum(-1).max() == 3


def test_query_frames_are_200_random_ones_of_the_first_1000_kept(tree: Embeddings) -> None:
    protocol = OrbitProtocol(tasks_per_user=40)
    long, short = [], []
    for batch in protocol.episodes(tree, users=["P02"]):
        mask = batch.query_mask
        assert mask.sum(-1).tolist() == [[200, 60, 200]] * len(batch)
        for task in range(len(batch)):
            long.append(batch.query[task, 2, mask[task, 2], 0].numpy())
            short.append(batch.query[task, 1, mask[task, 1], 0].numpy())
    assert (np.array(short) == np.arange(60)).all()
    frames = np.array(long)
    assert (np.diff(frames) > 0).all(), "in order of time, none twice"
    assert (frames % 3 != 0).all(), "frames without the object are dropped"
    last = np.flatnonzero(np.arange(1300) % 3 != 0)[:1000]
    assert set(frames.ravel()) == set(range(1300)) & set(last.tolist())
    assert len({tuple(f) for f in frames}) == 40


def test_the_filter_counts_before_the_video_is_judged(tree: Embeddings) -> None:
    """P01's cup has 55 frames, 50 with the cup: enough at 50, too few at 51."""
    assert task_of(OrbitProtocol(), tree, "P01").classes == (("cup", "pen"),)
    assert task_of(OrbitProtocol(min_query_frames=51), tree, "P01").classes == (("pen",),)
    everything = OrbitProtocol(min_query_frames=51, drop_flag=None)
    assert task_of(everything, tree, "P01").classes == (("cup", "pen"),)


def test_frames_without_annotation_do_not_count_as_present(tree: Embeddings) -> None:
    flag = tree.coord(ABSENT).copy()
    flag[tree.coord("video") == "P01--cup--clutter--00"] = -1
    partly = Embeddings(tree.dataset.assign_coords({ABSENT: ("frame", flag)}))
    assert task_of(OrbitProtocol(), partly, "P01").classes == (("pen",),)
    none = Embeddings(tree.dataset.assign_coords({ABSENT: ("frame", np.full_like(flag, -1))}))
    with pytest.raises(DataError, match="annotated in no query frame"):
        task_of(OrbitProtocol(), none, "P01")
    with pytest.raises(DataError, match="drop_flag=None"):
        task_of(OrbitProtocol(), Embeddings(tree.dataset.drop_vars(ABSENT)), "P01")


def test_clean_to_clean_splits_by_name(tree: Embeddings) -> None:
    """Bag has 7 clean videos: 5 teach and 2 are asked; mug has 2: 1 and 1."""
    protocol = OrbitProtocol(query_condition="clean", min_query_frames=30)
    task = task_of(protocol, tree, "P02")
    assert task.classes == (("axe", "bag", "mug"),)
    assert task.shot_mask.sum(-1).tolist() == [[1, 5, 1]]
    assert task.videos[0] == (
        "P02--axe--clean--01",
        "P02--bag--clean--05",
        "P02--bag--clean--06",
        "P02--mug--clean--01",
    )
    assert (task.query_condition == 0).all()
    only = task_of(protocol, tree, "P01")  # cup's only clean video teaches nothing: 1 - 1 = 0
    assert only.classes == (("pen",),)


def test_draws_depend_on_seed_and_user_only(tree: Embeddings) -> None:
    protocol = OrbitProtocol(tasks_per_user=3)
    one = list(protocol.episodes(tree, users=["P02"], tasks_per_batch=1))
    rows = np.flatnonzero(tree.coord("user") == "P02")
    alone = Embeddings(tree.dataset.isel(frame=rows))
    together = next(protocol.episodes(alone, tasks_per_batch=3))
    for task, single in enumerate(one):
        got = together.select([task])
        assert got.tasks == single.tasks
        assert torch.equal(got.query, single.query)
        assert torch.equal(got.support, single.support)
    other = next(OrbitProtocol(tasks_per_user=3, seed=2).episodes(alone, tasks_per_batch=3))
    assert not torch.equal(other.query, together.query)


def test_rows_lead_back_to_the_embeddings(tree: Embeddings) -> None:
    task = task_of(OrbitProtocol(), tree, "P02")
    assert task.query_frame is not None
    for v, name in enumerate(task.videos[0]):
        rows = task.query_frame[0, v][task.query_mask[0, v]].numpy()
        assert set(tree.coord("video")[rows]) == {name}
        np.testing.assert_array_equal(tree.features[rows, 0], task.query[0, v, : len(rows), 0])


def test_bad_protocols_are_refused(tree: Embeddings) -> None:
    with pytest.raises(DataError, match="query_condition"):
        OrbitProtocol(query_condition="dark")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="support_step"):
        OrbitProtocol(support_step=0)
    with pytest.raises(DataError, match="subsampled"):
        OrbitProtocol(min_query_frames=5000).users(tree)
    with pytest.raises(DataError, match="expected a user"):
        task_of(OrbitProtocol(), tree, "P00")


def rows_of(predictions: dict[tuple[str, str], tuple[int, list[int]]]) -> pd.DataFrame:
    lines = []
    for (task, video), (label, predicted) in predictions.items():
        for t, p in enumerate(predicted):
            lines.append((task[:2], task, video, f"{task[:2]}/{label}", t, label, p))
    return pd.DataFrame(
        lines, columns=["user", "task", "video", "object", "frame", "label", "prediction"]
    )


def test_metrics_by_hand() -> None:
    """Also: a tie of two classes goes to the lower one, here for and against the label."""
    rows = rows_of(
        {
            ("P1#1", "a"): (0, [1, 1, 0, 0]),
            ("P1#1", "b"): (1, [1, 1, 0, 0]),
            ("P1#2", "a"): (2, [1, 2, 2]),
            ("P2#1", "c"): (0, [1, 1]),
        }
    )
    table = video_metrics(rows.sample(frac=1, random_state=0))
    assert table["frame_acc"].tolist() == [0.5, 0.5, 2 / 3, 0.0]
    assert table["frames_to_recognition"].tolist() == [0.5, 0.0, 1 / 3, 1.0]
    assert table["video_acc"].tolist() == [1.0, 0.0, 1.0, 0.0]
    metrics = orbit_metrics(rows)
    values = np.array([0.5, 0.5, 2 / 3, 0.0])
    assert metrics.loc["frame_acc", "mean"] == pytest.approx(values.mean())
    expected = 1.96 * np.sqrt(((values - values.mean()) ** 2).mean()) / 2
    assert metrics.loc["frame_acc", "orbit_ci"] == pytest.approx(expected)
    assert np.isnan(metrics.loc["frame_acc", "low"])
    assert metrics.loc["frame_acc", ["users", "videos"]].tolist() == [2, 4]


def test_tasks_of_a_user_do_not_narrow_the_interval_over_users() -> None:
    """50 copies of a task shrink ORBIT's half-width seven-fold; the interval over users stays."""
    rng = np.random.default_rng(1)
    right = {f"P{u}": rng.integers(2, size=20) for u in range(8)}
    tables = [
        orbit_metrics(
            rows_of(
                {(f"{u}#{i}", "v"): (1, p.tolist()) for u, p in right.items() for i in range(n)}
            )
        )
        for n in (1, 50)
    ]
    width = [t.loc["frame_acc", "high"] - t.loc["frame_acc", "low"] for t in tables]
    assert width[0] == pytest.approx(width[1])
    ratio = tables[0].loc["frame_acc", "orbit_ci"] / tables[1].loc["frame_acc", "orbit_ci"]
    assert ratio == pytest.approx(np.sqrt(50))


def even_frames_are_class_one(episodes: EpisodeBatch) -> Predictive:
    one = (episodes.query[..., 0].long() % 2 == 0).double() * 0.8 + 0.1
    p = torch.zeros(*one.shape, episodes.way).double()
    p[..., 0], p[..., 1] = 1 - one, one
    frame, video = p.log(), p.log().mean(2).softmax(-1).log()
    draws = [LabelDraws(x, x[None], torch.zeros(1, *x.shape[:-1]).double()) for x in (frame, video)]
    return Predictive(*draws)


def test_a_whole_run(tree: Embeddings, tmp_path: Path) -> None:
    told = []
    run = run_orbit(
        even_frames_are_class_one,
        tree,
        OrbitProtocol(tasks_per_user=4),
        tasks_per_batch=3,
        macs={"P01": 12},
        progress=lambda done, total, who: told.append((done, total, who)),
    )
    assert told[-1] == (8, 8, "P02")
    metrics = run.metrics()
    expected = video_metrics(run.frames)["frame_acc"].mean()
    assert metrics.loc["frame_acc", "mean"] == pytest.approx(expected)
    assert run.scores(draws=10)["estimate"].sel(item="frame", score="nll").item() > 0
    results = json.loads(run.save(tmp_path / "new").read_text())
    assert list(results) == ["P01", "P02"]
    assert [len(v) for v in results.values()] == [4, 4]
    task = results["P02"][0]
    assert task["task_object_list"] == ["bag", "mug"]
    assert (task["task_macs_to_personalise"], results["P01"][0]["task_macs_to_personalise"]) == (
        None,
        12,
    )
    videos = task["task_videos"]
    assert {k: len(v) for k, v in videos.items()} == {
        "P02--bag--clutter--00": 200,
        "P02--mug--clutter--00": 60,
        "P02--mug--clutter--01": 200,
    }
    # Frame numbers count from 1, so that odd numbers are even features.
    assert all(answer == int(n) % 2 for v in videos.values() for n, answer in v.items())


def test_frame_numbers_come_from_the_store(tree: Embeddings) -> None:
    """Of a video file, whose path is the same for every frame, too."""
    numbers = (tree.features[:, 0] + 101).astype(np.int32)
    paths = [f"{v}/IMG_0012.mov" for v in tree.coord("video")]
    named = Embeddings(
        tree.dataset.assign_coords(path=("frame", paths), frame_number=("frame", numbers))
    )
    run = run_orbit(
        even_frames_are_class_one, named, OrbitProtocol(tasks_per_user=1), users=["P02"]
    )
    answers = run.results["P02"][0]["task_videos"]["P02--mug--clutter--00"]
    assert min(int(n) for n in answers) == 101
    assert len(answers) == 60
