"""Scores of few-shot episodes: start with `run_few_shot`, then `FewShotRun.summary`.

ECE, MCE and the rest pool all queries of all episodes, as in the literature; ECE is also averaged
over episodes. Two intervals are given, as they answer two questions. Resampling episodes tells
how well these classes were measured (it shrinks with the number of episodes). Resampling classes
tells how other classes might have turned out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bayesfs._utils.arrays import Floats
from bayesfs.errors import ShapeError
from bayesfs.evaluation.few_shot import FewShotProtocol
from bayesfs.metrics.bootstrap import Interval, bootstrap_interval, difference, mean_statistic
from bayesfs.metrics.items import frame_rows
from bayesfs.metrics.score_table import BOUNDS, SCORES, difference_bounds, group_scores, statistics
from bayesfs.metrics.selective import auroc
from bayesfs.protocols import Progress
from bayesfs.types import UNLABELLED, Embeddings, EpisodeBatch, Predictive, user_of

Predict = Callable[[EpisodeBatch], Predictive]
"""Infers the episodes from their support and predicts their queries."""


@dataclass(frozen=True)
class FewShotRun:
    """Scored queries of all episodes.

    Attributes:
        rows: one row per query, from `bayesfs.metrics.items.frame_rows`, and `class`.
        outside: one row per episode: `task` and `auroc`, by which 1 - max p tells queries of other
            classes from those of the episode's; nan where there are none.
    """

    rows: pd.DataFrame
    outside: pd.DataFrame

    def summary(self, *, level: float = 0.95, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
        """One row per score; see `few_shot_summary`."""
        return few_shot_summary(self.rows, self.outside, level=level, draws=draws, seed=seed)


def run_few_shot(
    predict: Predict,
    pictures: Embeddings,
    classes: Sequence[str],
    protocol: FewShotProtocol,
    *,
    shots: int | None = None,
    episodes_per_batch: int = 100,
    progress: Progress | None = None,
) -> FewShotRun:
    """Draw the episodes of a protocol, predict them batch by batch and keep the rows.

    Args:
        predict: the method.
        pictures: stills; those that `predict` wants, already projected by a projection that was
            fitted on meta-train classes.
        classes: test classes.
        protocol: which episodes.
        shots: use only the first so many support pictures; None uses all. With one protocol and
            several `shots`, the queries are the same.
        episodes_per_batch: episodes per call of `predict`.
        progress: told (episodes done, episodes, seed).
    """
    rows, outside, done = [], [], 0
    for batch in protocol.episodes(pictures, classes, episodes_per_batch=episodes_per_batch):
        episodes = batch if shots is None else batch.limit_shots(shots)
        predictive = predict(episodes)
        rows.append(frame_rows(predictive, episodes))
        found = out_of_episode_auroc(predictive, episodes)
        outside.append(pd.DataFrame({"task": episodes.tasks, "auroc": found}))
        done += len(episodes)
        if progress is not None:
            total = protocol.episodes_per_seed * len(protocol.seeds)
            progress(done, total, f"seed {episodes.tasks[0].partition('#')[0]}")
    table = pd.concat(rows, ignore_index=True)
    table["class"] = table["object"].str.partition("/")[2]
    return FewShotRun(table, pd.concat(outside, ignore_index=True))


def out_of_episode_auroc(
    predictive: Predictive,
    episodes: EpisodeBatch,
    score: Floats | None = None,
) -> Floats:
    """How well a score tells unlabelled queries (other classes) from labelled ones, per episode.

    Args:
        predictive: of the episodes.
        episodes: T episodes, with queries labelled `UNLABELLED` where the class is another.
        score: (task, video, frame), high where the class should be another, such as epistemic
            uncertainty; None takes 1 - max p.

    Returns:
        (task,) areas under the ROC curve; nan where an episode has no such queries.

    Raises:
        ShapeError: the score has another shape.
    """
    mask = episodes.query_mask.cpu().numpy()
    if score is None:
        score = -predictive.frame.log_prob.detach().cpu().numpy().max(-1)
    if score.shape != mask.shape:
        raise ShapeError(f"expected a score (task, video, frame) {mask.shape}, got {score.shape}")
    other = (episodes.query_labels == UNLABELLED).cpu().numpy()[..., None] & mask
    return np.array([auroc(s[m], o[m]) for s, m, o in zip(score, mask, other, strict=True)])


def few_shot_summary(
    rows: pd.DataFrame,
    outside: pd.DataFrame,
    *,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Scores with intervals over episodes and over classes, and their spread over seeds.

    Args:
        rows: of `FewShotRun`.
        outside: of `FewShotRun`.
        level: of the intervals.
        draws: number of bootstrap samples.
        seed: of the bootstrap.

    Returns:
        One row per score: those of `bayesfs.metrics.score_table.SCORES` pooled over queries,
        `ece_per_episode` and `out_auroc` averaged over episodes. Columns `estimate`, `low`, `high`
        (episodes resampled), `class_low`, `class_high` (classes resampled; nan for the last two
        scores), `seed_sd` (of the scores of single seeds, divisor n - 1).
    """
    by_task, tasks = statistics(rows, "task")
    by_class, classes = statistics(rows, "class")
    seeds = group_scores(rows, "user", unit="task")
    lines = {}
    for score in SCORES:
        over_tasks, over_classes = (
            bootstrap_interval(
                found[score], units, draws=draws, level=level, seed=seed, bounds=BOUNDS[score]
            )
            for found, units in ((by_task, len(tasks)), (by_class, len(classes)))
        )
        spread = seeds[score].std() if len(seeds) > 1 else np.nan
        lines[score] = _line(over_tasks, over_classes, spread)
    single = by_task["ece"](np.eye(len(tasks)))
    for score, values, names in (
        ("ece_per_episode", single, tasks),
        ("out_auroc", outside["auroc"].to_numpy(), outside["task"].tolist()),
    ):
        means = mean_statistic(values, np.arange(len(values)), len(values))
        over_tasks = bootstrap_interval(
            means, len(values), draws=draws, level=level, seed=seed, bounds=(0.0, 1.0)
        )
        of_seed = pd.Series(values).groupby([user_of(n) for n in names]).mean()
        lines[score] = _line(over_tasks, None, of_seed.std() if len(of_seed) > 1 else np.nan)
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("score")


