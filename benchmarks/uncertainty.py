"""Do kinds, levels and causes of uncertainty mean what they say? Nineteen properties, measured.

    python benchmarks/uncertainty.py --train TREE_OR_STORE --test TREE_OR_STORE
    python benchmarks/uncertainty.py --simulated                  # people whose truth is known
    python benchmarks/uncertainty.py --features FILE.npz          # photographs of a shop
    python benchmarks/uncertainty.py ... --model models/niw.py --engine inference/exact.py
    python benchmarks/uncertainty.py ... --rows 13 --rendered TREE  # that the stores were made from
    python benchmarks/uncertainty.py ... --rows 16 --pictures FOLDER...  # trees, object/photo/*.jpg
    python benchmarks/uncertainty.py --smoke                      # tiny, for CI

Everything is learnt on `train` users and measured on `test` users; rows 8, 11 and 15 use simulated
tasks in any case, row 19 uses a table of numbers, and row 18 draws the test users' videos again
from what was learnt. Row 13 films the test users' objects again, with and without a defect; row 16
composes defects on real pictures, by populations of the people whose pictures these are. The model
and the engine are recipes. A row that a model has nothing to say to (levels, worth of a video and
an open world are known for the Gaussian hierarchy only) is not measured, nor is one that --rows
leaves out. Bars are in the table.
Rows 1 to 6 are of a hierarchy whose aleatoric uncertainty was held to what it says of itself
(`bayesfs.training.flat_aleatoric`).
The last line is JSON; a figure that was not measured is null.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from accuracy import embeddings_of, join
from uncertainty_parts.advice import row_9
from uncertainty_parts.bench import Bench, Found
from uncertainty_parts.causes import row_7, row_8
from uncertainty_parts.composed import row_16
from uncertainty_parts.corrected import row_17
from uncertainty_parts.data import People, shop
from uncertainty_parts.kinds import row_6, rows_1_2_5, rows_3_4
from uncertainty_parts.levels import row_11
from uncertainty_parts.loop import row_12
from uncertainty_parts.oracle import row_15, row_18
from uncertainty_parts.refilmed import row_13
from uncertainty_parts.rows_of_numbers import row_19
from uncertainty_parts.said import row_14
from uncertainty_parts.sets import row_10

from bayesfs._utils.threads import share_cores
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.features.reduction import PrincipalAxes
from bayesfs.inference.exact import Exact
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.objectives import PredictiveScore
from bayesfs.recipes.load import load_recipe
from bayesfs.study import Study
from bayesfs.types import Embeddings

BARS = {
    "t1_spearman": "<= -.95",
    "t2_drift": "<= .10",
    "t3_aleatoric_r": ">= .9",
    "t3_epistemic_r": "abs <= .3",
    "t4_disentanglement_error": "<= .25",
    "t5_spearman": "< .8",
    "t6_epistemic_minus_best_other_auroc": ">= .05",
    "t7_auroc": ">= .75",
    "t8_cause_accuracy": ">= .90",
    "t9_gain_vs_random": ">= 1.5",
    "t9_spearman": ">= .5",
    "t10_users_covered": ">= .9",
    "t11_z_max": "<= 2",
    "advice_videos_ratio": "<= .7",
    "gain_slope": ".5 to 2",
    "gain_spearman": ">= .5",
    "enough_right": ">= .9",
    "cause_spearman": ">= .6",
    "cause_sign": ">= .85",
    "cause_size": ".5 to 2",
    "words_ece": "<= .05",
    "self_estimate_covers": ">= .9",
    "composed_spearman": ">= .6",
    "composed_sign": ">= .85",
    "composed_size": ".5 to 2",
    "corrected_max_diff": "<= 1e-8",
    "corrected_ms": "<= 50",
    "corrections_coverage": ">= .03",
    "corrections_size_ratio": "<= 1",
    "corrections_coverage_no_larger": ">= .03",
    "wine_disentanglement_error": "<= .25",
    "one_shot_epistemic_share": ">= .5",
    "oracle_drift": "the bound of t2",
    "oracle_kinds_spearman": "that of t5",
    "oracle_here_drift": "of t2, here",
    "oracle_here_kinds_spearman": "of t5, here",
    "oracle_here_ahead": "of t6, here",
}


def measured(
    bench: Bench,
    wanted: set[int],
    smoke: bool,
    rendered: Path | None,
    pictures: Sequence[Path] | None,
) -> dict[str, float | None]:
    """Every figure; those of rows that are not wanted are None."""
    figures: dict[str, float | None] = dict.fromkeys(BARS)
    study = bench.study(bench.held_out())
    learnt = cache(lambda: study.learn(bench.data, seed=0))
    straight = cache(lambda: bench.straight(learnt()))
    first = cache(lambda: rows_1_2_5(bench, study, straight()))
    users, trials = (3, 2) if smoke else (24, 20)
    rows: dict[int, Callable[[], Found]] = {
        1: lambda: first()[0],
        3: lambda: rows_3_4(bench, first()[1]),
        6: lambda: row_6(bench, study, straight()),
        7: lambda: row_7(bench),
        8: lambda: row_8(bench, users),
        9: lambda: row_9(bench, study, learnt(), trials),
        10: lambda: row_10(bench, study, learnt()),
        11: lambda: row_11(users=3, repeats=4 if smoke else 32),
        12: lambda: row_12(
            bench, learnt(), asked=1 if smoke else 3, trials=trials, loops=1 if smoke else 2
        ),
        14: lambda: row_14(bench, learnt()),
        15: lambda: row_15(users=users, draws=bench.draws),
        17: lambda: row_17(bench, learnt(), trials=1 if smoke else 4),
        18: lambda: row_18(bench, learnt(), repeats=2 if smoke else 8),
        19: lambda: row_19(repeats=1 if smoke else 5),
    }
    if pictures is not None:
        rows[16] = lambda: row_16(bench, pictures, moments=4)
    if rendered is not None:
        rows[13] = lambda: row_13(bench, rendered, users=10, moments=3)
    for number, row in rows.items():
        if number in wanted:
            figures.update(row())
    return figures


def study_of(model: Path | None, engine: Path | None, dim: int | None, smoke: bool) -> Study:
    """The study that the recipes make; the Gaussian hierarchy, exactly, where there are none."""
    values = {
        "model": GaussianHierarchy(),
        "engine": Exact(draws=16 if smoke else 128, population_draws=8),
        "population_engine": SVI(steps=5 if smoke else 300, draws=100, khat_draws=0),
        "objective": PredictiveScore,
        "reduction": PrincipalAxes(8 if smoke else 256),
    }
    if model is not None:
        del values["objective"]
        values |= load_recipe(model, "model").values
    if engine is not None:
        values |= load_recipe(engine, "engine").values
    if dim is not None:
        values["reduction"] = PrincipalAxes(dim)
    return Study(evaluation=HeldOutUsers(), **values)


def data_of(options: argparse.Namespace, scratch: Path) -> tuple[Embeddings, int | None]:
    """Labelled frames, and how many features to keep, None for the model's own number."""
    if options.smoke:
        return People(train=3, test=2, way=3, frames=3, dim=16).embeddings(), None
    if options.simulated:
        return People().embeddings(), People.dim
    if options.features is not None:
        return shop(options.features), None
    train = embeddings_of(options.train, scratch)
    same = options.train == options.test
    return join(train, train if same else embeddings_of(options.test, scratch)), None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--train", type=Path, help="tree or store with `train` users")
    parser.add_argument("--test", type=Path, help="tree or store with `test` users")
    parser.add_argument("--simulated", action="store_true", help="people drawn from the hierarchy")
    parser.add_argument("--features", type=Path, help="npz with feat, label and split")
    parser.add_argument("--model", type=Path, help="recipe")
    parser.add_argument("--engine", type=Path, help="recipe")
    parser.add_argument(
        "--rows", type=int, nargs="*", help="1 (with 2, 5), 3 (with 4), 6 to 19; all if not given"
    )
    parser.add_argument("--rendered", type=Path, help="rendered tree that --test is of, for row 13")
    parser.add_argument(
        "--pictures",
        type=Path,
        nargs="+",
        help="trees, or folders of object/photo/*.jpg, for row 16",
    )
    parser.add_argument("--dim", type=int, help="principal axes, the model's own by default")
    parser.add_argument("--smoke", action="store_true", help="tiny, simulated features")
    options = parser.parse_args()
    trees = options.train is not None and options.test is not None
    if not (options.smoke or options.simulated or options.features or trees):
        parser.error("--train and --test are needed, or --simulated, --features or --smoke")
    with tempfile.TemporaryDirectory() as scratch:
        data, dim = data_of(options, Path(scratch))
    base = study_of(options.model, options.engine, options.dim or dim, options.smoke)
    bench = Bench(data, base, *((1, 16) if options.smoke else (3, 128)))
    wanted = set(options.rows or range(1, 20))
    figures = measured(bench, wanted, options.smoke, options.rendered, options.pictures)
    print("figure                                   value  bar")
    for name, bar in BARS.items():
        value = figures[name]
        shown = "not measured" if value is None else f"{value:.3f}"
        print(f"{name:36}{shown:>12}  {bar}")
    finite = {n: v if v is not None and np.isfinite(v) else None for n, v in figures.items()}
    print(json.dumps(finite))


if __name__ == "__main__":
    share_cores()
    main()
