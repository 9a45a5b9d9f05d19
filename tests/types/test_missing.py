"""A name that is missing never becomes the name "nan", and is merged with no other, at any door."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from bayesfs.data.from_arrays import make_episode
from bayesfs.data.stills import read_stills
from bayesfs.errors import DataError
from bayesfs.evaluation.orbit_scores import orbit_metrics
from bayesfs.metrics.score_table import group_scores, statistics, table_of_rows
from bayesfs.sklearn import BayesianFewShotClassifier
from bayesfs.types import Embeddings, refuse_missing

X = np.random.default_rng(0).normal(size=(6, 2))
Y = ["a", "a", "a", "b", "b", "b"]
NAMES = ["p", "q", "r", "s", "t", "u"]
MISSING = [None, float("nan"), np.nan, pd.NA, pd.NaT, np.datetime64("NaT")]


def holed(values: list[Any], hole: Any) -> list[Any]:
    """The values with rows 1 and 4 missing."""
    return [hole if i in (1, 4) else v for i, v in enumerate(values)]


def test_names_that_read_alike_are_refused() -> None:
    """1 and "1" were one class, without a word."""
    doors: tuple[Callable[[Any], Any], ...] = (
        lambda names: BayesianFewShotClassifier().fit(X, names, NAMES),
        lambda names: BayesianFewShotClassifier().fit(X, Y, names),
        lambda names: Embeddings.from_arrays(X, object=names),
        lambda names: Embeddings.from_dataframe(
            pd.DataFrame({"x": X[:, 0], "label": pd.Series(names, dtype=object)}), label="label"
        ),
    )
    for door in doors:
        with pytest.raises(DataError, match="1 and '1', which would be one name"):
            door([1, "1", "a", "a", "b", "b"])


def test_numbers_kept_as_text_are_told() -> None:
    frame = pd.DataFrame({"x": X[:, 0], "y": [str(v) for v in X[:, 1]], "label": Y, "note": NAMES})
    with pytest.warns(UserWarning, match="no features are made of 'y'"):
        assert Embeddings.from_dataframe(frame, label="label").features.shape == (6, 1)


def fitted() -> BayesianFewShotClassifier:
    return BayesianFewShotClassifier().fit(X, Y, NAMES)


DOORS: dict[str, Callable[[Any], Any]] = {
    "estimator, labels": lambda m: BayesianFewShotClassifier().fit(X, holed(Y, m), NAMES),
    "estimator, groups": lambda m: BayesianFewShotClassifier().fit(X, Y, holed(NAMES, m)),
    "estimator, groups asked": lambda m: fitted().predict_proba(X, holed(NAMES, m)),
    "estimator, groups of an answer": lambda m: fitted().answer(X, holed(NAMES, m)),
    "estimator, true labels": lambda m: fitted().answer(X, NAMES, holed(Y, m)),
    "embeddings, object": lambda m: Embeddings.from_arrays(X, object=holed(Y, m)),
    "embeddings, video": lambda m: Embeddings.from_arrays(X, object=Y, video=holed(NAMES, m)),
    "embeddings, user": lambda m: Embeddings.from_arrays(X, object=Y, user=holed(NAMES, m)),
    "embeddings, split": lambda m: Embeddings.from_arrays(X, object=Y, split=holed(NAMES, m)),
    "embeddings, condition": lambda m: Embeddings.from_arrays(
        X, object=Y, condition=holed(["clean"] * 6, m)
    ),
    "episode, labels": lambda m: make_episode(X, holed(Y, m), None, X),
    "episode, videos": lambda m: make_episode(X, Y, holed(NAMES, m), X),
    "episode, query videos": lambda m: make_episode(X, Y, None, X, holed(NAMES, m)),
}


@pytest.mark.parametrize("hole", MISSING, ids=repr)
@pytest.mark.parametrize("door", DOORS)
def test_missing_names_are_refused_with_their_rows(door: str, hole: Any) -> None:
    with pytest.raises(DataError, match=r"none \(None, NaN or NA\) in rows 1, 4;"):
        DOORS[door](hole)


@pytest.mark.parametrize("door", DOORS)
def test_bytes_are_no_names(door: str) -> None:
    with pytest.raises(DataError, match="got bytes in rows 1, 4;"):
        DOORS[door](b"a")


@pytest.mark.parametrize(
    "column",
    [
        np.array(holed(Y, None), dtype=object),
        np.array([1.0, np.nan, 2.0, 1.0, np.nan, 2.0]),
        np.ma.masked_array([1, 2, 3, 4, 5, 6], mask=[0, 1, 0, 0, 1, 0]),
        pd.Series(holed(Y, None), dtype="string"),
        pd.Series(holed([1, 2, 3, 4, 5, 6], pd.NA), dtype="Int64"),
        pd.Series(holed(Y, None), dtype="category"),
        torch.tensor([1.0, float("nan"), 2.0, 1.0, float("nan"), 2.0]),
    ],
    ids=lambda c: type(c).__name__ + str(c.dtype),
)
def test_any_kind_of_column_is_looked_at(column: Any) -> None:
    for door in (
        lambda: refuse_missing(column, "labels"),
        lambda: Embeddings.from_arrays(X, object=column),
        lambda: make_episode(X, column, None, X),
        lambda: BayesianFewShotClassifier().fit(X, column, NAMES),
    ):
        with pytest.raises(DataError, match="rows 1, 4"):
            door()


def test_labels_in_a_table_of_one_column_are_looked_at() -> None:
    with pytest.raises(DataError, match="rows 1, 4"):
        BayesianFewShotClassifier().fit(X, pd.DataFrame({"y": holed(Y, None)}), NAMES)


def test_embeddings_from_a_dataset_are_looked_at() -> None:
    ds = Embeddings.from_arrays(X, object=Y).dataset
    bad = ds.assign_coords(object=("frame", np.array(holed(Y, np.nan), dtype=object)))
    with pytest.raises(DataError, match="object in every row"):
        Embeddings(bad)


def test_query_labels_may_be_unknown_but_not_missing() -> None:
    known = make_episode(X, Y, None, X, query_labels=holed(Y, None))
    assert known.query_labels.tolist() == [[0, -1, 0, 1, -1, 1]]
    for hole in MISSING[1:]:
        with pytest.raises(DataError, match="query_labels in every row"):
            make_episode(X, Y, None, X, query_labels=holed(Y, hole))


def test_a_support_video_with_two_labels_is_refused() -> None:
    with pytest.raises(DataError, match="support video 'q' has two labels, 'a' and 'b'"):
        make_episode(X, Y, ["p", "p", "q", "q", "r", "r"], X)


def test_support_without_a_label_is_no_class() -> None:
    with pytest.raises(DataError, match=r"got -1, .*in rows \[1, 4\]"):
        make_episode(X, holed([0, 0, 0, 1, 1, 1], -1), None, X)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"label": np.array([0, -1, 0, 1, -1, 1])}, r"got -1 in rows \[1, 4\]"),
        ({"label": np.array([0, np.nan, 0, 1, np.nan, 1])}, "rows 1, 4"),
        ({"label": np.array([b"a", b"\xff", b"a", b"b", b"b", b"b"])}, "got bytes in rows 0, 1"),
        ({"label": np.array(["a", "", "a", "b", " ", "b"])}, r"got '' in rows \[1, 4\]"),
        (
            {"label": np.array([0, -1, 0, 1, -1, 1]), "names": np.array(["a", "b"])},
            r"got -1 in rows \[1, 4\]",
        ),
        ({"label": np.array([0, 0, 0, 1, 1, 1]), "names": np.array([b"a", b"b"])}, "names as text"),
        ({"label": np.array([0, 0, 0, 1, 1, 1]), "split": np.full(6, b"test")}, "split as text"),
    ],
)
def test_pictures_without_a_label_are_no_class(
    arrays: dict[str, Any], message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "bad.npz", feat=X, **arrays)
    with pytest.raises(DataError, match=message) as error:
        read_stills(tmp_path / "bad.npz")
    assert "bad.npz" in str(error.value)


def rows_without_a_user() -> pd.DataFrame:
    """Scored rows of eight users and of two rows that are nobody's."""
    user: list[str | None] = [f"P{i // 2}" for i in range(16)]
    user[1] = user[4] = None
    fill = np.linspace(0.5, 0.9, 16)
    columns = dict.fromkeys(("confidence", "nll", "brier"), fill)
    return pd.DataFrame({"user": user, "object": "mug", "video": "v", "correct": 1.0, **columns})


