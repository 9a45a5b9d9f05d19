"""Few-shot recognition of still pictures: Bayesian models against peers on the same episodes.

    python benchmarks/fewshot.py --features grocery_feats_lite0_160px.npz
    python benchmarks/fewshot.py --smoke          # tiny, simulated features, for CI

Classes are parted at random into meta-train and test classes. On the meta-train classes alone,
three times a part of them being held out, every method chooses its number of principal axes, and
`best` (among ours) and `best_peer` are chosen, by NLL. Then projection, temperatures and
populations are fitted on all meta-train classes, and 600 episodes x 5 seeds of the test classes
are scored: support from split 0, query from split 2. Peers get a temperature of their own for
every number of shots. The last line is JSON; a figure that was not measured is null.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bayesfs.data.episodes import stack
from bayesfs.evaluation.fewshot import FewShotProtocol
from bayesfs.evaluation.fewshot_scores import (
    FewShotRun,
    Predict,
    few_shot_difference,
    run_few_shot,
)
from bayesfs.evaluation.stills import read_stills, split_classes
from bayesfs.features.project import Projection, fit_projection
from bayesfs.inference.svi import SVI
from bayesfs.models.baselines import Baseline, fit_temperature, standard_baselines
from bayesfs.models.deep_kernel_gp import DeepKernelGP
from bayesfs.models.gaussian import GaussianHierarchy
from bayesfs.models.objectives import PredictiveScore
from bayesfs.types import Embeddings, EpisodeBatch, LabelDraws, Posterior, Predictive

SHOTS = (1, 5)
ENDS = ["estimate", "low", "high", "class_low", "class_high"]


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    episodes: int = 600
    seeds: int = 5
    validation_episodes: int = 100
    partings: tuple[int, ...] = (1, 2, 3)
    train_groups: int = 20
    train_repeats: int = 4
    folds: int = 5
    steps: int = 100
    dims: tuple[int, ...] | None = None
    meta_train: int = 50
    draws: int = 1000


SMOKE = Sizes(
    episodes=8,
    seeds=1,
    validation_episodes=8,
    partings=(1,),
    train_groups=2,
    train_repeats=2,
    folds=2,
    steps=5,
    dims=(8,),
    meta_train=17,
    draws=50,
)


Learn = Callable[[EpisodeBatch, Projection, Sizes], Mapping[int, Predict]]
"""(meta-train episodes with the most shots, projection, sizes) -> shots -> prediction."""


@dataclass(frozen=True)
class Method:
    """One row of the table: how it learns, and the numbers of principal axes it chooses from."""

    learn: Learn
    dims: tuple[int, ...]


def peer(baseline: Baseline) -> Method:
    """A point classifier with a temperature for every number of shots."""

    def learn(train: EpisodeBatch, _: Projection, sizes: Sizes) -> Mapping[int, Predict]:
        return {k: fit_temperature(baseline, train.limit_shots(k)).predictive for k in SHOTS}

    return Method(learn, (64, 256, 1280))


def ours(model: GaussianHierarchy | DeepKernelGP, dims: tuple[int, ...]) -> Method:
    """A Bayesian model: its population by predictive score, its tasks in closed form."""

    def learn(train: EpisodeBatch, projection: Projection, sizes: Sizes) -> Mapping[int, Predict]:
        told = model.with_spectrum(tuple(projection.spectrum.tolist()))
        both = stack([train.limit_shots(k) for k in SHOTS])
        engine = SVI(steps=sizes.steps, draws=4, khat_draws=0)
        population = engine.infer(PredictiveScore(told), both, seed=0)
        return dict.fromkeys(SHOTS, closed_form(told, population))

    return Method(learn, dims)


def closed_form(model: GaussianHierarchy | DeepKernelGP, population: Posterior) -> Predict:
    """Predictive with the tasks integrated out exactly, averaged over the population's draws."""
    values = [
        {site: v[s] for site, v in population.draws.items()} for s in range(population.num_draws)
    ]

    def method(episodes: EpisodeBatch) -> Predictive:
        with torch.no_grad():
            parts = zip(*(model.log_labels(episodes, value) for value in values), strict=True)
            frame, video = (torch.stack(p).logsumexp(0) - math.log(len(values)) for p in parts)
        return Predictive(_one_draw(frame), _one_draw(video))

    return method


def _one_draw(log_prob: Tensor) -> LabelDraws:
    return LabelDraws(log_prob, log_prob[None], torch.zeros_like(log_prob[None, ..., 0]))


OURS = {
    "gaussian": ours(GaussianHierarchy(), (64, 256)),
    "gp_regression": ours(DeepKernelGP(), (64, 256, 1280)),
}
PEERS = {name.replace(" ", "_"): peer(baseline) for name, baseline in standard_baselines().items()}


