"""Recognition of held-out users' objects: models of bayesfs against peers, on one tree.

    python benchmarks/accuracy.py --train TREE_OR_STORE --test TREE_OR_STORE
    python benchmarks/accuracy.py --smoke         # tiny, simulated features, for CI

The population, projections, temperatures and the choice of `best` come from the first tree's
`train` users alone: every method is scored there by leaving one user out, and the one with the
lowest mean of frame and video NLL is `best`. Then it is learnt on all train users, and the second
tree's `test` users are scored once: support clean, query clutter, 1 and 5 support videos of 8
frames. Intervals are over users, where there are enough. With --cache, a run goes on where it was
stopped. The last line is JSON; a figure that was not measured is null.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from bayesfs._utils.threads import share_cores
from bayesfs.data.sources.open import read_tree
from bayesfs.data.store import open_store
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.features.backbones.spec import DEFAULT, backbone_of
from bayesfs.features.extraction.extract import extract
from bayesfs.features.reduction import FeatureReduction, PrincipalAxes, UnitNorm
from bayesfs.inference.exact import Exact
from bayesfs.inference.svi.svi import SVI
from bayesfs.metrics.score_table import score_table
from bayesfs.models.baselines.classifiers import (
    HeadEnsemble,
    Logistic,
    Mahalanobis,
    NearestNeighbour,
    Prototypes,
    fit_temperature,
)
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.gp.covariance import VideoCovariance
from bayesfs.models.gp.deep_kernel_gp import DeepKernelGP
from bayesfs.models.gp.feature_maps import Identity
from bayesfs.models.gp.kernels import Linear
from bayesfs.models.gp.likelihoods.sigmoid_of_mean import SigmoidOfMean
from bayesfs.models.objectives import MarginalLikelihood, PredictiveScore
from bayesfs.models.similarity.pool import SimilarityPool
from bayesfs.models.similarity.with_hierarchy import PoolWithHierarchy
from bayesfs.protocols import Engine
from bayesfs.runs.directory import write_atomically
from bayesfs.runs.run import store_fingerprint
from bayesfs.study import Study, frames_of
from bayesfs.synthetic.tasks import synthetic_embeddings
from bayesfs.synthetic.truth import Population
from bayesfs.training.shared_population import ENGINE
from bayesfs.types import Embeddings, EpisodeBatch, Predictive

SHOTS = (1, 5)
FIGURES = {
    "frame_acc": ("frame", "accuracy"),
    "frame_nll": ("frame", "nll"),
    "frame_ece": ("frame", "ece"),
    "video_acc": ("video", "accuracy"),
    "video_nll": ("video", "nll"),
    "video_ece": ("video", "ece"),
}
PEERS: Mapping[str, Any] = {
    "prototypes_cosine": Prototypes(metric="cosine"),
    "prototypes_euclidean": Prototypes(metric="euclidean"),
    "nearest_neighbour": NearestNeighbour(metric="cosine"),
    "logistic_regression": Logistic(),
    "simple_cnaps_head": Mahalanobis(),
    "head_ensemble": HeadEnsemble(),
}
DKT = DeepKernelGP(
    VideoCovariance(features=Identity(), base=Linear(1.0), video=None, shift=None), SigmoidOfMean()
)
"""Deep kernel transfer as published: independent frames, the sigmoid of the mean."""
Scored = Mapping[int, Predictive]
Method = Callable[[Embeddings, HeldOutUsers], tuple[Mapping[int, EpisodeBatch], Scored]]


@dataclass(frozen=True)
class Peer:
    """A point classifier on cross-fitted projections, with a temperature per number of shots."""

    baseline: Any
    dim: int

    def __call__(self, embeddings: Embeddings, evaluation: HeldOutUsers) -> Any:
        """Episodes and their predictives, at every number of shots."""
        axes = PrincipalAxes(self.dim)
        train = frames_of(embeddings, evaluation.train_tasks(embeddings, seed=0))
        projection = axes.fit(train)
        tasks = evaluation.train_tasks(axes.cross_fit(train, projection.dim), seed=0)
        test = evaluation.test_episodes(projection(embeddings), seed=0)
        episodes = {shots: test.limit_shots(shots) for shots in SHOTS}
        fitted = {s: fit_temperature(self.baseline, tasks.limit_shots(s)) for s in SHOTS}
        return episodes, {s: fitted[s].predictive(episodes[s]) for s in SHOTS}


@dataclass(frozen=True)
class Ours:
    """A model of bayesfs, its population learnt by the given objective.

    Attributes:
        model: what is believed.
        objective: what the population is learnt by.
        reduction: which features are kept.
        steps: of learning.
        engine: infers the tasks.
    """

    model: Any
    objective: Any
    reduction: FeatureReduction
    steps: int
    engine: Engine = field(default_factory=Exact)

    def __call__(self, embeddings: Embeddings, evaluation: HeldOutUsers) -> Any:
        """Episodes and their predictives, at every number of shots."""
        study = Study(
            model=self.model,
            engine=self.engine,
            evaluation=evaluation,
            population_engine=SVI(steps=self.steps, draws=200, khat_draws=0),
            objective=self.objective,
            reduction=self.reduction,
        )
        learnt = study.learn(embeddings, seed=0)
        tasks = study.tasks(embeddings, learnt, seed=0)
        episodes = {shots: tasks.limit_shots(shots) for shots in SHOTS}
        answers = {s: study.infer(episodes[s], learnt, seed=0).predictive for s in SHOTS}
        return episodes, answers


def figures(episodes: Mapping[int, EpisodeBatch], answers: Scored) -> dict[str, float]:
    """Every figure of one method, by name without the method; `_low` and `_high` over users."""
    out = {}
    for shots in SHOTS:
        table = score_table(answers[shots], episodes[shots])
        for name, (unit, score) in FIGURES.items():
            if unit == "frame" or shots == SHOTS[-1]:
                ends = {"": "estimate", "_low": "low", "_high": "high"}
                found = {e: value_of(table, unit, score, column) for e, column in ends.items()}
                kept = {e: v for e, v in found.items() if np.isfinite(v)}
                out |= {f"{name}_{shots}{end}": value for end, value in kept.items()}
    return out


def value_of(table: xr.Dataset, unit: str, score: str, column: str = "estimate") -> float:
    """One number of the table of scores."""
    return float(table[column].sel(item=unit, score=score))


def as_split(embeddings: Embeddings, tested: list[str]) -> Embeddings:
    """The same frames with the given users as `test` and all others as `train`."""
    split = np.where(np.isin(embeddings.coord("user"), tested), "test", "train")
    return Embeddings(embeddings.dataset.assign_coords(split=("frame", split)))


@dataclass(frozen=True)
class Cells:
    """Figures of a method on one split of the users, computed once and kept.

    Attributes:
        evaluation: which tasks.
        folder: where they are kept.
    """

    evaluation: HeldOutUsers
    folder: Path

    def figures(self, name: str, method: Method, data: Embeddings) -> dict[str, float]:
        """Figures of the test users of `data`, learnt from its train users."""
        key = hashlib.sha256(f"{method!r} {store_fingerprint(data)} {self.evaluation!r}".encode())
        path = self.folder / f"{name}-{key.hexdigest()[:16]}.json"
        if not path.exists():
            print(f"  {name}", file=sys.stderr, flush=True)
            start = time.perf_counter()
            episodes, answers = method(data, self.evaluation)
            seconds = time.perf_counter() - start
            found = figures(episodes, answers)
            found["seconds_per_task"] = seconds / len(episodes[SHOTS[-1]])
            write_atomically(path, lambda p: p.write_text(json.dumps(found)))
        values: dict[str, float] = json.loads(path.read_text())
        return values

    def leave_users_out(self, name: str, method: Method, train: Embeddings) -> float:
        """Mean of frame and video NLL over train users, each predicted from the others."""
        values = []
        for user in sorted(set(train.coord("user").tolist())):
            found = self.figures(name, method, as_split(train, [user]))
            names = ("frame_nll_1", "frame_nll_5", "video_nll_5")
            values.append(np.mean([found[name] for name in names]))
        return float(np.mean(values))


def embeddings_of(path: Path, scratch: Path) -> Embeddings:
    """The features of a tree, or of a store that is there already."""
    if (path / "zarr.json").exists():
        return open_store(path)
    tree = read_tree(path)
    store = scratch / f"{len(list(scratch.iterdir()))}.zarr"
    return extract(tree.videos, backbone_of(DEFAULT), store, skipped=tree.skipped, thumbnails=False)


def join(train: Embeddings, test: Embeddings) -> Embeddings:
    """Train users of the first and test users of the second table, with all they say of frames."""
    parts = [train.where(split="train").dataset, test.where(split="test").dataset]
    return Embeddings(xr.concat(parts, dim="frame", data_vars="minimal", coords="minimal"))


def bare(embeddings: Embeddings) -> Embeddings:
    """Features and what they are of alone, which any two stores have."""
    whole = embeddings.dataset
    kept = whole[["features"]].reset_coords(drop=True)
    return Embeddings(kept.assign_coords({c: whole[c] for c in Embeddings.REQUIRED}))


def simulated() -> Embeddings:
    """Tiny features from the hierarchy itself, for --smoke."""
    embeddings, _ = synthetic_embeddings(
        Population.isotropic(16), users=3, way=3, shots=5, frames=3, dim=16, seed=0
    )
    shifted = embeddings.with_features(embeddings.features + 3.0)
    return as_split(shifted, sorted(set(shifted.coord("user").tolist()))[-1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--train", type=Path, help="tree or store with `train` users")
    parser.add_argument("--test", type=Path, help="tree or store with `test` users")
    parser.add_argument("--smoke", action="store_true", help="tiny, simulated features")
    parser.add_argument("--cache", type=Path, help="folder for finished parts, to go on from")
    parser.add_argument("--methods", nargs="*", help="only these rows")
    options = parser.parse_args()
    if not options.smoke and (options.train is None or options.test is None):
        parser.error("--train and --test are needed, or --smoke")
    dim, wide, steps = (8, 8, 5) if options.smoke else (256, 1000, 300)
    axes, many = PrincipalAxes(dim), PrincipalAxes(wide)
    few = Exact(draws=32)
    models = {
        "gaussian_score": Ours(GaussianHierarchy(), PredictiveScore, axes, steps),
        "gaussian_evidence": Ours(GaussianHierarchy(), MarginalLikelihood, axes, steps),
        "gp_regression": Ours(DeepKernelGP(), PredictiveScore, many, steps, few),
        "similarity_pool": Ours(SimilarityPool(), PredictiveScore, UnitNorm(), steps, ENGINE),
        "pool_with_hierarchy": Ours(
            PoolWithHierarchy(reduction=axes), PredictiveScore, UnitNorm(), steps, ENGINE
        ),
    }
    peers = {name: Peer(baseline, dim) for name, baseline in PEERS.items()}
    peers["deep_kernel_transfer"] = Ours(DKT, MarginalLikelihood, many, steps, few)
    if options.smoke and not options.methods:
        models = {n: m for n, m in models.items() if n in ("gaussian_score", "pool_with_hierarchy")}
        peers = {n: p for n, p in peers.items() if n != "head_ensemble"}
    if options.methods:
        models = {n: m for n, m in models.items() if n in options.methods}
        peers = {n: m for n, m in peers.items() if n in options.methods}
    with tempfile.TemporaryDirectory(prefix="bayesfs-") as folder:
        if options.smoke:
            data = simulated()
        else:
            scratch = Path(folder)
            stores = (bare(embeddings_of(p, scratch)) for p in (options.train, options.test))
            data = join(*stores)
        cache = options.cache or Path(folder) / "cells"
        cache.mkdir(parents=True, exist_ok=True)
        report(peers, models, data, Cells(HeldOutUsers(), cache))


def report(
    peers: dict[str, Method], models: dict[str, Method], data: Embeddings, cells: Cells
) -> None:
    """Choose on train users, score test users once, print the table and the JSON line."""
    torch.manual_seed(0)
    train = data.where(split="train")
    methods = {**peers, **models}
    chosen = {n: cells.leave_users_out(n, m, train) for n, m in methods.items()}
    rows = {n: cells.figures(n, m, data) for n, m in methods.items()}
    result: dict[str, Any] = {}
    for name, row in rows.items():
        result |= {f"{name}.{k}": round(v, 4) for k, v in row.items()}
        print(f"{name:22} left-out train users {chosen[name]:.3f} | {' '.join(shown(row))}")
    for role, names in (("best", models), ("best_peer", peers)):
        if names:
            best = min(names, key=chosen.__getitem__)
            result[role] = best
            result |= {f"{role}.{k}": round(v, 4) for k, v in rows[best].items()}
    print(json.dumps(result))


def shown(row: Mapping[str, float]) -> Iterator[str]:
    """Each figure, with its interval where it has one."""
    for name, value in row.items():
        if not name.endswith(("_low", "_high")):
            low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
            yield f"{name} {value:.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    share_cores()
    main()
