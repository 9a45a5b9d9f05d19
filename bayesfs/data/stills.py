"""Labelled features of still pictures as `Embeddings`, for few-shot benchmarks: `read_stills`.

Each still is a video of one frame. Splits are of pictures; `split_classes` parts the classes into
those to learn a population from and those to test on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesfs._utils.guarded_files import fixed_width, opened_npz
from bayesfs.data.store import MAX_LOAD, open_store
from bayesfs.data.zarr_limits import bytes_of, open_listed
from bayesfs.errors import DataError
from bayesfs.types import Embeddings, refuse_missing

ALIASES = {
    "features": ("feat", "features", "embeddings", "X", "x"),
    "labels": ("label", "labels", "targets", "y"),
    "split": ("split", "splits"),
    "names": ("names", "classes", "class_names"),
}
"""Names under which arrays are looked for."""

SPLITS = ("train", "validation", "test")
"""Meaning of splits 0, 1 and 2."""


def read_stills(path: str | Path) -> Embeddings:
    """Read features, labels and splits of still pictures.

    Args:
        path: an .npz file or a Zarr group with arrays `feat` (picture, feature), `label`
            (picture,) of integers from 0 or names, optionally `split` (picture,) of 0, 1, 2 or
            names, and `names` (class,) of the classes; or a feature store written by bayesfs.
            Nothing in it is unpickled.

    Returns:
        Embeddings of one user "stills" with one frame per video; `object` is the class. Without
        `split` all pictures are "train".

    Raises:
        DataError: the file cannot be read, an array is missing or of another length, or a feature
            is not finite.
    """
    where = Path(path)
    if not where.exists():
        raise DataError(f"expected a feature file or Zarr folder at {str(where)!r}, found nothing")
    if all((where / name).is_dir() for name in Embeddings.REQUIRED):
        return open_store(where)
    return _embeddings(_read_zarr(where) if where.is_dir() else _read_npz(where), where)


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with opened_npz(path, MAX_LOAD) as file:
            return {key: file[key] for key in _wanted(file.files)}
    except (ValueError, OSError, KeyError, EOFError, AttributeError) as error:
        raise DataError(
            f"cannot read {str(path)!r} as an .npz file: {error}; arrays of Python objects are "
            "refused, store names as text"
        ) from error
    except Exception as error:  # zipfile and zlib raise their own kinds on damaged files
        raise DataError(f"cannot read {str(path)!r} as an .npz file: {error}") from error


def _read_zarr(path: Path) -> dict[str, NDArray[Any]]:
    try:
        group = open_listed(path)
        found: dict[str, Any] = {key: group[key] for key in _wanted(list(group.array_keys()))}
        size = bytes_of(found.values())
        if size <= MAX_LOAD and all(a.dtype.kind in "fiuUbT" for a in found.values()):
            read = {key: np.asarray(value[...]) for key, value in found.items()}
            return {k: fixed_width(v) if v.dtype.kind == "T" else v for k, v in read.items()}
    except Exception as error:  # codecs and metadata raise many kinds on damaged folders
        raise DataError(f"cannot read {str(path)!r} as a Zarr group: {error}") from error
    kinds = {key: str(value.dtype) for key, value in found.items()}
    raise DataError(
        f"{str(path)!r}: expected arrays of numbers and text of at most {MAX_LOAD} bytes, got "
        f"{size} bytes of {kinds}"
    )


def _wanted(found: list[str]) -> list[str]:
    return [key for keys in ALIASES.values() for key in keys if key in found]


def _embeddings(arrays: Mapping[str, NDArray[Any]], path: Path) -> Embeddings:
    features, labels = (_find(arrays, kind, path) for kind in ("features", "labels"))
    split = _find(arrays, "split", path) if _has(arrays, "split") else np.zeros(len(labels), int)
    if features.ndim != 2 or features.dtype.kind not in "fiu":
        raise DataError(
            f"{str(path)!r}: expected features (picture, feature) of numbers, got "
            f"{features.dtype} of shape {features.shape}"
        )
    for name, column in (("label", labels), ("split", split)):
        if column.shape != features.shape[:1]:
            raise DataError(
                f"{str(path)!r}: expected {len(features)} values of {name}, one per picture, got "
                f"shape {column.shape}"
            )
    names = _find(arrays, "names", path) if _has(arrays, "names") else None
    try:
        _refuse_unnamed(labels, "label")
        refuse_missing(split, "split")
        if names is not None:
            _refuse_unnamed(names, "names")
        return Embeddings.from_arrays(
            features,
            object=_class_names(labels, names, path).tolist(),
            user="stills",
            split=_split_names(split, path).tolist(),
        )
    except DataError as error:
        raise DataError(f"{str(path)!r}: {error}") from error


def _refuse_unnamed(labels: NDArray[Any], name: str) -> None:
    """Refuse labels that name no class: missing, bytes, below 0, or blank.

    Raises:
        DataError: some do; the message numbers their rows.
    """
    refuse_missing(labels, name)
    numbered = labels.dtype.kind in "iuf"
    blank = labels < 0 if numbered else np.char.strip(labels.astype(str)) == ""
    if blank.any():
        rows = np.flatnonzero(blank)
        raise DataError(
            f"expected a class in every row of {name}, got {labels[rows[0]].item()!r} in rows "
            f"{rows[:8].tolist()} ({len(rows)} in all); pictures without a label are left out "
            "before the file is written"
        )


def _has(arrays: Mapping[str, NDArray[Any]], kind: str) -> bool:
    return any(key in arrays for key in ALIASES[kind])


def _find(arrays: Mapping[str, NDArray[Any]], kind: str, path: Path) -> NDArray[Any]:
    for key in ALIASES[kind]:
        if key in arrays:
            return arrays[key]
    raise DataError(f"{str(path)!r}: expected an array named one of {ALIASES[kind]}, got none")


def _class_names(labels: NDArray[Any], names: NDArray[Any] | None, path: Path) -> NDArray[np.str_]:
    if labels.dtype.kind not in "iu":
        return fixed_width(labels)
    if names is None:
        width = len(str(max(int(labels.max(initial=0)), 0)))
        return np.array([f"class-{int(k):0{width}d}" for k in labels])
    if (labels < 0).any() or (labels >= len(names)).any():
        raise DataError(
            f"{str(path)!r}: expected labels 0..{len(names) - 1}, one per name, got "
            f"{int(labels.min())}..{int(labels.max())}"
        )
    if len(set(names.astype(str).tolist())) < len(names):
        raise DataError(f"{str(path)!r}: expected distinct class names, some occur twice")
    return np.asarray(names.astype(str)[labels])


def _split_names(split: NDArray[Any], path: Path) -> NDArray[np.str_]:
    if split.dtype.kind not in "iu":
        return split.astype(str)
    if (split < 0).any() or (split >= len(SPLITS)).any():
        raise DataError(
            f"{str(path)!r}: expected splits 0, 1, 2 ({', '.join(SPLITS)}), got "
            f"{np.unique(split).tolist()[:10]}"
        )
    return np.asarray(np.array(SPLITS)[split])


def split_classes(
    embeddings: Embeddings, meta_train: int, *, seed: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Part the classes at random into meta-train classes and test classes, which share none.

    Args:
        embeddings: the pictures.
        meta_train: number of classes to learn from; at least 2 are left to test on.
        seed: of the parting.

    Returns:
        Names of the meta-train classes and of the test classes, both sorted.

    Raises:
        DataError: there are too few classes.
    """
    names = np.unique(embeddings.coord("object"))
    if not 1 <= meta_train <= len(names) - 2:
        raise DataError(
            f"expected 1 to {len(names) - 2} meta-train classes, so that two of {len(names)} are "
            f"left to test on, got {meta_train}"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    train, test = np.sort(names[order[:meta_train]]), np.sort(names[order[meta_train:]])
    return tuple(train.tolist()), tuple(test.tolist())
