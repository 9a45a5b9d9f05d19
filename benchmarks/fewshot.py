"""Few-shot recognition of still pictures: Bayesian models against peers on the same episodes.

    python benchmarks/fewshot.py --features grocery_feats_lite0_160px.npz --cache CACHE
    python benchmarks/fewshot.py --smoke          # tiny, simulated features, for CI

Classes are parted at random into meta-train and test classes. On the meta-train classes alone,
twice a part of them being held out, every method chooses its number of principal axes, and
`best` (among ours) and `best_peer` are chosen, by NLL. Then projection, temperatures and
populations are fitted on all meta-train classes, and 600 episodes x 5 seeds of the test classes
are scored: support from split 0, query from split 2. Peers get a temperature of their own for
every number of shots. Every cell (a method on a part) is kept in the cache, so that the command
goes on where it was stopped. The last line is JSON; a figure that was not measured is null.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from bayesfs.benchmark.conditions import Condition
from bayesfs.benchmark.methods import Lesson, Predict, closed_form_predict, digest
from bayesfs.benchmark.tasks import StillTasks
from bayesfs.data.stills import read_stills, split_classes
from bayesfs.evaluation.few_shot import FewShotProtocol
from bayesfs.evaluation.few_shot_scores import FewShotRun, few_shot_difference
from bayesfs.features.reduction import PrincipalAxes
from bayesfs.inference.svi.svi import SVI
from bayesfs.metrics.items import scored_rows
from bayesfs.metrics.selective import auroc
from bayesfs.models.baselines.classifiers import Baseline, fit_temperature, standard_baselines
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.gp.covariance import VideoCovariance
from bayesfs.models.gp.deep_kernel_gp import DeepKernelGP
from bayesfs.models.gp.feature_maps import Identity
from bayesfs.models.gp.kernels import Linear
from bayesfs.models.gp.likelihoods.sigmoid_of_mean import SigmoidOfMean
from bayesfs.models.objectives import MarginalLikelihood, PredictiveScore
from bayesfs.runs.directory import write_atomically
from bayesfs.types import UNLABELLED, Embeddings, EpisodeBatch, Predictive

SHOTS = (1, 5)
ENDS = ["estimate", "low", "high", "class_low", "class_high"]
Array = NDArray[Any]


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    episodes: int = 600
    seeds: int = 5
    validation_episodes: int = 100
    partings: tuple[int, ...] = (1, 2)
    groups: int = 20
    repeats: int = 4
    folds: int = 5
    steps: int = 150
    dims: tuple[int, ...] | None = None
    meta_train: int = 50
    draws: int = 1000


SMOKE = Sizes(
    episodes=8,
    seeds=1,
    validation_episodes=8,
    partings=(1,),
    groups=2,
    repeats=2,
    folds=2,
    steps=5,
    dims=(8,),
    meta_train=17,
    draws=50,
)

Learn = Callable[[Lesson, Sizes], Mapping[int, Predict]]
"""(what may be learnt from, sizes) -> shots -> prediction."""


@dataclass(frozen=True)
class Method:
    """One row of the table: how it learns, and the numbers of principal axes it chooses from.

    Attributes:
        learn: how.
        dims: numbers of axes.
        identity: text that changes whenever its results could.
    """

    learn: Learn
    dims: tuple[int, ...]
    identity: str


def peer(baseline: Baseline, dims: tuple[int, ...] = (64, 256, 1280)) -> Method:
    """A point classifier with a temperature for every number of shots."""

    def learn(lesson: Lesson, sizes: Sizes) -> Mapping[int, Predict]:
        tasks = lesson.tasks.to(torch.float64)
        return {k: fit_temperature(baseline, tasks.limit_shots(k)).predictive for k in SHOTS}

    return Method(learn, dims, repr(baseline))


def ours(model: Any, dims: tuple[int, ...], objective: Any = PredictiveScore) -> Method:
    """A Bayesian model: its population by the objective, its tasks in closed form.

    A dozen hyperparameters are far from their priors at first: a hundred small steps leave them
    over-confident at 1 shot, so the rate is three times the engine's default.
    """

    def learn(lesson: Lesson, sizes: Sizes) -> Mapping[int, Predict]:
        told = model.fit_to(tuple(lesson.projection.spectrum.tolist()))
        engine = SVI(steps=sizes.steps, learning_rate=0.3, particles=1, draws=4, khat_draws=0)
        learner, tasks = told, lesson.mixed.to(torch.float64)
        if isinstance(told, DeepKernelGP):
            learner, tasks = inner_products(told, tasks)
        population = engine.infer(objective(learner), tasks, seed=0)
        return dict.fromkeys(SHOTS, closed_form_predict(told, population.draws))

    return Method(learn, dims, f"{model!r} {objective!r}")


def inner_products(model: DeepKernelGP, tasks: EpisodeBatch) -> tuple[DeepKernelGP, EpisodeBatch]:
    """The same model of as few features as a task has frames: Gram matrices stay the same.

    A linear kernel behind a feature map without parameters sees inner products alone. In an
    orthonormal basis of its own frames a task of 50 frames has 50 features, not 1280.
    """
    t, w, s, f, d = tasks.support.shape
    v, n = tasks.query.shape[1], w * s * f
    if model.covariance.features.sites or n + v >= d:
        return model, tasks
    condition = torch.zeros(t, n + v, dtype=torch.long)
    frames = torch.cat([tasks.support.reshape(t, n, d), tasks.query.reshape(t, v, d)], 1)
    mapped = model.covariance.features({}, frames, condition)
    own = torch.linalg.qr(mapped.mT).R.mT  # (task, frame, frame)
    covariance = replace(model.covariance, features=Identity(normalise=False))
    smaller = replace(
        tasks,
        support=own[:, :n].reshape(t, w, s, f, n + v),
        query=own[:, n:].reshape(t, v, 1, n + v),
    )
    return replace(model, covariance=covariance), smaller


DKT = DeepKernelGP(
    VideoCovariance(features=Identity(), base=Linear(1.0), video=None, shift=None), SigmoidOfMean()
)
MODELS = {
    "gaussian": ours(GaussianHierarchy(), (256,)),
    "gp_regression": ours(DeepKernelGP(), (256, 1280)),
}
POOLS = {"gaussian_and_gp": ("gaussian", "gp_regression")}
"""Equal parts of two models' predictives; no weight is fitted."""

