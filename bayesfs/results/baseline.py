"""The simplest classifier, which every score is read against: `baseline_group`.

The baseline is the cosine of a frame to the mean of each class's frames, in the features that the
model has, at a fixed temperature; a video's probabilities are the mean of its frames'. Nothing of
it is learnt from anybody but the person. `bayesfs.metrics.reference` compares with it.
"""

from __future__ import annotations

import xarray as xr

from bayesfs._utils.arrays import numpy_of
from bayesfs.models.baselines.classifiers import Prototypes
from bayesfs.results.axes import task_labels, without_padding
from bayesfs.types import EpisodeBatch

BASELINE = Prototypes(metric="cosine", frame_temperature=0.1)
"""A temperature of .1 is near the best of most worlds at few videos (docs/models/baselines.md)."""

GROUP = "baseline"


def baseline_group(episodes: EpisodeBatch) -> xr.Dataset:
    """`video_prob` (task, video, way) and `frame_prob` (task, video, frame, way)."""
    said = BASELINE.predictive(episodes)
    frame = xr.DataArray(numpy_of(said.frame.prob), dims=("task", "video", "frame", "way"))
    video = xr.DataArray(numpy_of(said.video.prob), dims=("task", "video", "way"))
    ds = xr.Dataset({"video_prob": video, "frame_prob": frame})
    ds = ds.map(without_padding, episodes=episodes)
    return ds.assign_coords(task=task_labels(episodes))
