import json
import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from bayesfs.data.sources.orbit import read_orbit
from bayesfs.errors import DataError
from bayesfs.synthetic.videos.families import FAMILIES
from bayesfs.synthetic.videos.objects import Thing, make_thing, user_things
from bayesfs.synthetic.videos.raycast import CAMERA, Part, rotation, view
from bayesfs.synthetic.videos.render import render_tree
from bayesfs.synthetic.videos.scenes import BOX_SIZE, record_video

SMALL = dict(
    train_users=1,
    test_users=1,
    objects=3,
    clean_videos=2,
    clean_frames=3,
    clutter_videos=1,
    clutter_frames=4,
    size=64,
    seed=4,
)
MAGENTA = np.broadcast_to(np.array([1.0, 0.0, 1.0], np.float32), (4, 4, 3)).copy()
LIGHT = np.array([0.0, 0.0, 1.0], np.float32)


def test_silhouette_of_a_sphere_has_its_area_in_perspective():
    r, pixels = 0.8, 100.0
    seen = view([Part("ellipsoid", (0, 0, 0), (r, r, r), MAGENTA)], np.eye(3), pixels, LIGHT)
    # tangent cone: half-angle asin(r / CAMERA), cut by the plane through the centre
    radius = pixels * CAMERA * math.tan(math.asin(r / CAMERA))
    assert seen.alpha.sum() == pytest.approx(math.pi * radius**2, rel=0.01)


INSIDE = {
    "ellipsoid": lambda p, _: (p**2).sum(-1) <= 1,
    "box": lambda p, _: (np.abs(p) <= 1).all(-1),
    "frustum": lambda p, taper: (
        (np.abs(p[..., 2]) <= 1)
        & (np.hypot(p[..., 0], p[..., 1]) <= (1 + taper) / 2 + (taper - 1) / 2 * p[..., 2])
    ),
    "torus": lambda p, tube: np.hypot(np.hypot(p[..., 0], p[..., 2]) - 1, p[..., 1]) <= tube,
}


@pytest.mark.parametrize("shape", list(INSIDE))
@pytest.mark.parametrize("taper", [0.3, 1.4])
def test_solids_are_where_their_inequalities_say(shape, taper):
    """March along each ray through the solid's own inequality and compare the silhouettes."""
    rng = np.random.default_rng(0)
    tube = 0.3 if shape == "torus" else taper
    size = (0.5,) * 3 if shape == "torus" else (0.5, 0.3, 0.6)
    spin = rotation(0.7, 0.3)
    part = Part(shape, (0.1, -0.2, 0.15), size, MAGENTA, turn=spin, taper=tube)
    turn = rotation(1.1, 0.5, 0.2)
    seen = view([part], turn, 30.0, LIGHT)
    n = len(seen.alpha)
    cells = rng.integers(0, n, size=(1500, 2))
    x = (cells[:, 1] - seen.half) / 30.0
    y = -(cells[:, 0] - seen.half) / 30.0
    end = np.stack([x, y, np.zeros_like(x)], 1)
    camera = np.array([0, 0, CAMERA])
    steps = np.linspace(0.6, 1.4, 1500)[:, None, None]
    points = camera + steps * (end - camera)
    local = ((points @ turn) - np.array(part.centre)) @ spin / np.array(size)
    expected = INSIDE[shape](local, tube).any(0)
    got = seen.alpha[cells[:, 0], cells[:, 1]] > 0
    assert (expected != got).mean() < 0.01
    assert 0.05 < got.mean() < 0.95


def test_nearer_parts_hide_farther_ones():
    red, blue = (
        np.broadcast_to(np.array(c, np.float32), (2, 2, 3)) for c in ([1, 0, 0], [0, 0, 1])
    )
    front = Part("ellipsoid", (0, -0.5, 0), (0.3,) * 3, red, gloss=0.0)
    back = Part("box", (0, 0.5, 0), (0.4,) * 3, blue, gloss=0.0)
    for parts in ([front, back], [back, front]):
        for azimuth, colour in ((0.0, 0), (math.pi, 2)):
            seen = view(parts, rotation(azimuth, 0.0), 40.0, LIGHT)
            assert seen.rgb[seen.half, seen.half].argmax() == colour