def test_rows_of_nobody_are_not_counted_as_somebodys() -> None:
    rows = rows_without_a_user()
    for door in (
        lambda: statistics(rows),
        lambda: table_of_rows({"frame": rows}),
        lambda: group_scores(rows, "user"),
        lambda: orbit_metrics(rows),
    ):
        with pytest.raises(DataError, match=r"user in every row, found none .* rows 1, 4"):
            door()


CODES: dict[str, Any] = {
    "pandas.factorize": pd.factorize(np.array(["a", None, "a", "b", None, "b"], dtype=object))[0],
    "cat.codes": pd.Series(["a", None, "a", "b", None, "b"]).astype("category").cat.codes,
    "list": [0, -1, 0, 1, -1, 1],
    "objects": np.array([0, -1, 0, 1, -1, 1], dtype=object),
}


@pytest.mark.parametrize("column", ["object", "video", "user"])
@pytest.mark.parametrize("codes", CODES)
def test_codes_of_what_is_missing_are_no_names(codes: str, column: str) -> None:
    columns = {"object": Y, "video": NAMES, column: CODES[codes]}
    with pytest.raises(DataError, match=r"got the integer -1 in rows 1, 4, by which pandas"):
        Embeddings.from_arrays(X, **columns)


def test_codes_in_a_dataset_are_looked_at() -> None:
    dataset = Embeddings.from_arrays(X, object=Y).dataset
    with pytest.raises(DataError, match="object in every row, got the integer -1"):
        Embeddings(dataset.assign_coords(object=("frame", [0, -1, 0, 1, -1, 1])))


def test_text_may_look_like_a_code() -> None:
    assert Embeddings.from_arrays(X, object=["-1"] * 6).coord("object").tolist() == ["-1"] * 6
    assert Embeddings.from_arrays(X, object=[0, 1] * 3).coord("object").tolist() == ["0", "1"] * 3
