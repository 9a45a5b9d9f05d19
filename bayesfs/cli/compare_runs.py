"""Finished runs side by side, on what all of them were asked about: `compare_runs`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from rich.console import Console
from rich.table import Table

from bayesfs._utils.guarded_files import read_text
from bayesfs._utils.owned_folders import claim
from bayesfs._utils.places import owners
from bayesfs._utils.progress import table_text, terminal_safe
from bayesfs.errors import RunError
from bayesfs.evaluation.common_rows import ScoredRows, common_rows
from bayesfs.evaluation.comparison import (
    MAIN,
    compare_elpd,
    compare_scores,
    overall_table,
    reliability_table,
    user_table,
)
from bayesfs.evaluation.score_sheet import score_sheet
from bayesfs.metrics.bootstrap import interval_note
from bayesfs.plots.reliability import plot_reliability
from bayesfs.results.rows import ITEMS, tree_rows
from bayesfs.runs.csv_tables import write_csv
from bayesfs.runs.directory import STATE, RunDirectory, checksum, explained, write_atomically
from bayesfs.runs.reading import Inputs, inputs_of, load_trees
from bayesfs.runs.record import CONFIG
from bayesfs.runs.run import seeds_of

Trees = Mapping[str, Mapping[int, xr.DataTree]]
"""Name of a run -> number of support videos -> its DataTree."""

SAME = {"version": "version of bayesfs", "smoke": "choice of --smoke"}
"""Inputs that runs must have in common to be compared at all -> what a person calls them."""

MOST_DIFFERENCES = 3
"""Values in the name of a run, at most."""

COMPARISON = "a comparison"
"""What its folder says that it is for."""

WORST = 5
"""Users printed at most; the CSV has all."""


@dataclass(frozen=True)
class Comparison:
    """Tables of a comparison; each has a column `shots`.

    Attributes:
        scores: from `bayesfs.evaluation.comparison.overall_table`.
        users: from `user_table`.
        elpd: from `compare_elpd`.
        reliability: from `reliability_table`.
        sheet: from `bayesfs.evaluation.score_sheet.score_sheet`, of every run.
    """

    scores: pd.DataFrame
    users: pd.DataFrame
    elpd: pd.DataFrame
    reliability: pd.DataFrame
    sheet: pd.DataFrame


def compare_runs(paths: Sequence[Path], out: Path) -> Comparison:
    """Compare runs with the first one, print the tables and write them and a picture.

    Runs of different seeds, evaluations or people are compared on the videos that all of them were
    asked about, which is said; expected log predictive densities need the same episodes.

    Args:
        paths: finished run directories, two or more.
        out: folder for scores.csv, users.csv, elpd.csv, reliability.csv, sheet.csv (every score
            of every run by user, object and video), reliability.png and comparison.json.

    Raises:
        RunError: a run is not finished, or of another version, or made with --smoke and the first
            is not.
        DataError: the runs share no video.
    """
    folders = short_names(paths)
    directories = [RunDirectory(path) for path in paths]
    for run in directories:
        run.finished()
    given = dict(zip(folders, map(inputs_of, directories), strict=True))
    for other in folders[1:]:
        _refuse_others(given, folders[0], other)
    names = names_by_difference(directories, folders)
    runs = dict(zip(names, directories, strict=True))
    inputs = dict(zip(names, given.values(), strict=True))
    trees = {name: load_trees(run) for name, run in runs.items()}
    alike = len({json.dumps(_episodes(one), sort_keys=True) for one in inputs.values()}) == 1
    found, said = compare_trees(trees, alike=alike)
    _write(found, out, dict(zip(names, paths, strict=True)))  # first: nobody may be listening
    if any(given.get("cluster") for given in inputs.values()):
        print("runs on a cluster: compared by the people whom their reports show, not by everybody")
    for sentence in said:
        print(sentence)
    _print(found, names)
    print(f"tables and picture: {out}")
    return found


def compare_trees(trees: Trees, *, alike: bool) -> tuple[Comparison, list[str]]:
    """Tables at every number of support videos that all runs were scored at.

    Args:
        trees: of each run.
        alike: whether the runs have the same episodes.

    Returns:
        The tables, and sentences that say on what the runs are compared where that is a part.
    """
    shots = sorted(set.intersection(*(set(t) for t in trees.values())))
    if not shots:
        at = {name: sorted(t) for name, t in trees.items()}
        raise RunError(f"the runs have no number of support videos in common: {at}")
    lacking = sorted(set().union(*trees.values()) - set(shots))
    more = ", ".join(map(str, lacking))
    said = [f"not compared at {more} videos per object, which not all runs have"] if more else []
    parts = []
    for count in shots:
        some = {name: t[count] for name, t in trees.items()}
        rows: ScoredRows = {name: tree_rows(tree) for name, tree in some.items()}
        if not alike:
            rows, sentence = common_rows(rows)
            said.append(f"{_videos(count)}: {sentence}")
        parts.append(_at_shots(some, rows, count, alike=alike))
    tables = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    return Comparison(*tables), said


def _at_shots(
    trees: Mapping[str, xr.DataTree], rows: ScoredRows, shots: int, *, alike: bool
) -> list[pd.DataFrame]:
    pairs = compare_scores(rows)
    with warnings.catch_warnings():  # the column high_k says it
        warnings.filterwarnings("ignore", message=".*shape parameter of Pareto distribution.*")
        elpd = compare_elpd(trees) if alike else pd.DataFrame()
    sheets = [score_sheet(tree).assign(run=name) for name, tree in trees.items()]
    tables = [overall_table(pairs), user_table(pairs), elpd, reliability_table(trees)]
    tables.append(pd.concat(sheets, ignore_index=True))
    for table in tables:
        table.insert(0, "shots", shots if len(table) else [])
    return tables


def names_by_difference(runs: Sequence[RunDirectory], folders: Sequence[str]) -> list[str]:
    """What runs are called: the values in which they differ, as `--set` has them.

    Args:
        runs: the runs, each with `recipes/full.json`.
        folders: from `short_names`, for runs that do not say their values or differ in none.
    """
    found = [_values(run) for run in runs]
    if any(one is None for one in found):
        return list(folders)
    told = _differing(found, "")
    names = []
    for place, folder in enumerate(folders):
        values = [f"{name}={_word(values[place])}" for name, values in told.items()]
        more = len(values) - MOST_DIFFERENCES
        shown = values[:MOST_DIFFERENCES] + ([f"{more} more"] if more > 0 else [])
        names.append(terminal_safe(", ".join(shown)) or folder)
    twice = {name for name in names if names.count(name) > 1}
    return [
        f"{name} ({folder})" if name in twice else name
        for name, folder in zip(names, folders, strict=True)
    ]


def _values(run: RunDirectory) -> Any:
    """What a run says that it ran, None where it does not."""
    try:
        held = json.loads(read_text(run.recipe(CONFIG)))
        return {**held["values"], "seeds": held["seeds"]}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _differing(values: Sequence[Any], place: str) -> dict[str, list[Any]]:
    """Dotted name -> the values there, of what is not the same in all of some JSON values."""
    if all(value == values[0] for value in values):
        return {}
    alike = all(isinstance(v, dict) for v in values)
    if not alike or len({str(v.get("class")) for v in values}) > 1:
        return {place: list(values)}
    names = dict.fromkeys(name for value in values for name in value)
    return {
        at: found
        for name in names
        for at, found in _differing(
            [v.get(name) for v in values], f"{place}.{name}".lstrip(".")
        ).items()
    }


def _word(value: Any) -> str:
    """A JSON value in a few characters: of a class its name."""
    if isinstance(value, dict):
        value = value.get("class", "...")
    if isinstance(value, list):
        return f"({','.join(map(_word, value))})"
    return str(value).rpartition(".")[2] if str(value).startswith("bayesfs.") else str(value)


def short_names(paths: Sequence[Path]) -> list[str]:
    """Shortest ends of the paths that tell the runs apart; numbered where these name somebody.

    Raises:
        RunError: there are fewer than two, or one is named twice.

    Example:
        >>> short_names([Path("a/run"), Path("b/run"), Path("c/other")])
        ['a/run', 'b/run', 'c/other']
    """
    whole = [path.resolve() for path in paths]
    if len(paths) < 2:
        raise RunError(f"expected two runs or more to compare, got {[str(p) for p in paths]}")
    for one, other in combinations(whole, 2):
        if one == other:
            raise RunError(f"{one}: the same run twice; a run is compared with other runs")
    for count in range(1, min(len(path.parts) for path in whole)):
        ends = [path.parts[-count:] for path in whole]
        if owners() & {part for end in ends for part in end}:
            break  # what else the paths hold is of this machine
        if len(set(ends)) == len(ends):
            return [str(Path(*end)) for end in ends]
    return [f"{path.name} ({number})" for number, path in enumerate(whole, 1)]


def _refuse_others(inputs: Mapping[str, Inputs], first: str, other: str) -> None:
    """Raise where two runs cannot be compared whatever they were asked about."""
    one, two = (
        {name: inputs[run].get(key) for key, name in SAME.items()} for run in (first, other)
    )
    shown = ", ".join(f"{n} ({one[n]}, {two[n]})" for n in one if one[n] != two[n])
    if shown:
        raise RunError(f"{first} and {other} cannot be compared: they differ in {shown}")


def _episodes(inputs: Inputs) -> dict[str, Any]:
    """What decides the episodes of a run."""
    settings = [s for s in inputs["settings"] if s.strip().startswith("evaluation.")]
    return {
        "data": inputs["data"],
        "seed": seeds_of(inputs).episodes,
        "recipe": inputs["recipes"].get("evaluation.py"),
        "settings": sorted(settings),
    }


def _print(found: Comparison, names: Sequence[str]) -> None:
    """The tables, in which a run is its number in `names`: a name takes more than a column."""
    console = Console()
    numbers = {name: f"run {number}" for number, name in enumerate(names, 1)}
    for name, number in numbers.items():
        print(f"{number}: {terminal_safe(name)}")
    columns = ["method", "reference"]
    tables = (found.scores, found.users, found.elpd)
    found = replace(
        found,
        **{
            field: table.replace({column: numbers for column in columns if column in table})
            for field, table in zip(("scores", "users", "elpd"), tables, strict=True)
        },
    )
    for shots, scores in found.scores.groupby("shots", sort=True):
        console.print(_score_grid(scores, int(str(shots))))
        reasons = [r for r in scores["reason"].unique() if r]
        for reason in reasons:
            console.print(f"  no intervals over users: {table_text(reason)}", highlight=False)
        if note := interval_note(int(scores["users"].max()), 0.95):
            console.print(f"  {note}", highlight=False)
        console.print(_user_grid(found.users[found.users["shots"] == shots], int(str(shots))))
        if len(found.elpd):
            console.print(_elpd_grid(found.elpd[found.elpd["shots"] == shots], int(str(shots))))


def _videos(shots: int) -> str:
    return f"{shots} video{'s' if shots > 1 else ''} per object"


def _score_grid(scores: pd.DataFrame, shots: int) -> Table:
    reference = table_text(scores["reference"].iloc[0])
    grid = Table(
        "", "run", "score", reference, "difference", "95 % over users", "users better",
        title=f"Scores, {_videos(shots)}",
    )  # fmt: skip
    for row in scores.to_dict("records"):
        grid.add_row(
            table_text(f"{row['item']} {row['score']}"),
            table_text(row["method"]),
            f"{row['value']:.3f}",
            f"{row['reference_value']:.3f}",
            f"{row['difference']:+.3f}",
            "" if row["reason"] else f"{row['low']:+.3f} to {row['high']:+.3f}",
            f"{100 * row['share_better']:.0f} %",
        )
    return grid


def _user_grid(users: pd.DataFrame, shots: int) -> Table:
    """Frame NLL of the users who lose most by each run, and of the one who gains most."""
    grid = Table("user", "run", "frame nll", "reference", "difference", "95 % over videos")
    grid.title = f"For whom better, for whom worse, {_videos(shots)}"
    chosen = users[(users["item"] == "frame") & (users["score"] == "nll")]
    for name, rows in chosen.groupby("method", sort=False):
        ends = rows if len(rows) <= WORST else pd.concat([rows.head(1), rows.tail(WORST - 1)])
        for row in ends.to_dict("records"):
            grid.add_row(
                table_text(row["user"]),
                table_text(name),
                f"{row['value']:.3f}",
                f"{row['reference_value']:.3f}",
                f"{row['difference']:+.3f}",
                "" if pd.isna(row["low"]) else f"{row['low']:+.3f} to {row['high']:+.3f}",
            )
    return grid


def _elpd_grid(elpd: pd.DataFrame, shots: int) -> Table:
    grid = Table("videos", "run", "elpd", "difference", "weight", "k > 0.7")
    grid.title = f"Expected log predictive density (ArviZ), {_videos(shots)}"
    words = {"query": "query, held out", "support": "support, one left out"}
    for row in elpd.to_dict("records"):
        grid.add_row(
            words[row["view"]],
            table_text(row["method"]),
            f"{row['elpd']:.2f} ± {row['se']:.2f}",
            f"{row['elpd_diff']:.2f} ± {row['dse']:.2f}",
            f"{row['weight']:.2f}",
            f"{row['high_k']} of {row['videos']}",
        )
    return grid


def _write(found: Comparison, out: Path, paths: Mapping[str, Path]) -> None:
    with explained(out):
        claim(out, COMPARISON)
    names = ("scores", "users", "elpd", "reliability", "sheet")
    tables = {name: getattr(found, name) for name in names}
    for name, table in tables.items():
        write_csv(table, out / f"{name}.csv")
    curves = {int(str(k)): t for k, t in found.reliability.groupby("shots")}
    write_atomically(out / "reliability.png", partial(plot_reliability, curves))
    summary = {
        "runs": {name: checksum(path / STATE) for name, path in paths.items()},
        "compared": list(MAIN),
        "items": list(ITEMS),
        **{name: json.loads(table.to_json(orient="records")) for name, table in tables.items()},
    }
    text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(out / "comparison.json", lambda p: p.write_text(text, encoding="utf-8"))
