"""Figures of one method in one world, and over worlds: start with `Scored`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesfs.metrics.bootstrap import (
    Interval,
    Statistic,
    bootstrap_interval,
    difference,
    mean_statistic,
    rows_statistic,
)
from bayesfs.metrics.calibration import ece_if_calibrated
from bayesfs.metrics.items import scored_rows
from bayesfs.metrics.score_table import BOUNDS, statistics
from bayesfs.metrics.selective import auroc
from bayesfs.types import UNLABELLED
from transfer_parts.methods import Answer, Bools, Floats, Ints

FOUND = 0.95
"""A video is called new where its novelty, one minus a p-value, is above this."""

SHORT = {"accuracy": "acc", "nll": "nll", "ece": "ece"}
Figures = dict[str, float | str | None]


@dataclass(frozen=True, eq=False)
class Scored:
    """All query videos of one method in one world, at one number of videos per object.

    Attributes:
        prob: (query, way).
        label: (query,) class, or `UNLABELLED` of what was not taught.
        task: (query,) number of the task.
        video: (query,) its name; the same video may be asked in several tasks.
        in_set: (query, way), or None.
        novelty: (query,), or None.
        borrowed: mean over tasks, or None.
        draws: bootstrap samples.
    """

    prob: Floats
    label: Ints
    task: Ints
    video: NDArray[np.str_]
    in_set: Bools | None
    novelty: Floats | None
    borrowed: float | None
    draws: int

    @classmethod
    def of(
        cls,
        answers: Sequence[Answer],
        tasks: Sequence[Ints],
        videos: Sequence[Sequence[str]],
        draws: int,
    ) -> Scored:
        """The answers of all tasks; `tasks` and `videos` are labels and names of their queries."""
        borrowed = [a.borrowed for a in answers if a.borrowed is not None]
        return cls(
            np.concatenate([a.prob for a in answers]),
            np.concatenate(tasks),
            np.repeat(np.arange(len(tasks)), [len(label) for label in tasks]),
            np.concatenate([np.asarray(names, str) for names in videos]),
            _joined([a.in_set for a in answers]),
            _joined([a.novelty for a in answers]),
            float(np.mean(borrowed)) if borrowed else None,
            draws,
        )

    @property
    def taught(self) -> Bools:
        """(query,) whether the object was taught."""
        return np.asarray(self.label != UNLABELLED)

    @cached_property
    def statistics(self) -> Mapping[str, Statistic]:
        """Scores of taught videos, pooled, as functions of the weights of the tasks."""
        k = self.taught
        names = pd.DataFrame({"task": self.task[k], "frame": 0})
        log_prob = np.log(self.prob[k].clip(min=np.finfo(float).tiny))
        rows = scored_rows(names, log_prob, self.label[k], np.full(k.sum(), log_prob.shape[1]))
        return statistics(rows, "task")[0]

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return int(self.task.max()) + 1

    def interval(self, score: str) -> Interval:
        """A score of taught videos, over tasks of this world."""
        statistic = self.statistics[score]
        return bootstrap_interval(statistic, self.tasks, draws=self.draws, bounds=BOUNDS[score])

    def value(self, score: str) -> float:
        """A score of taught videos."""
        return float(self.statistics[score](np.ones((1, self.tasks)))[0])

    @cached_property
    def ece_if_calibrated(self) -> tuple[float, float]:
        """Mean, and 95 % quantile, of the ECE of these probabilities if they were true.

        A video is right or wrong in all tasks that ask it, so that few videos are few data.
        """
        k = self.taught
        log_prob = np.log(self.prob[k].clip(min=np.finfo(float).tiny))
        drawn = ece_if_calibrated(log_prob, self.label[k], groups=self.video[k])
        return float(drawn.mean()), float(np.quantile(drawn, 0.95))

    def gap(self, other: Scored) -> Interval:
        """NLL of taught videos less that of another method on the same tasks, paired."""
        both = difference(self.statistics["nll"], other.statistics["nll"])
        return bootstrap_interval(both, self.tasks, draws=self.draws)

    def share(self, values: Floats | Bools) -> Interval:
        """Mean of one value a taught video, over tasks."""
        k = self.taught
        statistic = mean_statistic(values[k].astype(float), self.task[k], self.tasks)
        return bootstrap_interval(statistic, self.tasks, draws=self.draws)

    def sets(self) -> tuple[Interval, Interval] | None:
        """Coverage and size of the sets of taught videos."""
        if self.in_set is None:
            return None
        rows = np.arange(len(self.label))
        inside = self.in_set[rows, self.label.clip(min=0)]
        return self.share(inside), self.share(self.in_set.sum(1).astype(float))

    def detection(self) -> tuple[Interval, float, float] | None:
        """AUROC of novelty, share of untaught videos that are found, share of false alarms."""
        if self.novelty is None or self.taught.all():
            return None
        novelty, new = self.novelty, ~self.taught
        area = rows_statistic(lambda i: auroc(novelty[i], new[i]), self.task)
        over = bootstrap_interval(area, self.tasks, draws=min(self.draws, 200), bounds=(0.0, 1.0))
        called = novelty > FOUND
        return over, float(called[new].mean()), float(called[~new].mean())


def _joined(parts: Sequence[Floats | Bools | None]) -> np.ndarray | None:
    known = [p for p in parts if p is not None]
    return np.concatenate(known) if len(known) == len(parts) else None


def novelty_auroc(novelty: Sequence[Floats], labels: Sequence[Ints]) -> float:
    """AUROC over all tasks' videos of a score that is high for what was not taught."""
    return auroc(np.concatenate(novelty), np.concatenate(labels) == UNLABELLED)


