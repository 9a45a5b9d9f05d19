"""Labels and padding of the axes of a batch of tasks, as xarray wants them.

`task_labels`, `class_names`, `common_classes` and `video_names` name them; `query_index` lists what
is not padding; `without_padding` writes NaN over the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from bayesfs._utils.arrays import numpy_of
from bayesfs.types import EpisodeBatch


def query_index(episodes: EpisodeBatch) -> xr.Dataset:
    """Where the labelled query videos and their frames are in the padded arrays.

    Returns:
        Dataset with `task`, `video`, `label` over `query` and `frame_task`, `frame_video`, `frame`,
        `frame_label` over `query_frame`; the coordinates hold "task / video" and "... / frame".
    """
    labelled = (episodes.query_labels >= 0) & episodes.video_mask
    task, video = (a.cpu().numpy() for a in torch.nonzero(labelled, as_tuple=True))
    frames = episodes.query_mask & labelled[..., None]
    f_task, f_video, frame = (a.cpu().numpy() for a in torch.nonzero(frames, as_tuple=True))
    labels = episodes.query_labels.cpu().numpy()
    names = task_labels(episodes)
    videos = video_names(episodes)
    query = [f"{names[t]} / {videos[t, v]}" for t, v in zip(task, video, strict=True)]
    at = zip(f_task, f_video, frame, strict=True)
    rows = [f"{names[t]} / {videos[t, v]} / {f}" for t, v, f in at]
    return xr.Dataset(
        {
            "task": ("query", task),
            "video": ("query", video),
            "label": ("query", labels[task, video]),
            "frame_task": ("query_frame", f_task),
            "frame_video": ("query_frame", f_video),
            "frame": ("query_frame", frame),
            "frame_label": ("query_frame", labels[f_task, f_video]),
        },
        coords={"query": strings(query), "query_frame": strings(rows)},
    )


def task_labels(episodes: EpisodeBatch) -> NDArray[np.str_]:
    """(task,) names of the tasks, or their numbers."""
    return strings([episodes.task_name(t) for t in range(len(episodes))])


def class_names(episodes: EpisodeBatch) -> NDArray[np.str_]:
    """(task, way) class names, the empty string for padding."""
    given = episodes.classes or [[f"class {i}" for i in range(episodes.way)]] * len(episodes)
    return _padded(given, episodes.way_mask)


def common_classes(episodes: EpisodeBatch) -> NDArray[np.str_] | None:
    """(way,) names of the classes where they are the same in every task, else None."""
    names = class_names(episodes)
    return names[0] if (names == names[0]).all() else None


def video_names(episodes: EpisodeBatch) -> NDArray[np.str_]:
    """(task, video) names of the query videos, the empty string for padding."""
    count = episodes.query.shape[1]
    given = episodes.videos or [[f"video {i}" for i in range(count)]] * len(episodes)
    return _padded(given, episodes.video_mask)


def strings(values: Sequence[str]) -> NDArray[np.str_]:
    """An array of strings, also when there are none."""
    return np.asarray(list(values), dtype=str)


def draw_array(draws: NDArray[Any], chains: int, dims: Sequence[str]) -> xr.DataArray:
    """(chain * draw, ...) as a DataArray (chain, draw, *dims) with integer coordinates."""
    count = draws.shape[0] // chains
    values = draws.reshape(chains, count, *draws.shape[1:])
    coords = {"chain": np.arange(chains), "draw": np.arange(count)}
    return xr.DataArray(values, dims=("chain", "draw", *dims), coords=coords)


def _padded(names: Sequence[Sequence[str]], mask: Tensor) -> NDArray[np.str_]:
    """Names (task, item), blank where the mask is False."""
    table = [[*row, *[""] * mask.shape[1]][: mask.shape[1]] for row in names]
    return np.where(mask.cpu().numpy(), np.asarray(table, dtype=str), "")


def _masks(episodes: EpisodeBatch) -> list[xr.DataArray]:
    """Masks of everything that may be padding, by the axes they speak about."""
    pairs = (
        (episodes.way_mask, ("task", "way")),
        (episodes.shot_mask, ("task", "way", "shot")),
        (episodes.support_mask, ("task", "way", "shot", "frame")),
        (episodes.video_mask, ("task", "video")),
        (episodes.query_mask, ("task", "video", "frame")),
    )
    return [xr.DataArray(numpy_of(mask), dims=dims) for mask, dims in pairs]


def without_padding(array: xr.DataArray, episodes: EpisodeBatch) -> xr.DataArray:
    """NaN where any mask over axes of this array says padding."""
    for mask in _masks(episodes):
        if array.dtype.kind == "f" and bool(mask.all()):
            continue  # draws are many
        if all(array.sizes.get(dim) == size for dim, size in mask.sizes.items()):
            array = array.where(mask.drop_vars(mask.coords))
    return array
