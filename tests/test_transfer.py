"""Parts of `benchmarks/transfer.py`: worlds, tasks, simple heads, scores."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.linalg import fractional_matrix_power
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from bayesfs.data.sources.open import read_tree
from bayesfs.data.store import save_store
from bayesfs.errors import DataError, ShapeError
from bayesfs.types import Embeddings, EpisodeBatch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SHOTS = (1, 2, 5)


@pytest.fixture(scope="module")
def parts() -> Iterator[Any]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import transfer
        from transfer_parts import heads, methods, scores, tasks, worlds

        yield SimpleNamespace(
            main=transfer, heads=heads, methods=methods, scores=scores, tasks=tasks, worlds=worlds
        )
    finally:
        sys.path.remove(str(BENCHMARKS))


def frames_of(
    videos: dict[str, dict[str, int]], dim: int = 20, frames: int = 3, seed: int = 0
) -> Embeddings:
    """Gaussian frames; `videos` is object -> condition -> number of videos."""
    rng = np.random.default_rng(seed)
    rows, labels = [], []
    for thing, conditions in videos.items():
        centre = 1.0 + rng.normal(size=dim)
        for condition, count in conditions.items():
            for v in range(count):
                video = centre + 0.8 * rng.normal(size=dim)
                rows.append(video + 0.3 * rng.normal(size=(frames, dim)))
                labels += [(thing, f"{thing}-{condition}-{v}", condition)] * frames
    thing, video, condition = zip(*labels, strict=True)
    return Embeddings.from_arrays(
        np.concatenate(rows), object=thing, video=video, condition=condition
    )


def stills(counts: dict[str, int], **more: int) -> Embeddings:
    """Objects with so many clean videos."""
    return frames_of({name: {"clean": n} for name, n in counts.items()}, **more)


@pytest.fixture(scope="module")
def room(parts: Any) -> Any:
    """Nine objects with five videos of any kind."""
    return parts.worlds.World.of("room", stills({f"o{i}": 5 for i in range(9)}))


def rows_in(world: Any, frames: np.ndarray) -> np.ndarray:
    """Row of each frame in its world."""
    every = world.embeddings.features.astype(np.float64)
    return np.array([int(np.abs(every - f).sum(1).argmin()) for f in frames])


def videos_of(world: Any, task: EpisodeBatch) -> tuple[set[str], list[str]]:
    """Names of the support videos, and of the query videos."""
    rows = rows_in(world, task.support[task.support_mask].numpy())
    return set(world.embeddings.coord("video")[rows].tolist()), list(task.videos[0])


# what is taught and asked


@pytest.mark.parametrize("shots", SHOTS)
def test_a_task_asks_no_taught_video_and_two_objects_that_were_not_taught(
    parts: Any, room: Any, shots: int
) -> None:
    sizes = parts.tasks.Sizes(tasks=5, frames=2, queries=3)
    drawn = list(parts.tasks.draw_tasks(room, shots, sizes, seed=0))
    assert len(drawn) == 5
    for task in drawn:
        assert task.way == 6
        assert task.support_mask.sum(-1).max() == task.query_mask.sum(-1).max() == 2
        assert task.shot_mask.sum(-1).unique().tolist() == [min(shots, 4)]
        taught, asked = videos_of(room, task)
        assert not taught & set(asked)
        names = np.array([name.split("-")[0] for name in asked])
        label = task.query_labels[0].numpy()
        truth = [f"user/{name}" in task.classes[0] for name in names]
        np.testing.assert_array_equal(label >= 0, truth)
        assert len(set(names[label < 0])) == 2
        for name, k in zip(names[label >= 0], label[label >= 0], strict=True):
            assert task.classes[0][k] == f"user/{name}"
        assert np.unique(names, return_counts=True)[1].max() <= 3
        np.testing.assert_allclose(np.linalg.norm(task.support[0, 0, 0].numpy(), axis=-1), 1)


def test_tasks_differ_and_come_again_with_their_seed(parts: Any, room: Any) -> None:
    sizes = parts.tasks.Sizes(tasks=3)
    first, again, other = (
        [t.support for t in parts.tasks.draw_tasks(room, 2, sizes, seed=s)] for s in (0, 0, 1)
    )
    assert all(bool((a == b).all()) for a, b in zip(first, again, strict=True))
    assert not bool((first[0] == first[1]).all())
    assert not bool((first[0] == other[0]).all())


def test_clean_is_taught_and_clutter_is_asked(parts: Any) -> None:
    world = parts.worlds.World.of(
        "shop", frames_of({f"o{i}": {"clean": 5, "clutter": 2} for i in range(8)})
    )
    assert world.rule == "taught clean, asked in clutter"
    for task in parts.tasks.draw_tasks(world, 5, parts.tasks.Sizes(tasks=3), seed=0):
        taught, asked = videos_of(world, task)
        assert all("-clean-" in name for name in taught)
        assert all("-clutter-" in name for name in asked)
        assert task.support_condition.unique().tolist() == [0]
        assert task.query_condition.unique().tolist() == [1]
        assert int(task.shot_mask.sum()) == 30


def test_patterns_choose_where_they_are_found(parts: Any) -> None:
    frames = stills({f"o{i}": 5 for i in range(8)})
    of = parts.worlds.World.of
    world = of("room", frames, re.compile("clean-[012]"), re.compile("clean-[34]"))
    for task in parts.tasks.draw_tasks(world, 2, parts.tasks.Sizes(tasks=3), seed=0):
        taught, asked = videos_of(world, task)
        assert all(name[-1] in "012" for name in taught)
        assert all(name[-1] in "34" for name in asked)
        assert len(asked) == 16
    rest = of("room", frames, teach=re.compile("clean-[012]"))
    np.testing.assert_array_equal(rest.ask, world.ask)
    only_asked = of("room", frames, ask=re.compile("clean-[34]"))
    np.testing.assert_array_equal(only_asked.teach, world.teach)
    missed = of("room", frames, re.compile("scene"), re.compile("clean"))
    assert missed.teach.all()
    assert missed.rule.startswith("at random; no name")


def test_patterns_that_no_world_knows_and_equal_names_are_refused(parts: Any) -> None:
    frames = stills({f"o{i}": 5 for i in range(8)})
    read = parts.worlds.read_worlds
    with pytest.raises(DataError, match=r"such as 'o0/o0-clean-0'.*'scene'"):
        read([Path("a"), Path("b")], lambda path: frames, re.compile("scene"))
    with pytest.raises(DataError, match="different names"):
        read([Path("x/a"), Path("y/a")], lambda path: frames)


def test_objects_with_fewer_videos_give_what_they_have(parts: Any) -> None:
    counts = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 6, "f": 9}
    world = parts.worlds.World.of("room", stills(counts))
    shots = {n: parts.tasks.shots_of(world, n).tolist() for n in SHOTS}
    assert shots == {1: [0, 1, 1, 1, 1, 1], 2: [0, 0, 2, 2, 2, 2], 5: [0, 0, 2, 3, 5, 5]}
    sizes = parts.tasks.Sizes(tasks=4, objects=4, untaught=0)
    for task in parts.tasks.draw_tasks(world, 5, sizes, seed=0):
        assert sorted(task.shot_mask.sum(-1)[0].tolist()) == [2, 3, 5, 5]
    assert not list(parts.tasks.draw_tasks(world, 5, parts.tasks.Sizes(), seed=0))


def test_a_tree_is_embedded_once_and_its_videos_are_known_by_path(
    parts: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for thing in "ab":
        for scene in range(3):
            folder = tmp_path / "tree" / thing / f"scene{scene}"
            folder.mkdir(parents=True)
            for k in range(2):
                picture = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(picture).save(folder / f"scene{scene}-0000{k + 1}.jpg")
    calls = []

    class Corner:
        name, px, dim, batch = "corner@32px", 32, 6, 4

        def __call__(self, images: np.ndarray) -> np.ndarray:
            calls.append(len(images))
            return images[:, :2, 0].reshape(-1, 6).astype(np.float32) + 1

    (tmp_path / "cache").mkdir()
    for _ in range(2):
        read = parts.worlds.reader(Corner, tmp_path / "cache")
        (world,) = parts.worlds.read_worlds(
            [tmp_path / "tree"], read, re.compile("scene[01]"), re.compile("scene2")
        )
        names = parts.worlds.names_of(world.embeddings, world.videos)
        assert names == [f"{thing}/scene{s}" for thing in "ab" for s in range(3)]
        assert world.teach.tolist() == [True, True, False] * 2
        assert world.backbone == "corner@32px"
        assert sum(calls) == 12
    save_store(tmp_path / "kept.zarr", world.embeddings)
    (kept,) = parts.worlds.read_worlds([tmp_path / "kept.zarr"], read)
    assert kept.name == "kept"
    assert kept.seen_from(world).comparable
    assert sum(calls) == 12
    assert len(read_tree(tmp_path / "tree").videos) == len(kept.videos)


def test_photographs_of_another_backbone_tell_scales_only(
    parts: Any, room: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(8), 4)
    feat = rng.normal(size=(8, 12))[label] + 0.5 * rng.normal(size=(32, 12))
    np.savez(tmp_path / "shop.npz", feat=feat.astype(np.float16), label=label)
    shop = parts.worlds.photographs(tmp_path / "shop.npz").seen_from(room)
    assert (shop.name, shop.objects, shop.comparable) == ("shop", 8, False)
    for worlds in ((shop,), (shop, room)):
        lesson = parts.heads.Lesson(worlds, parts.tasks.Sizes(tasks=3, objects=4, untaught=0), 1)
        assert "centred" in lesson.heads(2).scales
        known = None if len(worlds) == 1 else parts.heads.Whitening.of([room]).gain
        assert (lesson.whitening is None) == (known is None)
        np.testing.assert_array_equal(known, getattr(lesson.whitening, "gain", None))
    assert lesson.heads(2).whitening is lesson.whitening


# simple heads


@pytest.fixture(scope="module")
def task(parts: Any, room: Any) -> EpisodeBatch:
    return next(iter(parts.tasks.draw_tasks(room, 2, parts.tasks.Sizes(), seed=3)))


def dense(task: EpisodeBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Support videos, labels and query videos, frame by frame."""
    support, label = [], []
    for k in range(task.way):
        for s in range(task.support.shape[2]):
            mean = task.support[0, k, s][task.support_mask[0, k, s]].mean(0).numpy()
            support.append(mean / np.linalg.norm(mean))
            label.append(k)
    query = [q[m].mean(0).numpy() for q, m in zip(task.query[0], task.query_mask[0], strict=True)]
    return np.stack(support), np.array(label), np.stack([q / np.linalg.norm(q) for q in query])


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([[x @ y / np.sqrt((x @ x) * (y @ y)) for y in b] for x in a])


