import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesfs._utils.spacing import spaced
from bayesfs.data.from_arrays import make_episode, stack
from bayesfs.data.sampling import population_episodes, sample_episodes
from bayesfs.errors import DataError, ShapeError
from bayesfs.types import CONDITIONS, UNLABELLED, Embeddings


def build(users, *, dim=3, quality=False, seed=0):
    """`users`: per user, per object, the lengths of its (clean videos, clutter videos)."""
    columns = {name: [] for name in ("user", "object", "video", "condition")}
    for u, objects in enumerate(users):
        for o, conditions in enumerate(objects):
            for condition, lengths in zip(CONDITIONS, conditions, strict=True):
                for v, length in enumerate(lengths):
                    row = (f"P{u:03d}", f"thing {o}", f"P{u:03d}-{o}-{condition}-{v}", condition)
                    for name, value in zip(columns, row, strict=True):
                        columns[name] += [value] * length
    n = len(columns["user"])
    rng = np.random.default_rng(seed)
    extra = {"sharpness": rng.normal(size=n)} if quality else None
    return Embeddings.from_arrays(rng.normal(size=(n, dim)), quality=extra, **columns)


video_lengths = st.lists(st.integers(1, 6), min_size=0, max_size=3)
things = st.lists(st.tuples(video_lengths, video_lengths), min_size=1, max_size=4)
worlds = st.lists(things, min_size=1, max_size=3)
condition_sets = st.sampled_from([("clean",), ("clutter",), CONDITIONS])


def can_be_drawn(objects, support_conditions, query_conditions):
    """Independent statement of which objects can be taught and asked."""
    out = []
    for name, (clean, clutter) in enumerate(objects):
        videos = [("clean", i) for i in range(len(clean))]
        videos += [("clutter", i) for i in range(len(clutter))]
        pairs = [
            (s, q)
            for s in videos
            for q in videos
            if s != q and s[0] in support_conditions and q[0] in query_conditions
        ]
        if pairs:
            out.append(name)
    return out


