"""Features that were made elsewhere, told apart by the names of frames: `PrecomputedFeatures`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesfs._utils.guarded_files import fixed_width, opened_npz
from bayesfs.data.store import MAX_LOAD
from bayesfs.data.zarr_limits import bytes_of, open_listed
from bayesfs.errors import DataError
from bayesfs.features.backbones.naming import BackboneName, file_digest

PX = 160
"""Side of the frames that quality is measured on and thumbnails are made of."""

NUMBER = "frame_number"
"""Optional column: number of a frame within its video."""

NETWORK = "backbone"
"""Optional text: which network made the features."""

MEMBERS = ("features", "path", NUMBER, NETWORK)


class PrecomputedFeatures:
    """Features of the frames of a tree, made by whatever network; fulfils `NamesFrames`.

    Quality is still measured on the frames themselves, which must be where they were.

    Args:
        path: an npz file or a Zarr group (a feature store is one) with the arrays `features`
            (frame, feature) and `path` (frame,), and of video files `frame_number` (frame,); or a
            parquet file with a row a frame, columns `path` and `frame_number`, and a column of
            numbers for each feature. Paths are of frames, or of video files, below the tree. A text
            `backbone` (array, attribute of a group, or column) names the network; features of other
            files by the same name are taken for the same. Nothing is unpickled.

    Raises:
        DataError: it cannot be read, an array is missing, names repeat, or a feature is not finite.
    """

    batch = 64

    def __init__(self, path: Path) -> None:
        self.path, self.px = path, PX
        arrays = _read(path)
        features, names = arrays["features"], arrays["path"]
        numbers = arrays.get(NUMBER)
        if features.ndim != 2 or names.shape != features.shape[:1] or not len(names):
            raise DataError(
                f"{path}: expected features (frame, feature) and a path for each, got "
                f"{features.shape} and {names.shape}"
            )
        if features.dtype.kind not in "fiu" or not np.isfinite(features).all():
            raise DataError(f"{path}: expected finite numbers for features")
        self._features = features.astype(np.float32)
        self.dim = int(features.shape[1])
        at = [-1] * len(names) if numbers is None else numbers.astype(np.int64).tolist()
        self._row = {key: row for row, key in enumerate(zip(names.tolist(), at, strict=True))}
        if len(self._row) < len(names):
            raise DataError(
                f"{path}: {len(names) - len(self._row)} frames have the name of another; frames of "
                f"a video file need the column {NUMBER!r} besides"
            )
        self._numbered = numbers is not None
        self.name = str(arrays[NETWORK]) if NETWORK in arrays else _name_of_file(path)

    def of_frames(self, paths: Sequence[str], numbers: Sequence[int]) -> NDArray[np.float32]:
        """(frame, feature) of frames by their names.

        Args:
            paths: of each frame, or of its video file, below the tree.
            numbers: of each frame in its video.

        Raises:
            DataError: one is not in the file.
        """
        at = numbers if self._numbered else [-1] * len(paths)
        keys = list(zip(paths, at, strict=True))
        missing = [key for key in keys if key not in self._row]
        if missing:
            where, number = missing[0]
            told = f", frame {number}," if self._numbered else ""
            known = next(iter(self._row))[0]
            raise DataError(
                f"{self.path}: has no features of {where!r}{told} and {len(missing) - 1} more; it "
                f"has such as {known!r}. Were they made from another tree, or with other names?"
            )
        return self._features[[self._row[key] for key in keys]]

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Refused: pictures without names.

        Raises:
            DataError: always.
        """
        raise DataError(
            f"{self.path}: these features were made elsewhere, and other pictures cannot be "
            "embedded by them; make features of those too and name both: --backbone features:FILE"
        )


def _name_of_file(path: Path) -> str:
    """The name of features of which nothing else is known: they are those of this file."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return BackboneName(f"features:{path.stem}", file_digest(*files), None, None, PX).text


def _read(path: Path) -> Mapping[str, NDArray[Any]]:
    """Arrays features and path, and frame_number where there is one."""
    if not path.exists():
        raise DataError(f"{str(path)!r}: expected features in an npz, zarr or parquet, found none")
    if path.is_dir():
        arrays = _of_zarr(path)
    elif path.suffix == ".parquet":
        arrays = _of_parquet(path)
    else:
        arrays = _of_npz(path)
    lacking = [name for name in ("features", "path") if name not in arrays]
    if lacking:
        raise DataError(f"{path}: expected the arrays 'features' and 'path', missing {lacking}")
    return {**arrays, "path": fixed_width(arrays["path"])}


def _of_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with opened_npz(path, MAX_LOAD) as file:
            return {n: file[n] for n in MEMBERS if n in file.files}
    except Exception as error:  # zipfile and zlib raise their own kinds on damaged files
        raise DataError(f"{path}: cannot be read as an npz file: {str(error)[:200]}") from error


def _of_zarr(path: Path) -> dict[str, NDArray[Any]]:
    try:
        group = open_listed(path)
        found: dict[str, Any] = {n: group[n] for n in MEMBERS[:3] if n in group.array_keys()}
        size = bytes_of(found.values())
        if size > MAX_LOAD or any(a.dtype.kind not in "fiuUT" for a in found.values()):
            raise DataError(f"expected numbers and text of at most {MAX_LOAD} bytes, got {size}")
        name = group.attrs.get(NETWORK)
        named = {NETWORK: np.array(name)} if isinstance(name, str) else {}
        return {**named, **{name: np.asarray(value[...]) for name, value in found.items()}}
    except Exception as error:  # codecs and metadata raise many kinds on damaged folders
        raise DataError(f"{path}: cannot be read as a Zarr group: {str(error)[:200]}") from error


def _of_parquet(path: Path) -> dict[str, NDArray[Any]]:
    try:
        polars = importlib.import_module("polars")
    except ImportError as error:
        raise DataError(f"{path}: parquet files need polars: pip install polars") from error
    try:
        table = polars.read_parquet(path)
        told = {n: table[n].to_numpy() for n in MEMBERS[1:] if n in table.columns}
        if len(set(told.get(NETWORK, [""]))) != 1:
            raise DataError(f"expected one {NETWORK!r} in all rows")
        numbers = [n for n in table.columns if n not in told and table[n].dtype.is_numeric()]
        named = {NETWORK: told[NETWORK][0]} if NETWORK in told else {}
        return {**told, **named, "features": table.select(numbers).to_numpy()}
    except Exception as error:  # polars has many kinds
        raise DataError(f"{path}: cannot be read as parquet: {str(error)[:200]}") from error