@dataclass(frozen=True, eq=False)
class Cell:
    """One world at one number of videos.

    Attributes:
        world: its name.
        shots: videos per object that were asked for.
        shown: mean number that objects gave, None where no task was possible.
        methods: name -> scores of the library's methods.
        heads: name -> scores of a simple head with the better of its tunings.
        tuning: name -> that tuning.
        best_auroc: highest novelty AUROC of all heads, by cosine or by probability.
    """

    world: str
    shots: int
    shown: float | None
    methods: Mapping[str, Scored]
    heads: Mapping[str, Scored]
    tuning: Mapping[str, str]
    best_auroc: float

    @property
    def best(self) -> str:
        """The head with the lowest NLL in this world."""
        return min(self.heads, key=lambda name: self.heads[name].value("nll"))

    def figures(self, default: str) -> Figures:
        """Every figure of this cell, by name."""
        n, out = self.shots, Figures()
        for name, scored in {**self.methods, **self.heads}.items():
            out |= {f"{name}.{short}_{n}": scored.value(s) for s, short in SHORT.items()}
        out |= {
            f"{name}.novel_auroc_{n}": found[0].estimate
            for name, scored in self.methods.items()
            if (found := scored.detection()) is not None
        }
        ours = self.methods[default]
        sets, found = ours.sets(), ours.detection()
        least, most = ours.ece_if_calibrated
        out |= {
            f"ece_if_calibrated_{n}": least,
            f"ece_if_calibrated_95_{n}": most,
            f"coverage_{n}": sets and sets[0].estimate,
            f"set_size_{n}": sets and sets[1].estimate,
            f"novel_auroc_{n}": found and found[0].estimate,
            f"novel_found_{n}": found and found[1],
            f"false_alarms_{n}": found and found[2],
            f"borrowed_{n}": ours.borrowed,
            f"best_baseline_{n}": self.best,
            f"nll_minus_best_baseline_{n}": ours.gap(self.heads[self.best]).estimate,
            f"nll_ratio_{n}": ours.value("nll") / self.heads[self.best].value("nll"),
            f"best_baseline_novel_auroc_{n}": self.best_auroc,
            f"novel_auroc_minus_baseline_{n}": found and found[0].estimate - self.best_auroc,
        }
        return {f"{self.world}.{key}": value for key, value in out.items()}

    def lines(self) -> Iterable[str]:
        """The table of this cell for people."""
        head = f"{self.world}, {self.shots} videos per object"
        if self.shown is None:
            yield f"{head}: not measured, too few objects have so many"
            return
        few = "" if self.shown == self.shots else f" ({self.shown:.1f} on average: all there are)"
        yield f"{head}{few}"
        for name, scored in {**self.methods, **self.heads}.items():
            cells = [f"{short} {shown(scored.interval(s))}" for s, short in SHORT.items()]
            by = f"scale by {self.tuning[name]}" if name in self.tuning else ""
            yield f"  {name:12s} {'  '.join(cells)}  {by}".rstrip()
        for name, scored in self.methods.items():
            least, most = scored.ece_if_calibrated
            yield (
                f"  {name}: if its probabilities were true, so few videos would give an ece of "
                f"{least:.3f}, 95 % below {most:.3f}"
            )
            gap, sets, found = scored.gap(self.heads[self.best]), scored.sets(), scored.detection()
            yield f"  {name}: NLL less that of {self.best}, the best head, {shown(gap)}"
            if sets is not None:
                yield f"    90 % sets: coverage {shown(sets[0])}, size {shown(sets[1])}"
            if found is not None:
                yield (
                    f"    untaught: AUROC {shown(found[0])} (best head {self.best_auroc:.3f}), "
                    f"found {found[1]:.3f}, false alarms {found[2]:.3f}"
                )
            if scored.borrowed is not None:
                yield f"    share of others' population that was kept {scored.borrowed:.2f}"


def shown(interval: Interval) -> str:
    """The estimate, and its interval where there are tasks enough for one."""
    return f"{interval.estimate:.3f}" if interval.reason else str(interval)


Fold = Callable[[Sequence[float]], float]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _largest(values: Sequence[float]) -> float:
    return max(values)


OVER_WORLDS: Mapping[str, tuple[str, Fold]] = {
    **{
        key: value
        for n in (1, 2, 5)
        for key, value in {
            f"nll_minus_best_baseline_{n}": (f"nll_minus_best_baseline_{n}", _largest),
            f"nll_ratio_mean_{n}": (f"nll_ratio_{n}", _mean),
        }.items()
    },
    "coverage_min_2": ("coverage_2", min),
    "coverage_max_2": ("coverage_2", max),
    "novel_auroc_minus_baseline_2": ("novel_auroc_minus_baseline_2", min),
    "novel_found_mean_2": ("novel_found_2", _mean),
}
"""Figure over worlds -> (figure of each world, how they are folded)."""


def over_worlds(figures: Figures, worlds: Sequence[str], default: str) -> Figures:
    """Worst and mean figures over the worlds where they were measured; None where none was."""
    told = {f"ece_{n}": (f"{default}.ece_{n}", _largest) for n in (1, 2, 5)} | dict(OVER_WORLDS)
    out = Figures()
    for name, (key, fold) in told.items():
        values = [figures.get(f"{world}.{key}") for world in worlds]
        known = [v for v in values if isinstance(v, float) and np.isfinite(v)]
        out[name] = fold(known) if known else None
    return out