@settings(max_examples=150, deadline=None)
@given(
    world=worlds,
    support_conditions=condition_sets,
    query_conditions=condition_sets,
    shots=st.one_of(st.none(), st.integers(1, 3)),
    frames=st.one_of(st.none(), st.integers(1, 4)),
    query_frames=st.one_of(st.none(), st.integers(1, 4)),
    query_videos=st.one_of(st.none(), st.integers(1, 2)),
    way=st.one_of(st.none(), st.integers(1, 3)),
    repetitions=st.integers(1, 2),
    seed=st.integers(0, 2**31),
)
def test_every_episode_is_what_was_asked_for(
    world,
    support_conditions,
    query_conditions,
    shots,
    frames,
    query_frames,
    query_videos,
    way,
    repetitions,
    seed,
):
    drawable = [can_be_drawn(objects, support_conditions, query_conditions) for objects in world]
    if not any(sum(map(len, conditions)) for objects in world for conditions in objects):
        return
    emb = build(world, quality=True)
    call = dict(
        support_conditions=support_conditions,
        query_conditions=query_conditions,
        shots=shots,
        frames_per_video=frames,
        query_frames=query_frames,
        query_videos=query_videos,
        way=way,
        episodes_per_user=repetitions,
        seed=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not any(drawable):
            with pytest.raises(DataError, match="at least one object"):
                sample_episodes(emb, **call)
            return
        batch = sample_episodes(emb, **call)

    has_task = [u for u, names in enumerate(drawable) if names]
    assert len(batch) == len(has_task) * repetitions
    video, thing = emb.coord("video"), emb.coord("object")
    for t in range(len(batch)):
        names = drawable[has_task[t // repetitions]]
        used_in_support = set()
        assert len(batch.classes[t]) == int(batch.way_mask[t].sum()) == min(len(names), way or 99)
        assert list(batch.classes[t]) == sorted(batch.classes[t])
        assert set(batch.classes[t]) <= {f"thing {n}" for n in names}
        for c, name in enumerate(batch.classes[t]):
            for s in batch.shot_mask[t, c].nonzero()[:, 0].tolist():
                rows = batch.support_frame[t, c, s]
                rows = rows[batch.support_mask[t, c, s]].numpy()
                assert set(thing[rows]) == {name}
                assert set(emb.coord("user")[rows]) == {f"P{has_task[t // repetitions]:03d}"}
                (v,) = set(video[rows])
                assert v not in used_in_support
                used_in_support.add(v)
                condition = CONDITIONS[batch.support_condition[t, c, s]]
                assert condition in support_conditions
                assert set(emb.coord("condition")[rows]) == {condition}
                every = np.flatnonzero(video == v)
                assert (np.diff(rows) > 0).all()
                assert len(rows) == min(frames or 99, len(every))
            assert int(batch.shot_mask[t, c].sum()) <= (shots or 99)
        asked = {}
        for v in batch.video_mask[t].nonzero()[:, 0].tolist():
            rows = batch.query_frame[t, v][batch.query_mask[t, v]].numpy()
            (name,) = set(video[rows])
            assert name == batch.videos[t][v]
            assert name not in used_in_support
            assert set(thing[rows]) == {batch.classes[t][batch.query_labels[t, v]]}
            assert CONDITIONS[batch.query_condition[t, v]] in query_conditions
            assert len(rows) == min(query_frames or 99, int((video == name).sum()))
            asked.setdefault(int(batch.query_labels[t, v]), set()).add(name)
        assert sorted(asked) == list(range(len(batch.classes[t])))
        assert all(len(v) <= (query_videos or 99) for v in asked.values())

    for part in ("support", "query"):
        rows, mask = getattr(batch, f"{part}_frame"), getattr(batch, f"{part}_mask")
        assert torch.equal(rows >= 0, mask)
        expected = torch.from_numpy(emb.features)[rows.clamp(min=0)] * mask[..., None]
        assert torch.equal(getattr(batch, part), expected)
        table = torch.from_numpy(emb.dataset["quality"].values)
        expected = table[rows.clamp(min=0)] * mask[..., None]
        assert torch.equal(getattr(batch, f"{part}_quality"), expected)
    assert (batch.query_labels[~batch.video_mask] == UNLABELLED).all()


@settings(max_examples=60, deadline=None)
@given(count=st.lists(st.integers(1, 40), min_size=1, max_size=5), frames=st.integers(1, 12))
def test_frames_are_evenly_spaced(count, frames):
    video, position = spaced(np.array(count), frames)
    for v, n in enumerate(count):
        chosen = position[video == v]
        k = min(n, frames)
        assert len(np.unique(chosen)) == k
        if k > 1:
            assert chosen[0] == 0
            assert chosen[-1] == n - 1
            assert np.diff(chosen).max() - np.diff(chosen).min() <= 1


WORLD = [[([4, 4, 4], [5, 5]), ([4, 4, 4], [5, 5]), ([4, 4], [5])] for _ in range(4)]


def test_same_seed_same_episodes_and_other_seed_others():
    emb = build(WORLD)
    a, b, c = (sample_episodes(emb, shots=2, seed=s) for s in (1, 1, 2))
    assert torch.equal(a.support_frame, b.support_frame)
    assert not torch.equal(a.support_frame, c.support_frame)


def test_each_order_of_videos_is_equally_likely():
    emb = build([[([1, 1, 1], [1])] for _ in range(2000)])
    with pytest.warns(UserWarning, match="one object only"):
        batch = sample_episodes(emb, shots=1, seed=3)
    first = batch.support_frame.flatten().numpy() % 4
    counts = np.bincount(first, minlength=3)
    assert abs(counts - 2000 / 3).max() < 4 * np.sqrt(2000 * 2 / 9)


@pytest.mark.parametrize("repetitions", [1, 2])
def test_users_whose_names_hold_a_number_sign_are_still_themselves(repetitions):
    """A task of P#1 is not one of P; nor is user P#1 taken for P's first task."""
    emb = build([[([3, 3], [3])] * 2] * 3)
    names = np.array(["P", "P#1", "P#1#2"])
    renamed = emb.dataset.assign_coords(
        user=("frame", names[np.unique(emb.coord("user"), return_inverse=True)[1]])
    )
    one = sample_episodes(Embeddings(renamed), episodes_per_user=repetitions, seed=0)
    assert one.users == tuple(np.repeat(names, repetitions))
    assert len(set(one.tasks)) == len(one)
    assert population_episodes(Embeddings(renamed)).users == tuple(names)


def test_other_users_do_not_change_what_a_user_gets():
    emb = build(WORLD)
    together = sample_episodes(emb, shots=2, way=2, episodes_per_user=2, seed=5)
    alone = [
        sample_episodes(emb, shots=2, way=2, episodes_per_user=2, users=[u], seed=5)
        for u in ("P000", "P001", "P002", "P003")
    ]
    joined = stack(alone)
    assert joined.tasks == together.tasks
    assert torch.equal(joined.support_frame, together.support_frame)
    assert torch.equal(joined.query, together.query)


def test_fewer_shots_are_nested_and_keep_the_query():
    emb = build(WORLD)
    five, one = (sample_episodes(emb, shots=s, seed=0) for s in (3, 1))
    assert torch.equal(five.limit_shots(1).support, one.support)
    assert torch.equal(five.query, one.query)


def test_dropped_flags_leave_query_frames_out_and_keep_support_frames():
    emb = build(WORLD)
    flag = np.zeros(len(emb), int)
    flag[1::2] = 1
    flag[emb.coord("video") == "P000-2-clutter-0"] = 1
    marked = Embeddings(emb.dataset.assign_coords(flag_blur_issue=("frame", flag)))
    with pytest.warns(UserWarning, match="1 objects are left out.*P000/thing 2"):
        batch = sample_episodes(marked, drop_flags=("flag_blur_issue",), seed=0)
    rows = batch.query_frame[batch.query_mask]
    assert (flag[rows] == 0).all()
    assert (flag[batch.support_frame[batch.support_mask]] == 1).any()
    with pytest.raises(DataError, match=r"\['flag_blur_issue'\], got 'flag_blur'"):
        sample_episodes(marked, drop_flags=("flag_blur",), seed=0)


def test_unlabelled_videos_are_query_only():
    emb = build([[([3, 3], [3]), ([3, 3], [3])]])
    names = emb.coord("object").copy()
    unknown = ["P000-1-clutter-0", "P000-1-clean-1", "P000-0-clutter-0"]
    names[np.isin(emb.coord("video"), unknown)] = ""
    person = Embeddings(emb.dataset.assign_coords(object=("frame", names)))
    batch = sample_episodes(person, query_videos=1, seed=0)
    assert batch.classes == (("thing 0", "thing 1"),)
    assert sorted(batch.videos[0]) == ["P000-0-clutter-0", "P000-1-clutter-0"]
    assert batch.query_labels.tolist() == [[UNLABELLED, UNLABELLED]]
    assert batch.shot_mask.sum(-1).tolist() == [[2, 1]]
    both = sample_episodes(person, query_conditions=CONDITIONS, seed=0)
    assert sorted(both.videos[0]) == sorted(unknown)
    assert population_episodes(person).support_mask.sum() == 9


def test_population_has_every_video_of_every_user():
    emb = build([*WORLD, [([2], []), ([], [3])]], quality=True)
    batch = population_episodes(emb)
    assert len(batch) == 5
    assert batch.support_mask.sum() == len(emb)
    assert not batch.query_mask.any()
    assert sorted(batch.support_frame[batch.support_mask].tolist()) == list(range(len(emb)))
    condition = np.array([CONDITIONS.index(k) for k in emb.coord("condition")])
    rows = batch.support_frame[..., 0]
    assert torch.equal(
        batch.support_condition[rows >= 0],
        torch.from_numpy(condition)[rows.clamp(min=0)][rows >= 0],
    )
    some = population_episodes(emb, conditions=("clean",), frames_per_video=2, users=["P001"])
    assert some.support.shape == (1, 3, 3, 2, 3)
    with pytest.raises(DataError, match="got none"):
        population_episodes(emb, conditions=())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"shots": 0}, "shots >= 1"),
        ({"users": ["P009"]}, "P009"),
        ({"support_conditions": ("tidy",)}, "tidy"),
        ({"support_conditions": "clean"}, "tuple of conditions"),
    ],
)
def test_bad_requests_name_what_was_wrong(call, message):
    with pytest.raises(DataError, match=message):
        sample_episodes(build(WORLD), seed=0, **call)


