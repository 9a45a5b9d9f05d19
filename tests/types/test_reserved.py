"""Columns of a data frame whose names the results need for themselves, and others that are odd."""

import pandas as pd
import pytest
import torch

from bayesfs.errors import DataError
from bayesfs.results.convert import to_datatree
from bayesfs.types import Embeddings, Posterior


def frame(**columns: list[object]) -> pd.DataFrame:
    rows = {"class": ["a", "b", "a"], "school": "s", "x": [1.0, 2.0, 3.0]}
    return pd.DataFrame({**rows, **columns})


@pytest.mark.parametrize("name", ["chain", "draw", "feature", "level"])
def test_a_level_named_as_an_axis_is_refused(name: str) -> None:
    table = frame().rename(columns={"school": name})
    with pytest.raises(DataError, match=f"{name}_name"):
        Embeddings.from_dataframe(table, label="class", group=name)


def test_a_column_named_label_is_a_label() -> None:
    table = frame().rename(columns={"class": "label"})
    assert Embeddings.from_dataframe(table, label="label", group="school").levels.label == "label"


def test_two_columns_of_a_name_are_told() -> None:
    table = frame()
    table.columns = ["class", "school", "school"]
    with pytest.raises(DataError, match="each name"):
        Embeddings.from_dataframe(table, label="class", group="school")


def test_columns_of_yes_and_no_are_features() -> None:
    table = frame(tall=[True, False, True])
    found = Embeddings.from_dataframe(table, label="class", group="school")
    assert found.features[:, -1].tolist() == [1.0, 0.0, 1.0]


def test_arviz_sums_up_sites_with_an_axis_over_names() -> None:
    import arviz_stats

    draws = {"x": torch.randn(50, 3, generator=torch.Generator().manual_seed(0))}
    tree = to_datatree(Posterior("exact", draws, {"x": ("class_name",)}))
    assert len(arviz_stats.summary(tree)) == 3
