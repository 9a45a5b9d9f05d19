"""Rows of a data frame, of pandas, polars and whatever else narwhals reads: `read_table`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bayesfs.errors import DataError
from bayesfs.types.level_names import LevelNames
from bayesfs.types.missing import refuse_missing, refuse_missing_codes

JOIN = " / "
"""Between the names of group, label and cluster, where a cluster's own is not unique."""


class Table(NamedTuple):
    """Columns of a table, rows of one cluster together.

    Attributes:
        features: (row, feature) double precision.
        names: coordinate of the Embeddings -> (row,) text.
        columns: names of the features.
        levels: what the data call the levels.
    """

    features: NDArray[np.float64]
    names: Mapping[str, NDArray[np.str_]]
    columns: tuple[str, ...]
    levels: LevelNames


def read_table(
    frame: Any,
    *,
    label: str,
    group: str | None,
    cluster: str | None,
    features: Sequence[str] | None,
    split: str | None,
) -> Table:
    """Arguments as of `Embeddings.from_dataframe`."""
    import narwhals as nw  # scikit-learn brings it; not every analysis reads a table

    try:
        table = nw.from_native(frame, eager_only=True)
    except TypeError as error:
        raise DataError(
            f"expected a data frame of pandas, polars or another library, got "
            f"{type(frame).__name__}; arrays go to Embeddings.from_arrays"
        ) from error
    except nw.exceptions.DuplicateError as error:
        raise DataError(f"expected a column of each name, got several: {error}") from error
    named = {"label": label, "group": group, "cluster": cluster, "split": split}
    given = {role: name for role, name in named.items() if name is not None}
    wanted = features
    if wanted is None:
        numeric = [
            name for name, kind in table.schema.items() if kind.is_numeric() or kind == nw.Boolean
        ]
        wanted = [name for name in numeric if name not in given.values()]
        rest = [name for name in table.columns if name not in (*wanted, *given.values())]
        _tell_numbers_as_text([name for name in rest if _is_number_text(table[name].to_list())])
    if isinstance(wanted, str):
        raise DataError(f"expected features as a list of columns, got the text {wanted!r}")
    missing = [name for name in (*given.values(), *wanted) if name not in table.columns]
    if missing:
        raise DataError(f"expected columns {missing}, got {table.columns[:20]}")
    if not wanted or not len(table):
        raise DataError(f"expected rows with features, got {len(table)} rows of {list(wanted)}")
    text = {role: _text(table[name].to_list(), name) for role, name in given.items()}
    x = np.stack([_numbers(table[name], name) for name in wanted], axis=1)
    return _sorted(x, text, tuple(wanted), _levels(label, group, cluster))


def _levels(label: str, group: str | None, cluster: str | None) -> LevelNames:
    """The columns' own names; without one, a word that no other level has."""
    used = {label, group, cluster}
    spare = [word for word in ("group", "cluster", "row", "item") if word not in used]
    group = group or spare.pop(0)
    spare = [word for word in spare if word != group]
    cluster = cluster or next(word for word in spare if word != "row")
    row = next(word for word in ("row", "observation") if word not in (label, group, cluster))
    return LevelNames(label, group, cluster, row, recorded=False)


def _text(values: list[Any], name: str) -> NDArray[np.str_]:
    refuse_missing(values, name)
    refuse_missing_codes(values, name)
    return np.array([str(value) for value in values], dtype=str)


def _is_number_text(values: list[Any]) -> bool:
    """Whether all are text that says a number."""
    if not all(isinstance(value, str) for value in values):
        return False
    try:
        return bool(np.isfinite(np.array(values, str).astype(np.float64)).all()) and bool(values)
    except ValueError:
        return False


def _tell_numbers_as_text(names: Sequence[str]) -> None:
    if names:
        warnings.warn(
            f"no features are made of {', '.join(map(repr, names))}, which hold numbers as text; "
            "if they are measurements, make them numbers (pandas: .astype(float))",
            stacklevel=4,  # the caller of from_dataframe
        )


def _numbers(column: Any, name: str) -> NDArray[np.float64]:
    """A column as numbers.

    Raises:
        DataError: it is none of numbers, or some are missing or infinite.
    """
    if not (column.dtype.is_numeric() or str(column.dtype) == "Boolean"):
        raise DataError(
            f"expected numbers in the column {name!r}, got {column.dtype}; "
            "code categories as 0 and 1, or leave the column out with features=[...]"
        )
    refuse_missing(column.to_list(), name, mend="fill them in")
    values = np.asarray(column.to_list(), dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise DataError(f"the column {name!r} is infinite in rows {bad[:8].tolist()}")
    return values


def _sorted(
    x: NDArray[np.float64],
    text: dict[str, NDArray[np.str_]],
    columns: tuple[str, ...],
    levels: LevelNames,
) -> Table:
    """Rows of one cluster together, in the order of their first rows."""
    count = len(x)
    group = text.get("group", np.full(count, "all"))
    cluster = text.get("cluster", np.array([str(i) for i in range(count)]))
    whole = [JOIN.join(row) for row in zip(group, text["label"], cluster, strict=True)]
    _, first, place = np.unique(np.array(whole), return_index=True, return_inverse=True)
    unique = len(set(cluster.tolist())) == len(first)
    order = np.argsort(first[place], kind="stable")
    names = {
        "user": group,
        "object": text["label"],
        "video": cluster if unique else np.array(whole),
        "condition": np.full(count, "clean"),
        "split": text.get("split", np.full(count, "train")),
    }
    return Table(x[order], {k: v[order] for k, v in names.items()}, columns, levels)