@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_family_fills_its_window_without_leaving_it(family):
    for seed in range(3):
        thing = make_thing(np.random.default_rng(seed), family)
        assert max(p.reach for p in thing.parts) == pytest.approx(1.0)
        seen = view(thing.parts, rotation(0.5, 0.4), 30.0, LIGHT)
        edge = np.concatenate([seen.alpha[[0, -1]].ravel(), seen.alpha[:, [0, -1]].ravel()])
        assert not edge.any()
        assert seen.alpha.mean() > 0.04
        assert seen.rgb.min() >= 0
        assert seen.rgb.max() <= 1


def test_a_user_has_distinct_names_and_a_look_alike():
    for seed in range(20):
        things = user_things(np.random.default_rng(seed), 5)
        assert len({t.name for t in things}) == 5
        shapes = [tuple((p.shape, p.centre, p.size) for p in t.parts) for t in things]
        assert shapes[-1] == shapes[0]
        assert len(set(shapes)) == 4
        assert not np.array_equal(things[0].parts[0].texture, things[-1].parts[0].texture)


def magenta_ball():
    return Thing("ball", (Part("ellipsoid", (0, 0, 0), (0.8,) * 3, MAGENTA, gloss=0.0),))


def seen_pixels(image):
    """Pixels of the magenta ball, found by colour alone."""
    r, g, b = (image[..., c].astype(float) for c in range(3))
    return (np.minimum(r, b) > 2.5 * g + 12) & (abs(r - b) < 0.35 * np.maximum(r, b))


def test_bounding_boxes_surround_what_can_be_seen():
    errors = []
    for seed in range(40):
        for frame in record_video(magenta_ball(), [], "clutter", 4, 96, [seed]):
            image, box = frame.image, frame.annotation["object_bounding_box"]
            assert frame.annotation["object_not_present_issue"] == (box is None)
            if box is None:
                continue
            assert 0 <= box["x"] < box["x"] + box["w"] <= BOX_SIZE
            assert 0 <= box["y"] < box["y"] + box["h"] <= BOX_SIZE
            found = ndimage.label(seen_pixels(image))
            sizes = np.bincount(found[0].ravel())[1:]
            if not len(sizes) or sizes.max() < 100:
                continue
            rows, columns = np.nonzero(np.isin(found[0], 1 + np.flatnonzero(sizes > 20)))
            unit = BOX_SIZE / 96
            truth = np.array([box["x"], box["y"], box["x"] + box["w"], box["y"] + box["h"]]) / unit
            ours = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            errors.append(np.abs(truth - ours).max())
    # in pixels of 96; blur smears the ball and bright light clips its colour in some frames
    assert len(errors) > 100
    assert np.median(errors) <= 1.5
    assert np.quantile(errors, 0.9) <= 4


def test_flags_agree_with_the_pixels():
    lap, light, touch = {}, {}, {}
    flags = Counter()
    for seed in range(60):
        for frame in record_video(magenta_ball(), [], "clean", 5, 64, [seed]):
            truth = frame.annotation
            assert next(iter(truth)) == "object_not_present_issue"
            if truth["object_not_present_issue"]:
                assert all(v is None for k, v in truth.items() if k != "object_not_present_issue")
                assert seen_pixels(frame.image).sum() < 30
                continue
            flags.update(k for k, v in truth.items() if v)
            mean = frame.image.mean()
            exposure = (truth["overexposed_issue"], truth["underexposed_issue"])
            light.setdefault(exposure, []).append(mean)
            sharp = ndimage.laplace(frame.image.mean(-1)).std() / mean
            lap.setdefault(truth["blur_issue"], []).append(sharp)
            ball = seen_pixels(frame.image)
            edge = ball[[0, -1]].any() or ball[:, [0, -1]].any()
            touch.setdefault(truth["framing_issue"], []).append(edge or not ball.any())
    assert set(flags) == {
        "framing_issue",
        "viewpoint_issue",
        "blur_issue",
        "occlusion_issue",
        "overexposed_issue",
        "underexposed_issue",
    }
    assert np.median(lap[True]) < 0.6 * np.median(lap[False])
    middle = np.median(light[False, False])
    assert np.median(light[True, False]) > 1.3 * middle
    assert np.median(light[False, True]) < 0.6 * middle
    assert np.mean(touch[True]) > 0.85
    assert np.mean(touch[False]) < 0.4


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return render_tree(tmp_path_factory.mktemp("rendered") / "tree", **SMALL)