OURS = (*MODELS, *POOLS)
PEERS = {
    name.replace(" ", "_"): peer(baseline, (64,) if "ensemble" in name else (256, 1280))
    for name, baseline in standard_baselines().items()
} | {"deep_kernel_transfer": ours(DKT, (1280,), MarginalLikelihood)}


@dataclass(frozen=True)
class Queries:
    """Predictions of all queries of one method on one part, at one number of shots.

    Attributes:
        log_prob: (query, way).
        label: (query,) class within the episode, or `UNLABELLED`.
        task: (query,) name of the episode.
        thing: (query,) name of the class, "" where it is another than the episode's.
        video: (query,) name of the picture.
        seconds: to learn, and per episode.
    """

    log_prob: Array
    label: Array
    task: Array
    thing: Array
    video: Array
    seconds: tuple[float, float]

    @classmethod
    def of(cls, predictive: Predictive, episodes: EpisodeBatch) -> Queries:
        """The queries of one batch."""
        mask = episodes.query_mask[..., 0].cpu().numpy()
        task, video = np.nonzero(mask)
        label = episodes.query_labels.cpu().numpy()[task, video]
        names = np.array(episodes.classes)
        return cls(
            predictive.frame.log_prob[:, :, 0].cpu().numpy()[task, video].astype(np.float32),
            label,
            np.array(episodes.tasks)[task],
            np.where(label >= 0, names[task, label.clip(min=0)], ""),
            np.array([episodes.videos[t][v] for t, v in zip(task, video, strict=True)]),
            (0.0, 0.0),
        )

    @classmethod
    def join(cls, parts: Sequence[Queries], seconds: tuple[float, float]) -> Queries:
        """Several batches, one after the other."""
        names = ("log_prob", "label", "task", "thing", "video")
        return cls(*(np.concatenate([getattr(p, n) for p in parts]) for n in names), seconds)

    def pooled(self, other: Queries) -> Queries:
        """Equal parts of two predictives of the same queries."""
        if not (np.array_equal(self.task, other.task) and np.array_equal(self.video, other.video)):
            raise ValueError("two methods were not asked the same")
        both = np.logaddexp(self.log_prob.astype(float), other.log_prob) - np.log(2)
        learning, predicting = np.add(self.seconds, other.seconds).tolist()
        return replace(self, log_prob=both, seconds=(learning, predicting))

    def run(self) -> FewShotRun:
        """Scored rows, and how well 1 - max p finds the queries of other classes."""
        known = self.label != UNLABELLED
        names = pd.DataFrame(
            {
                "user": [t.partition("#")[0] for t in self.task[known]],
                "task": self.task[known].astype(object),
                "object": self.thing[known].astype(object),
                "video": self.video[known].astype(object),
                "frame": 0,
            }
        )
        log_prob = self.log_prob[known].astype(float)
        way = np.full(len(log_prob), log_prob.shape[1])
        rows = scored_rows(names, log_prob, self.label[known], way)
        doubt = pd.DataFrame({"task": self.task, "doubt": -self.log_prob.max(1), "other": ~known})
        found = {
            task: auroc(part["doubt"].to_numpy(), part["other"].to_numpy())
            for task, part in doubt.groupby("task", sort=False)
        }
        outside = pd.DataFrame({"task": list(found), "auroc": list(found.values())})
        return FewShotRun(rows.assign(**{"class": rows["object"]}), outside)

    def save(self, path: Path) -> None:
        """Write to an npz file."""
        with path.open("wb") as file:
            np.savez_compressed(file, **self.__dict__)

    @classmethod
    def load(cls, path: Path) -> Queries:
        """What `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            learning, predicting = file["seconds"].tolist()
            arrays = {name: file[name] for name in file.files if name != "seconds"}
        return cls(**arrays, seconds=(learning, predicting))


@dataclass(frozen=True)
class Stage:
    """Classes to learn from and classes to score, with the cells that are known already."""

    tasks: StillTasks
    sizes: Sizes
    cache: Path

    def queries(self, name: str, dims: Mapping[str, int]) -> dict[int, Queries]:
        """Predictions of a method, or of a pool of two, at each number of shots."""
        if name in POOLS:
            one, two = (self.queries(member, dims) for member in POOLS[name])
            return {k: one[k].pooled(two[k]) for k in SHOTS}
        method, dim, tasks = (MODELS | PEERS)[name], dims[name], self.tasks
        learning = (self.sizes.steps, tasks.groups, tasks.repeats, tasks.folds)
        what = (method.identity, dim, tasks.learn, tasks.score, repr(tasks.protocol), learning)
        paths = {k: self.cache / f"{name}-{dim}-{k}-{digest(*what)}.npz" for k in SHOTS}
        missing = [k for k, path in paths.items() if not path.exists()]
        if missing:
            print(f"  {name}, {dim} axes, {len(tasks.score)} classes", file=sys.stderr, flush=True)
            lesson = tasks.lesson(PrincipalAxes(dim))
            start = time.perf_counter()
            predict = method.learn(lesson, self.sizes)
            seconds = time.perf_counter() - start
            for k in missing:
                found = self._predict(predict[k], lesson.projection, k, seconds)
                write_atomically(paths[k], found.save)
        return {k: Queries.load(path) for k, path in paths.items()}

    def _predict(self, predict: Predict, projection: Any, shots: int, learning: float) -> Queries:
        parts, seconds, count = [], 0.0, 0
        for batch in self.tasks.batches(projection, Condition(shots)):
            episodes = batch.to(torch.float64)
            start = time.perf_counter()
            predictive = predict(episodes)
            seconds += time.perf_counter() - start
            count += len(episodes)
            parts.append(Queries.of(predictive, episodes))
        return Queries.join(parts, (learning, seconds / count))


def choose(stages: Sequence[Stage]) -> tuple[dict[str, int], dict[str, float]]:
    """Number of axes of each method with the lowest NLL on held-out meta-train classes, and it."""
    dims: dict[str, int] = {}
    losses: dict[str, float] = {}
    for name, method in (MODELS | PEERS).items():
        found = {
            dim: validation(stages, name, {name: dim})
            for dim in stages[0].sizes.dims or method.dims
        }
        dims[name] = min(found, key=lambda dim: sum(found[dim]))
        losses[name] = float(np.mean(found[dims[name]]))
        shown = ", ".join(f"{dim} axes {a:.4f} / {b:.4f}" for dim, (a, b) in found.items())
        print(f"NLL on held-out meta-train classes  {name:20s} {shown}", flush=True)
    for name in POOLS:
        a, b = validation(stages, name, dims)
        losses[name] = (a + b) / 2
        print(f"NLL on held-out meta-train classes  {name:20s} {a:.4f} / {b:.4f}", flush=True)
    return dims, losses


def validation(stages: Sequence[Stage], name: str, dims: Mapping[str, int]) -> list[float]:
    """Mean NLL over the partings, at each number of shots."""
    runs = [stage.queries(name, dims) for stage in stages]
    return [float(np.mean([run[k].run().rows["nll"].mean() for run in runs])) for k in SHOTS]


def best_of(losses: Mapping[str, float], names: Sequence[str]) -> str:
    """Method with the lowest validation loss."""
    return min(names, key=lambda name: losses[name])


def simulated() -> Embeddings:
    """Gaussian classes for the smoke test."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(24), 40)
    features = rng.normal(size=(24, 32))[label] + rng.normal(size=(len(label), 32))
    split = np.where(np.arange(len(label)) % 2, "test", "train")
    names = [f"class-{k:02d}" for k in label]
    return Embeddings.from_arrays(features, object=names, user="stills", split=split.tolist())


