"""To other libraries' values: `to_datatree`, `to_pandas`, `to_polars`, `to_xarray`, `to_numpy`.

Each takes a `Posterior` or a `Predictive`, `to_polars` and `to_xarray` any table of pandas, too.
Draws keep their names and axes; padding becomes NaN. For one tree with everything that a study
knows, use `bayesfs.results.assemble.assemble_tree`, `one_task` for the part of one task, and
`in_words` to have axes named as the data name levels.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from functools import singledispatch
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesfs._utils.arrays import numpy_of
from bayesfs.errors import DataError
from bayesfs.results.assemble import posterior_group, stats_group
from bayesfs.results.axes import class_names, task_labels, video_names
from bayesfs.types import EpisodeBatch, LabelDraws, LevelNames, Posterior, Predictive
from bayesfs.uncertainty.decompose import decompose, decompose_draws


@singledispatch
def to_numpy(value: Any) -> dict[str, NDArray[Any]]:
    """Plain arrays by name.

    Args:
        value: a `Posterior`: site -> (draw, *dims[site]); or a `Predictive`: `frame` (task, video,
            frame, way) and `video` (task, video, way), probabilities, and `absent` if it is there.

    Example:
        >>> import torch
        >>> from bayesfs.types import Posterior
        >>> to_numpy(Posterior("exact", {"mean": torch.zeros(2, 3)}, {"mean": ("feature",)}))
        {'mean': array([[0., 0., 0.],
               [0., 0., 0.]], dtype=float32)}
    """
    raise _unknown(value)


@to_numpy.register
def _(value: Posterior) -> dict[str, NDArray[Any]]:
    return {site: numpy_of(draws) for site, draws in value.draws.items()}


@to_numpy.register
def _(value: Predictive) -> dict[str, NDArray[Any]]:
    arrays = {"frame": numpy_of(value.frame.prob), "video": numpy_of(value.video.prob)}
    return arrays if value.absent is None else {**arrays, "absent": numpy_of(value.absent)}


@singledispatch
def to_pandas(value: Any, episodes: EpisodeBatch | None = None) -> pd.DataFrame:
    """A table for people and for R.

    Args:
        value: a `Posterior`: one row a draw, indexed by (chain, draw), one column a scalar, named
            `site[i, j]` by the labels of its axes; or a `Predictive`: one row a query video,
            indexed by (task, video), with the probability of each class, and total, aleatoric and
            epistemic uncertainty in nats.
        episodes: the tasks, for their names; without them axes are numbered, and a column is
            named by the number of its class.
    """
    raise _unknown(value)


@to_pandas.register
def _(value: Posterior, episodes: EpisodeBatch | None = None) -> pd.DataFrame:
    group = posterior_group(value, episodes)
    columns: dict[str, NDArray[Any]] = {}
    for site, array in group.data_vars.items():
        columns |= _scalars(str(site), array)
    chains = np.repeat(np.arange(value.chains), value.num_draws // value.chains)
    draws = np.tile(np.arange(value.num_draws // value.chains), value.chains)
    index = pd.MultiIndex.from_arrays([chains, draws], names=["chain", "draw"])
    return pd.DataFrame(columns, index=index)


@to_pandas.register
def _(value: Predictive, episodes: EpisodeBatch | None = None) -> pd.DataFrame:
    prob = numpy_of(value.video.prob)
    if episodes is None:
        return _table_of_videos(prob, value.video)
    if prob.shape != (*episodes.video_mask.shape, episodes.way):
        raise DataError(
            f"expected episodes with (task, video, way) {prob.shape}, got "
            f"{(*episodes.video_mask.shape, episodes.way)}; was it predicted from other episodes?"
        )
    index = [episodes.levels.axes.get("task", "task"), episodes.levels.in_words("video")]
    said, classes, videos = decompose(value, episodes), class_names(episodes), video_names(episodes)
    rows = []
    for t, task in enumerate(task_labels(episodes).tolist()):
        for v in np.flatnonzero(numpy_of(episodes.video_mask[t])):
            row: dict[str, Any] = dict(zip(index, (task, str(videos[t, v])), strict=True))
            row |= dict(zip(classes[t].tolist(), prob[t, v].tolist(), strict=True))
            parts = ("total", "aleatoric", "epistemic")
            row |= {part: float(said[f"video_{part}"].values[t, v]) for part in parts}
            rows.append({name: x for name, x in row.items() if name})
    return pd.DataFrame(rows).set_index(index)


def to_polars(
    value: Posterior | Predictive | pd.DataFrame, episodes: EpisodeBatch | None = None
) -> Any:
    """The table of `to_pandas`, or any other, as one of polars; what was its index comes first.

    Args:
        value: a `Posterior`, a `Predictive`, or a table, such as scores or `reliability`.
        episodes: see `to_pandas`; of a table it is not asked.

    Raises:
        DataError: polars is not installed.

    Example:
        >>> to_polars(pd.DataFrame({"nll": [0.5]}, index=pd.Index(["P01"], name="user"))).columns
        ['user', 'nll']
    """
    table = _flat_table(value, episodes)
    columns = {str(name): table[name].to_numpy() for name in table.columns}
    try:
        return nw.from_dict(columns, backend="polars").to_native()
    except ModuleNotFoundError as error:
        raise DataError("tables of polars need polars: pip install polars") from error


def to_xarray(
    value: Posterior | Predictive | pd.DataFrame, episodes: EpisodeBatch | None = None
) -> xr.Dataset:
    """The table of `to_pandas`, or any other, as a Dataset with a variable a column.

    Levels of an index whose combinations are all there become axes, such as (chain, draw); of
    other tables the rows are one axis `row`, and the index is a coordinate of it.

    Args:
        value: see `to_polars`.
        episodes: see `to_pandas`; of a table it is not asked.

    Example:
        >>> table = pd.DataFrame({"nll": [0.5]}, index=pd.Index(["P01"], name="user"))
        >>> dict(to_xarray(table).sizes)
        {'user': 1}
    """
    table = value if isinstance(value, pd.DataFrame) else to_pandas(value, episodes)
    index = table.index
    if index.is_unique and None not in index.names:
        sizes = [index.get_level_values(level).nunique() for level in range(index.nlevels)]
        if len(table) == math.prod(sizes):
            return table.to_xarray()
    names = [name for name in index.names if name is not None]
    flat = _flat_table(table, None).rename_axis("row").to_xarray()
    return flat.set_coords(names)


def _flat_table(
    value: Posterior | Predictive | pd.DataFrame, episodes: EpisodeBatch | None
) -> pd.DataFrame:
    """A table whose named index is columns."""
    table = value if isinstance(value, pd.DataFrame) else to_pandas(value, episodes)
    unnamed = table.index.names == [None]
    return table.reset_index(drop=unnamed)


def to_datatree(value: Posterior | Predictive, episodes: EpisodeBatch | None = None) -> xr.DataTree:
    """ArviZ's DataTree of one value.

    Args:
        value: a `Posterior`: groups `posterior` and `sample_stats`, for ArviZ and for
            `bayesfs.diagnostics.convergence.diagnose`; or a `Predictive`: group
            `posterior_predictive` with `label_prob` (task, video, way), and the draws' own
            `label_prob_given` (chain, draw, task, video, way) with `log_weight`.
        episodes: the tasks, for names and for what is padding.

    Example:
        >>> import arviz_stats, torch
        >>> from bayesfs.types import Posterior
        >>> posterior = Posterior("exact", {"mean": torch.randn(50, 3)}, {"mean": ("feature",)})
        >>> arviz_stats.summary(to_datatree(posterior)).index.tolist()
        ['mean[0]', 'mean[1]', 'mean[2]']
    """
    if isinstance(value, Posterior):
        tasks = task_labels(episodes) if episodes is not None else None
        groups = {
            "posterior": posterior_group(value, episodes),
            "sample_stats": stats_group(value, tasks),
        }
        tree = xr.DataTree.from_dict(groups)
        tree.attrs = {"kind": value.kind, "seed": value.seed, "inference_library": "bayesfs"}
        return tree
    if isinstance(value, Predictive):
        return xr.DataTree.from_dict({"posterior_predictive": _video_group(value, episodes)})
    raise _unknown(value)


def in_words(tree: xr.DataTree) -> xr.DataTree:
    """A tree whose axes have the words of the data, for plots and tables.

    "task" and "way" become "school" and "class", say, in every group. This library's own functions
    read trees with its own axes.

    Args:
        tree: from `bayesfs.results.assemble.assemble_tree`.
    """
    axes = LevelNames.of_json(str(tree.attrs.get("levels", ""))).axes
    groups = {}
    for node in tree.subtree:
        ds = node.to_dataset(inherit=False)
        groups[node.path] = ds.rename({a: own for a, own in axes.items() if a in ds.dims})
    found = xr.DataTree.from_dict(groups)
    found.attrs = dict(tree.attrs)
    return found


def one_task(tree: xr.DataTree, task: str) -> xr.DataTree:
    """The tree of one task: no axis of tasks, its own classes named, none of others' padding.

    For pictures: classes that differ between tasks have no names along one axis, and every pair of
    the scalars of all tasks is too many for ArviZ's `plot_pair`.

    Args:
        tree: from `bayesfs.results.assemble.assemble_tree`.
        task: its name.

    Raises:
        DataError: there is no such task.
    """
    constant = tree["constant_data"].to_dataset()
    names = [str(name) for name in constant["task"].values]
    if task not in names:
        raise DataError(f"expected one of the tasks {names[:10]}, got {task!r}")
    own = constant.isel(task=names.index(task))
    there = {
        "way": own["class_name"].values != "",
        "video": own["video_name"].values != "",
        "shot": np.arange(int(np.nanmax(own["shots"].values))),
    }
    classes = own["class_name"].values[there["way"]]
    groups = {}
    for node in tree.subtree:
        ds = node.to_dataset(inherit=False)
        kept = {axis: at for axis, at in there.items() if axis in ds.dims and "task" in ds.dims}
        for axis in {"query", "query_frame", "support"} & set(ds.dims):
            kept[str(axis)] = np.char.startswith(ds[axis].values.astype(str), f"{task} / ")
        chosen = {"task": names.index(task)} if ds.sizes.get("task") == len(names) else {}
        ds = ds.isel(chosen, drop=True).isel(kept)
        groups[node.path] = ds.assign_coords(way=classes) if "way" in kept else ds
    found = xr.DataTree.from_dict(groups)
    found.attrs = dict(tree.attrs)
    return found


def _video_group(value: Predictive, episodes: EpisodeBatch | None) -> xr.Dataset:
    axes = ("task", "video", "way")
    labels = value.video
    given = numpy_of(labels.log_prob_given.exp())[None]
    ds = xr.Dataset(
        {
            "label_prob": (axes, numpy_of(labels.prob)),
            "label_prob_given": (("chain", "draw", *axes), given),
            "log_weight": (("chain", "draw", *axes[:2]), numpy_of(labels.log_weight)[None]),
        },
        coords={"chain": [0], "draw": np.arange(given.shape[1])},
    )
    if episodes is None:
        return ds
    mask = xr.DataArray(numpy_of(episodes.video_mask), dims=axes[:2])
    names: Mapping[Hashable, Any] = {
        "task": task_labels(episodes),
        "class_name": (("task", "way"), class_names(episodes)),
        "video_name": (("task", "video"), video_names(episodes)),
    }
    return ds.where(mask).assign_coords(names)


def _scalars(site: str, array: xr.DataArray) -> dict[str, NDArray[Any]]:
    """Column name -> (chain * draw,) of every scalar of a site."""
    axes = [axis for axis in array.dims if axis not in ("chain", "draw")]
    flat = array.values.reshape(array.sizes["chain"] * array.sizes["draw"], -1)
    if not axes:
        return {site: flat[:, 0]}
    labels = pd.MultiIndex.from_product([array[axis].values for axis in axes])
    return {f"{site}[{', '.join(map(str, label))}]": flat[:, i] for i, label in enumerate(labels)}


def _table_of_videos(prob: NDArray[Any], labels: LabelDraws) -> pd.DataFrame:
    tasks, videos, ways = prob.shape
    index = pd.MultiIndex.from_product([range(tasks), range(videos)], names=["task", "video"])
    table = pd.DataFrame(prob.reshape(-1, ways), index=index, columns=list(map(str, range(ways))))
    for name, part in zip(
        ("total", "aleatoric", "epistemic"), decompose_draws(labels), strict=True
    ):
        table[name] = numpy_of(part).ravel()
    return table


def _unknown(value: Any) -> DataError:
    return DataError(
        f"expected a Posterior or a Predictive, got {type(value).__name__}; for tasks and frames "
        "see EpisodeBatch and Embeddings.dataset"
    )
