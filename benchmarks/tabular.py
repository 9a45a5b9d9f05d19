"""A statistician's table: few lines, its units, names that groups share, the estimator.

    python benchmarks/tabular.py              # minutes on two cores
    python benchmarks/tabular.py --smoke      # tiny, for CI
    python benchmarks/tabular.py --wide       # besides, 10,000 rows of 500 features in one process

Four questions. How many statements lead from a data frame to a posterior (docs/data-frame.md)? How
far do predictions move when every feature is in other units? On schools simulated with a truth that
is known, how close is a model that learns what classes of the same name share to an oracle that
knows their means and every scale? And how does the scikit-learn estimator compare with logistic
regression, shrunken LDA and Gaussian process classification on three data sets that come with
scikit-learn, at few examples a class? Figures of the estimator are of whatever its default is. The
last line is JSON; a figure that was not measured is null.
"""

from __future__ import annotations

import argparse
import ast
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import bayesfs as bf
from bayesfs._utils.threads import share_cores
from bayesfs.inference.svi.guides import FullRank
from bayesfs.models.objectives import MarginalLikelihood
from bayesfs.study import Answer, Learnt, Study

PAGE = Path(__file__).parents[1] / "docs" / "data-frame.md"
COLUMNS = {"label": "class", "group": "school", "cluster": "visit", "split": "split"}
SHOTS = (0, 1, 3, 10)
SDS = {"school": 1.0, "class": 1.6, "class in school": 0.6, "visit": 1.0, "row": 1.0}
CENTRE = 3.0
ALONE = {
    "logistic": LogisticRegression(max_iter=2000),
    "lda": LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
    "gpc": GaussianProcessClassifier(random_state=0),
}


def schools(
    train: int, test: int, *, shared: bool = True, visits: int = 20, dim: int = 6, seed: int = 0
) -> tuple[pd.DataFrame, np.ndarray]:
    """Four classes of every school, visits of five rows, and the true mean of every class."""
    rng = np.random.default_rng(seed)
    means = CENTRE + SDS["class"] * rng.normal(size=(4, dim))
    rows: list[tuple[Any, ...]] = []
    for school in range(train + test):
        effect = SDS["school"] * rng.normal(size=dim)
        own = means if shared else CENTRE + SDS["class"] * rng.normal(size=(4, dim))
        for k, mean in enumerate(own + effect + SDS["class in school"] * rng.normal(size=(4, dim))):
            for visit in range(visits):
                centre = mean + SDS["visit"] * rng.normal(size=dim)
                x = centre + SDS["row"] * rng.normal(size=(5, dim))
                split = "train" if school < train else "test"
                rows += [(f"s{school:03d}", "abcd"[k], visit, split, *row) for row in x]
    names = [f"x{d}" for d in range(dim)]
    return pd.DataFrame(rows, columns=["school", "class", "visit", "split", *names]), means


def study_of(model: Any, steps: int) -> Study:
    """Scales by marginal likelihood, tasks exactly."""
    engine = bf.SVI(FullRank(), steps=steps)
    evaluation = bf.HeldOutGroups(shots=SHOTS)
    return Study(
        model, bf.Exact(), evaluation, engine, MarginalLikelihood, reduction=bf.Standardise()
    )


def nll(answer: Answer) -> float:
    """Mean over the asked clusters, in nats."""
    log_prob, label = answer.predictive.video.log_prob, answer.episodes.query_labels
    own = log_prob.gather(-1, label.clamp(min=0)[..., None])[..., 0]
    return -float(own[answer.episodes.video_mask & (label >= 0)].mean())


def oracle(learnt: Learnt, means: np.ndarray) -> Learnt:
    """The population that made the schools: every scale, and the mean of every class."""
    projection = learnt.projection
    scale = projection.scale  # type: ignore[attr-defined]
    root = len(scale) ** 0.5
    centre = torch.from_numpy((CENTRE - projection.means[0]) / scale * root)
    sd = torch.tensor([SDS[k] for k in ("school", "class", "class in school", "visit", "row")])
    relative = sd.double()[:, None] / torch.from_numpy(scale) * root
    draws = {
        "mean_raw": centre[None],
        "scale": torch.ones(1, 5, dtype=torch.float64),
        "relative": relative[None],
        "shared_raw": torch.from_numpy((means - CENTRE) / SDS["class"])[None],
    }
    population = bf.Posterior(
        "exact", draws, {s: learnt.population.dims[s] for s in draws},
        coords={"class_name": learnt.labels},
    )  # fmt: skip
    return Learnt(projection, population)


