"""Small JSON files that bayesfs itself keeps, read with the same care as others': `read_json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bayesfs._utils.guarded_files import read_text
from bayesfs.errors import DataError


@contextmanager
def read_json(path: Path) -> Iterator[Any]:
    """What a file holds; whatever fails while it is read or taken apart names the file.

    Args:
        path: of the file.

    Raises:
        DataError: the file is no JSON, or does not hold what the caller looks for in it.

    Example:
        >>> with read_json(Path("scores.json")) as found:  # doctest: +SKIP
        ...     users = int(found["users"])
    """
    try:
        yield json.loads(read_text(path))
    except (
        KeyError,
        TypeError,
        ValueError,  # a DataError and damaged JSON are such, too
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise DataError(f"{path}: not what bayesfs wrote there ({error})") from error