def test_heads_in_few_dimensions_are_those_of_all_features(
    parts: Any, room: Any, task: EpisodeBatch
) -> None:
    x, label, q = dense(task)
    centre = x.mean(0)
    means = np.stack([x[label == k].mean(0) for k in range(6)])
    whitening = parts.heads.Whitening.of([room])
    spaces = parts.heads.head_videos(task, whitening)
    found = {n: parts.heads.SCORES[n](v.support, v.label, v.query) for n, v in spaces.items()}

    np.testing.assert_allclose(found["cosine"], cosines(q, means), atol=1e-8)
    np.testing.assert_allclose(found["centred"], cosines(q - centre, means - centre), atol=1e-8)
    near = cosines(q - centre, x - centre).reshape(len(q), 6, 2).max(-1)
    np.testing.assert_allclose(found["knn"], near, atol=1e-8)
    fitted = LogisticRegression(C=100.0, max_iter=2000).fit(x - centre, label)
    np.testing.assert_allclose(
        softmax(found["logistic"], -1), fitted.predict_proba(q - centre), atol=0.01
    )

    table, frames = room.videos, room.embeddings.features.astype(float)
    videos = np.stack(
        [frames[s : s + n].mean(0) for s, n in zip(table.start, table.count, strict=True)]
    )
    videos /= np.linalg.norm(videos, axis=1, keepdims=True)
    scatter = sum(4 * np.cov(videos[table.object == k].T) for k in range(9)) / (45 - 9)
    shrunk = 0.5 * scatter + 0.5 * np.trace(scatter) / 20 * np.eye(20)
    w = fractional_matrix_power(shrunk, -0.5)
    expected = cosines((q - centre) @ w, (means - centre) @ w)
    np.testing.assert_allclose(found["whitened"], expected, atol=1e-6)
    assert np.abs(found["whitened"] - found["centred"]).max() > 0.01