def protocol_of(sizes: Sizes, **changes: object) -> FewShotProtocol:
    """The test protocol, or another with the same splits."""
    base = FewShotProtocol(
        shots=max(SHOTS), episodes_per_seed=sizes.episodes, seeds=tuple(range(sizes.seeds))
    )
    return replace(base, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Stage:
    """Classes to learn from, and classes to score."""

    pictures: Embeddings
    learn: tuple[str, ...]
    score: tuple[str, ...]
    protocol: FewShotProtocol
    sizes: Sizes

    def projected(self, dim: int) -> tuple[Projection, Embeddings]:
        """Projection fitted on the classes to learn from, and all pictures under it."""
        projection = fit_projection(self.pictures.where(object=self.learn), dim)
        return projection, projection(self.pictures)

    def training(self, dim: int) -> EpisodeBatch:
        """Episodes to learn from, cross-fitted: their classes had no part in their projection.

        The trailing axes fit the pictures that they come from; a population or temperature that
        is learnt on those pictures would expect the same of new classes, and be too sure.
        """
        parts: list[EpisodeBatch] = []
        for fold, seeds in enumerate(np.array_split(self._train_seeds(), self.sizes.folds)):
            inside = self.learn[fold :: self.sizes.folds]
            outside = [name for name in self.learn if name not in inside]
            projected = fit_projection(self.pictures.where(object=outside), dim)(self.pictures)
            protocol = self._train_protocol(tuple(int(s) for s in seeds))
            parts += protocol.episodes(projected, inside)
        return stack(parts)

    def run(self, method: Method, dim: int) -> tuple[dict[int, FewShotRun], float, float]:
        """Runs at each number of shots, seconds to learn, seconds per episode."""
        projection, pictures = self.projected(dim)
        train = self.training(projection.dim)
        start = time.perf_counter()
        methods = method.learn(train.to(torch.float64), projection, self.sizes)
        learnt = time.perf_counter()
        runs = {
            k: run_few_shot(_double(methods[k]), pictures, self.score, self.protocol, shots=k)
            for k in SHOTS
        }
        episodes = len(SHOTS) * self.protocol.episodes_per_seed * len(self.protocol.seeds)
        return runs, learnt - start, (time.perf_counter() - learnt) / episodes

    def _train_seeds(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return 1000 + np.arange(self.sizes.train_groups)

    def _train_protocol(self, seeds: tuple[int, ...]) -> FewShotProtocol:
        """Groups of episodes; a group counts once, as so many repeats ask the same pictures."""
        repeats = self.sizes.train_repeats
        return protocol_of(self.sizes, queries=5, outside=0, episodes_per_seed=repeats, seeds=seeds)


def _double(method: Predict) -> Predict:
    return lambda episodes: method(episodes.to(torch.float64))


def choose(stages: Sequence[Stage]) -> tuple[dict[str, int], dict[str, float]]:
    """Number of axes of each method with the lowest NLL on held-out meta-train classes, and it."""
    dims, losses = {}, {}
    for name, method in (OURS | PEERS).items():
        found = {}
        for dim in stages[0].sizes.dims or method.dims:
            runs = [run for stage in stages for run in stage.run(method, dim)[0].values()]
            found[dim] = float(np.mean([run.rows["nll"].mean() for run in runs]))
        dims[name] = min(found, key=lambda d: found[d])
        losses[name] = found[dims[name]]
        shown = ", ".join(f"{dim} axes {loss:.4f}" for dim, loss in found.items())
        print(f"NLL on held-out meta-train classes  {name:20s} {shown}", flush=True)
    return dims, losses


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
            out[f"{name}.{short}_{k}"] = float(value[score])
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
    args = parser.parse_args()
    if args.features is None and not args.smoke:
        parser.error("expected --features FILE.npz, or --smoke for simulated features")
    sizes = SMOKE if args.smoke else Sizes()
    if args.episodes:
        sizes = replace(sizes, episodes=args.episodes)
    pictures = simulated() if args.features is None else read_stills(args.features)
    torch.manual_seed(0)

    learn, test = split_classes(pictures, sizes.meta_train, seed=0)
    inner = pictures.where(object=learn)
    validation = protocol_of(
        sizes, episodes_per_seed=sizes.validation_episodes, seeds=(77,), outside=0
    )
    partings = [split_classes(inner, round(0.7 * len(learn)), seed=s) for s in sizes.partings]
    dims, losses = choose([Stage(inner, *parting, validation, sizes) for parting in partings])
    best, best_peer = best_of(losses, list(OURS)), best_of(losses, list(PEERS))

    print(
        f"\n{len(test)} test classes, {sizes.episodes} episodes x {sizes.seeds} seeds; "
        "[95 % over episodes] (95 % over classes)"
    )
    stage = Stage(pictures, learn, test, protocol_of(sizes), sizes)
    result: dict[str, object] = {"best": best, "best_peer": best_peer}
    kept = {}
    for name, method in (OURS | PEERS).items():
        runs, learning, seconds = stage.run(method, dims[name])
        found = figures(name, runs, sizes)
        result |= found | {f"{name}.seconds_per_episode": seconds, f"{name}.dim": dims[name]}
        print(f"{'':20s} {dims[name]} axes, {learning:.1f} s to learn, {seconds:.4f} s/episode")
        for role, chosen in (("best", best), ("best_peer", best_peer)):
            if name == chosen:
                kept[role] = runs
                result |= {key.replace(name, role, 1): value for key, value in found.items()}
    print(f"\n{best} minus {best_peer}, 95 % over classes")
    for k in SHOTS:
        for score in ("nll", "accuracy", "ece"):
            gap = few_shot_difference(
                kept["best"][k], kept["best_peer"][k], score, draws=sizes.draws
            )
            print(f"  {k}-shot {score:9s} {gap}")
            if score == "nll":
                result[f"best_minus_peer.nll_{k}"] = gap.estimate
    print(json.dumps(result))


if __name__ == "__main__":
    main()