def test_tree_reads_as_orbit(tree):
    found = read_orbit(tree)
    assert found.skipped == ()
    counts = Counter((v.split, v.user, v.object, v.condition) for v in found.videos)
    assert len(counts) == 2 * 3 * 2
    assert {(k[:2], k[3], n) for k, n in counts.items()} == {
        ((split, user), condition, n)
        for split, user in (("train", "P001"), ("test", "P002"))
        for condition, n in (("clean", 2), ("clutter", 1))
    }
    for v in found.videos:
        assert len(v.files) == (3 if v.condition == "clean" else 4)
        notes = json.loads((tree / "annotations" / v.split / f"{v.name}.json").read_text())
        assert list(notes) == list(v.files)
        for file in v.files:
            with Image.open(tree / v.path / file) as image:
                assert image.size == (64, 64)
                assert image.mode == "RGB"
    names = [".render.json", "annotations", "test", "train"]
    assert sorted(p.name for p in tree.iterdir()) == names


def contents(tree):
    return {p.relative_to(tree): p.read_bytes() for p in sorted(tree.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("processes", [1, 2])
def test_same_seed_same_bytes_and_other_seed_others(tree, tmp_path, processes):
    again = render_tree(tmp_path / "again", **SMALL, processes=processes)
    assert contents(again) == contents(tree)
    other = render_tree(tmp_path / "other", **{**SMALL, "seed": 5})
    assert set(contents(other)) != set(contents(tree))


class KilledError(Exception):
    pass


def test_a_killed_run_leaves_whole_videos_and_is_resumed(tree, tmp_path, monkeypatch):
    from bayesfs.synthetic.videos import scenes

    drawn, take = [], scenes._take

    def dies(*args):
        drawn.append(1)
        if len(drawn) == 14:
            raise KilledError
        return take(*args)

    path = tmp_path / "tree"
    with monkeypatch.context() as patch:
        patch.setattr(scenes, "_take", dies)
        with pytest.raises(KilledError):
            render_tree(path, **SMALL)
    whole = {p: b for p, b in contents(path).items() if p.parts[0] in ("train", "test")}
    assert whole
    assert whole.items() <= contents(tree).items()
    videos = Counter(p.parent for p in whole)
    assert set(videos.values()) <= {3, 4}
    seen = []
    render_tree(path, **SMALL, progress=lambda done, total, message: seen.append((done, total)))
    assert contents(path) == contents(tree)
    assert seen == [(i, 18) for i in range(19)]


def test_other_settings_or_a_full_folder_are_refused(tree, tmp_path):
    with pytest.raises(DataError, match="other settings"):
        render_tree(tree, **{**SMALL, "size": 32})
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(DataError, match="new or empty folder"):
        render_tree(tmp_path, **SMALL)
    with pytest.raises(DataError, match="clean_videos >= 1, got 0"):
        render_tree(tmp_path / "x", **{**SMALL, "clean_videos": 0})
    with pytest.raises(DataError, match="at least one user"):
        render_tree(tmp_path / "x", **{**SMALL, "train_users": 0, "test_users": 0})
