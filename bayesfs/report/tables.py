"""What a report tells, as rows: one per query video, object, task and confused pair.

`video_table` reads a run's DataTree; the others summarise its rows.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesfs._utils.arrays import Floats
from bayesfs.metrics.calibration import wilson


@dataclass(frozen=True)
class VideoRow:
    """One query video: what it shows, what was said, and how unsure.

    Attributes:
        task: name of the task.
        video: name of the video.
        condition: recording condition.
        truth: class name, or "" if unlabelled.
        said: most probable class.
        prob_said: its probability.
        prob_truth: probability of the true class, nan if unlabelled.
        second: next class, "" if there is one class only.
        prob_second: its probability.
        total: H[p], nats.
        aleatoric: nats.
        epistemic: nats.
        frame_aleatoric: (frame,) nats.
        frame_epistemic: (frame,) nats.
        frame_right: (frame,) whether the frame alone names the truth; all False if unlabelled.
        ways: number of classes of the task.
    """

    task: str
    video: str
    condition: str
    truth: str
    said: str
    prob_said: float
    prob_truth: float
    second: str
    prob_second: float
    total: float
    aleatoric: float
    epistemic: float
    frame_aleatoric: Floats
    frame_epistemic: Floats
    frame_right: NDArray[np.bool_]
    ways: int

    @property
    def labelled(self) -> bool:
        """Whether the truth is known."""
        return self.truth != ""

    @property
    def right(self) -> bool:
        """Whether the truth is known and was said."""
        return self.labelled and self.said == self.truth


@dataclass(frozen=True)
class GroupRow:
    """Videos of one object, one task or one condition taken together.

    Attributes:
        task: name of the task.
        name: what the group is called.
        videos: number of labelled videos.
        accuracy: share of them that were named right.
        low: lower end of Wilson's 95 % interval.
        high: upper end.
        frame_accuracy: share of their frames that were, alone.
        nll: mean -log p of the truth, nats.
        total: mean, nats.
        aleatoric: mean, nats.
        epistemic: mean, nats.
        confused: what was said most often in place of the truth, with how often.
        worst: whether the group is among the worst tenth.
    """

    task: str
    name: str
    videos: int
    accuracy: float
    low: float
    high: float
    frame_accuracy: float
    nll: float
    total: float
    aleatoric: float
    epistemic: float
    confused: tuple[str, int]
    worst: bool = False


@dataclass(frozen=True)
class Confusion:
    """One object taken for another.

    Attributes:
        task: name of the task.
        truth: what it was.
        said: what was said.
        count: how many videos.
        of: out of how many of that object.
        prob: mean probability of what was said.
    """

    task: str
    truth: str
    said: str
    count: int
    of: int
    prob: float


def video_table(tree: xr.DataTree) -> tuple[VideoRow, ...]:
    """All query videos of a run, task by task."""
    constant = {str(k): v.to_numpy() for k, v in tree["constant_data"].to_dataset().items()}
    said = {str(k): v.to_numpy() for k, v in tree["uncertainty"].to_dataset().items()}
    label = tree["observed_data"].to_dataset()["label"].to_numpy()
    tasks = tree["constant_data"]["task"].to_numpy()
    at = np.argwhere(constant["query_frames"] > 0)
    return tuple(_video_row(str(tasks[t]), (t, v), constant, said, label[t, v]) for t, v in at)


def _video_row(
    task: str,
    at: tuple[int, int],
    constant: dict[str, NDArray[Any]],
    said: dict[str, NDArray[Any]],
    label: float,
) -> VideoRow:
    names = constant["class_name"][at[0]]
    prob = np.nan_to_num(said["video_prob"][at])
    order = np.argsort(-prob, kind="stable")
    first, second = int(order[0]), int(order[1]) if (names != "").sum() > 1 else -1
    frames = ~np.isnan(said["frame_total"][at])
    frame_said = np.nan_to_num(said["frame_prob"][at][frames]).argmax(-1)
    return VideoRow(
        task=task,
        video=str(constant["video_name"][at]),
        condition=str(constant["video_condition"][at]),
        truth="" if math.isnan(label) else str(names[int(label)]),
        said=str(names[first]),
        prob_said=float(prob[first]),
        prob_truth=math.nan if math.isnan(label) else float(prob[int(label)]),
        second="" if second < 0 else str(names[second]),
        prob_second=math.nan if second < 0 else float(prob[second]),
        total=float(said["video_total"][at]),
        aleatoric=float(said["video_aleatoric"][at]),
        epistemic=float(said["video_epistemic"][at]),
        frame_aleatoric=said["frame_aleatoric"][at][frames].astype(float),
        frame_epistemic=said["frame_epistemic"][at][frames].astype(float),
        frame_right=frame_said == label,
        ways=int((names != "").sum()),
    )


def group_rows(
    videos: Sequence[VideoRow], key: Callable[[VideoRow], tuple[str, str]]
) -> tuple[GroupRow, ...]:
    """Labelled videos summarised by (task, name), the least accurate first.

    Of the equally accurate, those come first whose truths were thought less likely (NLL). The worst
    tenth, at least one group, is marked where there are three groups or more.
    """
    groups: dict[tuple[str, str], list[VideoRow]] = defaultdict(list)
    for video in videos:
        if video.labelled:
            groups[key(video)].append(video)
    rows = sorted(
        (_group_row(*names, members) for names, members in groups.items()),
        key=lambda row: (row.accuracy, -row.nll),
    )
    tenth = math.ceil(len(rows) / 10) if len(rows) >= 3 else 0
    return tuple(_marked(row, i < tenth) for i, row in enumerate(rows))


def _marked(row: GroupRow, worst: bool) -> GroupRow:
    return GroupRow(**{**row.__dict__, "worst": worst})


def _group_row(task: str, name: str, videos: Sequence[VideoRow]) -> GroupRow:
    right = np.array([v.right for v in videos], float)
    low, high = wilson(np.array([right.mean()]), np.array([float(len(videos))]))
    wrong = Counter(v.said for v in videos if not v.right)
    with np.errstate(divide="ignore"):
        log_prob = np.log([v.prob_truth for v in videos])
    return GroupRow(
        task=task,
        name=name,
        videos=len(videos),
        accuracy=float(right.mean()),
        low=float(low[0]),
        high=float(high[0]),
        frame_accuracy=float(np.concatenate([v.frame_right for v in videos]).mean()),
        nll=float(-log_prob.mean()),
        total=float(np.mean([v.total for v in videos])),
        aleatoric=float(np.mean([v.aleatoric for v in videos])),
        epistemic=float(np.mean([v.epistemic for v in videos])),
        confused=wrong.most_common(1)[0] if wrong else ("", 0),
    )


def confusions(videos: Sequence[VideoRow], most: int = 12) -> tuple[Confusion, ...]:
    """The most frequent confusions, the surer first among equals."""
    pairs: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    of = Counter((v.task, v.truth) for v in videos if v.labelled)
    for v in videos:
        if v.labelled and not v.right:
            pairs[v.task, v.truth, v.said].append(v.prob_said)
    found = [
        Confusion(*names, len(probs), of[names[:2]], float(np.mean(probs)))
        for names, probs in pairs.items()
    ]
    return tuple(sorted(found, key=lambda c: (-c.count, -c.prob))[:most])


def telling(videos: Sequence[VideoRow], most: int = 12) -> tuple[VideoRow, ...]:
    """Videos worth looking at first: wrong with confidence, then the most unsure."""
    wrong = sorted((v for v in videos if v.labelled and not v.right), key=lambda v: -v.prob_said)
    unsure = sorted(videos, key=lambda v: -v.total)
    chosen: dict[tuple[str, str], VideoRow] = {}
    for v in [*wrong[: most // 2], *unsure]:
        if len(chosen) < most:
            chosen.setdefault((v.task, v.video), v)
    return tuple(chosen.values())