def test_left_out_videos_are_scored_by_the_others(parts: Any, task: EpisodeBatch) -> None:
    x, label, _ = dense(task)
    small = parts.heads.Videos.of(task).small()
    scores, truth = small.left_out(parts.heads.centred)
    np.testing.assert_array_equal(truth, label)
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        means = np.stack([x[rest & (label == k)].mean(0) for k in range(6)])
        centre = means.mean(0)
        np.testing.assert_allclose(
            scores[i], cosines(x[i : i + 1] - centre, means - centre)[0], atol=1e-8
        )


def test_nothing_is_left_out_where_each_object_has_one_video(parts: Any, room: Any) -> None:
    one = next(iter(parts.tasks.draw_tasks(room, 1, parts.tasks.Sizes(), seed=0)))
    scores, truth = parts.heads.Videos.of(one).small().left_out(parts.heads.cosine)
    assert scores.shape == (0, 6)
    assert len(truth) == 0
    fixed = parts.heads.Lesson((), parts.tasks.Sizes(), 1).heads(1).answer(one)
    assert {by for _, by in fixed.answers} == {"fixed"}
    assert "whitened" not in dict(fixed.answers)


def test_a_known_scale_is_found(parts: Any) -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(-1, 1, (20000, 4))
    label = (softmax(12 * scores, -1).cumsum(1) < rng.uniform(size=(20000, 1))).sum(1)
    found = parts.heads.best_scale("cosine", [parts.heads.nll_curve("cosine", scores, label)])
    assert found == pytest.approx(12, rel=0.15)


