"""Names and labels that are not there: `refuse_missing`, asked wherever they come in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesfs.errors import DataError

SHOWN = 8
"""Rows that a message names."""


def refuse_missing(
    values: Any, name: str, *, none: bool = False, mend: str = "give each a name"
) -> None:
    """Refuse names that are missing, bytes, and names that are told apart by their kind alone.

    They would become a name such as "nan", or one and the same name, as 1 and "1" would.

    Args:
        values: list, array, Series or tensor of names or labels, one a row.
        name: what the message calls them.
        none: None may stand for what is not known.
        mend: what may be done about such rows, besides leaving them out.

    Raises:
        DataError: some are None, NaN, NaT, `pd.NA` or masked, or are bytes; it numbers the rows. Or
            a number and a text read alike.
    """
    rows = missing_rows(values, none=none)
    if len(rows):
        raise DataError(
            f"expected {name} in every row, found none (None, NaN or NA) in {_counted(rows)}; "
            f"leave these rows out, or {mend}"
        )
    kind = getattr(values, "dtype", None)
    if isinstance(kind, np.dtype) and kind.kind not in "SO":
        return
    column = _objects(values)
    binary = np.flatnonzero([isinstance(v, bytes) for v in column])
    if len(binary):
        raise DataError(
            f"expected {name} as text or numbers, got bytes in {_counted(binary)}; decode them, "
            "such as with numpy.char.decode"
        )
    _refuse_alike(column, name)


def _refuse_alike(column: NDArray[Any], name: str) -> None:
    known: dict[str, Any] = {}
    for value in column:
        other = known.setdefault(str(value), value)
        if isinstance(value, str) != isinstance(other, str):
            raise DataError(
                f"expected {name} as text or as numbers, got {other!r} and {value!r}, which would "
                "be one name; make all of them text, or all numbers"
            )


def refuse_missing_codes(values: Any, name: str) -> None:
    """Refuse integers below 0 as names: codes of what is missing, not of something.

    `pandas.factorize`, `Series.cat.codes` and scikit-learn give -1 to what has no value or label;
    as text it would become one more name, "-1".

    Args:
        values: list, array, Series or tensor of names, one a row.
        name: what the message calls them.

    Raises:
        DataError: some are integers below 0; it numbers the rows.
    """
    kind = getattr(values, "dtype", None)
    if isinstance(kind, np.dtype) and kind.kind in "USbu":
        return
    codes = [isinstance(v, int | np.integer) and v < 0 for v in _objects(values)]
    rows = np.flatnonzero(np.array(codes, bool))
    if len(rows):
        raise DataError(
            f"expected {name} in every row, got the integer {_objects(values)[rows[0]]} in "
            f"{_counted(rows)}, by which pandas and scikit-learn say that there is none; leave "
            "these rows out, or give names as text"
        )


def missing_rows(values: Any, *, none: bool = False) -> NDArray[np.int64]:
    """Rows without a value, from 0; see `refuse_missing`."""
    kind = getattr(values, "dtype", None)
    masked = np.ma.getmaskarray(values) if np.ma.isMaskedArray(values) else False
    if isinstance(kind, np.dtype) and kind.kind in "USbiu":
        return np.flatnonzero(masked)
    import pandas as pd

    column = _objects(values)
    gone = pd.isna(column) | masked
    if none:
        gone &= np.array([v is not None for v in column], dtype=bool)
    return np.flatnonzero(gone)


def _objects(values: Any) -> NDArray[Any]:
    """(row,) the values as they are."""
    plain = values.tolist() if hasattr(values, "detach") else list(values)
    column = np.empty(len(plain), dtype=object)
    for row, value in enumerate(plain):  # at once, rows that are lists would be taken apart
        column[row] = value
    return column


def _counted(rows: NDArray[np.int64]) -> str:
    """The first of the rows, and how many more there are."""
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows[:SHOWN].tolist()))}{more}"