def shared_names(smoke: bool) -> dict[str, float]:
    """NLL of what was learnt over the oracle's; and where they say nothing."""
    train, test, steps = (8, 6, 60) if smoke else (30, 120, 300)
    frame, means = schools(train, test, visits=13 if smoke else 20)
    data = bf.Embeddings.from_dataframe(frame, **COLUMNS)
    study = study_of(bf.SharedClasses(), steps)
    start = time.perf_counter()
    learnt = study.learn(data, seed=0)
    seconds, stats = time.perf_counter() - start, learnt.population.sample_stats
    figures = {"shared_learn_s": seconds, "shared_khat": float(stats["khat"])}
    tasks = study.tasks(data, learnt, seed=0)
    truth = oracle(learnt, means)
    for shots in SHOTS:
        few = tasks.limit_shots(shots)
        ours, best = (nll(study.infer(few, known, seed=0)) for known in (learnt, truth))
        figures |= {f"shared_nll_{shots}": ours, f"shared_gap_{shots}": ours / best}
        print(f"  {shots:2d} visits: NLL {ours:.3f}, oracle {best:.3f}, ratio {ours / best:.3f}")
    moments = truth_in_units(learnt, len(means[0]))
    print("  sds learnt:", ", ".join(f"{k} {v:.2f} ({SDS[k]})" for k, v in moments.items()))
    frame, _ = schools(train, test, shared=False, visits=13 if smoke else 20, seed=1)
    data = bf.Embeddings.from_dataframe(frame, **COLUMNS)
    strangers = bf.Embeddings.from_dataframe(
        frame.assign(**{"class": frame["school"] + frame["class"]}), **COLUMNS
    )
    named, anonymous = (study.learn(table, seed=0) for table in (data, strangers))
    tasks = study.tasks(data, named, seed=0)  # whose names a population of strangers does not know
    for shots in SHOTS[1:]:
        few = tasks.limit_shots(shots)
        ours, other = (nll(study.infer(few, known, seed=0)) for known in (named, anonymous))
        figures[f"unshared_ratio_{shots}"] = ours / other
    return figures


def truth_in_units(learnt: Learnt, dim: int) -> dict[str, float]:
    """Mean sd of every level over features, in the units of the data."""
    model = bf.SharedClasses().with_labels(learnt.labels)
    sd = model.moments(learnt.population.population, dim)["sd"].mean(0).numpy()
    scale = learnt.projection.scale  # type: ignore[attr-defined]
    return dict(zip(SDS, (sd * scale).mean(-1).tolist(), strict=True))


def units(smoke: bool) -> dict[str, float]:
    """Largest change of any probability when features are in other units, far from zero."""
    frame, _ = schools(6 if smoke else 20, 4 if smoke else 10, visits=6)
    study = study_of(bf.SharedClasses(), 60 if smoke else 300)
    probs = []
    numbers = [c for c in frame if c.startswith("x")]
    for factor, shift in ((1.0, 0.0), (100.0, 5000.0)):
        table = frame.assign(**{c: factor * frame[c] + shift for c in numbers})
        data = bf.Embeddings.from_dataframe(table, **COLUMNS)
        learnt = study.learn(data, seed=0)
        tasks = study.tasks(data, learnt, seed=0).limit_shots(1)
        probs.append(study.infer(tasks, learnt, seed=0).predictive.video.prob)
    return {"units_max_change": float((probs[0] - probs[1]).abs().max())}


