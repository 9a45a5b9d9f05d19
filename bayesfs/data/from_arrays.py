"""Episodes from plain arrays (`make_episode`), and joining batches of episodes (`stack`)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from bayesfs.errors import DataError, ShapeError
from bayesfs.types import CONDITIONS, UNLABELLED, EpisodeBatch, refuse_missing
from bayesfs.types.episodes import NAMES

_PAD = {"query_labels": UNLABELLED, "support_frame": -1, "query_frame": -1}
_CELLS = (
    "support",
    "support_mask",
    "support_condition",
    "query",
    "query_mask",
    "query_condition",
    "query_labels",
    "support_quality",
    "query_quality",
    "support_frame",
    "query_frame",
    "untaught",
)


def stack(batches: Sequence[EpisodeBatch]) -> EpisodeBatch:
    """Join batches along the task axis, padding way, shots, videos and frames to common sizes.

    Quality, frame rows and names are kept where every batch has them.

    Args:
        batches: at least one batch; features, dtype and device must agree.

    Raises:
        ShapeError: there is no batch, or numbers of features or covariates differ.
    """
    if not batches:
        raise ShapeError("expected at least one batch of episodes, got none")
    if len({b.dim for b in batches}) > 1:
        raise ShapeError(
            f"expected batches with one number of features, got {[b.dim for b in batches]}; were "
            "the features made by the same backbone?"
        )
    joined: dict[str, Any] = {}
    for name in _CELLS:
        values = [getattr(b, name) for b in batches]
        if name == "untaught" and any(v is not None for v in values):
            values = [_none_untaught(b) if b.untaught is None else b.untaught for b in batches]
        joined[name] = None if any(v is None for v in values) else _cat(values, name)
    for name in NAMES:
        named = [getattr(b, name) for b in batches]
        joined[name] = sum(named, ()) if all(named) else ()
    joined["levels"] = batches[0].levels
    columns = {b.columns for b in batches}
    joined["columns"] = columns.pop() if len(columns) == 1 else ()
    return EpisodeBatch.of_own(**joined)


def _none_untaught(batch: EpisodeBatch) -> Tensor:
    return torch.zeros_like(batch.way_mask)


def _cat(values: Sequence[Tensor], name: str) -> Tensor:
    sizes = [max(column) for column in zip(*(v.shape[1:] for v in values), strict=True)]
    if name.endswith("_quality") and len({v.shape[-1] for v in values}) > 1:
        raise ShapeError(f"expected one number of covariates, got {[v.shape for v in values]}")
    return torch.cat([_padded(v, sizes, _PAD.get(name, 0)) for v in values])


def _padded(value: Tensor, sizes: Sequence[int], fill: int) -> Tensor:
    missing = [want - have for want, have in zip(sizes, value.shape[1:], strict=True)]
    if not any(missing):
        return value
    widths = [w for m in reversed(missing) for w in (0, m)]
    if value.dtype is torch.bool:
        return pad(value.to(torch.uint8), widths).bool()
    return pad(value, widths, value=fill)


def make_episode(
    support_features: Any,  # (n, feature)
    support_labels: Sequence[Hashable],  # (n,)
    support_videos: Sequence[Hashable] | None,  # (n,)
    query_features: Any,  # (m, feature)
    query_videos: Sequence[Hashable] | None = None,  # (m,)
    query_labels: Sequence[Hashable] | None = None,  # (m,)
    *,
    support_condition: str = "clean",
    query_condition: str = "clutter",
    support_quality: Any | None = None,  # (n, covariate)
    query_quality: Any | None = None,  # (m, covariate)
    task: str = "task",
) -> EpisodeBatch:
    """One task from plain arrays, one row per frame.

    Args:
        support_features: (n, feature) array or tensor; its dtype and device are kept.
        support_labels: class of each support frame, of any sortable type.
        support_videos: video of each support frame; None makes every frame a video of its own,
            which says that the frames are independent given their class.
        query_features: (m, feature) array or tensor.
        query_videos: video of each query frame; None makes every frame a video of its own.
        query_labels: class of each query frame, equal within a video; None or -1 where unknown.
        support_condition: condition of all support videos, one of `CONDITIONS`.
        query_condition: condition of all query videos.
        support_quality: (n, covariate) measured quality, or None.
        query_quality: (m, covariate) measured quality, or None.
        task: name of the task.

    Returns:
        EpisodeBatch of one task; classes are the sorted support labels, videos stand in order of
        first appearance.

    Raises:
        ShapeError: an array is not two-dimensional or lengths differ.
        DataError: a query label is not a support label, a video has two labels, or a label or
            video is None, NaN or NA (None only where a query label is not known).

    Example:
        >>> one = make_episode([[0.0], [1.0]], ["keys", "mug"], None, [[0.9]])
        >>> one.classes
        (('keys', 'mug'),)
    """
    x, z = _table(support_features, "support_features"), _table(query_features, "query_features")
    labels = _column(support_labels, len(x), "support_labels")
    _refuse_unlabelled(labels)
    classes = sorted(set(labels))
    taught = _column(support_videos, len(x), "support_videos")
    _require_one_label(taught, labels, "support")
    cells = _support_cells(labels, taught, classes)
    queried = _column(query_videos, len(z), "query_videos")
    names = list(dict.fromkeys(queried))
    query_cells = _numbered([(names.index(v),) for v in queried])
    support_mask = _scatter(x.new_ones(len(x), 1), cells)[..., 0].bool()
    query_mask = _scatter(z.new_ones(len(z), 1), query_cells)[..., 0].bool()
    truth = _query_truth(query_labels, queried, names, classes)
    return EpisodeBatch.of_own(
        support=_scatter(x, cells)[None],
        support_mask=support_mask[None],
        support_condition=_conditions(support_condition, support_mask),
        query=_scatter(z, query_cells)[None],
        query_mask=query_mask[None],
        query_condition=_conditions(query_condition, query_mask),
        query_labels=torch.tensor([truth], device=z.device),
        support_quality=_quality(support_quality, cells, "support_quality"),
        query_quality=_quality(query_quality, query_cells, "query_quality"),
        tasks=(task,),
        classes=(tuple(str(c) for c in classes),),
        videos=(tuple(str(v) for v in names),),
    )


def _table(values: Any, name: str) -> Tensor:
    table = torch.as_tensor(values)
    if table.ndim != 2 or not len(table):
        raise ShapeError(f"expected {name} of shape (frame, n), got {tuple(table.shape)}")
    return table if table.is_floating_point() else table.to(torch.get_default_dtype())


def _column(
    values: Sequence[Hashable] | None, length: int, name: str, *, none: bool = False
) -> list[Any]:
    column = list(range(length)) if values is None else _as_list(values)
    if len(column) != length:
        raise ShapeError(f"expected {length} {name}, one per frame, got {len(column)}")
    if values is not None:
        refuse_missing(values, name, none=none)
    return column


def _refuse_unlabelled(labels: list[Any]) -> None:
    rows = [i for i, label in enumerate(labels) if label == UNLABELLED]
    if rows:
        raise DataError(
            f"expected a class of every support frame, got {UNLABELLED}, which says that none is "
            f"known, in rows {rows[:8]} ({len(rows)} in all); leave these rows out"
        )


def _require_one_label(videos: list[Any], labels: list[Any], part: str) -> dict[Any, Any]:
    """The label of each video.

    Raises:
        DataError: a video has two.
    """
    found: dict[Any, Any] = {}
    for video, label in zip(videos, labels, strict=True):
        if found.setdefault(video, label) != label:
            raise DataError(
                f"{part} video {video!r} has two labels, {found[video]!r} and {label!r}; a video "
                "shows one object: are its names unique across classes?"
            )
    return found


def _as_list(values: Any) -> list[Any]:
    return values.tolist() if hasattr(values, "tolist") else list(values)


def _support_cells(labels: list[Any], videos: list[Any], classes: list[Any]) -> Tensor:
    """(n, 3) class, shot and frame of each support frame."""
    shots: dict[Any, dict[Any, int]] = {c: {} for c in classes}
    pairs = zip(labels, videos, strict=True)
    return _numbered([(classes.index(c), shots[c].setdefault(v, len(shots[c]))) for c, v in pairs])


def _numbered(places: Sequence[tuple[int, ...]]) -> Tensor:
    """Append to each place the number of earlier frames there."""
    seen: dict[tuple[int, ...], int] = {}
    rows = []
    for place in places:
        seen[place] = seen.get(place, -1) + 1
        rows.append((*place, seen[place]))
    return torch.tensor(rows)


def _scatter(values: Tensor, cells: Tensor) -> Tensor:
    """Rows (n, k) at cells (n, axes) of an otherwise zero tensor (*axes, k)."""
    out = values.new_zeros(*(cells.amax(0) + 1).tolist(), values.shape[1])
    return out.index_put(tuple(cells.to(values.device).T), values)


def _conditions(condition: str, frame_mask: Tensor) -> Tensor:
    if condition not in CONDITIONS:
        raise DataError(f"expected a condition out of {CONDITIONS}, got {condition!r}")
    return torch.full_like(frame_mask[None, ..., 0], CONDITIONS.index(condition), dtype=torch.long)


def _quality(values: Any | None, cells: Tensor, name: str) -> Tensor | None:
    if values is None:
        return None
    table = _table(values, name)
    if len(table) != len(cells):
        raise ShapeError(f"expected {len(cells)} rows of {name}, one per frame, got {len(table)}")
    return _scatter(table, cells)[None]


def _query_truth(
    labels: Sequence[Hashable] | None, videos: list[Any], names: list[Any], classes: list[Any]
) -> list[int]:
    """Label index of each query video."""
    column = [None] * len(videos)
    if labels is not None:
        column = _column(labels, len(videos), "query_labels", none=True)
    found = _require_one_label(videos, column, "query")
    unlabelled = (None, UNLABELLED)
    strange = [v for v in found.values() if v not in classes and v not in unlabelled]
    if strange:
        raise DataError(
            f"query label {strange[0]!r} is not among the support's classes {classes[:10]}; use "
            "None for an object that was not taught"
        )
    return [classes.index(found[n]) if found[n] in classes else UNLABELLED for n in names]
