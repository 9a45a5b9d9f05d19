"""What a benchmark scores: users of a feature store, or classes of labelled stills.

`UserTasks` and `StillTasks` give the same two things: a `Lesson` to learn from, and the tasks of a
condition, batch by batch. Where a condition has noise or a corruption, only the query has it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from bayesfs.benchmark.conditions import Condition, noisy, with_queries_of_others, with_query_of
from bayesfs.benchmark.corrupted_queries import CorruptedQueries
from bayesfs.benchmark.methods import Lesson
from bayesfs.data.from_arrays import stack
from bayesfs.data.sources.video import UNKNOWN_OBJECT
from bayesfs.errors import DataError
from bayesfs.evaluation.few_shot import FewShotProtocol
from bayesfs.evaluation.few_shot_scores import few_shot_summary
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.features.projection import Projection
from bayesfs.features.reduction import FeatureReduction
from bayesfs.metrics.bootstrap import bootstrap_interval, mean_statistic, too_few
from bayesfs.metrics.items import frame_rows, video_rows
from bayesfs.metrics.score_table import table_of_rows
from bayesfs.study import frames_of
from bayesfs.types import UNLABELLED, Embeddings, EpisodeBatch, Predictive, user_of
from bayesfs.uncertainty.decompose import decompose

Rows = dict[str, pd.DataFrame]
"""Item ("frame", "video" or "picture") -> its scored rows."""

LEVEL = 0.95

UNSURE = ("aleatoric", "epistemic")
"""Kinds of uncertainty whose means are told under corruptions."""


@dataclass(frozen=True)
class UserTasks:
    """Held-out users of an ORBIT-shaped feature store.

    Attributes:
        embeddings: features of all users.
        evaluation: who is learnt from, who is scored, and how.
        seed: of everything random.
        corrupted: the embeddings with corrupted frames of the queries; None where no condition has
            a corruption.
    """

    embeddings: Embeddings
    evaluation: HeldOutUsers
    seed: int = 0
    corrupted: CorruptedQueries | None = None

    def lesson(self, reduction: FeatureReduction) -> Lesson:
        """Train users' frames, each user projected by axes of the others."""
        evaluation, seed = self.evaluation, self.seed
        tasks = evaluation.train_tasks(self.embeddings, seed=seed)
        frames = frames_of(self.embeddings, tasks)
        projection = reduction.fit(frames)
        crossed = reduction.cross_fit(frames, projection.dim)
        return Lesson(
            projection,
            evaluation.train_episodes(crossed, seed=seed),
            evaluation.train_tasks(crossed, seed=seed),
            evaluation.train_shots,
        )

    def batches(self, projection: Projection, condition: Condition) -> Iterator[EpisodeBatch]:
        """One batch: every test user, asked about other users' objects, too.

        Raises:
            DataError: no object of a test user has so many support videos.
        """
        split, seed = self.evaluation.test_split, self.seed
        most = max(condition.shots, *self.evaluation.shots)
        evaluation = replace(self.evaluation, shots=(most,))

        def drawn(embeddings: Embeddings) -> EpisodeBatch:
            chosen = projection(limit_objects(embeddings, condition.way, split, seed))
            return evaluation.test_episodes(chosen, seed=seed)

        tasks = drawn(self.embeddings)
        recorded = int(tasks.shot_mask.sum(-1).max())
        if condition.shots > recorded:
            raise DataError(
                f"expected {split} users with {condition.shots} support videos of an object or "
                f"more, found {recorded} at most; lower --shots"
            )
        if condition.noise:
            tasks = with_query_of(tasks, drawn(noisy(self.embeddings, condition.noise, seed=seed)))
        if condition.severity and self.corrupted is not None:
            worse = self.corrupted(condition.corruption, condition.severity)
            tasks = with_query_of(tasks, drawn(worse))
        yield with_queries_of_others(tasks).limit_shots(condition.shots)

    def rows(self, predictive: Predictive, episodes: EpisodeBatch) -> Rows:
        """Scored frames and videos."""
        return {
            "frame": frame_rows(predictive, episodes),
            "video": video_rows(predictive, episodes),
        }

    def unsure(self, rows: Rows, predictive: Predictive, episodes: EpisodeBatch) -> Rows:
        """The rows with aleatoric and epistemic uncertainty, nats, where there are draws."""
        if len(predictive.frame.log_weight) < 2:
            return rows
        said = decompose(predictive, episodes)
        label = episodes.query_labels.cpu().numpy() != UNLABELLED
        masks = {
            "frame": episodes.query_mask.cpu().numpy() & label[..., None],
            "video": episodes.video_mask.cpu().numpy() & label,
        }
        return {
            item: table.assign(**{k: said[f"{item}_{k}"].values[masks[item]] for k in UNSURE})
            for item, table in rows.items()
        }

    def unit(self, rows: Rows) -> str:
        """What is resampled: users, or videos where users are too few."""
        return "video" if too_few(rows["video"]["user"].nunique(), LEVEL) else "user"

    def summary(self, rows: Rows, outside: pd.DataFrame, draws: int) -> pd.DataFrame:
        """Scores with intervals, and the mean over the worst tenth of users.

        Besides `bayesfs.metrics.score_table.SCORES`: `out_auroc` of frames (its unit is always
        the user), and the mean `aleatoric` and `epistemic` where rows have them.
        """
        unit = self.unit(rows)
        table = table_of_rows(rows, unit=unit, draws=draws, level=LEVEL, seed=self.seed)
        columns = ["estimate", "low", "high", "worst"]
        parts = [table[columns].to_dataframe()[columns].reset_index()]
        means = [("frame", "out_auroc", outside["auroc"], outside["task"].map(user_of))]
        for item, found in rows.items():
            means += [(item, k, found[k], found[unit]) for k in UNSURE if k in found]
        for item, score, values, units in means:
            index, names = pd.factorize(units)
            mean = mean_statistic(values.to_numpy(float), index, len(names))
            bounds = (0.0, 1.0 if score == "out_auroc" else np.inf)
            interval = bootstrap_interval(
                mean, len(names), draws=draws, level=LEVEL, seed=self.seed, bounds=bounds
            )
            ends = {end: getattr(interval, end) for end in ("estimate", "low", "high")}
            parts.append(pd.DataFrame([{"item": item, "score": score, **ends, "worst": np.nan}]))
        return pd.concat(parts, ignore_index=True)