def test_scales_come_from_people_and_the_pool_is_the_geometric_mean(
    parts: Any, room: Any, task: EpisodeBatch
) -> None:
    people = parts.worlds.World.of("shop", stills({f"p{i}": 4 for i in range(8)}, seed=5))
    heads = parts.heads.Lesson((people,), parts.tasks.Sizes(tasks=6, objects=4), 1).heads(2)
    assert set(heads.scales) == set(parts.heads.SCORES)
    answers = heads.answer(task).answers
    for by in ("people", "left out"):
        parted = [np.log(answers[name, by].prob) for name in parts.heads.SCORES]
        pool = softmax(np.mean(parted, 0), -1)
        np.testing.assert_allclose(answers["pool", by].prob, pool, atol=1e-10)
    x, label, q = dense(task)
    means = np.stack([x[label == k].mean(0) for k in range(6)])
    prob = softmax(heads.scales["cosine"] * cosines(q, means), -1)
    np.testing.assert_allclose(answers["cosine", "people"].prob, prob, atol=1e-8)


def test_whitening_has_not_seen_the_objects_it_is_tuned_on(parts: Any, room: Any) -> None:
    lesson = parts.heads.Lesson((room,), parts.tasks.Sizes(), 1)
    (((first, by_second), (second, _)),) = lesson.folds
    assert not set(first.videos.objects) & set(second.videos.objects)
    assert len(first.videos) + len(second.videos) == len(room.videos)
    np.testing.assert_allclose(by_second.gain, parts.heads.Whitening.of([second]).gain)
    other = parts.worlds.World.of("shop", stills({f"p{i}": 4 for i in range(8)}, seed=5))
    two = parts.heads.Lesson((room, other), parts.tasks.Sizes(), 1)
    np.testing.assert_allclose(two.folds[0][0][1].gain, parts.heads.Whitening.of([other]).gain)


