"""The device's recogniser says what the model's closed form says, at a fraction of its time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch

from bayesfs.deploy.memory import Memory
from bayesfs.deploy.products import in_single
from bayesfs.deploy.recogniser import KEPT, Recogniser, recall, teach
from bayesfs.errors import DataError, InferenceError
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.features.projection import Projection
from bayesfs.inference.exact import Exact, thin_population
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.gaussian.families import CovarianceFamily, Full, PowerLaw
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.study import Learnt, Study
from bayesfs.types import EpisodeBatch, Posterior
from bayesfs.uncertainty.decompose import decompose_draws

WIDE, DIM = 20, 6
RNG = np.random.default_rng(0)
VIDEOS = {
    f"o{k}": [centre + RNG.normal(size=(3, WIDE)) / 2 for _ in range(1 + k)]
    for k in range(3)
    for centre in [4 + RNG.normal(size=WIDE)]
}
QUERY = VIDEOS["o2"][0] + RNG.normal(size=(3, WIDE)) / 2


def setting(family: CovarianceFamily, draws: int = 64) -> tuple[Study, Learnt]:
    axes = np.linalg.qr(np.random.default_rng(1).normal(size=(WIDE, DIM)))[0]
    projection = Projection(np.full((2, WIDE), 0.2), axes, np.full(DIM, DIM**-0.5))
    model = GaussianHierarchy(family=family)
    with torch.random.fork_rng():
        pyro.set_rng_seed(0)
        like = torch.zeros(1, DIM, dtype=torch.float64)
        sites = [model.sample_population(like) for _ in range(4)]
    population = {name: torch.stack([s[name].detach() for s in sites]) for name in sites[0]}
    learnt = Posterior("variational", population, model.population_dims)
    study = Study(model, Exact(draws=draws, population_draws=4), HeldOutUsers())
    return study, Learnt(projection, learnt)


def as_episode(learnt: Learnt) -> EpisodeBatch:
    """The same support and query as a batch of one task, by hand."""
    support = torch.zeros(1, 3, 3, 3, DIM, dtype=torch.float64)
    mask = torch.zeros(1, 3, 3, 3, dtype=torch.bool)
    for k, videos in enumerate(VIDEOS.values()):
        for v, video in enumerate(videos):
            support[0, k, v] = torch.from_numpy(learnt.projection.of_features(video, "clean"))
            mask[0, k, v] = True
    query = torch.from_numpy(learnt.projection.of_features(QUERY, "clutter"))[None, None].double()
    return EpisodeBatch(
        support,
        mask,
        torch.zeros(1, 3, 3, dtype=torch.long),
        query,
        torch.ones(1, 1, 3, dtype=torch.bool),
        torch.ones(1, 1, dtype=torch.long),
        torch.full((1, 1), 2),
    )


@pytest.mark.parametrize("family", [PowerLaw(), Full()])
def test_the_model_s_own_predictive(family: CovarianceFamily) -> None:
    study, learnt = setting(family, draws=4000)
    taught = teach(study, learnt, VIDEOS)
    assert isinstance(study.model, GaussianHierarchy)
    population = thin_population(study.model, learnt.population, 4)
    want = study.model.predictive(as_episode(learnt), population, draws=1000, seed=0)
    video, frames = taught.video(QUERY), [taught.frame(x) for x in QUERY]
    torch.testing.assert_close(video.prob, want.video.prob[0, 0], rtol=1e-9, atol=1e-12)
    for f, found in enumerate(frames):
        torch.testing.assert_close(found.prob, want.frame.prob[0, 0, f], rtol=1e-9, atol=1e-12)
    epistemic = decompose_draws(want.frame)[2][0, 0]
    for f, found in enumerate(frames):
        assert found.epistemic == pytest.approx(float(epistemic[f]), rel=0.1, abs=0.01)
        assert found.total == pytest.approx(found.aleatoric + found.epistemic)
    assert video.epistemic == pytest.approx(
        float(decompose_draws(want.video)[2][0, 0]), rel=0.1, abs=0.01
    )


def test_the_draws_average_to_the_predictive() -> None:
    """The law of total probability: label draws and the closed form are two routes to one p."""
    study, learnt = setting(PowerLaw(), draws=8000)
    for found in (teach(study, learnt, VIDEOS).frame(x) for x in QUERY):
        average = found.labels.log_prob_given.exp().mean(0)
        torch.testing.assert_close(average, found.prob, rtol=0.0, atol=0.02)


def test_the_order_of_objects_only_permutes() -> None:
    study, learnt = setting(PowerLaw())
    one = teach(study, learnt, VIDEOS).video(QUERY)
    other = teach(study, learnt, dict(reversed(VIDEOS.items()))).video(QUERY)
    torch.testing.assert_close(one.prob, other.prob.flip(0))


def test_what_is_prepared_is_made_once() -> None:
    taught = teach(*setting(PowerLaw()), VIDEOS)
    assert taught.prepare() is taught.prepare("clutter", 1)
    assert taught.prepare("clean", 2) is not taught.prepare()
    assert isinstance(taught, Recogniser)
    assert taught.classes == ("o0", "o1", "o2")
    assert in_single({"left": 1}) == {"left": 1}


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        ({}, "at least one video"),
        ({"a": []}, "at least one video"),
        ({"a": [np.ones((2, 3))]}, "another backbone"),
        ({"a": [np.full((2, WIDE), np.nan)]}, "NaN"),
        ({"a": [np.zeros((2, WIDE))]}, "all zero"),
    ],
)
def test_bad_features_are_told(videos: dict[str, list[np.ndarray]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        teach(*setting(PowerLaw()), videos)


def test_another_engine_is_refused() -> None:
    study, learnt = setting(PowerLaw())
    with pytest.raises(InferenceError, match="for others"):
        teach(replace(study, engine=SVI(steps=1)), learnt, VIDEOS)
    measured = replace(study, model=GaussianHierarchy(covariates=("blur",)))
    with pytest.raises(InferenceError, match="covariates"):
        teach(measured, learnt, VIDEOS)


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_a_stream_says_what_single_frames_say(at_once: int) -> None:
    taught = teach(*setting(PowerLaw()), VIDEOS)
    frames = np.concatenate([QUERY, VIDEOS["o1"][0]])
    pieces = list(taught.stream(iter([frames[:4], frames[4:]]), at_once=at_once))
    for name in ("prob", "total", "aleatoric", "epistemic"):
        joined = torch.cat([getattr(piece, name) for piece in pieces])
        single = torch.stack([torch.as_tensor(getattr(taught.frame(x), name)) for x in frames])
        torch.testing.assert_close(joined, single.to(joined), rtol=1e-4, atol=1e-5)


def test_products_of_few_lengths_are_kept() -> None:
    taught = teach(*setting(PowerLaw()), VIDEOS)
    first = taught.video(QUERY)
    for frames in range(1, 12):
        taught.video(np.resize(QUERY, (frames, WIDE)))
    assert len(taught._made) == KEPT
    np.testing.assert_array_equal(taught.video(QUERY).prob, first.prob)
    with pytest.raises(DataError, match="condition"):
        taught.frame(QUERY[0], condition="foggy")


def test_an_object_without_a_frame_is_refused_and_one_frame_is_a_video() -> None:
    study, learnt = setting(PowerLaw())
    with pytest.raises(DataError, match="o9"):
        teach(study, learnt, {**VIDEOS, "o9": [np.zeros((0, WIDE))]})
    flat = {name: [video[0] for video in each] for name, each in VIDEOS.items()}
    deep = {name: [video[:1] for video in each] for name, each in VIDEOS.items()}
    one, other = (teach(study, learnt, videos).video(QUERY).prob for videos in (flat, deep))
    np.testing.assert_array_equal(one, other)


STUDY, LEARNT = setting(PowerLaw())
TAUGHT = teach(STUDY, LEARNT, VIDEOS)


def anew(videos: dict[str, list[Any]]) -> Recogniser:
    return teach(STUDY, LEARNT, videos)


def assert_same(one: Recogniser, other: Recogniser) -> None:
    """Probabilities by the names of objects, both kinds of doubt, and the log evidence."""
    assert set(one.classes) == set(other.classes)
    assert one.log_evidence == pytest.approx(other.log_evidence, rel=0.0, abs=1e-8)
    for a, b in (
        (one.video(QUERY), other.video(QUERY)),
        (one.frame(QUERY[0]), other.frame(QUERY[0])),
    ):
        place = [other.classes.index(name) for name in one.classes]
        torch.testing.assert_close(a.prob, b.prob[place], rtol=0.0, atol=1e-8)
        assert a.aleatoric == pytest.approx(b.aleatoric, rel=0.0, abs=1e-6)
        assert a.epistemic == pytest.approx(b.epistemic, rel=0.0, abs=1e-6)


def test_adding_is_teaching_it_all() -> None:
    fewer = {"o0": VIDEOS["o0"], "o2": VIDEOS["o2"][:1]}
    more = anew(fewer).add({"o1": VIDEOS["o1"]}).add({"o2": VIDEOS["o2"][1:]})
    assert_same(more, TAUGHT)
    assert more.memory.names == ("o0/1", "o2/1", "o1/1", "o1/2", "o2/2", "o2/3")


def test_correcting_is_having_taught_it_right() -> None:
    wrong = {**VIDEOS, "o0": [*VIDEOS["o0"], VIDEOS["o2"][2]], "o2": VIDEOS["o2"][:2]}
    assert_same(anew(wrong).correct("o0/2", "o2"), TAUGHT)
    new = TAUGHT.correct("o2/3", "cup")
    assert_same(new, anew({**VIDEOS, "o2": VIDEOS["o2"][:2], "cup": VIDEOS["o2"][2:]}))


def shifted(videos: list[np.ndarray]) -> list[np.ndarray]:
    """The same recordings as a person films them who asks otherwise than they teach."""
    shift = np.random.default_rng(2).normal(size=WIDE)
    return [video + 2.0 * shift for video in videos]


ASKED = {"o1": shifted(VIDEOS["o1"][:1]), "o2": shifted(VIDEOS["o2"][:2])}


def test_correcting_what_was_asked_is_having_taught_it_as_asked() -> None:
    """In any order, under any name first; and forgotten, nothing of it is left."""
    want = TAUGHT.add(ASKED, "clean", asked=True)
    wrong = {"o1": [*ASKED["o1"], ASKED["o2"][1]], "o2": ASKED["o2"][:1]}
    grown = TAUGHT.add(wrong, "clean", asked=True).correct("o1/4", "o2")
    assert_same(grown, want)
    assert_same(anew(dict(reversed(VIDEOS.items()))).add(ASKED, "clean", asked=True), want)
    less = grown
    for name in set(grown.memory.names) - set(TAUGHT.memory.names):
        less = less.forget(name)
    assert_same(less, TAUGHT)


def test_how_a_person_asks_is_learnt_from_what_they_asked() -> None:
    """Queries filmed like what was asked and named are told, and draws average to the answer."""
    study, learnt = setting(PowerLaw(), draws=8000)
    means = learnt.projection.means + [[0.0], [0.5]] * np.random.default_rng(3).normal(size=WIDE)
    learnt = replace(learnt, projection=replace(learnt.projection, means=means))
    before = teach(study, learnt, VIDEOS)
    after = before.add(ASKED, "clean", asked=True)
    right = [
        [
            taught.video(video, "clean").prob[taught.classes.index(name)]
            for taught in (before, after)
        ]
        for name, videos in VIDEOS.items()
        for video in shifted(videos)
    ]
    nll = -torch.tensor(right).log().mean(0)
    assert nll[1] < nll[0]
    found = after.frame(shifted([QUERY])[0][0], "clean")
    average = found.labels.log_prob_given.exp().mean(0)
    torch.testing.assert_close(average, found.prob, rtol=0.0, atol=0.02)


def test_forgetting_a_video_or_an_object_is_never_having_taught_it() -> None:
    assert_same(TAUGHT.forget("o2/2"), anew({**VIDEOS, "o2": [VIDEOS["o2"][0], VIDEOS["o2"][2]]}))
    assert_same(TAUGHT.forget("o1"), anew({k: v for k, v in VIDEOS.items() if k != "o1"}))


def test_renaming_changes_no_number() -> None:
    renamed = TAUGHT.rename("o1", "mug")
    assert renamed.classes == ("o0", "mug", "o2")
    assert torch.equal(renamed.video(QUERY).prob, TAUGHT.video(QUERY).prob)


def test_merging_counts_what_both_know_once() -> None:
    one, other = (
        anew({"o0": VIDEOS["o0"], "o2": VIDEOS["o2"][:2]}),
        anew({"o1": VIDEOS["o1"], "o2": VIDEOS["o2"][1:]}),
    )
    assert_same(one.merge(other), TAUGHT)
    assert len(set(one.merge(other).memory.names)) == 6
    with pytest.raises(DataError, match="the same run"):
        one.merge(teach(STUDY, elsewhere(), VIDEOS))


def elsewhere() -> Learnt:
    """Another run's projection."""
    projection = replace(LEARNT.projection, means=np.full((2, WIDE), 0.3))
    return replace(LEARNT, projection=projection)


