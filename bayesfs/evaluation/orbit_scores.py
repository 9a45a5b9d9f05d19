"""ORBIT's metrics and its results file: start with `run_orbit`, then `OrbitRun.metrics`.

The benchmark reports means over user x task x video with +- 1.96 sd / sqrt(N), as if 50 tasks of
a user were independent. Here every mean also has a bootstrap interval over users, and the same
run gives NLL, Brier, calibration and selective risk through `OrbitRun.scores`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesfs.errors import DataError
from bayesfs.evaluation.orbit import OrbitProtocol
from bayesfs.metrics.bootstrap import bootstrap_interval, mean_statistic
from bayesfs.metrics.items import frame_rows, video_rows
from bayesfs.metrics.score_table import table_of_rows
from bayesfs.protocols import Progress
from bayesfs.types import Embeddings, EpisodeBatch, Predictive, refuse_missing, user_of

METRICS = ("frame_acc", "frames_to_recognition", "video_acc")

Results = dict[str, list[dict[str, Any]]]
"""ORBIT's form: {user: [{task_object_list, task_macs_to_personalise, task_videos}]}."""


@dataclass(frozen=True)
class OrbitRun:
    """Predictions of all test tasks, scored.

    Attributes:
        frames: rows of every query frame, from `bayesfs.metrics.items.frame_rows`.
        videos: rows of every query video, predicted from its frames jointly.
        results: predictions in ORBIT's form.
    """

    frames: pd.DataFrame
    videos: pd.DataFrame
    results: Results

    @classmethod
    def joined(cls, runs: Sequence[OrbitRun]) -> OrbitRun:
        """One run of several, each of other users: what a user is asked depends on no other one."""
        tables = ([run.frames for run in runs], [run.videos for run in runs])
        frames, videos = (pd.concat(table, ignore_index=True) for table in tables)
        return cls(frames, videos, {u: tasks for run in runs for u, tasks in run.results.items()})

    def metrics(self, *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
        """ORBIT's metrics with both intervals; see `orbit_metrics`."""
        return orbit_metrics(self.frames, level=level, draws=draws, seed=seed)

    def scores(
        self, *, unit: str = "user", level: float = 0.95, draws: int = 2000, seed: int = 0
    ) -> xr.Dataset:
        """Proper scores, calibration, selective risk, worst users; see `table_of_rows`."""
        rows = {"frame": self.frames, "video": self.videos}
        return table_of_rows(rows, unit=unit, level=level, draws=draws, seed=seed)

    def save(self, folder: str | Path) -> Path:
        """Write results.json into a folder (made where it is missing) and return its path."""
        path = Path(folder) / "results.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.results), encoding="utf-8")
        return path


def run_orbit(
    predict: Callable[[EpisodeBatch], Predictive],
    embeddings: Embeddings,
    protocol: OrbitProtocol | None = None,
    *,
    users: Sequence[str] | None = None,
    tasks_per_batch: int = 10,
    macs: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> OrbitRun:
    """Run the ORBIT protocol: draw the tasks, predict them batch by batch, keep the rows.

    Args:
        predict: infers the tasks from their support and predicts their queries. A frame may be
            predicted from itself and earlier frames of its video only.
        embeddings: frames at their full rate; those that `predict` wants, already projected.
        protocol: which tasks; ORBIT's clean -> clutter by default.
        users: some users of the split; None takes all.
        tasks_per_batch: tasks per call of `predict`.
        macs: user -> multiply-accumulates to personalise one task, or None: null in the results.
        progress: told (tasks done, tasks, user).

    Raises:
        DataError: see `OrbitProtocol.episodes`.
    """
    protocol = OrbitProtocol() if protocol is None else protocol
    names = protocol.users(embeddings) if users is None else tuple(users)
    frames, videos, done = [], [], 0
    results: Results = {name: [] for name in names}
    for batch in protocol.episodes(embeddings, users=names, tasks_per_batch=tasks_per_batch):
        predictive = predict(batch)
        frames.append(frame_rows(predictive, batch))
        videos.append(video_rows(predictive, batch))
        user = user_of(batch.task_name(0))
        results[user] += task_results(predictive, batch, embeddings, macs=(macs or {}).get(user))
        done += len(batch)
        if progress is not None:
            progress(done, len(names) * protocol.tasks_per_user, user)
    return OrbitRun(
        pd.concat(frames, ignore_index=True), pd.concat(videos, ignore_index=True), results
    )


def video_metrics(frames: pd.DataFrame) -> pd.DataFrame:
    """ORBIT's metrics of every query video, with p_t the prediction of its t-th frame.

        frame_acc             = mean_t 1[p_t = y]
        frames_to_recognition = (first t with p_t = y) / n, counted from 0; 1 if there is none
        video_acc             = 1[most frequent p_t = y], ties to the lowest class

    Args:
        frames: rows from `bayesfs.metrics.items.frame_rows`.

    Returns:
        One row per task and video: `user`, `task`, `video`, `object` and the three metrics.
    """
    ordered = frames.sort_values(["task", "video", "frame"], kind="stable")
    lines = []
    for (task, video), part in ordered.groupby(["task", "video"], sort=True):
        prediction, label = part["prediction"].to_numpy(), int(part["label"].iloc[0])
        hits = np.flatnonzero(prediction == label)
        first = hits[0] / len(prediction) if len(hits) else 1.0
        seen = float(np.bincount(prediction).argmax() == label)
        names = (part["user"].iloc[0], task, video, part["object"].iloc[0])
        lines.append((*names, len(hits) / len(prediction), first, seen))
    return pd.DataFrame(lines, columns=["user", "task", "video", "object", *METRICS])


def orbit_metrics(
    frames: pd.DataFrame, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Means over user x task x video, ORBIT's half-width, and an interval over users.

    Args:
        frames: rows from `bayesfs.metrics.items.frame_rows`.
        level: of the interval over users; ORBIT's half-width is always 1.96 sd / sqrt(N).
        draws: number of bootstrap samples of the users.
        seed: of the bootstrap.

    Returns:
        One row per metric: `mean`, `orbit_ci` (half-width, sd with divisor N), `low`, `high`
        (users resampled; nan with fewer than 6), `users`, `videos` (N).
    """
    refuse_missing(frames["user"], "user")
    table = video_metrics(frames)
    index, names = pd.factorize(table["user"], sort=True)
    lines = {}
    for metric in METRICS:
        values = table[metric].to_numpy(np.float64)
        statistic = mean_statistic(values, index.astype(np.int64), len(names))
        over_users = bootstrap_interval(
            statistic, len(names), draws=draws, level=level, seed=seed, bounds=(0.0, 1.0)
        )
        lines[metric] = {
            "mean": values.mean(),
            "orbit_ci": 1.96 * values.std(ddof=0) / np.sqrt(len(values)),
            "low": over_users.low,
            "high": over_users.high,
            "users": len(names),
            "videos": len(values),
        }
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("metric")


def task_results(
    predictive: Predictive,
    episodes: EpisodeBatch,
    embeddings: Embeddings,
    *,
    macs: int | None = None,
) -> list[dict[str, Any]]:
    """Predicted classes of every query frame, one entry per task, in the form of results.json.

    Frames are named by the number in their file name, or by their place in the video, from 1,
    where the embeddings have no `path`.

    Raises:
        DataError: the episodes do not say which frames they hold.
    """
    if episodes.query_frame is None or not episodes.videos or not episodes.classes:
        raise DataError(
            "expected episodes with query_frame, videos and classes; were they drawn by "
            "OrbitProtocol.episodes?"
        )
    rows = episodes.query_frame.cpu().numpy()
    used = np.unique(rows[rows >= 0])
    number = dict(zip(used.tolist(), frame_numbers(embeddings, used).tolist(), strict=True))
    predictions = predictive.frame.log_prob.argmax(-1).cpu().numpy()
    tasks = []
    for task, names in enumerate(episodes.videos):
        answers = {
            name: {
                number[row]: int(answer)
                for row, answer in zip(rows[task, v].tolist(), predictions[task, v], strict=True)
                if row >= 0
            }
            for v, name in enumerate(names)
        }
        tasks.append(
            {
                "task_object_list": list(episodes.classes[task]),
                "task_macs_to_personalise": macs,
                "task_videos": answers,
            }
        )
    return tasks


def frame_numbers(embeddings: Embeddings, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of each row's frame, as the store has it; otherwise its place in the video."""
    if "frame_number" in embeddings.dataset.coords:
        return embeddings.coord("frame_number")[rows].astype(np.int64)
    video = embeddings.coord("video")
    start = np.flatnonzero(np.r_[True, video[1:] != video[:-1]])
    return rows - start[np.searchsorted(start, rows, side="right") - 1] + 1