def lines() -> dict[str, float]:
    """Statements from a data frame to a posterior, on the page that says how."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = [part.split("```")[0] for part in text.split("```python\n")[1:]]
    code = next(block for block in blocks if "from_dataframe" in block)
    return {"data_frame_lines": len(ast.parse(code).body)}


def estimator(smoke: bool) -> dict[str, float]:
    """NLL of held-out rows at 2, 5 and 20 examples a class, mean over splits."""
    sets: dict[str, Callable[[], Any]] = {
        "wine": load_wine, "breast": load_breast_cancer, "digits": load_digits,
    }  # fmt: skip
    figures: dict[str, float] = {}
    ratios, times = [], []
    for name, load in ((n, f) for n, f in sets.items() if not smoke or n == "wine"):
        x, y = load(return_X_y=True)
        for shots in (2,) if smoke else (2, 5, 20):
            table, seconds = cell(x, y, shots, 2 if smoke else 5)
            mean = {method: float(np.mean(values)) for method, values in table.items()}
            ours, other = mean["bayesfs"], min(v for m, v in mean.items() if m != "bayesfs")
            figures |= {f"{name}.{shots}.nll": ours, f"{name}.{shots}.best_other_nll": other}
            ratios.append(ours / other)
            times.append(seconds)
            said = ", ".join(f"{m} {v:.3f}" for m, v in mean.items())
            print(f"  {name} {shots:2d}: {said}; fit {seconds:.2f} s")
    behind = sum(ratio > 1 for ratio in ratios)
    return figures | {
        "cells_behind": behind,
        "nll_ratio_mean": float(np.mean(ratios)),
        "fit_s_max": max(times),
    }


def cell(x: Any, y: Any, shots: int, splits: int) -> tuple[dict[str, list[float]], float]:
    """NLL of every method on every split, and the longest fit of ours in seconds."""
    table: dict[str, list[float]] = {name: [] for name in ("bayesfs", *ALONE)}
    longest = 0.0
    for split in range(splits):
        rng = np.random.default_rng(split)
        taught = np.concatenate(
            [rng.permutation(np.flatnonzero(y == k))[:shots] for k in np.unique(y)]
        )
        asked = rng.permutation(np.setdiff1d(np.arange(len(y)), taught))[:300]
        scaler = StandardScaler().fit(x[taught])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            own = bf.BayesianFewShotClassifier()
            start = time.perf_counter()
            own.fit(scaler.transform(x[taught]), y[taught])
            longest = max(longest, time.perf_counter() - start)
            scores = {"bayesfs": own.predict_proba(scaler.transform(x[asked]))}
            for name, method in ALONE.items():
                fitted = make_pipeline(StandardScaler(), clone(method)).fit(x[taught], y[taught])
                scores[name] = fitted.predict_proba(x[asked])
        column = np.searchsorted(np.unique(y), y[asked])
        for name, prob in scores.items():
            own_prob = prob[np.arange(len(asked)), column]
            table[name].append(float(-np.log(np.maximum(own_prob, 1e-12)).mean()))
    return table, longest


WIDE = """
import numpy as np, resource, bayesfs as bf
resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
rng = np.random.default_rng(0)
y = np.arange(10_000) % 5
x = rng.normal(size=(10_000, 500)) + rng.normal(size=(5, 500))[y]
bf.BayesianFewShotClassifier().fit(x, y)
"""


def wide() -> dict[str, float | None]:
    """Memory and time of 10,000 rows of 500 features without groups, in 8 GB at most."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", WIDE], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    if done.returncode:
        print(f"  10,000 x 500: failed after {seconds:.0f} s: {done.stderr.splitlines()[-1:]}")
        return {"wide_gb": None, "wide_s": None}
    return {"wide_gb": peak, "wide_s": seconds}


def own_kernels(smoke: bool) -> dict[str, float]:
    """How many of the kernels of docs/kernels.md every engine fits, with GPyTorch's values."""
    sys.path.insert(0, str(PAGE.parent / "_ext"))
    import kernels  # type: ignore[import-not-found]

    engines = {n: e for n, e in kernels.ENGINES.items() if not smoke or n == "SVI"}
    names = [*kernels.KERNELS][: 2 if smoke else None]
    rows = [kernels.row(name, engines) for name in names]
    for cells in rows:
        print(f"  {cells[0]}: {' '.join(cells[1:])}")
    return {"kernels_fitted": sum("–" not in r for r in rows), "kernels_tried": len(rows)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny sizes")
    parser.add_argument("--wide", action="store_true", help="10,000 rows of 500 features too")
    options = parser.parse_args()
    figures: dict[str, float | None] = {**lines()}
    print("units")
    figures |= units(options.smoke)
    print("names that groups share")
    figures |= shared_names(options.smoke)
    print("the estimator on scikit-learn's data, NLL")
    figures |= estimator(options.smoke)
    figures |= wide() if options.wide else {"wide_gb": None, "wide_s": None}
    print("kernels of GPyTorch")
    figures |= own_kernels(options.smoke)
    print(json.dumps({k: None if v is None else round(v, 6) for k, v in figures.items()}))


if __name__ == "__main__":
    share_cores()
    main()