# scores


@pytest.fixture(scope="module")
def answers(parts: Any) -> tuple[list[Any], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    given, labels = [], []
    for borrowed in (0.25, 0.75) * 4:
        prob = rng.dirichlet(np.ones(3), 12)
        label = np.r_[rng.integers(0, 3, 9), -1, -1, -1]
        in_set = rng.uniform(size=(12, 3)) < 0.7
        novelty = rng.uniform(0.8, 1.0, 12) + 0.03 * (label < 0)
        given.append(parts.methods.Answer(prob, in_set, novelty, borrowed))
        labels.append(label)
    return given, labels


def names(labels: list[np.ndarray]) -> list[list[str]]:
    """A video is asked in every task."""
    return [[f"video {v}" for v in range(len(label))] for label in labels]


def test_few_videos_have_an_ece_of_their_own(parts: Any) -> None:
    """100 tasks that ask the same 5 videos are no better known than 5."""
    rng = np.random.default_rng(1)
    given, labels = [], []
    for _ in range(100):
        given.append(parts.methods.Answer(np.tile([0.7, 0.3], (5, 1))))
        labels.append(rng.integers(0, 2, 5))
    few = parts.scores.Scored.of(given, labels, names(labels), 100).ece_if_calibrated
    apart = [[f"{t}-{v}" for v in range(5)] for t in range(100)]
    many = parts.scores.Scored.of(given, labels, apart, 100).ece_if_calibrated
    binomial = np.abs(rng.binomial(5, 0.7, 200_000) / 5 - 0.7)
    assert few[0] == pytest.approx(binomial.mean(), abs=0.01)
    assert many[0] < 0.25 * few[0]
    assert few[0] < few[1]


def test_scores_are_those_of_scikit_learn(parts: Any, answers: Any) -> None:
    given, labels = answers
    scored = parts.scores.Scored.of(given, labels, names(labels), 100)
    prob, y = np.concatenate([a.prob for a in given]), np.concatenate(labels)
    taught = y >= 0
    assert scored.value("nll") == pytest.approx(log_loss(y[taught], prob[taught]))
    right = accuracy_score(y[taught], prob[taught].argmax(1))
    assert scored.value("accuracy") == pytest.approx(right)
    inside = np.concatenate([a.in_set for a in given])[taught]
    coverage, size = scored.sets()
    assert coverage.estimate == pytest.approx(inside[np.arange(len(inside)), y[taught]].mean())
    assert size.estimate == pytest.approx(inside.sum(1).mean())
    novelty = np.concatenate([a.novelty for a in given])
    area, found, alarms = scored.detection()
    assert area.estimate == pytest.approx(roc_auc_score(~taught, novelty))
    assert area.low < area.estimate < area.high
    assert found == pytest.approx((novelty[~taught] > 0.95).mean())
    assert alarms == pytest.approx((novelty[taught] > 0.95).mean())
    assert scored.borrowed == pytest.approx(0.5)


def test_a_gap_to_itself_is_nothing(parts: Any, answers: Any) -> None:
    scored = parts.scores.Scored.of(*answers, names(answers[1]), 100)
    gap = scored.gap(scored)
    assert (gap.low, gap.estimate, gap.high) == (0, 0, 0)


def test_what_a_method_does_not_say_is_not_measured(parts: Any, answers: Any) -> None:
    given, labels = answers
    silent = [parts.methods.Answer(a.prob) for a in given]
    ours, head = (parts.scores.Scored.of(a, labels, names(labels), 100) for a in (silent, given))
    cell = parts.scores.Cell("my.room", 2, 2.0, {"m": ours}, {"c": head}, {"c": "people"}, 0.6)
    figures = cell.figures("m")
    unsaid = ("coverage", "set_size", "novel_auroc", "novel_found", "false_alarms", "borrowed")
    assert all(figures[f"my.room.{name}_2"] is None for name in unsaid)
    assert figures["my.room.nll_minus_best_baseline_2"] == 0
    every = parts.main.with_gaps(figures, ["my.room", "shop"])
    assert every["my.room.m.nll_2"] == figures["my.room.m.nll_2"]
    assert every["my.room.m.nll_1"] is every["shop.m.nll_2"] is None
    assert "coverage" not in "\n".join(cell.lines())


def test_worst_and_mean_over_the_worlds(parts: Any) -> None:
    figures = {
        "a.m.ece_1": 0.02,
        "b.m.ece_1": 0.05,
        "a.nll_minus_best_baseline_2": -0.1,
        "b.nll_minus_best_baseline_2": 0.1,
        "a.nll_ratio_2": 0.5,
        "b.nll_ratio_2": 1.0,
        "a.coverage_2": 0.8,
        "b.coverage_2": 0.95,
        "a.novel_auroc_minus_baseline_2": 0.1,
        "b.novel_auroc_minus_baseline_2": None,
        "a.novel_found_2": 0.2,
        "b.novel_found_2": 0.4,
    }
    over = parts.scores.over_worlds(figures, ["a", "b"], "m")
    assert over["ece_1"] == 0.05
    assert over["nll_minus_best_baseline_2"] == 0.1
    assert over["nll_ratio_mean_2"] == pytest.approx(0.75)
    assert (over["coverage_min_2"], over["coverage_max_2"]) == (0.8, 0.95)
    assert over["novel_auroc_minus_baseline_2"] == 0.1
    assert over["novel_found_mean_2"] == pytest.approx(0.3)
    assert over["ece_5"] is None


def test_answers_that_do_not_fit_are_refused(parts: Any, task: EpisodeBatch) -> None:
    videos, way = task.query.shape[1], task.way
    even = np.full((videos, way), 1 / way)
    answer = parts.methods.Answer
    assert answer(even).checked(task, "m").prob is even
    with pytest.raises(ShapeError, match=r"m: expected rows of prob that sum to 1"):
        answer(2 * even).checked(task, "m")
    with pytest.raises(ShapeError, match=r"m: expected novelty of shape"):
        answer(even, novelty=even).checked(task, "m")
    with pytest.raises(ShapeError, match=r"m: expected prob of shape"):
        answer(even[:, :2]).checked(task, "m")


# the whole


def test_a_world_is_never_among_its_own_people(
    parts: Any, room: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    class Even:
        name = "bayesfs"

        def answer(self, task: EpisodeBatch) -> Any:
            videos, way = task.query.shape[1], task.way
            return parts.methods.Answer(np.full((videos, way), 1 / way))

    def make(people: Any) -> Even:
        seen.append([world.name for world in people])
        return Even()

    shop = parts.worlds.World.of("shop", stills({f"p{i}": 4 for i in range(9)}, seed=5))
    few = parts.worlds.World.of("few", stills({f"p{i}": 4 for i in range(5)}, seed=6))
    bench = parts.main.Bench({"bayesfs": make}, parts.tasks.Sizes(tasks=2), 2, 50)
    figures = parts.main.report(bench, [room, shop], [room, shop, few])
    assert seen == [["shop"], ["room"], ["room", "shop"]]
    assert figures["room.bayesfs.nll_2"] == pytest.approx(np.log(6))
    assert figures["few.bayesfs.nll_2"] is None
    assert figures["nll_minus_best_baseline_1"] > 0
    seen.clear()
    parts.main.report(bench, [], [room, shop])
    assert seen == [[], []]
    namesake = parts.worlds.World.of(
        "room", stills({f"r{i}": 4 for i in range(9)}, seed=7), source="elsewhere/room"
    )
    parts.main.report(bench, [namesake], [room])
    assert seen[2:] == [["room"]]
    said = capsys.readouterr().out
    assert "few, 2 videos per object: not measured" in said
    assert "temperatures from shop; methods' people: those that the library ships\n" in said
