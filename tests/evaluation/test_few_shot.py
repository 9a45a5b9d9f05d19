from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from sklearn.metrics import roc_auc_score

from bayesfs.data.stills import read_stills, split_classes
from bayesfs.data.store import save_store
from bayesfs.errors import DataError, ShapeError
from bayesfs.evaluation.few_shot import FewShotProtocol
from bayesfs.evaluation.few_shot_scores import (
    few_shot_difference,
    out_of_episode_auroc,
    run_few_shot,
)
from bayesfs.metrics.calibration import ece, mce
from bayesfs.metrics.scores import accuracy, nll
from bayesfs.types import Embeddings, EpisodeBatch, LabelDraws, Predictive

CLASSES = 12


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """12 Gaussian classes with 14 pictures of each of two splits."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(CLASSES), 28)
    feat = rng.normal(size=(CLASSES, 8))[label] * 1.2 + rng.normal(size=(len(label), 8))
    names = np.array([f"thing {k:02d}" for k in range(CLASSES)])
    return {
        "feat": feat.astype(np.float16),
        "label": label.astype(np.int16),
        "split": np.tile([0, 2], len(label) // 2).astype(np.int8),
        "names": names,
    }


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Embeddings:
    path = tmp_path_factory.mktemp("stills") / "features.npz"
    np.savez(path, **arrays())
    return read_stills(path)


def nearest_mean(episodes: EpisodeBatch) -> Predictive:
    mean = episodes.support.mean((2, 3))
    log_prob = (-0.5 * torch.cdist(episodes.query.flatten(1, 2), mean) ** 2).log_softmax(-1)
    frame = log_prob[:, :, None]
    return Predictive(draws_of(frame), draws_of(log_prob))


def draws_of(log_prob: torch.Tensor) -> LabelDraws:
    return LabelDraws(log_prob, log_prob[None], torch.zeros(1, *log_prob.shape[:-1]))


SMALL = FewShotProtocol(way=4, shots=3, queries=6, episodes_per_seed=30, seeds=(0, 1))


def test_episodes_take_support_and_query_from_their_splits(pictures: Embeddings) -> None:
    _, test = split_classes(pictures, 4, seed=0)
    for batch in SMALL.episodes(pictures, test, episodes_per_batch=7):
        assert batch.support_frame is not None
        assert batch.query_frame is not None
        assert set(pictures.coord("split")[batch.support_frame.flatten()]) == {"train"}
        assert set(pictures.coord("split")[batch.query_frame.flatten()]) == {"test"}
        thing = pictures.coord("object")
        for task, names in enumerate(batch.classes):
            assert len(set(names)) == 4
            assert set(names) <= set(test)
            for k, name in enumerate(names):
                assert set(thing[batch.support_frame[task, k].flatten()]) == {name}
                asked = batch.query_frame[task, batch.query_labels[task] == k].flatten()
                assert set(thing[asked]) == {name}
                assert len(set(asked.tolist())) == 6
            other = batch.query_frame[task, batch.query_labels[task] == -1].flatten()
            assert len(set(other.tolist())) == 24
            assert not set(thing[other]) & set(names)


def test_episodes_depend_on_seed_and_number_only(pictures: Embeddings) -> None:
    _, test = split_classes(pictures, 4, seed=0)
    one = list(SMALL.episodes(pictures, test, episodes_per_batch=1))
    many = list(SMALL.episodes(pictures, test, episodes_per_batch=30))
    assert [b.tasks[0] for b in one] == [t for b in many for t in b.tasks]
    assert one[0].tasks == ("0#1",)
    assert one[-1].tasks == ("1#30",)
    assert torch.equal(one[31].query, many[1].query[1:2])
    assert not torch.equal(many[0].query, many[1].query)


def test_same_split_never_asks_a_support_picture(pictures: Embeddings) -> None:
    protocol = FewShotProtocol(
        way=3, shots=10, episodes_per_seed=40, seeds=(0,), query_split="train", outside=0
    )
    for batch in protocol.episodes(pictures, np.unique(pictures.coord("object")).tolist()):
        assert (batch.query_mask.sum((1, 2)) == 12).all(), "14 pictures, 10 of them support"
        for support, query in zip(batch.support_frame, batch.query_frame, strict=True):  # type: ignore[arg-type]
            assert not set(support.flatten().tolist()) & set(query.flatten().tolist())


def test_classes_are_drawn_evenly_and_labels_at_random(pictures: Embeddings) -> None:
    protocol = FewShotProtocol(way=3, episodes_per_seed=400, seeds=(0,), queries=1, outside=0)
    names = np.unique(pictures.coord("object")).tolist()
    drawn = [c for b in protocol.episodes(pictures, names) for c in b.classes]
    for place in range(3):
        count = pd.Series([c[place] for c in drawn]).value_counts()
        assert len(count) == 12
        assert count.min() > 15
        assert count.max() < 55


def test_scores_pool_all_queries_of_known_classes(pictures: Embeddings) -> None:
    _, test = split_classes(pictures, 4, seed=0)
    run = run_few_shot(nearest_mean, pictures, test, SMALL, episodes_per_batch=13)
    logp, labels, single, areas = [], [], [], []
    for batch in SMALL.episodes(pictures, test):
        frame = nearest_mean(batch).frame.log_prob[:, :, 0].numpy()
        y = batch.query_labels.numpy()
        logp.append(frame[y >= 0])
        labels.append(y[y >= 0])
        single += [ece(f, t) for f, t in zip(frame, y, strict=True)]
        areas += [roc_auc_score(t < 0, -f.max(1)) for f, t in zip(frame, y, strict=True)]
    p, y = np.concatenate(logp), np.concatenate(labels)
    table = run.summary(draws=200)
    expected = {
        "accuracy": accuracy(p, y),
        "nll": nll(p, y),
        "ece": ece(p, y),
        "mce": mce(p, y),
        "ece_per_episode": np.mean(single),
        "out_auroc": np.mean(areas),
    }
    assert len(run.rows) == len(y) == 60 * 24
    for score, value in expected.items():
        assert table.loc[score, "estimate"] == pytest.approx(value, abs=1e-6), score
        assert table.loc[score, "low"] < value < table.loc[score, "high"]
    assert (table.loc[["accuracy", "nll"], "class_low"] > 0).all()
    assert (table["seed_sd"].dropna() >= 0).all()
    assert table.loc["accuracy", "estimate"] > 0.5


def test_more_shots_and_fewer_ways_are_easier(pictures: Embeddings) -> None:
    _, test = split_classes(pictures, 4, seed=0)

    def accuracy(shots: int, way: int = SMALL.way) -> float:
        protocol = replace(SMALL, shots=5, way=way)
        run = run_few_shot(nearest_mean, pictures, test, protocol, shots=shots)
        return float(run.summary().loc["accuracy", "estimate"])

    assert accuracy(5) > accuracy(1)
    assert accuracy(5, way=2) > accuracy(5, way=6)
    one = run_few_shot(nearest_mean, pictures, test, SMALL, shots=1)
    three = run_few_shot(nearest_mean, pictures, test, SMALL)
    gap = few_shot_difference(three, one, "nll")
    assert gap.high < 0
    other = run_few_shot(nearest_mean, pictures, test, FewShotProtocol(episodes_per_seed=5))
    with pytest.raises(ShapeError, match="same protocol"):
        few_shot_difference(three, other)


def test_any_score_can_tell_other_classes(pictures: Embeddings) -> None:
    batch = next(SMALL.episodes(pictures, np.unique(pictures.coord("object")).tolist()))
    predictive = nearest_mean(batch)
    perfect = (batch.query_labels < 0).numpy()[..., None].astype(float)
    assert (out_of_episode_auroc(predictive, batch, perfect) == 1).all()
    with pytest.raises(ShapeError, match="score"):
        out_of_episode_auroc(predictive, batch, perfect[..., 0])


def test_meta_train_and_test_classes_are_disjoint(pictures: Embeddings) -> None:
    train, test = split_classes(pictures, 5, seed=3)
    assert (len(train), len(test)) == (5, 7)
    assert not set(train) & set(test)
    assert split_classes(pictures, 5, seed=3) == (train, test) != split_classes(pictures, 5, seed=4)
    with pytest.raises(DataError, match="test on"):
        split_classes(pictures, 11, seed=0)


def test_stills_from_zarr_and_from_a_store(tmp_path: Path, pictures: Embeddings) -> None:
    group = zarr.open_group(tmp_path / "plain.zarr", mode="w")
    for name, value in arrays().items():
        if name != "names":
            group[name] = value
    plain = read_stills(tmp_path / "plain.zarr")
    np.testing.assert_array_equal(plain.features, pictures.features)
    assert sorted(set(plain.coord("object"))) == [f"class-{k:02d}" for k in range(CLASSES)]
    (tmp_path / "plain.zarr" / "feat" / "zarr.json").write_text("{}")
    with pytest.raises(DataError, match=r"plain\.zarr"):
        read_stills(tmp_path / "plain.zarr")
    save_store(tmp_path / "store.zarr", pictures)
    store = read_stills(tmp_path / "store.zarr")
    np.testing.assert_array_equal(store.coord("object"), pictures.coord("object"))


def damaged(path: Path) -> None:
    np.savez(path, **arrays())
    path.write_bytes(path.read_bytes()[:-300])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: np.savez(p, label=np.arange(3)), "features"),
        (lambda p: np.savez(p, feat=np.zeros((3, 2))), "label"),
        (lambda p: np.savez(p, feat=np.zeros((3, 2)), label=np.arange(4)), "one per picture"),
        (lambda p: np.savez(p, feat=np.zeros(3), label=np.arange(3)), "picture, feature"),
        (lambda p: np.savez(p, feat=np.full((3, 2), np.nan), label=np.arange(3)), "NaN"),
        (
            lambda p: np.savez(p, feat=np.zeros((3, 2)), label=np.arange(3), names=["a", "b"]),
            "one per name",
        ),
        (
            lambda p: np.savez(p, feat=np.zeros((3, 2)), label=np.arange(3), split=[0, 1, 7]),
            "splits 0, 1, 2",
        ),
        (
            lambda p: np.savez(p, feat=np.zeros((3, 2)), label=np.array([1, "a", None], object)),
            "Python objects",
        ),
        (lambda p: p.write_bytes(b"not a file of arrays"), "cannot read"),
        (damaged, "cannot read"),
        (lambda p: None, "found nothing"),
    ],
)
def test_bad_files_are_named(write: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    write(path)
    with pytest.raises(DataError, match=message) as error:
        read_stills(path)
    assert "bad.npz" in str(error.value)


def test_bad_protocols_are_refused(pictures: Embeddings) -> None:
    with pytest.raises(DataError, match="shots"):
        FewShotProtocol(shots=0)
    with pytest.raises(DataError, match="distinct seeds"):
        FewShotProtocol(seeds=(1, 1))
    with pytest.raises(DataError, match="at least 5 classes with 20 pictures"):
        next(FewShotProtocol(shots=20).episodes(pictures, ["thing 00", "thing 01"]))
    with pytest.raises(DataError, match="unknown"):
        next(FewShotProtocol().episodes(pictures, ["nothing"]))