def test_scattered_frames_of_a_video_are_refused():
    emb = build(WORLD)
    mixed = Embeddings(emb.dataset.isel(frame=np.random.default_rng(0).permutation(len(emb))))
    with pytest.raises(DataError, match="shuffled"):
        sample_episodes(mixed, seed=0)


def test_stacking_pads_and_keeps_every_task():
    small = sample_episodes(build(WORLD[:1]), shots=1, frames_per_video=2, seed=0)
    large = sample_episodes(build(WORLD, seed=1), seed=0)
    both = stack([small, large])
    assert len(both) == 5
    w, s, f = small.support.shape[1:4]
    assert torch.equal(both.support[:1, :w, :s, :f], small.support)
    assert both.support_mask[0].sum() == small.support_mask.sum()
    assert both.query_mask[0].sum() == small.query_mask.sum()
    assert (both.query_labels[~both.video_mask] == UNLABELLED).all()
    assert both.classes == small.classes + large.classes
    with pytest.raises(ShapeError, match="number of features"):
        stack([small, sample_episodes(build(WORLD, dim=4), seed=0)])
    with pytest.raises(ShapeError, match="at least one"):
        stack([])


def test_one_task_from_arrays():
    x = np.arange(14.0).reshape(7, 2)
    one = make_episode(
        x,
        ["mug", "keys", "mug", "mug", "keys", "mug", "mug"],
        ["a", "k", "a", "b", "k", "b", "b"],
        x[:3] + 100,
        ["p", "q", "p"],
        ["keys", None, "keys"],
        support_quality=x[:, :1],
        query_quality=x[:3, :1],
    )
    assert one.support.dtype == torch.float64
    assert one.classes == (("keys", "mug"),)
    assert one.videos == (("p", "q"),)
    assert one.query_labels.tolist() == [[0, UNLABELLED]]
    assert one.support_mask.sum(-1).tolist() == [[[2, 0], [2, 3]]]
    assert one.support[0, 1, 1].tolist() == x[[3, 5, 6]].tolist()
    assert one.query[0, 0].tolist() == (x[[0, 2]] + 100).tolist()
    assert one.support_quality[0, 0, 0, :2, 0].tolist() == x[[1, 4], 0].tolist()
    assert one.query_condition.tolist() == [[1, 1]]