def limit_objects(embeddings: Embeddings, way: int, split: str, seed: int) -> Embeddings:
    """So many objects of every user of a split, chosen at random; users with fewer are left out.

    Raises:
        DataError: no user has so many objects.
    """
    if way == 0:
        return embeddings
    user, thing = embeddings.coord("user"), embeddings.coord("object")
    keep = embeddings.coord("split") != split
    few_objects = []
    for name in np.unique(user[~keep]):
        objects = np.setdiff1d(thing[user == name], [UNKNOWN_OBJECT])
        if len(objects) >= way:
            few = np.random.default_rng(seed).permutation(objects)[:way]
            keep |= (user == name) & np.isin(thing, [*few, UNKNOWN_OBJECT])
        else:
            few_objects.append(str(name))
    if not (embeddings.coord("split")[keep] == split).any():
        raise DataError(f"expected {split} users with {way} objects or more, found none")
    if few_objects:
        warnings.warn(
            f"{len(few_objects)} {split} users have fewer than {way} objects and are left out at "
            f"that number: {few_objects[:5]}",
            stacklevel=2,
        )
    return Embeddings(embeddings.dataset.isel(frame=np.flatnonzero(keep)))


@dataclass(frozen=True)
class StillTasks:
    """N-way K-shot episodes of classes that nothing was learnt from.

    Attributes:
        pictures: labelled features.
        learn: classes to learn from.
        score: classes to score.
        protocol: the scored episodes.
        shots: numbers of support pictures to learn at.
        groups: groups of episodes to learn from; a group counts as one user.
        repeats: episodes of a group.
        folds: parts of the learnt classes at most, fewer where a part would have fewer classes
            than an episode; each is projected by axes of the others.
        batch: episodes predicted at a time.
    """

    pictures: Embeddings
    learn: tuple[str, ...]
    score: tuple[str, ...]
    protocol: FewShotProtocol
    shots: tuple[int, ...] = (1, 5)
    groups: int = 20
    repeats: int = 4
    folds: int = 5
    batch: int = 100

    def lesson(self, reduction: FeatureReduction) -> Lesson:
        """Episodes of the learnt classes, cross-fitted.

        The trailing axes fit the pictures that they come from; a population or temperature that
        is learnt on those pictures would expect the same of new classes, and be too sure.
        """
        projection = reduction.fit_unlabelled(self.pictures.where(object=self.learn))
        seeds = 1000 + np.arange(self.groups)
        parts: list[EpisodeBatch] = []
        folds = max(2, min(self.folds, len(self.learn) // self.protocol.way))
        for fold, chosen in enumerate(np.array_split(seeds, folds)):
            inside = self.learn[fold::folds]
            outside = [name for name in self.learn if name not in inside]
            axes = reduction.fit_unlabelled(self.pictures.where(object=outside))
            protocol = self._learning(tuple(int(s) for s in chosen), len(inside))
            if len(chosen):
                parts += protocol.episodes(axes(self.pictures), inside)
        episodes = stack(parts)
        return Lesson(projection, episodes, episodes, self.shots)

    def _learning(self, seeds: tuple[int, ...], classes: int) -> FewShotProtocol:
        return replace(
            self.protocol,
            way=min(self.protocol.way, classes),
            shots=max(self.shots),
            queries=5,
            outside=0,
            episodes_per_seed=self.repeats,
            seeds=seeds,
        )

    def batches(self, projection: Projection, condition: Condition) -> Iterator[EpisodeBatch]:
        """The protocol's episodes, with the first support pictures of the most that are asked."""
        protocol = replace(
            self.protocol,
            way=condition.way or self.protocol.way,
            shots=max(condition.shots, *self.shots),
        )
        clean = protocol.episodes(
            projection(self.pictures), self.score, episodes_per_batch=self.batch
        )
        if condition.noise:
            worse = projection(noisy(self.pictures, condition.noise, seed=0))
            other = protocol.episodes(worse, self.score, episodes_per_batch=self.batch)
            clean = (with_query_of(a, b) for a, b in zip(clean, other, strict=True))
        for episodes in clean:
            yield episodes.limit_shots(condition.shots)

    def rows(self, predictive: Predictive, episodes: EpisodeBatch) -> Rows:
        """Scored pictures."""
        rows = frame_rows(predictive, episodes)
        rows["class"] = rows["object"].str.partition("/")[2]
        return {"picture": rows}

    def unit(self, rows: Rows) -> str:
        """Episodes are resampled."""
        return "task"

    def summary(self, rows: Rows, outside: pd.DataFrame, draws: int) -> pd.DataFrame:
        """Scores with intervals over episodes and over classes; see `few_shot_summary`."""
        table = few_shot_summary(rows["picture"], outside, level=LEVEL, draws=draws)
        table = table.reset_index()
        table.insert(0, "item", "picture")
        return table


Tasks = UserTasks | StillTasks


def unit_sums(rows: Rows, unit: str) -> dict[str, Any]:
    """Per item: names of the units, number of rows and sum of the NLL, for paired differences."""
    found = {}
    for item, table in rows.items():
        grouped = table.groupby(unit, sort=True)["nll"].agg(["size", "sum"])
        found[item] = {
            "unit": [str(name) for name in grouped.index],
            "rows": grouped["size"].tolist(),
            "nll": grouped["sum"].tolist(),
        }
    return found
