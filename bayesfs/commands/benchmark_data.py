"""What a benchmark scores: users of a feature store, or classes of labelled stills.

`UserTasks` and `StillTasks` give the same two things: a `Lesson` to learn from, and the tasks of a
condition, batch by batch. Where a condition has noise, only the query's features have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from bayesfs.commands.benchmark_methods import Lesson
from bayesfs.data.episodes import stack
from bayesfs.errors import DataError
from bayesfs.evaluation.bootstrap import table_of_rows
from bayesfs.evaluation.conditions import Condition, noisy, with_query_of
from bayesfs.evaluation.fewshot import FewShotProtocol
from bayesfs.evaluation.fewshot_scores import few_shot_summary
from bayesfs.evaluation.items import frame_rows, video_rows
from bayesfs.evaluation.resampling import too_few
from bayesfs.evaluation.users import HeldOutUsers
from bayesfs.features.project import Projection, fit_projection
from bayesfs.features.reduce import PrincipalAxes
from bayesfs.study import frames_of
from bayesfs.types import Embeddings, EpisodeBatch, Predictive

Rows = dict[str, pd.DataFrame]
"""Item ("frame", "video" or "picture") -> its scored rows."""

LEVEL = 0.95


@dataclass(frozen=True)
class UserTasks:
    """Held-out users of an ORBIT-shaped feature store.

    Attributes:
        embeddings: features of all users.
        evaluation: who is learnt from, who is scored, and how.
        seed: of everything random.
    """

    embeddings: Embeddings
    evaluation: HeldOutUsers
    seed: int = 0

    def lesson(self, reduction: PrincipalAxes) -> Lesson:
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
        """One batch: every test user."""
        split, seed = self.evaluation.test_split, self.seed
        chosen = limit_objects(self.embeddings, condition.way, split, seed)
        most = max(condition.shots, *self.evaluation.shots)
        evaluation = replace(self.evaluation, shots=(most,))
        clean = evaluation.test_episodes(projection(chosen), seed=seed)
        if condition.noise:
            worse = projection(noisy(chosen, condition.noise, seed=seed))
            clean = with_query_of(clean, evaluation.test_episodes(worse, seed=seed))
        yield clean.limit_shots(condition.shots)

    def rows(self, predictive: Predictive, episodes: EpisodeBatch) -> Rows:
        """Scored frames and videos."""
        return {
            "frame": frame_rows(predictive, episodes),
            "video": video_rows(predictive, episodes),
        }

    def unit(self, rows: Rows) -> str:
        """What is resampled: users, or videos where users are too few."""
        return "video" if too_few(rows["video"]["user"].nunique(), LEVEL) else "user"

    def summary(self, rows: Rows, outside: pd.DataFrame, draws: int) -> pd.DataFrame:
        """Scores with intervals, and the mean over the worst tenth of users."""
        table = table_of_rows(rows, unit=self.unit(rows), draws=draws, level=LEVEL, seed=self.seed)
        columns = ["estimate", "low", "high", "worst"]
        frame = table[columns].to_dataframe()[columns]
        return frame.reset_index()


def limit_objects(embeddings: Embeddings, way: int, split: str, seed: int) -> Embeddings:
    """So many objects of every user of a split, chosen at random; users with fewer are left out.

    Raises:
        DataError: no user has so many objects.
    """
    if way == 0:
        return embeddings
    user, thing = embeddings.coord("user"), embeddings.coord("object")
    keep = embeddings.coord("split") != split
    for name in np.unique(user[~keep]):
        objects = np.unique(thing[user == name])
        if len(objects) >= way:
            few = np.random.default_rng(seed).permutation(objects)[:way]
            keep |= (user == name) & np.isin(thing, few)
    if not (embeddings.coord("split")[keep] == split).any():
        raise DataError(f"expected {split} users with {way} objects or more, found none")
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

    def lesson(self, reduction: PrincipalAxes) -> Lesson:
        """Episodes of the learnt classes, cross-fitted.

        The trailing axes fit the pictures that they come from; a population or temperature that
        is learnt on those pictures would expect the same of new classes, and be too sure.
        """
        projection = fit_projection(self.pictures.where(object=self.learn), reduction.dim)
        seeds = 1000 + np.arange(self.groups)
        parts: list[EpisodeBatch] = []
        folds = max(2, min(self.folds, len(self.learn) // self.protocol.way))
        for fold, chosen in enumerate(np.array_split(seeds, folds)):
            inside = self.learn[fold::folds]
            outside = [name for name in self.learn if name not in inside]
            axes = fit_projection(self.pictures.where(object=outside), projection.dim)
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