def _line(tasks: Interval, classes: Interval | None, seed_sd: float) -> dict[str, float]:
    return {
        "estimate": tasks.estimate,
        "low": tasks.low,
        "high": tasks.high,
        "class_low": np.nan if classes is None else classes.low,
        "class_high": np.nan if classes is None else classes.high,
        "seed_sd": float(seed_sd),
    }


def few_shot_difference(
    first: FewShotRun,
    second: FewShotRun,
    score: str = "nll",
    *,
    unit: str = "class",
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """Pooled score of the first run minus that of the second, on the same queries.

    Args:
        first: scored queries of one method.
        second: of another, from the same protocol.
        score: one of `SCORES`.
        unit: what is resampled: "class" or "task".
        level: of the interval.
        draws: number of bootstrap samples.
        seed: of the bootstrap.

    Raises:
        ShapeError: the runs are of different queries.
    """
    keys = ["task", "video", "label"]
    if (
        len(first.rows) != len(second.rows)
        or not (first.rows[keys].to_numpy() == second.rows[keys].to_numpy()).all()
    ):
        raise ShapeError("expected two runs of the same protocol, got different queries")
    one, names = statistics(first.rows, unit)
    two, _ = statistics(second.rows, unit)
    gap = difference(one[score], two[score])
    return bootstrap_interval(
        gap,
        len(names),
        draws=draws,
        level=level,
        seed=seed,
        bounds=difference_bounds(score),
    )
