"""The DataTree's groups about the query: predictive, likelihood, labels, names, uncertainty.

`bayesfs.results.assemble` puts them together and says what each group holds.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from bayesfs._utils.arrays import numpy_of
from bayesfs.errors import ShapeError
from bayesfs.results.axes import (
    class_names,
    draw_array,
    strings,
    task_labels,
    video_names,
    without_padding,
)
from bayesfs.results.schema import UNCERTAINTY
from bayesfs.types import CONDITIONS, EpisodeBatch, LabelDraws, Posterior, Predictive

ALIKE = 1e-9
"""Nats between the first and the last draw of `heldout_group`."""


def equal_weight_draws(log_weight: Tensor, count: int) -> Tensor:
    """Indices of `count` draws that have equal weight, by systematic resampling.

    The k-th index is the draw at which the cumulative weight passes (k + 1/2) / count: with equal
    weights every draw once, or every (draws / count)-th.

    Args:
        log_weight: (draw, ...) log w_s, normalised over draw.
        count: number of draws wanted.

    Returns:
        (count, ...) indices into draw, ascending.
    """
    cumulative = log_weight.double().exp().cumsum(0).movedim(0, -1).contiguous()
    place = (torch.arange(count, device=log_weight.device, dtype=torch.float64) + 0.5) / count
    place = place.expand(*cumulative.shape[:-1], count).contiguous()
    index = torch.searchsorted(cumulative, place * cumulative[..., -1:])
    return index.clamp(max=log_weight.shape[0] - 1).movedim(-1, 0)


def predictive_group(
    posterior: Posterior,
    predictive: Predictive,
    episodes: EpisodeBatch,
    index: xr.Dataset,
    max_values: int,
) -> xr.Dataset:
    """Labels of the query videos, drawn, one a draw of the posterior, of equal weight.

    Their class probabilities are a coordinate, left out where they are more than `max_values`.
    """
    count = predictive.video.log_prob_given.shape[0]
    generator = np.random.default_rng(posterior.seed)
    prob = _kept_probabilities(predictive.video, count)
    chains, attrs = predictive_chains(posterior, count), {}
    labels = _drawn_labels(_select(prob, "video", index), generator)
    data = {"video_label": draw_array(labels, chains, ("query",))}
    if prob.size <= max_values:
        array = draw_array(prob, chains, ("task", "video", "way"))
        data["video_prob"] = without_padding(array, episodes)
    else:
        attrs["video_prob_left_out"] = f"more than {max_values} values"
    coords = _query_coords(episodes, index)
    kept = {k: v for k, v in coords.items() if k != "query_frame"}
    return beside_videos(xr.Dataset(data, coords=kept, attrs=attrs))


def frame_predictive_group(
    posterior: Posterior,
    predictive: Predictive,
    episodes: EpisodeBatch,
    index: xr.Dataset,
    wanted: int,
    max_values: int,
) -> xr.Dataset:
    """Class probabilities of frames (as many draws as fit) and labels drawn, of equal weight."""
    draws = predictive.frame.log_prob_given.shape[0]
    room = max_values // max(1, math.prod(predictive.frame.log_prob.shape))
    count = max(1, min(wanted, draws, max(room, 10)))
    chains = predictive_chains(posterior, count)
    prob = _kept_probabilities(predictive.frame, count)
    labels = _drawn_labels(_select(prob, "frame", index), np.random.default_rng(posterior.seed))
    array = draw_array(prob, chains, ("task", "video", "frame", "way"))
    return xr.Dataset(
        {
            "frame_prob": without_padding(array, episodes),
            "frame_label": draw_array(labels, chains, ("query_frame",)),
        },
        coords={"task": task_labels(episodes), "query_frame": index["query_frame"].values},
    )


def beside_videos(ds: xr.Dataset) -> xr.Dataset:
    """The same with `video_label` as the only variable and everything else as coordinates.

    The video is the unit: its frames are not independent, and probabilities are no outcome. ArviZ
    plots and scores every variable of a group unless it is told which, and expects the same
    variables in `observed_data`, `posterior_predictive` and `log_likelihood`.
    """
    return ds.set_coords([name for name in ds.data_vars if name != "video_label"])


def _kept_probabilities(labels: LabelDraws, count: int) -> NDArray[Any]:
    """(count, ..., way) p(y | x, theta_s) of draws of equal weight."""
    chosen = equal_weight_draws(labels.log_weight, count)
    chosen = chosen[..., None].expand(*chosen.shape, labels.log_prob.shape[-1])
    return numpy_of(torch.gather(labels.log_prob_given, 0, chosen).exp())


def _drawn_labels(prob: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
    """(draw, row) one label for each draw and row of (draw, row, way)."""
    cumulative = np.cumsum(prob, -1, dtype=float)
    place = generator.random((*prob.shape[:-1], 1)) * cumulative[..., -1:]
    labels: NDArray[Any] = (cumulative <= place).sum(-1)
    return labels


def _select(values: NDArray[Any], unit: str, index: xr.Dataset) -> NDArray[Any]:
    """(draw, row, ...): rows of `query` or `query_frame` out of (draw, task, video, ...)."""
    if unit == "video":
        return values[:, index["task"].values, index["video"].values]
    at = index["frame_task"].values, index["frame_video"].values, index["frame"].values
    return values[:, at[0], at[1], at[2]]


def _query_coords(episodes: EpisodeBatch, index: xr.Dataset) -> dict[str, Any]:
    names, classes = task_labels(episodes), class_names(episodes)
    task = index["task"].values
    return {
        "task": names,
        "query": index["query"].values,
        "query_frame": index["query_frame"].values,
        "query_task": ("query", strings(names[task].tolist())),
        "query_class": ("query", strings(classes[task, index["label"].values].tolist())),
    }


def by_query(posterior: Posterior, predictive: Predictive, index: xr.Dataset) -> xr.DataArray:
    """(chain, draw, query) log w_s of the draws that predict each labelled video."""
    rows = _select(numpy_of(predictive.video.log_weight), "video", index)
    array = draw_array(rows, predictive_chains(posterior, rows.shape[0]), ("query",))
    return array.assign_coords(query=index["query"].values)


def heldout_group(posterior: Posterior, predictive: Predictive, index: xr.Dataset) -> xr.Dataset:
    """Log p(y | x, D) of the labelled query videos, at every draw the same.

    ArviZ's leave-one-out weighs draws by one over their likelihood. A query's label is in no
    posterior, so that leaving it out is done already and must change nothing: these rows have equal
    weights, up to `ALIKE` nats, since ArviZ refuses tails that are all the same.
    """
    score = _select(numpy_of(predictive.video.log_prob)[None], "video", index)
    own = np.take_along_axis(score, index["label"].values[None, :, None], -1)[..., 0]
    draws = predictive.video.log_prob_given.shape[0]
    rows = own + ALIKE * np.linspace(-0.5, 0.5, draws)[:, None]
    array = draw_array(rows, predictive_chains(posterior, draws), ("query",))
    return xr.Dataset({"video_label": array}, coords={"query": index["query"].values})


def log_likelihood_group(
    posterior: Posterior,
    predictive: Predictive,
    index: xr.Dataset,
    max_values: int,
    *,
    unit: Literal["video", "frame"] = "video",
) -> xr.Dataset:
    """Log p(y | x, theta_s) of the labelled query videos, or of their frames."""
    over, label = {"video": ("query", "label"), "frame": ("query_frame", "frame_label")}[unit]
    given = getattr(predictive, unit).log_prob_given
    if given.shape[0] * index.sizes[over] > max_values:
        return xr.Dataset(attrs={f"{unit}_label_left_out": f"more than {max_values} values"})
    rows = _select(numpy_of(given), unit, index)
    picked = np.take_along_axis(rows, index[label].values[None, :, None], -1)[..., 0]
    array = draw_array(picked, predictive_chains(posterior, picked.shape[0]), (over,))
    return xr.Dataset({f"{unit}_label": array}, coords={over: index[over].values})


def support_rows(
    posterior: Posterior, support_log_prob: Tensor, episodes: EpisodeBatch
) -> xr.DataArray:
    """(chain, draw, support) over the support videos that exist."""
    mask = numpy_of(episodes.shot_mask)
    if tuple(support_log_prob.shape[1:]) != mask.shape:
        raise ShapeError(
            f"expected support_log_prob (draw, *{mask.shape}), got {tuple(support_log_prob.shape)}"
        )
    rows = numpy_of(support_log_prob)[:, mask]
    names, classes = task_labels(episodes), class_names(episodes)
    at = zip(*np.nonzero(mask), strict=True)
    labels = strings([f"{names[t]} / {classes[t, w]} / {s}" for t, w, s in at])
    array = draw_array(rows, predictive_chains(posterior, rows.shape[0]), ("support",))
    return array.assign_coords(support=labels)


def observed_group(episodes: EpisodeBatch, index: xr.Dataset) -> xr.Dataset:
    """Labels of query videos; as coordinates `label` (task, video), padded, and those of frames."""
    labels = numpy_of(episodes.query_labels).astype(float)
    known = numpy_of(episodes.video_mask) & (labels >= 0)
    ds = xr.Dataset(
        {
            "label": (("task", "video"), np.where(known, labels, np.nan)),
            "video_label": ("query", index["label"].values),
            "frame_label": ("query_frame", index["frame_label"].values),
        },
        coords=_query_coords(episodes, index),
    )
    return beside_videos(ds)


def constant_group(posterior: Posterior, episodes: EpisodeBatch) -> xr.Dataset:
    """Names, conditions, numbers of shots and frames, measured quality of the query."""
    exists = numpy_of(episodes.video_mask)
    condition = np.where(exists, np.asarray(CONDITIONS)[numpy_of(episodes.query_condition)], "")
    way = numpy_of(episodes.way_mask)
    shots = np.where(way, numpy_of(episodes.shot_mask.sum(-1)), np.nan)
    frames = np.where(exists, numpy_of(episodes.query_mask.sum(-1)), np.nan)
    ds = xr.Dataset(
        {
            "class_name": (("task", "way"), class_names(episodes)),
            "video_name": (("task", "video"), video_names(episodes)),
            "video_condition": (("task", "video"), condition),
            "shots": (("task", "way"), shots),
            "support_frames": (
                ("task", "way"),
                np.where(way, numpy_of(episodes.support_mask.flatten(2).sum(-1)), np.nan),
            ),
            "query_frames": (("task", "video"), frames),
        },
        coords={"task": task_labels(episodes)},
    )
    if episodes.query_quality is not None:
        quality = xr.DataArray(
            numpy_of(episodes.query_quality), dims=("task", "video", "frame", "covariate")
        )
        ds["query_quality"] = without_padding(quality, episodes)
        names = posterior.coords.get("covariate", ())
        if len(names) == quality.sizes["covariate"]:
            ds = ds.assign_coords(covariate=strings(names))
    return ds


def uncertainty_group(
    predictive: Predictive, uncertainty: xr.Dataset, episodes: EpisodeBatch
) -> xr.Dataset:
    """The decomposition, and p(y | x, D) of every query frame and video."""
    data = {name: (dims, uncertainty[name].values) for name, dims in _uncertainty_dims().items()}
    ds = xr.Dataset(data, attrs={"units": "nats"})
    frame = ("task", "video", "frame")
    ds["video_prob"] = xr.DataArray(numpy_of(predictive.video.prob), dims=("task", "video", "way"))
    ds["frame_prob"] = xr.DataArray(numpy_of(predictive.frame.prob), dims=(*frame, "way"))
    if predictive.absent is not None:
        ds["frame_absent"] = xr.DataArray(numpy_of(predictive.absent), dims=frame)
    ds = ds.map(without_padding, episodes=episodes, keep_attrs=True)
    return ds.assign_coords(task=task_labels(episodes))


def _uncertainty_dims() -> dict[str, tuple[str, ...]]:
    dims = {"frame": ("task", "video", "frame"), "video": ("task", "video")}
    return {name: dims[name.split("_")[0]] for name in UNCERTAINTY}


def predictive_chains(posterior: Posterior, draws: int) -> int:
    """Chains of `draws` predictive draws: the posterior's where they divide, otherwise one."""
    return posterior.chains if draws % posterior.chains == 0 else 1