def test_it_is_kept_and_recalled(tmp_path: Path) -> None:
    TAUGHT.save(tmp_path / "mine.npz")
    again = recall(STUDY, LEARNT, tmp_path / "mine.npz")
    assert again.memory.names == TAUGHT.memory.names
    assert torch.equal(again.video(QUERY).prob, TAUGHT.video(QUERY).prob)
    more = TAUGHT.add(ASKED, asked=True)
    more.save(tmp_path / "more.npz")
    again = recall(STUDY, LEARNT, tmp_path / "more.npz")
    assert torch.equal(again.video(QUERY).prob, more.video(QUERY).prob)
    with pytest.raises(DataError, match="another run"):
        recall(STUDY, elsewhere(), tmp_path / "mine.npz")
    with pytest.raises(DataError, match="no such file"):
        recall(STUDY, LEARNT, tmp_path / "none.npz")
    whole = (tmp_path / "mine.npz").read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 30):
        (tmp_path / "cut.npz").write_bytes(whole[:cut])
        with pytest.raises(DataError, match="cut short"):
            Memory.load(tmp_path / "cut.npz", TAUGHT.teacher.fingerprint)


def test_parts_that_disagree_are_refused(tmp_path: Path) -> None:
    video = TAUGHT.memory.videos[0]
    path, of = tmp_path / "m.npz", "run"
    for bad in (
        Memory((video, video)),  # a name twice
        Memory((type(video)("a", "a", "foggy", video.frames),)),
        Memory((type(video)("a", "a", "clean", np.full_like(video.frames, np.nan)),)),
    ):
        bad.save(path, of)
        with pytest.raises(DataError, match="no memory that bayesfs wrote"):
            Memory.load(path, of)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.correct("o0/9", "o1"), "did you mean 'o0/1'"),
        (lambda t: t.correct("o0/1", ""), "the name of an object"),
        (lambda t: t.forget("keys"), "an object or a video"),
        (lambda t: t.forget("o1").forget("o2").forget("o0"), "something to be left"),
        (lambda t: t.rename("o1", "o2"), "expected a new name"),
        (lambda t: t.add({}), "at least one video"),
        (lambda t: t.add({"o1": [np.zeros((0, WIDE))]}), "at least one video"),
        (lambda t: t.add({"o1": [np.ones((2, 3))]}), "another backbone"),
    ],
)
def test_what_cannot_be_done_is_told(change: Any, message: str) -> None:
    before = TAUGHT.memory
    with pytest.raises(DataError, match=message):
        change(TAUGHT)
    assert TAUGHT.memory is before
