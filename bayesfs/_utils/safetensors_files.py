"""Named arrays and a text in one safetensors file, as model hubs share them: `write_safetensors`.

    8 bytes n, little-endian | n bytes of JSON: name -> dtype, shape, [start, end) | the arrays

The reader takes nothing on trust: every array must lie within the file, end where its shape says
and share no byte with another, and nothing is decoded before that is known.

Source: the format's own description, https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesfs._utils.guarded_files import read_bytes
from bayesfs.errors import DataError

KINDS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "U8": "|u1", "I64": "<i8"}
"""Name of the format -> NumPy's."""

METADATA = "__metadata__"


def write_safetensors(
    path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Write arrays of the `KINDS`, and texts by name."""
    names = {np.dtype(kind): name for name, kind in KINDS.items()}
    header: dict[str, Any] = {METADATA: dict(metadata)}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        kind = names[array.dtype.newbyteorder("<")]
        header[name] = {"dtype": kind, "shape": [*array.shape], "data_offsets": [start, end]}
    text = json.dumps(header, allow_nan=False).encode()
    text += b" " * (-len(text) % 8)  # arrays begin at a multiple of 8, as the format recommends
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(array.astype(array.dtype.newbyteorder("<")).tobytes())


def read_safetensors(path: Path, most: int) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Arrays and texts by name.

    Args:
        path: of a file of at most `most` bytes.
        most: bytes.

    Raises:
        DataError: a larger file, or one that is not as the format says.
        OSError: there is none, or it may not be read.
    """
    data = read_bytes(path, most)
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise DataError(f"{path}: no safetensors file, or cut short")
    buffer = memoryview(data)[8 + size :]
    try:
        header = json.loads(data[8 : 8 + size])
        texts = {str(k): str(v) for k, v in header.pop(METADATA, {}).items()}
        arrays, end = {}, 0
        for name, told in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            dtype, shape = np.dtype(KINDS[told["dtype"]]), tuple(map(int, told["shape"]))
            start, stop = map(int, told["data_offsets"])
            whole = min(shape, default=1) >= 0 and stop - start == dtype.itemsize * math.prod(shape)
            if not (whole and start == end and stop <= len(buffer)):
                raise ValueError(f"{name!r} is {stop - start} bytes from {start} of {len(buffer)}")
            arrays[name] = np.frombuffer(buffer[start:stop], dtype).reshape(shape)
            end = stop
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: no safetensors file, or damaged ({error})") from error
    if end != len(buffer):
        raise DataError(f"{path}: {len(buffer) - end} bytes behind the arrays")
    return arrays, texts