def test_arrays_without_videos_are_independent_frames():
    one = make_episode(torch.eye(3), [0, 0, 1], None, torch.eye(3), query_labels=[0, 0, 1])
    assert one.support_mask.tolist() == [[[[True], [True]], [[True], [False]]]]
    assert one.query_labels.tolist() == [[0, 0, 1]]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"support_labels": ["a"]}, ShapeError, "2 support_labels"),
        ({"query_labels": ["c", "a"]}, DataError, "'c' is not among"),
        ({"query_labels": ["b", "a"], "query_videos": [0, 0]}, DataError, "two labels"),
        ({"support_features": [1.0, 2.0]}, ShapeError, "support_features of shape"),
        ({"support_condition": "tidy"}, DataError, "tidy"),
        ({"query_quality": [[0.0]]}, ShapeError, "2 rows of query_quality"),
        ({"query_features": [[float("nan")], [0.0]]}, ShapeError, "NaN"),
    ],
)
def test_bad_arrays_are_named(change, error, message):
    good = {
        "support_features": [[0.0], [1.0]],
        "support_labels": ["a", "b"],
        "support_videos": None,
        "query_features": [[0.0], [1.0]],
    }
    with pytest.raises(error, match=message):
        make_episode(**{**good, **change})


def test_names_go_with_their_classes():
    """Also of a task that has fewer of them than the batch."""
    both = stack([sample_episodes(build([[([2], [1])] * n]), seed=0) for n in (3, 2)])
    moved = both.permute_classes([1, 2, 0])
    for t, order in enumerate(([1, 2, 0], [1, None, 0])):
        names = ["" if i is None else both.classes[t][i] for i in order]
        assert list(moved.classes[t]) == names
        assert [bool(n) for n in names] == moved.way_mask[t].tolist()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"tasks": ("a",)}, "tasks of 2 tasks, got 1"),
        ({"videos": (("v",),)}, "videos of 2 tasks, got 1"),
        ({"classes": (("mug",), ("keys",))}, "classes to name each of the 2 of task 'P000'"),
        ({"videos": (("v",) * 9, ("w",) * 9)}, "videos to name each of the"),
    ],
)
def test_lists_of_names_of_another_length_are_refused(names, message):
    both = sample_episodes(build([[([3, 3], [2])] * 2] * 2), seed=0)
    with pytest.raises(ShapeError, match=message):
        replace(both, **names)


@pytest.mark.slow
def test_ten_thousand_users_do_not_take_minutes():
    import time

    base = build([WORLD[0]] * 10_000, dim=2)
    start = time.perf_counter()
    batch = sample_episodes(base, seed=0)
    assert len(batch) == 10_000
    assert time.perf_counter() - start < 60
