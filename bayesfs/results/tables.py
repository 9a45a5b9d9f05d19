"""Predictions of very many tasks in one Zarr store, a group a batch: `task_table`, `read_tables`.

    results.zarr/shots-05/batch-000012

A DataTree (`bayesfs.results.assemble`) keeps everything known about some tasks, draws included;
a table keeps a few kilobytes a user: probabilities, uncertainty by kind, names, sums of scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
import zarr

from bayesfs.data.zarr_files import check_zarr, create_array
from bayesfs.errors import DataError
from bayesfs.types import user_of

if TYPE_CHECKING:
    from torch import Tensor

    from bayesfs.types import EpisodeBatch, Predictive

PARTS = ("total", "aleatoric", "epistemic")
"""Kinds of uncertainty, in nats."""

ADDITIVE_SCORES = ("accuracy", "nll", "brier")
"""Scores that are means over rows, so that sums of them can be added up."""


def batch_path(results: Path, shots: int, number: int) -> Path:
    """Where the table of a batch is in a store of results."""
    return results / f"shots-{shots:02d}" / f"batch-{number:06d}"


def task_table(predictive: Predictive, said: xr.Dataset, episodes: EpisodeBatch) -> xr.Dataset:
    """What is kept of a batch of tasks: no draws, no features, no padding.

    Args:
        predictive: of the tasks' queries.
        said: `decompose(predictive, episodes)`.
        episodes: the tasks.

    Returns:
        Dataset over `task`, `video` (query videos of all tasks) and `frame` (their frames) with
        the names, `video_prob` and `frame_prob` over (..., way), total, aleatoric and epistemic
        in nats, and `scored` (task, unit, score): sums over the task's labelled rows, and their
        number last.
    """
    masks = {"video": episodes.video_mask.cpu().numpy(), "frame": episodes.query_mask.cpu().numpy()}
    labels = episodes.query_labels.cpu().numpy()
    task, video = np.nonzero(masks["video"])
    f_task, f_video, f_frame = np.nonzero(masks["frame"])
    place = np.cumsum(masks["video"].ravel()).reshape(masks["video"].shape) - 1
    wide = [[*c, *[""] * (episodes.way - len(c))] for c in episodes.classes]
    data: dict[str, tuple[tuple[str, ...], Any]] = {
        "task": (("task",), np.array(episodes.tasks, np.str_)),
        "class_name": (("task", "way"), np.array(wide, np.str_)),
        "video_name": (("video",), _of(episodes.videos, task, video)),
        "video_task": (("video",), task.astype(np.int32)),
        "video_label": (("video",), labels[task, video].astype(np.int32)),
        "frame_video": (("frame",), place[f_task, f_video].astype(np.int32)),
        "frame_number": (("frame",), f_frame.astype(np.int32)),
    }
    scored = []
    for unit, at in (("video", (task, video)), ("frame", (f_task, f_video, f_frame))):
        prob = getattr(predictive, unit).log_prob.double().exp().cpu().numpy()
        data[f"{unit}_prob"] = ((unit, "way"), prob[at].astype(np.float32))
        for part in PARTS:
            values = said[f"{unit}_{part}"].values[at]
            data[f"{unit}_{part}"] = ((unit,), values.astype(np.float32))
        scored.append(_scored(getattr(predictive, unit).log_prob, masks[unit], labels))
    data["scored"] = (("task", "unit", "score"), np.stack(scored, 1))
    return xr.Dataset({k: v for k, v in data.items() if k != "task"}, {"task": data["task"]})


def _of(names: Sequence[Sequence[str]], task: Any, video: Any) -> Any:
    return np.array([names[t][v] for t, v in zip(task.tolist(), video.tolist(), strict=True)])


def _scored(log_prob: Tensor, mask: Any, labels: Any) -> Any:
    """(task, 4) sums of accuracy, NLL and Brier score over labelled rows, and their number."""
    logp = log_prob.double().cpu().numpy().reshape(*mask.shape, -1)
    label = labels.reshape(*labels.shape, *[1] * (mask.ndim - 2)) + np.zeros(mask.shape, int)
    known, axes = mask & (label >= 0), tuple(range(1, mask.ndim))
    own = np.take_along_axis(logp, label.clip(min=0)[..., None], -1)[..., 0]
    hit = logp.argmax(-1) == label
    brier = np.square(np.exp(logp)).sum(-1) - 2 * np.exp(own) + 1
    columns = [np.where(known, v, 0.0).sum(axes) for v in (hit, -own, brier, np.ones(own.shape))]
    return np.stack(columns, -1)


def join_tables(tables: Sequence[xr.Dataset]) -> xr.Dataset:
    """Tables of consecutive batches as one; missing classes have probability 0 and no name."""
    way, joined, tasks, videos = max(t.sizes["way"] for t in tables), [], 0, 0
    for table in tables:
        wide = table.pad(way=(0, way - table.sizes["way"]), constant_values=0)
        names = np.full((table.sizes["task"], way), "", table["class_name"].dtype)
        names[:, : table.sizes["way"]] = table["class_name"].values
        wide = wide.assign(
            class_name=(("task", "way"), names),
            video_task=table["video_task"] + tasks,
            frame_video=table["frame_video"] + videos,
        )
        joined.append(wide)
        tasks, videos = tasks + table.sizes["task"], videos + table.sizes["video"]
    variables: dict[str, Any] = {}
    for name, first in joined[0].variables.items():
        values = np.concatenate([t[name].values for t in joined])
        variables[str(name)] = (first.dims, values)
    return xr.Dataset(
        {k: v for k, v in variables.items() if k != "task"}, {"task": variables["task"]}
    )


def write_table(table: xr.Dataset, path: Path) -> None:
    """A table as one Zarr group, with a checksum of every chunk."""
    group = zarr.create_group(path, zarr_format=3)
    for name, variable in table.variables.items():
        dims = tuple(str(d) for d in variable.dims)
        rows = max(1, variable.shape[0])
        array = create_array(group, str(name), variable.dtype, variable.shape, dims, rows)
        array[:] = variable.values
    group.attrs["coordinates"] = "task"


def read_tables(results: Path, shots: int) -> Iterator[xr.Dataset]:
    """Tables of the batches at a number of shots, in order of the users, one at a time.

    Raises:
        DataError: a table is damaged.
    """
    for path in sorted(batch_path(results, shots, 0).parent.glob("batch-*")):
        try:
            check_zarr(path)
            with xr.open_zarr(path, chunks=None, consolidated=False, zarr_format=3) as table:
                yield table.load()
        except Exception as error:  # zarr, numcodecs and xarray have many kinds for damaged bytes
            raise DataError(f"{path}: cannot be read ({error}); changed since?") from error


def scored_users(results: Path, shots: int) -> list[str]:
    """Names of the users with a labelled query, in order.

    Raises:
        DataError: a table is damaged.
    """
    names = [
        user_of(str(task))
        for table in read_tables(results, shots)
        for task in table["task"].values[table["scored"].values[:, 0, -1] > 0]
    ]
    return list(dict.fromkeys(names))
