"""Everything a report shows, computed once from the run, for the HTML and the Markdown template."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from bayesfs._utils.arrays import Floats
from bayesfs.diagnostics.convergence import Diagnostics, diagnose
from bayesfs.errors import DataError
from bayesfs.evaluation.score_sheet import GROUPS, all_scores, score_sheet
from bayesfs.explanation.record import NextRecording, SaidOften, Statement
from bayesfs.metrics.calibration import reliability
from bayesfs.metrics.reference import chance_scores
from bayesfs.metrics.score_table import statistics
from bayesfs.metrics.selective import risk_coverage
from bayesfs.report.draws import Scalar, scalars, summary_table, to_trace
from bayesfs.report.model import ModelView
from bayesfs.report.pictures import Album, make_album
from bayesfs.report.tables import (
    Confusion,
    GroupRow,
    VideoRow,
    confusions,
    group_rows,
    telling,
    video_table,
)
from bayesfs.results.rows import ITEMS, Item, labelled_items
from bayesfs.results.store import check_datatree
from bayesfs.types import LevelNames, user_of
from bayesfs.uncertainty.parts import SHARED

if TYPE_CHECKING:
    from bayesfs.data.store import Thumbnail

COVERAGES = (0.5, 0.8, 1.0)
"""Shares of the videos at which the accuracy of the surest is told."""

LARGE = 1000
"""Videos from which a report is shortened."""


@dataclass(frozen=True)
class ReportData:
    """What a report is made from.

    Attributes:
        title: of the page.
        trees: number of support videos per object -> the run's DataTree at that number.
        scores: number of support videos -> `bayesfs.metrics.score_table.score_table`.
        facts: what was run: name -> value, in the order to show.
        warnings: what was skipped or odd, one sentence each.
        pictures: video -> thumbnails; a report without them holds no pixel of the data.
        advice: what to record next.
        said: (task, video) -> what is said of it.
        level_errors: level -> Monte Carlo errors of its mean over the videos, in nats, and of its
            share of the total.
        words: how often each kind of sentence came true.
        note: a sentence to read before anything else, such as whom the report shows.

    Raises:
        DataError: there is no tree, or one is not a run's.
    """

    title: str
    trees: Mapping[int, xr.DataTree]
    scores: Mapping[int, xr.Dataset] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    pictures: Mapping[str, Sequence[Thumbnail]] = field(default_factory=dict)
    advice: Sequence[NextRecording] = ()
    said: Mapping[tuple[str, str], Statement] = field(default_factory=dict)
    level_errors: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    words: Sequence[SaidOften] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if not self.trees:
            raise DataError("expected at least one run to report on, got none")
        for shots, tree in self.trees.items():
            check_datatree(tree, f"the run at {shots} support videos")


@dataclass(frozen=True)
class ScoreLine:
    """One score of one unit at every number of support videos.

    Attributes:
        unit: "frame" or "video".
        score: its name.
        cells: number of support videos -> (estimate, lower end, upper end); ends may be nan.
        worst: mean over the worst tenth of the people, at the largest number; nan if not known.
        who: their names.
        baseline: the nearest class mean's, at the largest number; nan if not known.
        chance: of guessing among the taught objects; nan if it has none.
    """

    unit: str
    score: str
    cells: Mapping[int, tuple[float, float, float]]
    worst: float
    who: tuple[str, ...]
    baseline: float = math.nan
    chance: float = math.nan


class LevelMean(NamedTuple):
    """What a level accounts for.

    Attributes:
        level: its name.
        nats: mean over the videos that have levels.
        error: Monte Carlo standard error of `nats`; nan if not known.
        share: of all levels.
        share_error: that of `share`.
    """

    level: str
    nats: float
    error: float
    share: float
    share_error: float


class PersonLine(NamedTuple):
    """A person, now and with fewer support videos.

    Attributes:
        row: at the largest number of support videos.
        before: share named right at the smallest; nan where there is one number only.
        gain: nats a video won over the nearest class mean; nan if not known.
    """

    row: GroupRow
    before: float
    gain: float


def score_cells(table: xr.Dataset) -> Iterator[tuple[str, str, float, float, float]]:
    """(unit, score, low, estimate, high) of every score that there is.

    Args:
        table: from `bayesfs.metrics.score_table.score_table`.

    Raises:
        DataError: it lacks `estimate`, `low` or `high` over (unit or item, score).
    """
    table = _by_unit(table)
    for name in ("low", "estimate", "high"):
        if name not in table or set(table[name].dims) != {"unit", "score"}:
            raise DataError(f"expected a score table with {name!r} over (unit, score), got {table}")
    for unit in table["unit"].to_numpy():
        for score in table["score"].to_numpy():
            at = table.sel(unit=unit, score=score)
            low, value, high = (float(at[n]) for n in ("low", "estimate", "high"))
            if not math.isnan(value):
                yield str(unit), str(score), low, value, high


def worst_cell(table: xr.Dataset, unit: str, score: str) -> tuple[float, tuple[str, ...]]:
    """Mean over the worst tenth of the people by that score, and who they are."""
    table = _by_unit(table)
    if "worst" not in table:
        return math.nan, ()
    at = table.sel(unit=unit, score=score)
    who = at["worst_users"].to_numpy().tolist() if "worst_users" in table else []
    return float(at["worst"]), tuple(str(name) for name in who)


def every_score(log_prob: Floats, rows: pd.DataFrame) -> dict[str, float]:
    """Those of the table of scores and those of the sheet."""
    found, names = statistics(rows)
    everything = np.ones((1, len(names)))
    pooled = {name: float(score(everything)[0]) for name, score in found.items()}
    return {**pooled, **all_scores(log_prob, rows)}


def _by_unit(table: xr.Dataset) -> xr.Dataset:
    return table.rename(item="unit") if "item" in table.dims else table


@dataclass(frozen=True)
class ReportView:
    """What the templates read; each part is computed when it is first asked for.

    Attributes:
        data: what the report is made from.
    """

    data: ReportData

    @property
    def shots(self) -> int:
        """The number of support videos that the figures show: the largest."""
        return max(self.data.trees)

    @property
    def tree(self) -> xr.DataTree:
        """The run at that number."""
        return self.data.trees[self.shots]

    @property
    def levels(self) -> LevelNames:
        """What the data call the levels."""
        return LevelNames.of_json(str(self.tree.attrs.get("levels", "")))

    @cached_property
    def fits(self) -> tuple[Diagnostics, ...]:
        """Diagnostics of the population, where it was learnt, and of the tasks at every shots."""
        found = []
        if "population" in self.tree.children:
            found.append(diagnose(self.tree, group="population", name="population"))
        for shots, tree in sorted(self.data.trees.items()):
            plural = "" if shots == 1 else "s"
            many = len(self.data.trees) > 1
            name = f"tasks, {shots} support video{plural}" if many else "tasks"
            found.append(diagnose(tree, name=self.levels.in_words(name)))
        return tuple(found)

    @cached_property
    def model(self) -> ModelView:
        """The model, as the data see it."""
        log_prob, labels, _ = self._scored["videos"]
        return ModelView(self.data.trees, log_prob, labels)

    @property
    def verdicts(self) -> tuple[Diagnostics, ...]:
        """One line per posterior, and one for the model."""
        return (*self.fits, self.model.verdict)

    @cached_property
    def level_means(self) -> tuple[LevelMean, ...]:
        """Every level, over the videos that have levels, as given."""
        said = [self.data.said.get((v.task, v.video)) for v in self.videos]
        rows = [one.levels for one in said if one and one.levels]
        names = dict.fromkeys(name for row in rows for name in row)
        means = {n: float(np.mean([row.get(n, 0.0) for row in rows])) for n in names}
        total = sum(means.values())
        found = []
        for name, mean in means.items():
            error, share_error = self.data.level_errors.get(name, (math.nan, math.nan))
            share = mean / total if total else math.nan
            found.append(LevelMean(name, mean, error, share, share_error))
        return tuple(found)

    def level_name(self, level: str) -> str:
        """Name of a level in the words of the data."""
        return self.levels.of_level("class in general" if level == SHARED else level)

    @property
    def has_shared(self) -> bool:
        """Whether what classes of a name share is a level of its own."""
        return any(row.level == SHARED for row in self.level_means)

    @cached_property
    def monte_carlo(self) -> Mapping[str, float]:
        """`bayesfs.uncertainty.monte_carlo.MonteCarlo` of the videos; empty if it is not known."""
        if "monte_carlo" not in self.tree.children:
            return {}
        return {str(k): float(v) for k, v in self.tree["monte_carlo"].to_dataset().items()}

    @cached_property
    def histories(self) -> tuple[tuple[str, Floats], ...]:
        """(name, values by step) of what optimisers reported."""
        found = []
        for group, name in (("population_sample_stats", "population"), ("sample_stats", "tasks")):
            if group in self.tree.children:
                for stat, values in self.tree[group].to_dataset().items():
                    if any(str(d).endswith("_step") for d in values.dims) and len(values) > 1:
                        label = {"elbo": "ELBO, nats", "ksd": "KSD"}.get(str(stat), str(stat))
                        found.append((f"{label} ({name})", values.to_numpy().astype(float)))
        return tuple(found)

    @cached_property
    def videos(self) -> tuple[VideoRow, ...]:
        """Every query video."""
        return video_table(self.tree)

    @cached_property
    def labelled(self) -> tuple[VideoRow, ...]:
        """Query videos whose object is known and taught."""
        return tuple(v for v in self.videos if v.labelled)

    @cached_property
    def tasks(self) -> tuple[GroupRow, ...]:
        """One row per task, the worst first."""
        return group_rows(self.videos, lambda v: (v.task, v.task))

    @cached_property
    def people(self) -> tuple[GroupRow, ...]:
        """One row per person, the worst first; a person may have several tasks."""
        return group_rows(self.videos, lambda v: (user_of(v.task), user_of(v.task)))

    @cached_property
    def people_lines(self) -> tuple[PersonLine, ...]:
        """The same with what more videos, and the model, won them."""
        least, before = min(self.data.trees), {}
        if least < self.shots:
            rows = video_table(self.data.trees[least])
            fewer = group_rows(rows, lambda v: (user_of(v.task), user_of(v.task)))
            before = {row.name: row.accuracy for row in fewer}
        simple = self._of_baseline("video")
        nll = {} if simple is None else simple[1].groupby("user")["nll"].mean().to_dict()
        return tuple(
            PersonLine(row, before.get(row.name, math.nan), nll.get(row.name, math.nan) - row.nll)
            for row in self.people
        )

    def _of_baseline(self, item: Item) -> tuple[Floats, pd.DataFrame] | None:
        """Log-probabilities and rows of the nearest class mean, where the run has them."""
        if "baseline" not in self.tree.children or not self.labelled:
            return None
        return labelled_items(self.tree, item, "baseline")

    @cached_property
    def baseline_scores(self) -> dict[str, dict[str, float]]:
        """Item -> score -> that of the nearest class mean, at the largest number of videos."""
        found = {item: self._of_baseline(item) for item in ITEMS}
        return {str(item): every_score(*pair) for item, pair in found.items() if pair is not None}

    @cached_property
    def chance_scores(self) -> dict[str, dict[str, float]]:
        """Item -> score -> that of guessing among the taught objects."""
        if not self.labelled:
            return {}
        rows = {str(item): labelled_items(self.tree, item)[1] for item in ITEMS}
        return {item: chance_scores(table["way"].to_numpy()) for item, table in rows.items()}

    @cached_property
    def objects(self) -> dict[str, tuple[GroupRow, ...]]:
        """Task -> one row per object, the worst first."""
        rows = group_rows(self.videos, lambda v: (v.task, v.truth))
        return {name: tuple(r for r in rows if r.task == name) for name in self.task_names}

    @cached_property
    def videos_of(self) -> dict[str, tuple[VideoRow, ...]]:
        """Task -> its videos, the most unsure first."""
        ranked = sorted(self.videos, key=lambda v: -v.total)
        found: dict[str, list[VideoRow]] = {name: [] for name in self.task_names}
        for video in ranked:
            found[video.task].append(video)
        return {name: tuple(rows) for name, rows in found.items()}

    @cached_property
    def task_names(self) -> tuple[str, ...]:
        """Tasks, the worst first, those without a labelled video last."""
        ranked = [row.name for row in self.tasks]
        return tuple(dict.fromkeys([*ranked, *(v.task for v in self.videos)]))

    @cached_property
    def overall(self) -> GroupRow | None:
        """All labelled videos together, or None if there are none."""
        rows = group_rows(self.videos, lambda v: ("", "all"))
        return rows[0] if rows else None

    @cached_property
    def confusions(self) -> tuple[Confusion, ...]:
        """The most frequent confusions."""
        return confusions(self.videos)

    @cached_property
    def telling(self) -> tuple[VideoRow, ...]:
        """Videos to look at first."""
        return telling(self.videos)

    @cached_property
    def reliability(self) -> dict[str, pd.DataFrame]:
        """Unit -> reliability table, with the tasks as groups; empty without labelled videos."""
        if not self.labelled:
            return {}
        return {
            unit: reliability(log_prob, labels, groups=users)
            for unit, (log_prob, labels, users) in self._scored.items()
        }

    @cached_property
    def _scored(self) -> dict[str, tuple[Floats, Any, Any]]:
        """Unit -> (item, way) log p, (item,) labels, (item,) users of what is labelled."""
        nothing = (np.zeros((0, 1)), np.zeros(0, int), np.zeros(0, str))
        found: dict[str, tuple[Floats, Any, Any]] = {"videos": nothing, "frames": nothing}
        for item in ITEMS if self.labelled else ():
            log_prob, rows = labelled_items(self.tree, item)
            found[f"{item}s"] = (log_prob, rows["label"].to_numpy(), rows["user"].to_numpy(str))
        return found

    @cached_property
    def coverage(self) -> dict[str, tuple[Floats, Floats]]:
        """Ranking -> (coverage, accuracy) of the videos, the surest first."""
        if not self.labelled:
            return {}
        log_prob, labels, _ = self._scored["videos"]
        curves = {}
        for kind in ("total", "aleatoric", "epistemic"):
            unsure = np.array([getattr(v, kind) for v in self.labelled])
            covered, risk = risk_coverage(log_prob, labels, -unsure)
            curves[kind] = (covered, 1 - risk)
        return curves

    def accuracy_at(self, name: str) -> tuple[float, ...]:
        """Accuracy of the surest videos by one ranking, at each of `COVERAGES`."""
        covered, accuracy = self.coverage[name]
        return tuple(float(np.interp(c, covered, accuracy)) for c in COVERAGES)

    @cached_property
    def top_nats(self) -> float:
        """Log of the largest number of classes: what no uncertainty can pass."""
        return math.log(max(2, *(v.ways for v in self.videos))) if self.videos else math.log(2)

    @property
    def whole(self) -> int:
        """Videos per task that can be opened: all of them, unless that makes the file too large."""
        return len(self.videos) if len(self.videos) <= LARGE else 12

    @cached_property
    def album(self) -> Album:
        """The pictures."""
        first = [v.video for v in self.telling]
        ranked = sorted(self.videos, key=lambda v: -v.total)
        return make_album(self.data.pictures, first, [v.video for v in ranked])

    @cached_property
    def drawn(self) -> tuple[tuple[str, pd.DataFrame, tuple[Scalar, ...], str], ...]:
        """(name, summary, scalars to trace, kind) of the population and the tasks."""
        found = []
        population = [fit for fit in self.fits if fit.name == "population"]
        for fit in [*population, self.fits[-1]]:
            group = "population" if fit.name == "population" else "posterior"
            chosen = scalars(self.tree, group)
            if chosen:
                table = summary_table(chosen, fit.kind)
                found.append((fit.name, table, to_trace(chosen, fit), fit.kind))
        return tuple(found)

    @cached_property
    def score_lines(self) -> tuple[ScoreLine, ...]:
        """The score table, one line per unit and score."""
        lines: dict[tuple[str, str], dict[int, tuple[float, float, float]]] = {}
        for shots, table in sorted(self.data.scores.items()):
            for unit, score, low, value, high in score_cells(table):
                lines.setdefault((unit, score), {})[shots] = (value, low, high)
        return tuple(
            ScoreLine(
                *names,
                cells,
                *worst_cell(self.data.scores[max(cells)], *names),
                self.baseline_scores.get(names[0], {}).get(names[1], math.nan),
                self.chance_scores.get(names[0], {}).get(names[1], math.nan),
            )
            for names, cells in lines.items()
        )

    @cached_property
    def sheet(self) -> dict[str, pd.DataFrame]:
        """Item -> every score by group; videos are one for frames alone, unless there are many."""
        groups = GROUPS if len(self.videos) <= LARGE else GROUPS[:-1]
        return self._sheet({"frame": groups, "video": GROUPS[:-1]})

    def _sheet(self, groups: Mapping[Item, Sequence[str]]) -> dict[str, pd.DataFrame]:
        if not self.labelled:
            return {}
        return {i: score_sheet(self.tree, groups=own, items=(i,)) for i, own in groups.items()}

    @cached_property
    def sheet_ends(self) -> dict[str, tuple[Any, Any]]:
        """Item -> its scores of everything, and of the worst people."""
        ends = self._sheet(dict.fromkeys(ITEMS, ("all", "user")))
        by_group = {item: rows.set_index("group") for item, rows in ends.items()}
        return {item: (t.loc["all"], t.loc["worst users"]) for item, t in by_group.items()}

    @property
    def interval_reason(self) -> str:
        """Why the scores have no intervals, or ""."""
        if not self.data.scores:
            return ""
        return str(self.data.scores[max(self.data.scores)].attrs.get("interval_reason", ""))

    @property
    def interval_note(self) -> str:
        """That the intervals hold the truth less often than they say, where they may, or ""."""
        if not self.data.scores:
            return ""
        return str(self.data.scores[max(self.data.scores)].attrs.get("interval_note", ""))


def verdicts_of(tree: xr.DataTree) -> tuple[Diagnostics, ...]:
    """The verdicts of a report on one tree, such as `BayesianFewShotClassifier.to_datatree` gives.

    Args:
        tree: a run's, a study's or an estimator's, with labels.

    Returns:
        One for each posterior, and one for the model: whether it is better than guessing and than
        the nearest class mean, calibrated, and as often right as it expects.

    Example:
        >>> print(verdicts_of(classifier.to_datatree(x, y=y))[-1].verdict)  # doctest: +SKIP
        fit for use
    """
    return ReportView(ReportData("", {1: tree})).verdicts