def figures(name: str, runs: Mapping[int, FewShotRun], sizes: Sizes) -> dict[str, float]:
    """Print one method's rows and give its figures."""
    out = {}
    for k, run in runs.items():
        table = run.summary(draws=sizes.draws)
        value = table["estimate"].to_dict()
        for score, short in (("accuracy", "acc"), ("nll", "nll"), ("ece", "ece")):
            out[f"{name}.{short}_{k}"] = round(float(value[score]), 4)
        cells = [
            "{} {:.3f} [{:.3f}, {:.3f}] ({:.3f}, {:.3f})".format(score, *table.loc[score, ENDS])
            for score in ("accuracy", "nll", "ece", "brier")
        ]
        rest = [f"{score} {value[score]:.3f}" for score in ("mce", "aurc", "out_auroc")]
        print(f"{name:20s} {k}-shot  " + "  ".join(cells + rest), flush=True)
    return out


def main() -> None:
    """Run the benchmark and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--features", type=Path, help="npz or Zarr with feat, label and split")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes")
    parser.add_argument("--episodes", type=int, help="episodes per seed")
    parser.add_argument("--cache", type=Path, help="folder for finished cells, to go on from")
    args = parser.parse_args()
    if args.features is None and not args.smoke:
        parser.error("expected --features FILE.npz, or --smoke for simulated features")
    sizes = SMOKE if args.smoke else Sizes()
    if args.episodes:
        sizes = replace(sizes, episodes=args.episodes)
    pictures = simulated() if args.features is None else read_stills(args.features)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="bayesfs-") as scratch:
        cache = args.cache or Path(scratch)
        cache.mkdir(parents=True, exist_ok=True)
        report(pictures, sizes, cache)


def report(pictures: Embeddings, sizes: Sizes, cache: Path) -> None:
    """Choose on meta-train classes, score the test classes, print the table and the JSON line."""
    base = FewShotProtocol(
        shots=max(SHOTS), episodes_per_seed=sizes.episodes, seeds=tuple(range(sizes.seeds))
    )

    def stage(these: Embeddings, learn: Any, score: Any, protocol: FewShotProtocol) -> Stage:
        size = {"groups": sizes.groups, "repeats": sizes.repeats, "folds": sizes.folds}
        return Stage(StillTasks(these, learn, score, protocol, SHOTS, **size), sizes, cache)

    learn, test = split_classes(pictures, sizes.meta_train, seed=0)
    inner = pictures.where(object=learn)
    validation = replace(base, episodes_per_seed=sizes.validation_episodes, seeds=(77,), outside=0)
    partings = [split_classes(inner, round(0.7 * len(learn)), seed=s) for s in sizes.partings]
    dims, losses = choose([stage(inner, *parting, validation) for parting in partings])
    best, best_peer = best_of(losses, list(OURS)), best_of(losses, list(PEERS))

    print(
        f"\n{len(test)} test classes, {sizes.episodes} episodes x {sizes.seeds} seeds; "
        "[95 % over episodes] (95 % over classes)"
    )
    final = stage(pictures, learn, test, base)
    result: dict[str, object] = {"best": best, "best_peer": best_peer}
    kept = {}
    for name in (*OURS, *PEERS):
        queries = final.queries(name, dims)
        runs = {k: q.run() for k, q in queries.items()}
        learning, seconds = np.mean([q.seconds for q in queries.values()], 0).tolist()
        found = figures(name, runs, sizes)
        result |= found | {f"{name}.seconds_per_episode": round(seconds, 5)}
        axes = f"{dims[name]} axes" if name in dims else "equal parts"
        print(f"{'':20s} {axes}, {learning:.1f} s to learn, {seconds:.4f} s/episode")
        for role, chosen in (("best", best), ("best_peer", best_peer)):
            if name == chosen:
                kept[role] = runs
                result |= {key.replace(name, role, 1): value for key, value in found.items()}
    print(f"\n{best} minus {best_peer}: 95 % over episodes; 95 % over classes")
    for k in SHOTS:
        for score in ("nll", "accuracy", "ece"):
            gaps = [
                few_shot_difference(
                    kept["best"][k], kept["best_peer"][k], score, unit=unit, draws=sizes.draws
                )
                for unit in ("task", "class")
            ]
            print(f"  {k}-shot {score:9s} {gaps[0]}; {gaps[1]}")
            if score == "nll":
                result[f"best_minus_peer.nll_{k}"] = round(gaps[0].estimate, 4)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
